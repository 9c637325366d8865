"""Shares and counts of samples: distinct n-grams, lengths, and unique, novel and valid sequences."""

from collections.abc import Callable, Sequence

import numpy as np

from seqgan_env.data.padding import Tokens, lengths_of
from seqgan_env.metrics.ngrams import Scores, checked_lengths, ngrams


def without_end_token(tokens: Tokens, end_token: int | None, pad: int) -> Tokens:
    """Sequences `(n, length)` with the end token, always the last, replaced by padding."""
    return tokens if end_token is None else np.where(tokens == end_token, pad, tokens)


def distinct_n(samples: Tokens, pad: int, max_order: int = 2) -> Scores:
    """Distinct n-grams of all samples together, divided by their number of tokens (Li et al., 2016, section 5.3).

    The value falls as the number of samples grows, so compare equal numbers of samples.

    Args:
        samples: `(n, length)` int64, padded with `pad` at the end.
        pad: the pad id.
        max_order: the longest n-grams to count.

    Returns:
        `(max_order,)` float64 in [0, 1]: distinct-1 to distinct-`max_order`; 0 if there are no tokens.

    Raises:
        ValueError: an id is out of range, padding comes before a token, or `max_order` is below 1.
    """
    n_tokens = int(checked_lengths("samples", samples, pad, max_order).sum())
    counts = np.array([n_known for _, n_known in ngrams(samples, pad, max_order)], dtype=np.float64)
    return counts / max(1, n_tokens)


def length_shares(samples: Tokens, pad: int, longest: int) -> Scores:
    """The shares of samples `(n, length)` that have 0, 1, ... `longest` tokens: `(longest + 1,)` float64, summing to 1.

    Raises:
        ValueError: there are no samples, or one is longer.
    """
    lengths = lengths_of(samples, pad)
    if not len(samples) or lengths.max() > longest:
        raise ValueError(
            f"Lengths need samples of at most {longest} tokens, got {len(samples)} of at most {lengths.max(initial=0)}."
        )
    return np.bincount(lengths, minlength=longest + 1) / len(samples)


def total_variation(p: Scores, q: Scores) -> float:
    """Half the L1 distance of two distributions `(k,)`: 0 if they are equal, 1 if they do not overlap.

    Raises:
        ValueError: the shapes differ.
    """
    if p.shape != q.shape:
        raise ValueError(f"Two distributions must be over the same values, got shapes {p.shape} and {q.shape}.")
    return float(np.abs(p - q).sum() / 2)


def valid_share(texts: Sequence[str], valid: Callable[[str], bool]) -> float:
    """The share of texts that a checker accepts.

    Raises:
        ValueError: there are no texts, or the checker raises or does not return a bool; the message shows the text.
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
    """The number of distinct rows of samples `(n, length)` int64, divided by `n`: 1 if all differ."""
    if not len(samples):
        raise ValueError("The share of unique samples needs at least one sample, got none.")
    return len(_distinct_rows(samples)) / len(samples)


def novel_share(samples: Tokens, training: Tokens) -> float:
    """The share of samples `(n, length)` int64 that are not in the training data `(m, length)`: 0 if all are copies.

    Raises:
        ValueError: there are no samples, or their rows and the training data's have different lengths.
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
