"""BLEU against references, and Self-BLEU of samples against each other."""

import numpy as np

from seqgan_env.data.padding import Tokens
from seqgan_env.metrics.ngrams import Scores, checked_lengths, empty_ngrams, extend, look_up, ngrams

_SMOOTHING = 0.1  # epsilon of method 1 of Chen and Cherry (2014), as in NLTK


class BleuScorer:
    """Sentence BLEU against one set of references (Papineni et al., 2002).

    The values are those of NLTK's `sentence_bleu` with uniform weights and smoothing method 1: an order without a match
    counts as 0.1 matches, and a sequence without any matching token scores 0. The constructor counts the references once.

    Every token counts as a word, including the end token. Apply `without_end_token` to both sides to compare only words, as
    published figures for texts do.

    Args:
        references: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id; tokens lie in 0 ... `pad` - 1.
        max_order: the longest n-grams to count.

    Raises:
        ValueError: there are no references, an id is out of range, padding comes before a token, or `max_order` is below 1.
    """

    def __init__(self, references: Tokens, pad: int, max_order: int = 5) -> None:
        lengths = checked_lengths("references", references, pad, max_order)
        if not len(references):
            raise ValueError("BLEU needs at least one reference, got none.")
        self.pad = pad
        self.max_order = max_order
        self._reference_lengths = np.unique(lengths)
        self._ngrams: list[tuple[Tokens, Tokens]] = []  # per order: sorted n-gram keys, and their greatest counts
        ids = empty_ngrams(references)
        for order in range(1, max_order + 1):
            keys = extend(ids, references[:, order - 1 :], pad)
            known = np.unique(keys[keys >= 0])
            ids = look_up(known, keys)
            found, occurrences = _occurrences(ids)
            greatest = np.zeros(len(known), dtype=np.int64)
            np.maximum.at(greatest, found[found >= 0], occurrences[found >= 0])
            self._ngrams.append((known, greatest))

    def score(self, candidates: Tokens) -> Scores:
        """BLEU-1 to BLEU-`max_order` of each candidate against all references.

        Args:
            candidates: `(m, length)` int64, padded with `pad` at the end; the length may differ from the references'.

        Returns:
            `(m, max_order)` float64 in [0, 1]; column k - 1 weights the orders 1 ... k equally.

        Raises:
            ValueError: an id is out of range, or padding comes before a token.
        """
        lengths = checked_lengths("candidates", candidates, self.pad, self.max_order)
        matches = np.empty((len(candidates), self.max_order), dtype=np.int64)
        ids = empty_ngrams(candidates)
        for order, (known, greatest) in enumerate(self._ngrams, start=1):
            ids = look_up(known, extend(ids, candidates[:, order - 1 :], self.pad))
            found, occurrences = _occurrences(ids)
            limits = np.append(greatest, 0)[found]  # -1 (not in the references) indexes the appended 0
            matches[:, order - 1] = (occurrences <= limits).sum(axis=1)
        distances = np.abs(lengths[:, None] - self._reference_lengths)
        return _bleu(matches, lengths, self._reference_lengths[distances.argmin(axis=1)])


def self_bleu(samples: Tokens, pad: int, max_order: int = 5) -> Scores:
    """The mean BLEU of each sample against all the others (Zhu et al., 2018). Lower means more diverse.

    A sample is not its own reference, otherwise each would score 1; a copy of it counts as a reference.

    Args:
        samples: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id.
        max_order: the longest n-grams to count.

    Returns:
        `(max_order,)` float64 in [0, 1]: Self-BLEU-1 to Self-BLEU-`max_order`, as in `BleuScorer`.

    Raises:
        ValueError: there are fewer than two samples, an id is out of range, padding comes before a token, or `max_order` is
            below 1.
    """
    lengths = checked_lengths("samples", samples, pad, max_order)
    if len(samples) < 2:
        raise ValueError(f"Self-BLEU compares samples with each other, so it needs at least 2, got {len(samples)}.")
    matches = np.empty((len(samples), max_order), dtype=np.int64)
    for column, (ids, n_known) in enumerate(ngrams(samples, pad, max_order)):
        found, occurrences = _occurrences(ids)
        limits = _greatest_elsewhere(found, occurrences, n_known)
        matches[:, column] = (occurrences <= limits).sum(axis=1)
    means: Scores = _bleu(matches, lengths, _closest_other(lengths)).mean(axis=0)
    return means


def _occurrences(ids: Tokens) -> tuple[Tokens, Tokens]:
    """The ids of each row, sorted, and each id's occurrence number in its row, from 1.

    This turns clipped counting into a comparison: an n-gram's c-th occurrence matches if some reference has c of them.
    """
    ordered = np.sort(ids, axis=1)
    columns = np.arange(ids.shape[1])
    starts = np.zeros_like(ordered)
    starts[:, 1:] = np.where(ordered[:, 1:] != ordered[:, :-1], columns[1:], 0)
    return ordered, columns - np.maximum.accumulate(starts, axis=1) + 1


def _greatest_elsewhere(ids: Tokens, occurrences: Tokens, n_known: int) -> Tokens:
    """For each n-gram of each row, its greatest count in any other row; 0 where there is no n-gram."""
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    there = ids >= 0
    flat_ids, flat_rows, counts = ids[there], rows[there], occurrences[there]
    greatest, second = np.zeros((2, n_known), dtype=np.int64)
    np.maximum.at(greatest, flat_ids, counts)
    owner = np.full(n_known, -1)
    has_greatest = counts == greatest[flat_ids]
    owner[flat_ids[has_greatest]] = flat_rows[has_greatest]  # on a tie any row will do: the second count is then as great
    not_owned = flat_rows != owner[flat_ids]
    np.maximum.at(second, flat_ids[not_owned], counts[not_owned])
    limits = np.zeros_like(ids)
    limits[there] = np.where(not_owned, greatest[flat_ids], second[flat_ids])
    return limits


def _closest_other(lengths: Tokens) -> Tokens:
    """For each sequence the closest length among all other sequences."""
    present, which, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    distances = np.abs(present[:, None] - present)
    distances[np.diag(counts == 1)] = np.iinfo(np.int64).max  # a length that occurs once is not among the others' lengths
    closest: Tokens = present[distances.argmin(axis=1)]
    return closest[which]


def _bleu(matches: Tokens, lengths: Tokens, reference_lengths: Tokens) -> Scores:
    """BLEU `(m, max_order)` of clipped matches `(m, max_order)`, lengths `(m,)` and the closest references' lengths `(m,)`.

    If two references are equally close, the shorter one counts, because `argmin` sees lengths in rising order.
    """
    orders = np.arange(1, matches.shape[1] + 1)
    totals = np.maximum(1, lengths[:, None] - orders + 1)
    log_precisions = np.log(np.where(matches > 0, matches, _SMOOTHING) / totals)
    log_brevity = np.minimum(0, 1 - reference_lengths / np.maximum(1, lengths))
    scores = np.exp(log_brevity[:, None] + log_precisions.cumsum(axis=1) / orders)
    return np.where(matches[:, :1] > 0, scores, 0.0)
