"""How good generated sequences are, and how varied: BLEU, Self-BLEU, shares, and the temperature sweep.

No single number here says enough. Quality (NLL under the oracle, BLEU) can be had by writing few sequences well, variety (NLL
of held-out data, Self-BLEU) by writing anything; so they are reported together, and over the same temperatures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.linear_log_prob import linear_log_prob
from seqgan_env.sampling import sequences_per_chunk
from seqgan_env.settings import Temperature, check_number
from seqgan_env.token_model import TokenModel

Tokens = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

INVERSE_TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
_SMOOTHING = 0.1  # epsilon of method 1 of Chen and Cherry (2014), as in NLTK


class BleuScorer:
    """Sentence BLEU against one set of references (Papineni et al., 2002).

    The values are those of NLTK's `sentence_bleu` with uniform weights and its smoothing method 1: an order without a match
    counts as 0.1 matches, a sequence without a single matching token as 0. The references are counted once, here.

    Every token counts as a word, the end token included; `without_end_token` on both sides leaves the words alone, as the
    published figures of texts have it.

    Args:
        references: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id; tokens lie in 0 ... `pad` - 1.
        max_order: n-grams up to this length count.

    Raises:
        ValueError: no references, ids out of range, padding before a token, or `max_order` below 1.
    """

    def __init__(self, references: Tokens, pad: int, max_order: int = 5) -> None:
        lengths = _checked_lengths("references", references, pad, max_order)
        if not len(references):
            raise ValueError("BLEU needs at least one reference, got none.")
        self.pad = pad
        self.max_order = max_order
        self._reference_lengths = np.unique(lengths)
        self._ngrams: list[tuple[Tokens, Tokens]] = []  # for each order: the n-grams' keys, sorted, and their greatest counts
        ids = _empty_ngrams(references)
        for order in range(1, max_order + 1):
            keys = _extend(ids, references[:, order - 1 :], pad)
            known = np.unique(keys[keys >= 0])
            ids = _look_up(known, keys)
            found, occurrences = _occurrences(ids)
            greatest = np.zeros(len(known), dtype=np.int64)
            np.maximum.at(greatest, found[found >= 0], occurrences[found >= 0])
            self._ngrams.append((known, greatest))

    def score(self, candidates: Tokens) -> Scores:
        """BLEU-1 to BLEU-`max_order` of each candidate against all references.

        Args:
            candidates: `(m, length)` int64, padded with `pad` at the end; the length may differ from the references'.

        Returns:
            `(m, max_order)` float64 in [0, 1]; column k - 1 weighs the orders 1 ... k equally.

        Raises:
            ValueError: ids out of range, or padding before a token.
        """
        lengths = _checked_lengths("candidates", candidates, self.pad, self.max_order)
        matches = np.empty((len(candidates), self.max_order), dtype=np.int64)
        ids = _empty_ngrams(candidates)
        for order, (known, greatest) in enumerate(self._ngrams, start=1):
            ids = _look_up(known, _extend(ids, candidates[:, order - 1 :], self.pad))
            found, occurrences = _occurrences(ids)
            limits = np.append(greatest, 0)[found]  # -1, not among the references, finds the 0
            matches[:, order - 1] = (occurrences <= limits).sum(axis=1)
        distances = np.abs(lengths[:, None] - self._reference_lengths)
        return _bleu(matches, lengths, self._reference_lengths[distances.argmin(axis=1)])


def self_bleu(samples: Tokens, pad: int, max_order: int = 5) -> Scores:
    """How alike samples are: the mean BLEU of each against all the others (Zhu et al., 2018). Lower is more varied.

    No sample is among its own references; counted among them, every sample would score 1. A copy of it counts.

    Args:
        samples: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id.
        max_order: n-grams up to this length count.

    Returns:
        `(max_order,)` float64 in [0, 1]: Self-BLEU-1 to Self-BLEU-`max_order`, as in `BleuScorer`.

    Raises:
        ValueError: fewer than two samples, ids out of range, padding before a token, or `max_order` below 1.
    """
    lengths = _checked_lengths("samples", samples, pad, max_order)
    if len(samples) < 2:
        raise ValueError(f"Self-BLEU compares samples with each other and needs at least 2, got {len(samples)}.")
    matches = np.empty((len(samples), max_order), dtype=np.int64)
    ids = _empty_ngrams(samples)
    for order in range(1, max_order + 1):
        keys = _extend(ids, samples[:, order - 1 :], pad)
        known = np.unique(keys[keys >= 0])
        ids = _look_up(known, keys)
        found, occurrences = _occurrences(ids)
        limits = _greatest_elsewhere(found, occurrences, len(known))
        matches[:, order - 1] = (occurrences <= limits).sum(axis=1)
    means: Scores = _bleu(matches, lengths, _closest_other(lengths)).mean(axis=0)
    return means


def _checked_lengths(name: str, tokens: Tokens, pad: int, max_order: int) -> Tokens:
    """Lengths `(n,)` of sequences `(n, length)`."""
    if max_order < 1:
        raise ValueError(f"max_order must be at least 1, got {max_order}.")
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (n, length), got {tokens.dtype} of shape {tokens.shape}.")
    if tokens.size and not (tokens.min() >= 0 and tokens.max() <= pad):
        raise ValueError(f"{name} must lie in 0 ... {pad} (the pad id), got {tokens.min()} ... {tokens.max()}.")
    is_token = tokens != pad
    if (is_token[:, 1:] & ~is_token[:, :-1]).any():
        row = int((is_token[:, 1:] & ~is_token[:, :-1]).any(axis=1).argmax())
        raise ValueError(f"{name} must be padded at the end only; row {row} has the pad id {pad} before a token.")
    lengths: Tokens = is_token.sum(axis=1, dtype=np.int64)
    return lengths


# An n-gram's id is found by its first n - 1 tokens' id and its last token: exact, and linear in the order. Ids `(n, width)`
# are those of the n-grams that start at each position, -1 where there is none or none that is known.


def _empty_ngrams(tokens: Tokens) -> Tokens:
    """Ids of the n-grams of order 0, one more than there are tokens: `(n, length + 1)`."""
    return np.zeros((len(tokens), tokens.shape[1] + 1), dtype=np.int64)


def _extend(ids: Tokens, last_tokens: Tokens, pad: int) -> Tokens:
    """Keys `(n, width)` of the n-grams that are `ids` `(n, width + 1)` with one more token; -1 where there is none."""
    prefixes = ids[:, :-1]
    return np.where((prefixes >= 0) & (last_tokens != pad), prefixes * pad + last_tokens, -1)


def _look_up(known: Tokens, keys: Tokens) -> Tokens:
    """Each key's place among the sorted `known` ones; -1 where it is not there."""
    if not len(known):
        return np.full_like(keys, -1)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, places, -1)


