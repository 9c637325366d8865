"""N-grams of many sequences at once, each coded as one integer key."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from seqgan_env.data.padding import Tokens

Scores = npt.NDArray[np.float64]


def checked_lengths(name: str, tokens: Tokens, pad: int, max_order: int) -> Tokens:
    """Check sequences `(n, length)`, and return their lengths `(n,)`."""
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


def empty_ngrams(tokens: Tokens) -> Tokens:
    """The ids of order-0 n-grams, one more than there are tokens: `(n, length + 1)`."""
    return np.zeros((len(tokens), tokens.shape[1] + 1), dtype=np.int64)


def extend(ids: Tokens, last_tokens: Tokens, pad: int) -> Tokens:
    """Keys `(n, width)` of the n-grams `ids` `(n, width + 1)` extended by one token; -1 where there is none."""
    prefixes = ids[:, :-1]
    return np.where((prefixes >= 0) & (last_tokens != pad), prefixes * pad + last_tokens, -1)


def look_up(known: Tokens, keys: Tokens) -> Tokens:
    """Each key's index in the sorted keys `known`; -1 if it is not there."""
    if not len(known):
        return np.full_like(keys, -1)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, places, -1)


def ngrams(tokens: Tokens, pad: int, max_order: int) -> Iterator[tuple[Tokens, int]]:
    """The n-grams of sequences `(n, length)`, order by order from 1 to `max_order`.

    Yields:
        Which of the distinct n-grams stands at each place, `(n, width)`, -1 where there is none; and how many there are.
    """
    ids = empty_ngrams(tokens)
    for order in range(1, max_order + 1):
        keys = extend(ids, tokens[:, order - 1 :], pad)
        known = np.unique(keys[keys >= 0])
        ids = look_up(known, keys)
        yield ids, len(known)
