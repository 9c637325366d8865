"""Sequences of different lengths in one array, padded at the end with an id that is not a token."""

from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokens = npt.NDArray[np.int64]
"""Token ids, `(n, length)` of padded sequences or `(length,)` of one."""

TokenIds = Tensor | npt.NDArray[Any]
"""Real sequences as users pass them."""


@overload
def lengths_of(tokens: Tensor, pad: int) -> Tensor: ...
@overload
def lengths_of(tokens: Tokens, pad: int) -> Tokens: ...
def lengths_of(tokens: Tensor | Tokens, pad: int) -> Tensor | Tokens:
    """The number of tokens in each padded sequence of `(..., length)`: `(...)` int64, a tensor or an array like `tokens`.

    Args:
        tokens: padded at the end only.
        pad: the pad id; a game's is its `vocab_size`.
    """
    lengths: Tensor | Tokens = (tokens != pad).sum(-1)
    return lengths


def played_positions(lengths: Tensor, length: int) -> Tensor:
    """Whether sequences with lengths `(n,)` reach each of `length` positions: `(n, length)` bool."""
    return torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)


def as_sequences(real: TokenIds, vocab_size: int, sequence_length: int) -> Tensor:
    """Real sequences `(n, sequence_length)` as an int64 tensor.

    Raises:
        TypeError: the ids are not integers.
        ValueError: there are no sequences, their length differs, or an id is neither a token nor `vocab_size` (padding).
    """
    array = real if isinstance(real, Tensor) else np.asarray(real)
    if isinstance(array, Tensor):
        integers = not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
    else:
        integers = array.dtype.kind in "iu"
    if not integers:
        raise TypeError(
            f"Real sequences are token ids, in a tensor or an array of integers; got {type(real).__name__} of {array.dtype}. "
            "Text is read by read_corpus, or by text_game."
        )
    if array.ndim != 2 or len(array) == 0 or array.shape[1] != sequence_length:
        raise ValueError(
            f"Real sequences have shape {tuple(array.shape)}, expected (n, {sequence_length}), n at least 1. Pad shorter ones "
            f"with the id {vocab_size}."
        )
    tokens = array.long() if isinstance(array, Tensor) else torch.from_numpy(array.astype(np.int64))
    if tokens.min() < 0 or tokens.max() > vocab_size:
        raise ValueError(
            f"Real sequences have ids from {int(tokens.min())} to {int(tokens.max())}; the tokens are 0 to {vocab_size - 1}, "
            f"and {vocab_size} pads."
        )
    return tokens