def _occurrences(ids: Tokens) -> tuple[Tokens, Tokens]:
    """The ids of each row in rising order, and for each one the how-manieth of its kind it is, from 1 on.

    Clipped counting then is a comparison: an n-gram's c-th occurrence matches if some reference has c of them.
    """
    ordered = np.sort(ids, axis=1)
    columns = np.arange(ids.shape[1])
    starts = np.zeros_like(ordered)
    starts[:, 1:] = np.where(ordered[:, 1:] != ordered[:, :-1], columns[1:], 0)
    return ordered, columns - np.maximum.accumulate(starts, axis=1) + 1


def _greatest_elsewhere(ids: Tokens, occurrences: Tokens, n_known: int) -> Tokens:
    """For each n-gram of each row, the greatest count that another row has of it; 0 where no n-gram is."""
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    there = ids >= 0
    flat_ids, flat_rows, counts = ids[there], rows[there], occurrences[there]
    greatest, second = np.zeros((2, n_known), dtype=np.int64)
    np.maximum.at(greatest, flat_ids, counts)
    owner = np.full(n_known, -1)
    has_greatest = counts == greatest[flat_ids]
    owner[flat_ids[has_greatest]] = flat_rows[has_greatest]  # of several, any: then the second is as great
    not_owned = flat_rows != owner[flat_ids]
    np.maximum.at(second, flat_ids[not_owned], counts[not_owned])
    limits = np.zeros_like(ids)
    limits[there] = np.where(not_owned, greatest[flat_ids], second[flat_ids])
    return limits


def _closest_other(lengths: Tokens) -> Tokens:
    """For each sequence the length, among those of all other sequences, that is closest to its own."""
    present, which, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    distances = np.abs(present[:, None] - present)
    distances[np.diag(counts == 1)] = np.iinfo(np.int64).max  # the only one of its length is not among the others
    closest: Tokens = present[distances.argmin(axis=1)]
    return closest[which]


def _bleu(matches: Tokens, lengths: Tokens, reference_lengths: Tokens) -> Scores:
    """BLEU `(m, max_order)` of clipped matches `(m, max_order)`, lengths `(m,)` and the closest references' `(m,)`.

    Of two references as close as each other, the shorter one's length counts (`argmin` over rising lengths sees to it).
    """
    orders = np.arange(1, matches.shape[1] + 1)
    totals = np.maximum(1, lengths[:, None] - orders + 1)
    log_precisions = np.log(np.where(matches > 0, matches, _SMOOTHING) / totals)
    log_brevity = np.minimum(0, 1 - reference_lengths / np.maximum(1, lengths))
    scores = np.exp(log_brevity[:, None] + log_precisions.cumsum(axis=1) / orders)
    return np.where(matches[:, :1] > 0, scores, 0.0)


