"""SeqGAN (Yu et al., AAAI 2017, Algorithm 1) on the synthetic oracle or on a text: `python train.py --help`."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor
from tqdm.auto import tqdm

from agents.callbacks import DiscriminatorCallback, EvaluationCallback, OnceCallback, ProgressCallback
from agents.pretrain import PretrainConfig, pretrain
from agents.reinforce import Reinforce
from agents.run_folder import ADVERSARIAL, PRETRAINING, RunFolder
from agents.run_report import write_report
from seqgan_env.corpus import Tokenizer, TooLong, read_corpus
from seqgan_env.discriminator import TextCNNConfig, widths_within
from seqgan_env.game import RewardName, SequenceGame, oracle_game, text_game
from seqgan_env.metrics import BleuScorer, SweepPoint, mean_nll, self_bleu, temperature_sweep, unique_share
from seqgan_env.returns import Baseline
from seqgan_env.rewards import DiscriminatorScaling, LearningRewardModel
from seqgan_env.run_inspection import LAST, LIKELIHOOD, MIDDLE
from seqgan_env.storage import save_game
from seqgan_env.vector_env import SequenceVectorEnv


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator: an LSTM."""

    embedding_dim: int = 32
    """Width of the token embedding."""
    hidden_dim: int = 32
    """Width of the recurrent state."""
    initial_std: float = 0.1
    """Standard deviation of the initial parameters."""


@dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial phase; the defaults are the paper's."""

    updates: int = 200
    """Policy-gradient updates of the generator."""
    batch_size: int = 64
    """Episodes in one update."""
    n_rollouts: int = 16
    """Monte Carlo completions of each prefix."""
    reward_model: RewardName = "discriminator"
    """What judges sequences: the discriminator; bleu (the paper's PG-BLEU); or a control, constant or random."""
    scaling: DiscriminatorScaling = "probability"
    """The discriminator's probability D as the reward: D itself, 2D - 1, or log D."""
    learning_rate: float = 0.01
    """Adam's step size."""
    final_learning_rate: float | None = None
    """Adam's step size at the end, reached geometrically; by default it stays the same."""
    baseline: Baseline = "none"
    """What is subtracted from returns."""
    entropy_coef: float = 0.0
    """Weight of the policy's entropy in the loss."""
    max_grad_norm: float = 5.0
    """Largest norm of the gradient."""
    likelihood_steps: int = 0
    """Steps of maximum likelihood after each update."""
    rollout_lag: float = 0.8
    """How much of its old parameters the rollout policy keeps in an update; 0: the generator itself completes prefixes."""
    d_pretrain_steps: int = 50
    """Fits of the discriminator before the first update."""
    g_steps: int = 1
    """Updates between two retrainings of the discriminator."""
    d_steps: int = 5
    """Fits in one retraining, each on newly written sequences."""
    n_generated: int = 10_000
    """Sequences written for each fit."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How progress is measured."""

    n_samples: int = 10_000
    """Sequences written for an evaluation."""
    n_held_out: int = 10_000
    """Real sequences kept aside by the oracle's game; a text keeps a share, see held-out."""
    every_epochs: int = 5
    """Epochs of maximum likelihood between two evaluations."""
    every_updates: int = 10
    """Adversarial updates between two evaluations."""
    sweep: bool = True
    """Sweep the temperature of both generators at the end, where there is an oracle."""


@dataclass(frozen=True)
class TrainConfig:
    """What every run has."""

    seed: int = 0
    """Everything random follows from it, real sequences of the oracle included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    out: Path = Path("runs")
    """The run's own folder is made in this one."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    discriminator: TextCNNConfig = field(default_factory=TextCNNConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True)
class OracleConfig(TrainConfig):
    """The synthetic test: an LSTM with random parameters writes the real sequences, and measures the generated ones."""

    sequence_length: int = 20
    """Tokens in a sequence."""
    vocab_size: int | None = None
    """Number of tokens; 5,000 by default, or what the oracle's file says."""
    oracle_seed: int = 0
    """Draws the oracle."""
    oracle_params: Path | None = None
    """A file with the oracle's parameters, .npz or the published pickle."""
    n_real: int = 10_000
    """Real sequences to learn from."""


