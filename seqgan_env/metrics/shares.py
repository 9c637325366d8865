"""Shares and counts of samples: distinct n-grams, lengths, unique, novel and valid sequences."""

from collections.abc import Callable, Sequence

import numpy as np

from seqgan_env.data.padding import Tokens, lengths_of
from seqgan_env.metrics.ngrams import Scores, checked_lengths, empty_ngrams, extend, look_up


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
    n_tokens = int(checked_lengths("samples", samples, pad, max_order).sum())
    counts = np.zeros(max_order)
    ids = empty_ngrams(samples)
    for order in range(1, max_order + 1):
        keys = extend(ids, samples[:, order - 1 :], pad)
        known = np.unique(keys[keys >= 0])
        ids = look_up(known, keys)
        counts[order - 1] = len(known)
    return counts / max(1, n_tokens)


def length_shares(samples: Tokens, pad: int, longest: int) -> Scores:
    """Which share of samples `(n, length)` has 0, 1, ... `longest` tokens: `(longest + 1,)` float64, of sum 1.

    Raises:
        ValueError: no samples, or one that is longer.
    """
    lengths = lengths_of(samples, pad)
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
