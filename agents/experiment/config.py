"""The settings of a run of `train.py`, with their defaults and ranges."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.experiment.collapse import CollapseConfig
from seqgan_env.data.corpus import Format, Tokenizer, TooLong
from seqgan_env.game_rules import RewardContract
from seqgan_env.models.generators import GeneratorConfig, make_generator
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.policy_gradient import Baseline
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
    """The adversarial phase; the defaults are the paper's."""

    updates: NonNegativeInt = 200
    """Policy-gradient updates of the generator."""
    batch_size: PositiveInt = 64
    """Episodes in one update."""
    reward: RewardContract | None = None
    """What a token earns: rollout is its prefix's value Q, as published; shaped the change of Q; terminal the sequence's
    score, at its end alone. By default rollout for reinforce and shaped for the others."""
    objective: str | None = None
    """A function of your own, module:name, which rewards a decoded sequence, beside the reward model (ORGAN)."""
    learning_rate: PositiveFloat = 0.01
    """Adam's step size."""
    final_learning_rate: PositiveFloat | None = None
    """Adam's step size at the end, reached geometrically; by default it stays the same."""
    baseline: Baseline = "none"
    """What is subtracted from returns."""
    entropy_coef: FiniteFloat = 0.0
    """Weight of the policy's entropy in the objective; a negative one sharpens the policy."""
    kl_coef: NonNegativeFloat | None = None
    """Weight of a penalty on leaving the likelihood start: KL(policy || start) of each next token, in nats; only reinforce has
    it. By default 3 on a text, else 0."""
    max_grad_norm: LargestNorm = 5.0
    """Largest norm of the gradient."""
    likelihood_steps: NonNegativeInt = 0
    """Steps of maximum likelihood after each update."""
    rollout_lag: Share = 0.8
    """How much of its old parameters the rollout policy keeps in an update; 0: the generator itself completes prefixes."""
    d_pretrain_steps: NonNegativeInt = 50
    """Fits of the discriminator before the first update."""
    g_steps: PositiveInt = 1
    """Updates between two retrainings of the discriminator."""
    d_steps: PositiveInt = 5
    """Fits in one retraining, each on newly written sequences."""
    n_generated: PositiveInt = 10_000
    """Sequences written for each fit."""


@dataclass(frozen=True)
class ActorCriticConfig:
    """What the agents other than reinforce have beside the adversarial settings; they have no baseline and no rollout-lag."""

    learning_rate_factor: PositiveFloat | None = None
    """Adam's step size is this times that of the adversarial settings; by default 1 for a2c, which takes one step in an
    update, and a third for the others, which take epochs x minibatches."""
    gae_lambda: UnitFloat = 1.0
    """Lambda of generalised advantage estimation: 1 for returns less values, 0 for one-step differences."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the critic's squared error in the loss."""
    critic_dims: tuple[Width, ...] = (64,)
    """Widths of the critic's hidden layers, on the generator's hidden state."""
    normalize_advantage: bool = True
    """Bring each minibatch's advantages to mean 0 and standard deviation 1."""
    epochs: PositiveInt = 4
    """Passes over a batch in an update; a2c makes one."""
    minibatches: PositiveInt = 4
    """Parts of a batch, each of which takes a step; a2c has one."""
    clip_range: PositiveFloat = 0.2
    """How far PPO lets a probability's ratio to the old one count."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How progress is measured."""

    n_samples: SampleCount = 10_000
    """Sequences written for an evaluation."""
    n_held_out: PositiveInt = 10_000
    """Real sequences kept aside by the oracle's game; a text keeps a share, see held-out."""
    every_epochs: PositiveInt = 5
    """Epochs of maximum likelihood between two evaluations."""
    every_updates: PositiveInt = 10
    """Adversarial updates between two evaluations."""
    sweep: bool = True
    """Sweep the temperature of both generators at the end, where there is an oracle."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What a run can be taken up from, by train.py --resume. A round is an epoch, a fit, or an update."""

    every_rounds: PositiveInt = 50
    """Rounds after which a checkpoint is written."""
    every_minutes: Annotated[float, Range(least=0)] = 5.0
    """Minutes after which one is written, if that comes first."""
    keep: PositiveInt = 3
    """How many of the newest stay, beside the best."""