@dataclass(frozen=True)
class TextConfig(TrainConfig):
    """Learn from a text file, a sequence a line."""

    data: Path = tyro.MISSING
    """The file, UTF-8."""
    tokenizer: Tokenizer = "words"
    """What a token is."""
    sequence_length: int | None = None
    """The most tokens in a sequence; by default as many as the longest line has."""
    min_count: int = 1
    """Tokens that are rarer become the unknown token."""
    too_long: TooLong = "error"
    """What happens to a line that is longer than sequence-length."""
    held_out: float = 0.1
    """Share of the lines kept aside for evaluation."""


PRESETS: dict[str, tuple[TrainConfig, str]] = {
    "quick": (
        OracleConfig(
            vocab_size=50,
            n_real=50_000,
            generator=GeneratorConfig(embedding_dim=8, hidden_dim=8),
            pretrain=PretrainConfig(epochs=5, final_learning_rate=1e-3),
            discriminator=TextCNNConfig(
                widths=(2, 3), n_filters=(64, 64), embedding_dim=24, l2=0.0, learning_rate=8e-3, batch_size=256, epochs=1
            ),
            adversarial=AdversarialConfig(
                updates=200,
                batch_size=128,
                n_rollouts=2,
                scaling="log",
                learning_rate=3e-3,
                final_learning_rate=1e-3,
                baseline="leave-one-out",
                rollout_lag=0.0,
                d_pretrain_steps=50,
                g_steps=1,
                d_steps=1,
                n_generated=1000,
            ),
            evaluation=EvaluationConfig(n_samples=5000, n_held_out=5000, every_epochs=1, every_updates=20),
        ),
        "A little over a minute on two CPU cores: a small oracle, a small discriminator. The default.",
    ),
    "paper": (OracleConfig(), "The published experiment: vocabulary 5,000, 120 + 200 epochs and updates. Wants a GPU."),
    "text": (
        TextConfig(
            generator=GeneratorConfig(embedding_dim=64, hidden_dim=128),
            pretrain=PretrainConfig(epochs=8, learning_rate=5e-3, final_learning_rate=5e-4),
            discriminator=TextCNNConfig(
                widths=(1, 2, 3, 4, 5), n_filters=(64,) * 5, l2=0.0, learning_rate=1e-3, weight_decay=0.1, epochs=1
            ),
            adversarial=AdversarialConfig(
                updates=60,
                batch_size=64,
                n_rollouts=4,
                scaling="centred",
                learning_rate=1e-3,
                baseline="leave-one-out",
                rollout_lag=0.0,
                d_pretrain_steps=10,
                g_steps=2,
                d_steps=1,
                n_generated=1000,
            ),
            evaluation=EvaluationConfig(n_samples=1000, every_epochs=2, every_updates=10),
        ),
        "Your own sequences: --data FILE, a sequence a line.",
    ),
}


@dataclass(frozen=True)
class Task:
    """A game, and how to measure a generator at it."""

    game: SequenceGame
    held_out: Tensor
    """Real sequences that nothing is trained on, `(n, sequence_length)`."""
    labels: Mapping[str, str]
    """The metrics and what to call them."""
    panels: tuple[tuple[str, ...], ...]
    """The rows of the learning curve."""
    evaluate: Callable[[Reinforce, Tensor], dict[str, float]]
    """Metrics of an agent and its samples."""
    floor: float | None = None
    """The oracle's entropy in nats per token."""