def without_end_token(tokens: Tokens, end_token: int | None, pad: int) -> Tokens:
    """Sequences `(n, length)` with the end token, which is the last of its sequence, turned into padding: the words alone."""
    return tokens if end_token is None else np.where(tokens == end_token, pad, tokens)


def distinct_n(samples: Tokens, pad: int, max_order: int = 2) -> Scores:
    """Distinct n-grams of all samples together, divided by the number of their tokens (Li et al., 2016, section 5.3).

    It falls with the number of samples, by whatever wrote them: compare at equal numbers.

    Args:
        samples: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id.
        max_order: n-grams up to this length.

    Returns:
        `(max_order,)` float64 in [0, 1]: distinct-1 to distinct-`max_order`; 0 where there is no token.

    Raises:
        ValueError: ids out of range, padding before a token, or `max_order` below 1.
    """
    n_tokens = int(_checked_lengths("samples", samples, pad, max_order).sum())
    counts = np.zeros(max_order)
    ids = _empty_ngrams(samples)
    for order in range(1, max_order + 1):
        keys = _extend(ids, samples[:, order - 1 :], pad)
        known = np.unique(keys[keys >= 0])
        ids = _look_up(known, keys)
        counts[order - 1] = len(known)
    return counts / max(1, n_tokens)


def length_shares(samples: Tokens, pad: int, longest: int) -> Scores:
    """Which share of samples `(n, length)` has 0, 1, ... `longest` tokens: `(longest + 1,)` float64, of sum 1.

    Raises:
        ValueError: no samples, or one that is longer.
    """
    lengths = (samples != pad).sum(axis=1)
    if not len(samples) or lengths.max() > longest:
        raise ValueError(
            f"Lengths need samples of at most {longest} tokens, got {len(samples)} of at most {lengths.max(initial=0)}."
        )
    return np.bincount(lengths, minlength=longest + 1) / len(samples)


def total_variation(p: Scores, q: Scores) -> float:
    """Half the sum of the differences of two distributions `(k,)`: 0 if they are equal, 1 if nothing is in both.

    Raises:
        ValueError: two shapes.
    """
    if p.shape != q.shape:
        raise ValueError(f"Two distributions must be over the same values, got shapes {p.shape} and {q.shape}.")
    return float(np.abs(p - q).sum() / 2)


def valid_share(texts: Sequence[str], valid: Callable[[str], bool]) -> float:
    """The share of texts that a checker accepts.

    Raises:
        ValueError: no texts, or a checker that raises or returns something else than a bool; shows the text.
    """
    if not texts:
        raise ValueError("The share of valid samples needs at least one sample, got none.")
    n_valid = 0
    for text in texts:
        try:
            verdict = valid(text)
        except Exception as error:
            raise ValueError(f"valid(text) raised {type(error).__name__} for {text[:100]!r}: {error}") from error
        if not isinstance(verdict, (bool, np.bool_)):
            raise ValueError(f"valid(text) must return True or False, got {verdict!r} for {text[:100]!r}.")
        n_valid += bool(verdict)
    return n_valid / len(texts)


def unique_share(samples: Tokens) -> float:
    """Distinct rows of samples `(n, length)` int64, as a share of `n`: 1 if no two are alike."""
    if not len(samples):
        raise ValueError("The share of unique samples needs at least one sample, got none.")
    return len(_distinct_rows(samples)) / len(samples)


def novel_share(samples: Tokens, training: Tokens) -> float:
    """The share of samples `(n, length)` int64 that are no row of the training data `(m, length)`: 0 if all are copied.

    Raises:
        ValueError: no samples, or rows of another length than the training data's.
    """
    if not len(samples):
        raise ValueError("The share of novel samples needs at least one sample, got none.")
    if samples.shape[1] != training.shape[1]:
        raise ValueError(
            f"Samples have rows of {samples.shape[1]} tokens and training data of {training.shape[1]}: pad both to one length."
        )
    seen = _distinct_rows(training)
    return sum(row.tobytes() not in seen for row in samples.astype(np.int64)) / len(samples)


def _distinct_rows(tokens: Tokens) -> set[bytes]:
    return {row.tobytes() for row in tokens.astype(np.int64)}


