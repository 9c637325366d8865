"""The settings of a run of `train.py`, with their defaults and ranges."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.experiment.collapse import CollapseConfig
from agents.experiment.names import check_run_name
from seqgan_env.data.corpus import Format, Tokenizer, TooLong
from seqgan_env.game_rules import RewardContract
from seqgan_env.models.generators import GeneratorConfig, make_generator
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.policy_gradient import Baseline, LossReduction
from seqgan_env.rewards import density_ratio, text_cnn
from seqgan_env.rewards.registry import ScoringRules
from seqgan_env.rewards.text_cnn import TextCNNConfig, check_windows
from seqgan_env.support.json_dataclasses import dataclass_from_json
from seqgan_env.support.settings import (
    FewInt,
    FiniteFloat,
    LargestNorm,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    SampleCount,
    Seed,
    Share,
    UnitFloat,
    Width,
    check_settings,
    errors_in_flags,
    flag,
    flags_of,
    numbers_in,
    without_deleted,
)

AgentName = Literal["reinforce", "ppo", "a2c", "maskable-ppo", "recurrent-ppo"]


@dataclass(frozen=True)
class AdversarialConfig(ScoringRules):
    """The adversarial phase; the defaults are the paper's, the preset `paper` has those of its code."""

    updates: NonNegativeInt = 200
    """Policy-gradient updates of the generator."""
    batch_size: PositiveInt = 64
    """Episodes per update."""
    reward: RewardContract | None = None
    """The reward of each token: rollout, its prefix's value Q, as published; shaped, the change of Q; terminal, only the
    sequence's score at its end. By default rollout for reinforce and shaped for the others."""
    objective: str | None = None
    """A custom function, module:name, that rewards a decoded sequence, in addition to the reward model (ORGAN)."""
    learning_rate: PositiveFloat = 0.01
    """Adam's step size."""
    final_learning_rate: PositiveFloat | None = None
    """Adam's step size at the end, reached geometrically; by default it stays constant."""
    baseline: Baseline = "none"
    """The baseline to subtract from returns."""
    entropy_coef: FiniteFloat = 0.0
    """Weight of the policy's entropy in the objective; a negative one sharpens the policy."""
    kl_coef: NonNegativeFloat | None = None
    """Weight of a penalty for leaving the likelihood start: KL(policy || start) of each next token, in nats; only for
    reinforce. By default 3 for a text, else 0."""
    loss_reduction: LossReduction = "mean"
    """Whether the loss is the mean over a batch's tokens or their sum, as in the published code; only for reinforce."""
    max_grad_norm: LargestNorm = 5.0
    """Largest norm of the gradient of that mean or sum: a limit of 5 acts on a sum, and hardly ever on a mean."""
    likelihood_steps: NonNegativeInt = 0
    """Steps of maximum likelihood after each update."""
    rollout_lag: Share = 0.8
    """Share of its old parameters that the rollout policy keeps in an update; at 0 the generator itself completes prefixes."""
    d_pretrain_steps: NonNegativeInt = 50
    """Fits of the discriminator before the first update."""
    g_steps: PositiveInt = 1
    """Updates between two retrainings of the discriminator."""
    d_steps: PositiveInt = 5
    """Fits per retraining, each with newly written sequences."""
    n_generated: PositiveInt = 10_000
    """Sequences written for each fit."""