def main(config: TrainConfig, name: str = "run") -> dict[str, float]:
    """Train as the paper's Algorithm 1 does; return the last metrics of both phases, named `phase/metric`."""
    task = make_task(config)
    agent = make_agent(config, task.game)
    with RunFolder(config.out, name) as run:
        run.save_config(config)
        print(f"{name}: {len(task.game.real_sequences):,} real sequences, writing to {run.path}")
        try:
            # Algorithm 1: the generator learns real sequences, the discriminator learns to tell it from them, then they play.
            pretrain_generator(config, task, agent, run)
            pretrain_discriminator(config, agent)
            train_adversarially(config, task, agent, run)
        except KeyboardInterrupt:
            print("\nStopped. Saving what there is.")
            finish(config, task, agent, run)
            raise
        return finish(config, task, agent, run)


def make_task(config: TrainConfig) -> Task:
    """The game that a config describes, and its measures."""
    if isinstance(config, OracleConfig):
        return make_oracle_task(config)
    if isinstance(config, TextConfig):
        return make_text_task(config)
    raise TypeError(f"Expected an OracleConfig or a TextConfig, got {type(config).__name__}.")


def make_oracle_task(config: OracleConfig) -> Task:
    """The synthetic test: quality by the oracle's likelihood, coverage by the generator's own of held-out sequences."""
    game = oracle_game(
        config.sequence_length,
        config.vocab_size,
        oracle_seed=config.oracle_seed,
        oracle_params=config.oracle_params,
        data_seed=config.seed,
        n_real=config.n_real,
        **rules_of(config, config.sequence_length),
    )
    oracle = game.oracle
    assert oracle is not None
    rng = torch.Generator(game.device).manual_seed(config.seed + 1_000_003)
    held_out, _ = oracle.sample(config.evaluation.n_held_out, config.sequence_length, rng)

    def evaluate(agent: Reinforce, samples: Tensor) -> dict[str, float]:
        nll_oracle, nll_test = mean_nll(oracle, samples), mean_nll(agent.generator, held_out)
        return {"nll_oracle": nll_oracle, "nll_test": nll_test, "nll_sum": nll_oracle + nll_test}

    labels = {
        "nll_oracle": "NLL_oracle, nats per token (quality)",
        "nll_test": "NLL_test, nats per token (coverage)",
        "nll_sum": "their sum",
    }
    return Task(game, held_out, labels, (("nll_oracle", "nll_test"),), evaluate, floor=mean_nll(oracle, held_out))


def make_text_task(config: TextConfig) -> Task:
    """A text: BLEU against held-out lines, diversity by Self-BLEU, coverage by held-out likelihood."""
    corpus = read_corpus(
        config.data,
        tokenizer=config.tokenizer,
        sequence_length=config.sequence_length,
        min_count=config.min_count,
        too_long=config.too_long,
    )
    print(corpus.report)
    training, held_out = corpus.split(config.held_out, config.seed)
    game = text_game(training, **rules_of(config, training.tokens.shape[1]))
    references = BleuScorer(held_out.tokens.numpy(), game.vocab_size)
    held_out_tokens = held_out.tokens.to(game.device)

    def evaluate(agent: Reinforce, samples: Tensor) -> dict[str, float]:
        written = samples.cpu().numpy()
        bleu, own = references.score(written).mean(axis=0), self_bleu(written, game.vocab_size)
        return {
            "nll_test": mean_nll(agent.generator, held_out_tokens),
            "bleu_2": float(bleu[1]),
            "bleu_4": float(bleu[3]),
            "self_bleu_2": float(own[1]),
            "self_bleu_4": float(own[3]),
            "unique": unique_share(written),
        }

    labels = {
        "nll_test": "NLL of held-out lines, nats per token",
        "bleu_2": "BLEU-2 against held-out lines",
        "bleu_4": "BLEU-4 against held-out lines",
        "self_bleu_2": "Self-BLEU-2 (lower: more diverse)",
        "self_bleu_4": "Self-BLEU-4 (lower: more diverse)",
        "unique": "share of unique samples",
    }
    panels = (("nll_test",), ("bleu_2", "bleu_4", "self_bleu_2", "self_bleu_4"))
    return Task(game, held_out_tokens, labels, panels, evaluate)