def mean_nll(model: TokenModel, tokens: Tensor) -> float:
    """Negative log-likelihood of sequences `(n, length)` under a model, in nats per token, averaged over all their tokens."""
    lengths = (tokens < model.vocab_size).sum(dim=1)
    return ((model.nll(tokens) * lengths).sum() / lengths.sum()).item()


@dataclass(frozen=True)
class SweepPoint:
    """A generator at one temperature; NLL in nats per token."""

    inverse_temperature: float
    """What the logits are multiplied with."""
    nll_oracle: float
    """Of the generator's samples, under the oracle: quality. Low is good, and can be had by collapsing."""
    nll_test: float
    """Of held-out data, under the generator: coverage. Low is good, and cannot be had by collapsing."""


@torch.no_grad()
def temperature_sweep(
    generator: TokenModel,
    oracle: TokenModel,
    held_out: Tensor,
    rng: torch.Generator,
    *,
    n_samples: int = 10_000,
    length: int,
    inverse_temperatures: Sequence[float] = INVERSE_TEMPERATURES,
) -> list[SweepPoint]:
    """Quality against coverage over temperatures, applied at inference to both (Caccia et al., 2020).

    Two generators are compared by their curves: one that is better at its own temperature may only be the colder one.

    Args:
        generator: what is judged.
        oracle: what wrote the held-out data.
        held_out: `(n, length)` int64 real sequences that the generator has not seen, padded with the vocabulary size.
        rng: on the generator's device; draws the samples.
        n_samples: samples at each temperature.
        length: the most tokens a sample has.
        inverse_temperatures: above 1 the generator is sharpened, below 1 flattened.

    Returns:
        One point for each temperature, in the given order. An NLL is a mean over sequences of their nats per token.

    Raises:
        ValueError: no samples, sequences or temperatures, a temperature out of its range, or two vocabularies.
    """
    if generator.vocab_size != oracle.vocab_size:
        raise ValueError(
            f"Generator and oracle must share a vocabulary, got {generator.vocab_size} and {oracle.vocab_size} tokens."
        )
    if n_samples < 1 or not len(held_out):
        raise ValueError(f"A sweep needs samples and held-out sequences, got {n_samples} and {len(held_out)}.")
    if not inverse_temperatures:
        raise ValueError("A sweep needs at least one of inverse_temperatures, got none.")
    for alpha in inverse_temperatures:
        check_number("Each of inverse_temperatures", alpha, Temperature)
    nll_tests = nll_at_temperatures(generator, held_out, inverse_temperatures)
    points = []
    for alpha, nll_test in zip(inverse_temperatures, nll_tests, strict=True):
        samples, _ = generator.sample(n_samples, length, rng, inverse_temperature=alpha)
        points.append(SweepPoint(alpha, oracle.nll(samples).mean().item(), nll_test))
    return points


@torch.no_grad()
def nll_at_temperatures(generator: TokenModel, tokens: Tensor, inverse_temperatures: Sequence[float]) -> list[float]:
    """The mean NLL of sequences `(n, length)` at each temperature, in nats per token; they are read once for all."""
    totals = torch.zeros(len(inverse_temperatures), dtype=torch.float64, device=tokens.device)
    for part in tokens.split(sequences_per_chunk(generator.vocab_size, tokens.shape[1], tokens.device)):
        log_probs_at = _log_probs_by_temperature(generator, part)
        lengths = (part < generator.vocab_size).sum(dim=1)
        for index, alpha in enumerate(inverse_temperatures):
            totals[index] -= (log_probs_at(alpha).view(part.shape).double().sum(dim=1) / lengths).sum()
    means: list[float] = (totals / len(tokens)).tolist()
    return means


def _log_probs_by_temperature(generator: TokenModel, tokens: Tensor) -> Callable[[float], Tensor]:
    """Log-probabilities of all tokens of `(n, length)`, flat, as a function of the inverse temperature; 0 at padding."""
    hidden, targets, layer = generator.hidden(tokens).flatten(0, 1), tokens.flatten(), generator.linear_output()
    if layer is not None:
        weight, bias = layer
        return lambda alpha: linear_log_prob(alpha * hidden, weight, alpha * bias, targets)
    logits, pad = generator.output(hidden), generator.vocab_size
    return lambda alpha: -F.cross_entropy(alpha * logits, targets, ignore_index=pad, reduction="none")


def best_sum(points: Sequence[SweepPoint]) -> SweepPoint:
    """The point with the lowest nll_oracle + nll_test; of several, the first.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("A temperature sweep without points has no curve.")
    return min(points, key=lambda point: point.nll_oracle + point.nll_test)