@dataclass(frozen=True)
class TrainConfig:
    """What every run has.

    Raises:
        ValueError: numbers out of their ranges, or that do not go together; the message calls settings by their flags.
    """

    seed: Seed = 0
    """Everything random follows from it, real sequences of the oracle included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    threads: FewInt | None = None
    """Threads on a CPU; by default by the size of the work, 1 for small models and all for the paper's. Another number rounds
    otherwise, which changes figures."""
    cuda_graphs: bool = True
    """On a GPU, record the kernels that repeat and launch them together; without, the same, slower."""
    out: Path = Path("runs")
    """The run's own folder is made in this one."""
    agent: AgentName = "reinforce"
    """Who learns from rewards: the published policy gradient, or an algorithm of Stable-Baselines3 with the same generator;
    maskable-ppo and recurrent-ppo need the extra contrib."""
    start_from: Path | None = None
    """A generator's weights to start the adversarial phase from, instead of maximum likelihood: of another run with the same
    generator, such as runs/paper-…/generator_likelihood.safetensors."""
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
    """Number of tokens; 5,000 by default, or what the oracle's file says."""
    oracle_seed: Seed = 0
    """Draws the oracle."""
    oracle_params: Path | None = None
    """A file with the oracle's parameters, .npz or the published pickle."""
    n_real: PositiveInt = 10_000
    """Real sequences to learn from."""


@dataclass(frozen=True)
class TextConfig(TrainConfig):
    """Learn from a text file, a sequence a line."""

    data: Path = tyro.MISSING
    """The file, UTF-8."""
    tokenizer: Tokenizer | Path = "words"
    """What a token is; or the path of a tokenizer.json of the library tokenizers."""
    vocab_size: PositiveInt | None = None
    """Number of tokens, the end token included: declared for integers, the most that bpe learns (1,000 by default), else
    checked."""
    format: Format | None = None
    """text, csv (with a header) or jsonl; by default what the file's name ends with."""
    column: str | None = None
    """The column of CSV, or the field of JSONL, that holds the sequences."""
    sequence_length: PositiveInt | None = None
    """The most tokens in a sequence; by default as many as the longest line has."""
    min_count: PositiveInt = 1
    """Tokens that are rarer become the unknown token."""
    too_long: TooLong = "error"
    """What happens to a line that is longer than sequence-length."""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.1
    """Share of the lines kept aside for evaluation."""


def reward_of(config: TrainConfig) -> RewardContract:
    """The reward contract that a run plays under."""
    return config.adversarial.reward or ("rollout" if config.agent == "reinforce" else "shaped")


def kl_coef_of(config: TrainConfig) -> float:
    """The weight of the penalty on leaving the likelihood start."""
    given = config.adversarial.kl_coef
    return given if given is not None else 3.0 if isinstance(config, TextConfig) and config.agent == "reinforce" else 0.0


def flags() -> dict[str, str]:
    """The flags of train.py by the names of the arguments that they set, as far as a name has one flag."""
    return {name: one for config in _TASKS for name, one in flags_of(config).items()} | {
        "batched": flag("adversarial.objective_batched")
    }


def largest_sizes(config: TrainConfig) -> str:
    """The three largest counts among a run's settings, by their flags."""
    counts = {flag(path): value for path, _, value in numbers_in(config) if isinstance(value, int) and "seed" not in path}
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: -counts[name])[:3])


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """A config that means the same files from whatever folder it is used."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    paths: dict[str, Any] = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return dataclasses.replace(config, **paths)


def config_to_json(config: TrainConfig, preset: str) -> str:
    """A config, and the name of the preset that it came from, as JSON; see `config_from_json`."""
    values = {"preset": preset, "task": _TASKS[type(config)], **dataclasses.asdict(config)}
    return json.dumps(values, indent=2, default=str, ensure_ascii=False)


def config_from_json(text: str) -> tuple[TrainConfig, str]:
    """The config and the preset's name that `config_to_json` wrote.

    Raises:
        ValueError: it is of another version: settings are missing, unknown, or of another kind.
    """
    try:
        values = json.loads(text)
        preset, task = values.pop("preset"), values.pop("task")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"The run's settings cannot be read, or are of another version: {error!r}.") from error
    types = {name: config_type for config_type, name in _TASKS.items()}
    if task not in types:
        raise ValueError(f"A run's task is one of {sorted(types)}, got {task!r}: the run is of another version.")
    values = _without_deleted(values)
    try:
        return dataclass_from_json(types[task], values, complete=True), str(preset)
    except ValueError as error:
        raise ValueError(f"The run's settings cannot be read, or are of another version: {error}.") from error


_TASKS: dict[type[TrainConfig], str] = {OracleConfig: "oracle", TextConfig: "text"}


def _without_deleted(values: Any) -> Any:
    """A run's settings less those that older versions had."""
    try:
        ratio = without_deleted(values["adversarial"]["density_ratio"], density_ratio.DELETED_SETTINGS)
        adversarial = without_deleted({**values["adversarial"], "density_ratio": ratio}, {"replay": 0.0})
        discriminator = without_deleted(values["discriminator"], text_cnn.DELETED_SETTINGS)
    except (KeyError, TypeError, AttributeError):
        return values  # which are then found to be of another kind
    return {**values, "adversarial": adversarial, "discriminator": discriminator}