def rules_of(config: TrainConfig, sequence_length: int) -> dict[str, Any]:
    """The rules of the game that every task takes from the config."""
    return {
        "reward": "rollout",
        "n_rollouts": config.adversarial.n_rollouts,
        "reward_model": config.adversarial.reward_model,
        "discriminator": widths_within(sequence_length, config.discriminator),
        "scaling": config.adversarial.scaling,
        "model_seed": config.seed,
        "device": config.device,
    }


def make_agent(config: TrainConfig, game: SequenceGame) -> Reinforce:
    """The generator, and the environment that it plays in."""
    adversarial = config.adversarial
    return Reinforce(
        "GeneratorPolicy",
        SequenceVectorEnv(game, adversarial.batch_size, autoreset_mode=AutoresetMode.SAME_STEP),
        learning_rate_schedule(adversarial),
        baseline=adversarial.baseline,
        entropy_coef=adversarial.entropy_coef,
        max_grad_norm=adversarial.max_grad_norm,
        likelihood_steps=adversarial.likelihood_steps,
        rollout_lag=adversarial.rollout_lag,
        max_updates=adversarial.updates,
        policy_kwargs=dataclasses.asdict(config.generator),
        seed=config.seed,
    )


def learning_rate_schedule(adversarial: AdversarialConfig) -> Callable[[float], float]:
    """The generator's learning rate as a function of the remaining progress, from 1 to 0."""
    first, last = adversarial.learning_rate, adversarial.final_learning_rate or adversarial.learning_rate
    return lambda remaining: first * float((last / first) ** (1 - remaining))


def pretrain_generator(config: TrainConfig, task: Task, agent: Reinforce, run: RunFolder) -> None:
    """Algorithm 1, line 2: maximum likelihood on real sequences."""
    rng = torch.Generator(task.game.device).manual_seed(config.seed)
    with tqdm(total=config.pretrain.epochs, desc="likelihood", unit="epoch", disable=None) as bar:

        def after_epoch(epoch: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            run.logger.record("pretraining/loss", loss)
            if epoch % config.evaluation.every_epochs == 0 or epoch == config.pretrain.epochs:
                evaluate(config, task, agent, run, PRETRAINING, epoch)
            run.logger.dump(epoch)

        pretrain(agent.generator, task.game.real_sequences, config.pretrain, rng, after_epoch)
    agent.sync_rollout_policy()
    run.save_weights(LIKELIHOOD, agent.generator)
    run.save_text("samples_likelihood.txt", write_samples(config, task, agent))


def pretrain_discriminator(config: TrainConfig, agent: Reinforce) -> None:
    """Algorithm 1, lines 4 and 5: the discriminator against the pretrained generator."""
    if not isinstance(agent.game.reward_model, LearningRewardModel):
        return
    steps = config.adversarial.d_pretrain_steps
    with tqdm(total=steps, desc="discriminator", unit="fit", disable=None) as bar:
        for _ in range(steps):
            metrics = agent.retrain_reward_model(config.adversarial.n_generated)
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in metrics.items()})