@dataclass(frozen=True)
class ActorCriticConfig:
    """Further settings of all agents except reinforce; these have no baseline, no rollout-lag and no loss-reduction."""

    learning_rate_factor: PositiveFloat | None = None
    """A factor on Adam's step size in the adversarial settings; by default 1 for a2c, which takes one step per update, and a
    third for the others, which take epochs x minibatches."""
    gae_lambda: UnitFloat = 1.0
    """Lambda of generalised advantage estimation: 1 for returns minus values, 0 for one-step differences."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the critic's squared error in the loss."""
    critic_dims: tuple[Width, ...] = (64,)
    """Widths of the critic's hidden layers, which read the generator's hidden state."""
    normalize_advantage: bool = True
    """Normalise each minibatch's advantages to mean 0 and standard deviation 1."""
    epochs: PositiveInt = 4
    """Passes over a batch per update; a2c makes one."""
    minibatches: PositiveInt = 4
    """Parts of a batch, with one step each; a2c has one."""
    clip_range: PositiveFloat = 0.2
    """PPO's limit on how far the ratio of new to old probability counts."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of evaluations during a run."""

    n_samples: SampleCount = 10_000
    """Sequences to write for an evaluation."""
    n_held_out: PositiveInt = 10_000
    """Held-out real sequences with an oracle; for a text see held-out."""
    every_epochs: PositiveInt = 5
    """Epochs of maximum likelihood between two evaluations."""
    every_updates: PositiveInt = 10
    """Adversarial updates between two evaluations."""
    sweep: bool = True
    """Sweep the temperature of both generators at the end, if there is an oracle."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints, from which train.py --resume continues a run. A round is an epoch, a fit, or an update."""

    every_rounds: PositiveInt = 50
    """Rounds between two checkpoints."""
    every_minutes: Annotated[float, Range(least=0)] = 5.0
    """Minutes between two checkpoints, if that is sooner."""
    keep: PositiveInt = 3
    """How many of the newest checkpoints to keep, in addition to the best."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of every run.

    Raises:
        ValueError: numbers are out of range, or contradict each other; the message names settings by their flags.
    """

    seed: Seed = 0
    """Seed of all random numbers, including the oracle's real sequences."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses a GPU if there is one."""
    threads: FewInt | None = None
    """Threads on a CPU; by default chosen by the size of the work, 1 for small models and all for the paper's. Another number
    rounds differently, which changes figures."""
    cuda_graphs: bool = True
    """On a GPU, record repeated kernels and launch them together; without it a run is slower, with the same results."""
    out: Path = Path("runs")
    """The folder in which the run's own folder is made."""
    name: str | None = None
    """What the name of the run's own folder begins with, before the time; by default preset, agent and seed, such as
    quick-reinforce-s0."""
    agent: AgentName = "reinforce"
    """The agent: reinforce, the published policy gradient, or an algorithm of Stable-Baselines3 with the same generator;
    maskable-ppo and recurrent-ppo need the extra contrib."""
    start_from: Path | None = None
    """A file of generator weights to start the adversarial phase from, in place of maximum likelihood: from another run with
    the same generator, such as runs/paper-…/generator_likelihood.safetensors."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    discriminator: TextCNNConfig = field(default_factory=TextCNNConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)

    def __post_init__(self) -> None:
        check_settings(self, flag)
        if self.name is not None:
            check_run_name(self.name, flag("name"))
        ratio = self.adversarial.density_ratio.model
        for model, group in ((self.generator, "generator."), (ratio, "adversarial.density_ratio.model.")):
            with errors_in_flags(flags_of(GeneratorConfig, group)):
                make_generator(model, 2, sequence_length=1, device="meta")  # takes no memory
        with errors_in_flags(flags_of(TextCNNConfig, "discriminator.")):
            check_windows(self.discriminator)


@dataclass(frozen=True)
class OracleConfig(TrainConfig):
    """The synthetic test: an LSTM with random parameters writes the real sequences, and measures the generated ones."""

    sequence_length: PositiveInt = 20
    """Tokens in a sequence."""
    vocab_size: PositiveInt | None = None
    """Number of tokens; 5,000 by default, or that of the oracle's file."""
    oracle_seed: Seed = 0
    """Draws the oracle."""
    oracle_params: Path | None = None
    """A file with the oracle's parameters, .npz or the published pickle."""
    n_real: PositiveInt = 10_000
    """Real sequences to learn from."""


@dataclass(frozen=True)
class TextConfig(TrainConfig):
    """Learn from a text file with one sequence per line."""

    data: Path = tyro.MISSING
    """The file, UTF-8."""
    tokenizer: Tokenizer | Path = "words"
    """What a token is; or the path of a tokenizer.json of the library tokenizers."""
    vocab_size: PositiveInt | None = None
    """Number of tokens, including the end token: declared for integers, the maximum to learn for bpe (1,000 by default),
    otherwise only checked."""
    format: Format | None = None
    """text, csv (with a header) or jsonl; by default the file's suffix decides."""
    column: str | None = None
    """The CSV column, or JSONL field, that holds the sequences."""
    sequence_length: PositiveInt | None = None
    """The maximum number of tokens in a sequence; by default the length of the longest line."""
    min_count: PositiveInt = 1
    """Rarer tokens become the unknown token."""
    too_long: TooLong = "error"
    """What to do with a line that is longer than sequence-length."""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.1
    """Share of the lines to hold out for evaluation."""


