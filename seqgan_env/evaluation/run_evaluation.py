"""Evaluate a run: quality and coverage together, over temperatures, compared with the likelihood start.

`docs/evaluation.md` defines each metric, and says where it comes from and what it cannot show.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from seqgan_env.data.padding import Tokens
from seqgan_env.data.vocabulary import lines_of
from seqgan_env.evaluation.reference_sequences import Reference
from seqgan_env.game import SequenceGame
from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.nearest_neighbours import Neighbours, NeighbourSearch
from seqgan_env.metrics.shares import (
    distinct_n,
    length_shares,
    novel_share,
    total_variation,
    unique_share,
    valid_share,
    without_end_token,
)
from seqgan_env.metrics.temperature import INVERSE_TEMPERATURES, SweepPoint, mean_nll, temperature_sweep
from seqgan_env.models.token_model import TokenModel
from seqgan_env.support import seeds
from seqgan_env.support.settings import PositiveInt, SampleCount, Seed, Temperature, check_settings

BLEU_ORDERS = (2, 3, 4, 5)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation."""

    n: SampleCount = 10_000
    """Samples per generator and temperature."""
    seed: Seed = 0
    """Draws the samples, and chooses the training sequences to compare with."""
    n_neighbours: PositiveInt = 1000
    """How many samples, and held-out sequences, to find the nearest training sequence for."""
    inverse_temperatures: tuple[Temperature, ...] = INVERSE_TEMPERATURES
    """Of the sweep; above 1 sharpens the generators, below 1 flattens them."""

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.inverse_temperatures:
            raise ValueError("A sweep needs at least one of inverse_temperatures, got none.")


@dataclass(frozen=True)
class BleuPoint:
    """A generator at one temperature: BLEU-2 to BLEU-5 against held-out sequences, and among its own samples."""

    inverse_temperature: float
    bleu: tuple[float, ...]
    """Quality: higher is better, but collapsing raises it, too."""
    self_bleu: tuple[float, ...]
    """Lower is more diverse."""


