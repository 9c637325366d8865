"""Make the game that a config describes, and the metrics of its generators."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.experiment.config import OracleConfig, TextConfig, TrainConfig, reward_of
from agents.player import Player
from seqgan_env.data.corpus import read_corpus
from seqgan_env.data.padding import Tokens, lengths_of
from seqgan_env.game import SequenceGame
from seqgan_env.game_rules import GameRules
from seqgan_env.games import oracle_game, text_game
from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.shares import unique_share, without_end_token
from seqgan_env.metrics.temperature import mean_nll
from seqgan_env.rewards.custom import load_function
from seqgan_env.rewards.registry import ScoringRules
from seqgan_env.rewards.reward_model import adapt
from seqgan_env.rewards.text_cnn import TextCNNConfig, widths_within
from seqgan_env.saved_game import HELD_OUT, REAL, load_sequences, save_sequences
from seqgan_env.support import seeds
from seqgan_env.support.settings import errors_in_flags, flags_of

ENTROPY = "entropy of the generator, nats per token"
UNIQUE = "share of unique samples"
LENGTH = "mean length, generated / held-out"
FULL_LENGTH = "share of samples of maximal length"
JUDGED = {
    "discriminator_accuracy": "discriminator on held-out and generated: accuracy",
    "discriminator_loss": "cross-entropy, nats (log 2: it tells nothing apart)",
}


@dataclass(frozen=True)
class Task:
    """A game, and the metrics of its generators."""

    game: SequenceGame
    held_out: Tensor
    """Real sequences that are never trained on, `(n, sequence_length)`."""
    labels: Mapping[str, str]
    """The metrics and their labels."""
    panels: tuple[tuple[str, ...], ...]
    """The metrics in each row of the learning curve."""
    evaluate: Callable[[Player, Tensor], dict[str, float]]
    """Measures an agent and its samples."""
    floor: float | None = None
    """The oracle's entropy in nats per token."""


class KeptData(NamedTuple):
    """The sequences that the oracle wrote at the start of a run; on another processor or a GPU it would write others."""

    real: Tensor
    """`(n, sequence_length)` int64."""
    held_out: Tensor
    """`(m, sequence_length)` int64."""

    @classmethod
    def of(cls, task: Task) -> "KeptData | None":
        """The sequences of a task; None if they come from a file."""
        return None if task.game.oracle is None else cls(task.game.real_sequences, task.held_out)

    @classmethod
    def load(cls, folder: Path) -> "KeptData | None":
        """The sequences that `save` wrote into a run's folder; None if there are none.

        Raises:
            ValueError: a file is damaged.
        """
        paths = (folder / REAL, folder / HELD_OUT)
        return cls(*map(load_sequences, paths)) if all(path.is_file() for path in paths) else None

    def save(self, folder: Path) -> None:
        """Write both to a run's folder."""
        save_sequences(folder / REAL, self.real)
        save_sequences(folder / HELD_OUT, self.held_out)


def make_task(config: TrainConfig, kept: KeptData | None = None) -> Task:
    """The game that a config describes, and its metrics.

    Args:
        config: the run's settings.
        kept: what the oracle wrote earlier; by default it writes new sequences. A text is always read from its file.
    """
    if isinstance(config, OracleConfig):
        task = make_oracle_task(config, kept)
    elif isinstance(config, TextConfig):
        task = make_text_task(config)
    else:
        raise TypeError(f"Expected an OracleConfig or a TextConfig, got {type(config).__name__}.")
    if config.adversarial.objective is not None:
        try_objective(task.game)
    return task


def try_objective(game: SequenceGame) -> None:
    """Score two real sequences, so that a faulty function fails now and not after likelihood training."""
    real = game.real_sequences[:2]
    game.reward_model.score(real, lengths_of(real, game.vocab_size))


def make_oracle_task(config: OracleConfig, kept: KeptData | None = None) -> Task:
    """The synthetic test: the oracle's likelihood of samples is quality, the generator's of held-out sequences is coverage."""
    game = oracle_game(
        config.sequence_length,
        config.vocab_size,
        oracle_seed=config.oracle_seed,
        oracle_params=config.oracle_params,
        data_seed=config.seed,
        n_real=config.n_real,
        real=None if kept is None else kept.real,
        rules=rules_of(config, config.sequence_length),
        device=config.device,
    )
    oracle = game.oracle
    assert oracle is not None
    if kept is None:
        rng = torch.Generator(game.device).manual_seed(config.seed + seeds.HELD_OUT)
        held_out, _ = oracle.sample(config.evaluation.n_held_out, config.sequence_length, rng)
    else:
        held_out = kept.held_out.to(game.device)

    def evaluate(agent: Player, samples: Tensor) -> dict[str, float]:
        nll_oracle, nll_test = mean_nll(oracle, samples), mean_nll(agent.generator, held_out)
        return {
            "nll_oracle": nll_oracle,
            "nll_test": nll_test,
            "nll_sum": nll_oracle + nll_test,
            "entropy": mean_nll(agent.generator, samples),
            "unique": unique_share(samples.cpu().numpy()),
        }

    labels = {
        "nll_oracle": "NLL_oracle, nats per token (quality)",
        "nll_test": "NLL_test, nats per token (coverage)",
        "nll_sum": "their sum",
        "entropy": ENTROPY,
        "unique": UNIQUE,
        **JUDGED,
    }
    return Task(game, held_out, labels, (("nll_oracle", "nll_test"),), evaluate, floor=mean_nll(oracle, held_out))