def reward_of(config: TrainConfig) -> RewardContract:
    """The reward contract of a run."""
    return config.adversarial.reward or ("rollout" if config.agent == "reinforce" else "shaped")


def name_of(config: TrainConfig, preset: str) -> str:
    """What the name of a run's folder begins with."""
    return config.name or f"{preset}-{config.agent}-s{config.seed}"


def kl_coef_of(config: TrainConfig) -> float:
    """The weight of the penalty for leaving the likelihood start."""
    given = config.adversarial.kl_coef
    return given if given is not None else 3.0 if isinstance(config, TextConfig) and config.agent == "reinforce" else 0.0


def flags() -> dict[str, str]:
    """train.py's flags by the names of the arguments that they set; a name with several flags is left out."""
    return {name: one for config in _TASKS for name, one in flags_of(config).items()} | {
        "batched": flag("adversarial.objective_batched")
    }


def largest_sizes(config: TrainConfig) -> str:
    """A run's three largest counts, by their flags."""
    counts = {flag(path): value for path, _, value in numbers_in(config) if isinstance(value, int) and "seed" not in path}
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: -counts[name])[:3])


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """A config with absolute paths, which mean the same files in any folder."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    paths: dict[str, Any] = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return dataclasses.replace(config, **paths)


def config_to_json(config: TrainConfig, preset: str) -> str:
    """A config and its preset's name as JSON; see `config_from_json`."""
    values = {"preset": preset, "task": _TASKS[type(config)], **dataclasses.asdict(config)}
    return json.dumps(values, indent=2, default=str, ensure_ascii=False)


def config_from_json(text: str) -> tuple[TrainConfig, str]:
    """The config and the preset's name that `config_to_json` wrote.

    Raises:
        ValueError: it is of another version: settings are missing, unknown, or of another type.
    """
    try:
        values = json.loads(text)
        preset, task = values.pop("preset"), values.pop("task")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"The run's settings cannot be read, or are of another version: {error!r}.") from error
    types = {name: config_type for config_type, name in _TASKS.items()}
    if not isinstance(task, str) or task not in types:
        raise ValueError(f"A run's task must be one of {sorted(types)}, got {task!r}: the run is of another version.")
    values = _with_added(_without_deleted(values))
    try:
        return dataclass_from_json(types[task], values, complete=True), str(preset)
    except ValueError as error:
        raise ValueError(f"The run's settings cannot be read, or are of another version: {error}.") from error


_TASKS: dict[type[TrainConfig], str] = {OracleConfig: "oracle", TextConfig: "text"}
_ADDED: dict[str, dict[str, Any]] = {
    "pretrain": {"shuffle": True},
    "discriminator": {"reshuffle": True, "initial_parameters": "closed-gates", "compile": False},
    "adversarial": {"loss_reduction": "mean"},
}
"""Settings that older versions did not have, by group, each with the value at which this version does what they did."""


def _with_added(values: Any) -> Any:
    """A run's settings with those that its version did not have."""
    try:
        return {"name": None, **values, **{group: added | values[group] for group, added in _ADDED.items()}}
    except (KeyError, TypeError):
        return values  # reading them then reports what is missing, or their type


def _without_deleted(values: Any) -> Any:
    """A run's settings without those that only older versions had."""
    try:
        ratio = without_deleted(values["adversarial"]["density_ratio"], density_ratio.DELETED_SETTINGS)
        adversarial = without_deleted({**values["adversarial"], "density_ratio": ratio}, {"replay": 0.0})
        discriminator = without_deleted(values["discriminator"], text_cnn.DELETED_SETTINGS)
    except (KeyError, TypeError, AttributeError):
        return values  # reading them then reports their type
    return {**values, "adversarial": adversarial, "discriminator": discriminator}