@dataclass(frozen=True, eq=False)
class Findings:
    """The results for a generator, or for real sequences in its place."""

    metrics: dict[str, float]
    """By name, as in `LABELS`; metrics that do not apply are missing."""
    neighbours: Neighbours
    neighbour_words: Tokens
    """The sequences `(m, length)` of `neighbours`, without end tokens."""
    lengths: npt.NDArray[np.float64]
    """`(sequence_length + 1,)`: the share of each length, not counting the end token."""
    sweep: tuple[SweepPoint, ...] | tuple[BleuPoint, ...] = ()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results for all generators and for real sequences."""

    generators: dict[str, Findings]
    real: Findings
    training_lengths: npt.NDArray[np.float64]
    reference: Reference


LABELS = {
    "nll_oracle": ("NLL_oracle, nats/token (quality)", "lower"),
    "nll_test": ("NLL_test, nats/token (coverage)", "lower"),
    "nll_sum": ("their sum", "lower"),
    "perplexity": ("held-out perplexity", "lower"),
    **{f"bleu_{k}": (f"BLEU-{k}, held-out", "higher") for k in BLEU_ORDERS},
    **{f"self_bleu_{k}": (f"Self-BLEU-{k}", "as the data") for k in BLEU_ORDERS},
    "distinct_1": ("distinct-1", "as the data"),
    "distinct_2": ("distinct-2", "as the data"),
    "unique": ("unique", "as the data"),
    "novel": ("novel", "as the data"),
    "valid": ("valid", "higher"),
    "mean_length": ("mean length", "as the data"),
    "length_distance": ("distance of lengths", "lower"),
    "neighbour_share": ("nearest: share of edits", "as the data"),
    "neighbour_copies": ("nearest: copies", "as the data"),
}
"""The label of each metric, and the direction that is better."""


def evaluate(
    game: SequenceGame,
    generators: Mapping[str, TokenModel],
    reference: Reference,
    settings: EvaluationSettings,
    valid: Callable[[str], bool] | None = None,
) -> Evaluation:
    """Measure generators, all with the same random numbers, and real sequences in their place.

    Args:
        game: the generators' game; its real sequences are their training data.
        generators: by name; include the likelihood start to compare with.
        reference: held-out sequences.
        settings: numbers and seed.
        valid: decides whether a text (in an oracle's game: ids separated by spaces) is a valid sequence.

    Raises:
        ValueError: the checker does not return a bool.
    """
    evaluator = _Evaluator(game, reference, settings, valid)
    per_generator = 2 + len(settings.inverse_temperatures)
    with tqdm(total=len(generators) * per_generator + 1, desc="evaluation", unit="step", disable=None) as bar:
        real = evaluator.real()
        bar.update()
        found = {}
        for name, generator in generators.items():
            bar.set_postfix_str(name)
            found[name] = evaluator.measure(generator, bar.update)
    return Evaluation(found, real, evaluator.training_lengths, reference)


class _Evaluator:
    """Data shared by the measurements of all generators of a game, prepared once."""

    def __init__(
        self,
        game: SequenceGame,
        reference: Reference,
        settings: EvaluationSettings,
        valid: Callable[[str], bool] | None,
    ) -> None:
        self.game, self.reference, self.settings, self.valid = game, reference, settings, valid
        self.pad = game.vocab_size
        self.training = self.words_of(game.real_sequences)
        self.training_lengths = length_shares(self.training, self.pad, game.sequence_length)
        self.search = NeighbourSearch(self.training, self.pad)
        self.bleu = BleuScorer(reference.words, reference.pad) if game.oracle is None else None

    def words_of(self, sequences: Tensor) -> Tokens:
        """Sequences on the CPU without end tokens."""
        return without_end_token(sequences.cpu().numpy(), self.game.end_token, self.pad)

    def sample(self, generator: TokenModel, inverse_temperature: float = 1.0) -> Tensor:
        """The generator's samples `(n, sequence_length)`, with the same random numbers in each call."""
        return generator.sample(
            self.settings.n, self.game.sequence_length, self._rng(), inverse_temperature=inverse_temperature
        )[0]

    def _rng(self) -> torch.Generator:
        return torch.Generator(self.game.device).manual_seed(self.settings.seed + seeds.EVALUATION)

    def measure(self, generator: TokenModel, after_step: Callable[[], object]) -> Findings:
        """All results for a generator; calls `after_step` twice, and once per temperature."""
        samples = self.sample(generator)
        words = self.words_of(samples)
        nll_test = mean_nll(generator, self.reference.sequences)
        metrics: dict[str, float] = {}
        if self.game.oracle is not None:
            nll_oracle = mean_nll(self.game.oracle, samples)
            metrics |= {"nll_oracle": nll_oracle, "nll_test": nll_test, "nll_sum": nll_oracle + nll_test}
        metrics |= {"nll_test": nll_test, "perplexity": math.exp(nll_test)}
        metrics |= self._among_themselves(samples, words) | self._against_training(words, self.pad)
        after_step()
        neighbours = self.search.nearest(words[: self.settings.n_neighbours], self.pad)
        metrics |= _neighbour_metrics(neighbours)
        after_step()
        sweep = self._sweep(generator, after_step)
        lengths = length_shares(words, self.pad, self.game.sequence_length)
        return Findings(metrics, neighbours, words[: self.settings.n_neighbours], lengths, sweep)

    def real(self) -> Findings:
        """Results for real sequences in a generator's place.

        Diversity and BLEU use as many training sequences as there are samples, or all; comparisons with the training data use
        the held-out sequences.
        """
        rows = np.random.default_rng(self.settings.seed).permutation(len(self.training))[: self.settings.n]
        held_out = self.reference.words
        metrics: dict[str, float] = {}
        if self.game.oracle is not None:
            metrics["nll_oracle"] = mean_nll(self.game.oracle, self.reference.sequences)
        metrics |= self._among_themselves(self.game.real_sequences[torch.from_numpy(rows)], self.training[rows])
        metrics |= self._against_training(held_out, self.reference.pad)
        some = held_out[: self.settings.n_neighbours]
        neighbours = self.search.nearest(some, self.reference.pad)
        metrics |= _neighbour_metrics(neighbours)
        lengths = length_shares(held_out, self.reference.pad, self.game.sequence_length)
        return Findings(metrics, neighbours, some, lengths)

    def _among_themselves(self, sequences: Tensor, words: Tokens) -> dict[str, float]:
        """BLEU, Self-BLEU, and shares of distinct, unique and valid sequences among `(n, sequence_length)`."""
        metrics: dict[str, float] = {}
        if self.bleu is not None:
            bleu, own = self._bleus(words)
            metrics |= {f"bleu_{k}": value for k, value in zip(BLEU_ORDERS, bleu, strict=True)}
            metrics |= {f"self_bleu_{k}": value for k, value in zip(BLEU_ORDERS, own, strict=True)}
        distinct = distinct_n(words, self.pad)
        metrics |= {"distinct_1": float(distinct[0]), "distinct_2": float(distinct[1]), "unique": unique_share(words)}
        if self.valid is not None:
            metrics["valid"] = valid_share(lines_of(sequences, self.game.vocabulary, self.pad), self.valid)
        return metrics

    def _against_training(self, words: Tokens, pad: int) -> dict[str, float]:
        """The share of sequences `(n, length)` that are new, and their lengths compared with the training data's."""
        novel = novel_share(np.where(words == pad, -1, words), np.where(self.training == self.pad, -1, self.training))
        metrics = {"novel": novel}
        if self.game.end_token is not None:
            lengths = length_shares(words, pad, self.game.sequence_length)
            metrics["mean_length"] = float(lengths @ np.arange(len(lengths)))
            metrics["length_distance"] = total_variation(lengths, self.training_lengths)
        return metrics

    def _bleus(self, words: Tokens) -> tuple[tuple[float, ...], tuple[float, ...]]:
        assert self.bleu is not None
        against = self.bleu.score(self.reference.spelled_alike(words, self.pad)).mean(axis=0)
        own = self_bleu(words, self.pad)
        return tuple(against[1:].tolist()), tuple(own[1:].tolist())

    def _sweep(
        self, generator: TokenModel, after_step: Callable[[], object]
    ) -> tuple[SweepPoint, ...] | tuple[BleuPoint, ...]:
        if self.game.oracle is None:
            points = []
            for alpha in self.settings.inverse_temperatures:
                points.append(BleuPoint(alpha, *self._bleus(self.words_of(self.sample(generator, alpha)))))
                after_step()
            return tuple(points)
        curve: list[SweepPoint] = []
        for alpha in self.settings.inverse_temperatures:
            curve += temperature_sweep(
                generator,
                self.game.oracle,
                self.reference.sequences,
                self._rng(),
                n_samples=self.settings.n,
                length=self.game.sequence_length,
                inverse_temperatures=[alpha],
            )
            after_step()
        return tuple(curve)


def _neighbour_metrics(neighbours: Neighbours) -> dict[str, float]:
    return {
        "neighbour_share": float(neighbours.shares.mean()),
        "neighbour_copies": float((neighbours.edits == 0).mean()),
    }


def closest_pairs(findings: Findings) -> list[int]:
    """Rows of the ten distinct samples closest to the training data: by share of edits, longer ones first."""
    rows: list[int] = []
    seen: set[bytes] = set()
    for row in np.lexsort((-findings.neighbours.lengths, findings.neighbours.shares)).tolist():
        key = findings.neighbour_words[row].tobytes()
        if key not in seen:
            seen.add(key)
            rows.append(row)
        if len(rows) == 10:
            break
    return rows


def sweep_as_rows(sweep: Sequence[SweepPoint | BleuPoint]) -> list[dict[str, float]]:
    """A sweep's points as flat dicts."""
    rows = []
    for point in sweep:
        if isinstance(point, SweepPoint):
            rows.append(dict(vars(point)))
        else:
            row = {"inverse_temperature": point.inverse_temperature}
            row |= {f"bleu_{k}": value for k, value in zip(BLEU_ORDERS, point.bleu, strict=True)}
            row |= {f"self_bleu_{k}": value for k, value in zip(BLEU_ORDERS, point.self_bleu, strict=True)}
            rows.append(row)
    return rows