def make_text_task(config: TextConfig) -> Task:
    """A text: quality by BLEU against held-out lines, diversity by Self-BLEU, coverage by held-out likelihood, and lengths."""
    corpus = read_corpus(
        config.data,
        tokenizer=config.tokenizer,
        sequence_length=config.sequence_length,
        min_count=config.min_count,
        too_long=config.too_long,
        vocab_size=config.vocab_size,
        format=config.format,
        column=config.column,
    )
    print(corpus.report)
    training, held_out = corpus.split(config.held_out, config.seed)
    print(f"Held out: {len(held_out.tokens):,} of {len(corpus.tokens):,} sequences, none of which is trained on.")
    game = text_game(training, rules=rules_of(config, training.tokens.shape[1]), device=config.device)

    def words(tokens: Tensor) -> Tokens:
        return without_end_token(tokens.cpu().numpy(), game.end_token, game.vocab_size)

    def lengths(written: Tokens) -> Tokens:
        return lengths_of(written, game.vocab_size)

    real = words(held_out.tokens)
    references, real_length = BleuScorer(real, game.vocab_size), lengths(real).mean()
    held_out_tokens = held_out.tokens.to(game.device)

    def evaluate(agent: Player, samples: Tensor) -> dict[str, float]:
        written = words(samples)
        bleu, own = references.score(written).mean(axis=0), self_bleu(written, game.vocab_size)
        return {
            "nll_test": mean_nll(agent.generator, held_out_tokens),
            "bleu_2": float(bleu[1]),
            "bleu_4": float(bleu[3]),
            "self_bleu_2": float(own[1]),
            "self_bleu_4": float(own[3]),
            "entropy": mean_nll(agent.generator, samples),
            "unique": unique_share(written),
            "length": float(lengths(written).mean() / real_length),
            "full_length": float((lengths(written) == game.sequence_length).mean()),
        }

    labels = {
        "nll_test": "NLL of held-out lines, nats per token",
        "bleu_2": "BLEU-2 against held-out lines",
        "bleu_4": "BLEU-4 against held-out lines",
        "self_bleu_2": "Self-BLEU-2 (lower: more diverse)",
        "self_bleu_4": "Self-BLEU-4 (lower: more diverse)",
        "entropy": ENTROPY,
        "unique": UNIQUE,
        "length": LENGTH,
        "full_length": FULL_LENGTH,
        **JUDGED,
    }
    panels = (("nll_test",), ("bleu_2", "bleu_4", "self_bleu_2", "self_bleu_4"), ("length", "full_length"))
    return Task(game, held_out_tokens, labels, panels, evaluate)


def judge_discriminator(task: Task, samples: Tensor) -> dict[str, float]:
    """How well the discriminator, if any, separates held-out real sequences from generated ones.

    It cannot teach more than it knows about sequences that it was not trained on.
    """
    model = adapt(task.game.reward_model)
    real, generated = model.log_odds(task.held_out), model.log_odds(samples)
    if real is None or generated is None:
        return {}
    return separation(real, generated)


def separation(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Accuracy and cross-entropy (nats) of log odds `(n,)` of real and `(m,)` of generated sequences; both weigh alike."""
    losses = (-F.logsigmoid(real).mean() - F.logsigmoid(-generated).mean()) / 2
    right = ((real > 0).float().mean() + (generated <= 0).float().mean()) / 2
    return {"discriminator_accuracy": right.item(), "discriminator_loss": losses.item()}


def _windows(sequence_length: int, config: TrainConfig) -> TextCNNConfig:
    with errors_in_flags(flags_of(TextCNNConfig, "discriminator.")):
        return widths_within(sequence_length, config.discriminator)


def rules_of(config: TrainConfig, sequence_length: int) -> GameRules:
    """The rules of a game from the config."""
    adversarial = config.adversarial
    shared: dict[str, Any] = {field.name: getattr(adversarial, field.name) for field in dataclasses.fields(ScoringRules)}
    return GameRules(
        **shared,
        reward=reward_of(config),
        objective=None if adversarial.objective is None else load_function(adversarial.objective),
        discriminator=_windows(sequence_length, config),
        model_seed=config.seed,
    )