def train_adversarially(config: TrainConfig, task: Task, agent: Reinforce, run: RunFolder) -> None:
    """Algorithm 1, lines 6 to 17: policy gradient and retraining in turn."""
    adversarial = config.adversarial
    if adversarial.updates == 0:
        return
    callbacks: list[BaseCallback] = [
        EvaluationCallback(
            lambda n_updates: evaluate(config, task, agent, run, ADVERSARIAL, n_updates), config.evaluation.every_updates
        ),
        OnceCallback(lambda: run.save_weights(MIDDLE, agent.generator), after=adversarial.updates // 2),
        ProgressCallback(adversarial.updates),
    ]
    if isinstance(task.game.reward_model, LearningRewardModel):
        callbacks.append(DiscriminatorCallback(adversarial.g_steps, adversarial.d_steps, adversarial.n_generated))
    agent.set_logger(run.logger)
    agent.learn(adversarial.updates * adversarial.batch_size * task.game.sequence_length, callbacks)
    run.logger.dump(agent.num_timesteps)


def evaluate(config: TrainConfig, task: Task, agent: Reinforce, run: RunFolder, phase: str, step: int) -> None:
    """Measure the generator; the evaluation's random numbers leave those of the training alone."""
    samples = samples_of(config, task, agent)
    run.measure(phase, step, task.evaluate(agent, samples))
    run.show_samples(phase, lines_of(task, samples[:10]))
    if phase == ADVERSARIAL:
        run.show_rewards(phase, agent.last_played.rewards, agent.last_played.lengths)


def samples_of(config: TrainConfig, task: Task, agent: Reinforce) -> Tensor:
    """The sequences `(n_samples, sequence_length)` that an evaluation looks at."""
    rng = torch.Generator(task.game.device).manual_seed(config.seed + 2_000_003)
    return agent.generator.sample(config.evaluation.n_samples, task.game.sequence_length, rng)[0]


def finish(config: TrainConfig, task: Task, agent: Reinforce, run: RunFolder) -> dict[str, float]:
    """Save everything, draw the pictures, print the table; return the last metrics of both phases."""
    run.save_weights(LAST, agent.generator)
    save_game(task.game, run.path)
    run.save_text("samples.txt", write_samples(config, task, agent))
    run.draw_learning_curve(task.panels, task.labels, task.floor)
    if config.evaluation.sweep and task.floor is not None and run.last(ADVERSARIAL) is not None:
        run.draw_quality_against_coverage(sweep_both(config, task, agent, run), task.floor)
    run.draw_discriminator()
    write_report(
        run,
        task.game,
        task.labels,
        task.floor,
        batch_size=config.adversarial.batch_size,
        seed=config.seed,
        baseline=config.adversarial.baseline,
    )
    run.print_summary(task.labels, task.floor)
    last = [run.last(PRETRAINING), run.last(ADVERSARIAL)]
    return {f"{m.phase}/{name}": value for m in last if m is not None for name, value in m.metrics.items()}


def sweep_both(config: TrainConfig, task: Task, agent: Reinforce, run: RunFolder) -> dict[str, list[SweepPoint]]:
    """The temperature sweep of the generator as pretraining left it, and as it is now."""
    assert task.game.oracle is not None
    pretrained = run.load_generator(LIKELIHOOD, task.game)
    sweeps = {}
    generators = {"maximum likelihood": pretrained, "adversarial": agent.generator}
    for name, generator in tqdm(generators.items(), desc="temperature sweep", unit="generator", disable=None):
        rng = torch.Generator(task.game.device).manual_seed(config.seed + 3_000_003)
        sweeps[name] = temperature_sweep(
            generator,
            task.game.oracle,
            task.held_out,
            rng,
            n_samples=config.evaluation.n_samples,
            length=task.game.sequence_length,
        )
    return sweeps


def write_samples(config: TrainConfig, task: Task, agent: Reinforce) -> str:
    """What the generator writes, a sequence a line."""
    return "".join(line + "\n" for line in lines_of(task, samples_of(config, task, agent)))


def lines_of(task: Task, sequences: Tensor) -> list[str]:
    """Sequences `(n, sequence_length)` as lines: words, characters, or token ids."""
    vocabulary = task.game.vocabulary
    if vocabulary is not None:
        return [vocabulary.decode(row) for row in sequences.tolist()]
    return [" ".join(map(str, row)) for row in sequences.tolist()]


def command_line(arguments: list[str]) -> tuple[TrainConfig, str]:
    """The config and the preset's name that the command line asks for."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["quick", *arguments]
    presets = tyro.extras.subcommand_type_from_defaults(
        {name: config for name, (config, _) in PRESETS.items()},
        {name: description for name, (_, description) in PRESETS.items()},
    )
    config: TrainConfig = tyro.cli(presets, args=arguments, description=__doc__)
    return config, arguments[0]


if __name__ == "__main__":
    try:
        main(*command_line(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
