"""Sequences of different lengths in one array: after its last token each is padded with an id that is no token."""

from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokens = npt.NDArray[np.int64]
"""Token ids, `(n, length)` of padded sequences or `(length,)` of one."""

TokenIds = Tensor | npt.NDArray[Any]
"""Real sequences as a user passes them."""


@overload
def lengths_of(tokens: Tensor, pad: int) -> Tensor: ...
@overload
def lengths_of(tokens: Tokens, pad: int) -> Tokens: ...
def lengths_of(tokens: Tensor | Tokens, pad: int) -> Tensor | Tokens:
    """How many tokens padded sequences `(..., length)` have: `(...)` int64, a tensor or an array as they are.

    Args:
        tokens: padded at the end only.
        pad: the pad id; that of a game is its `vocab_size`.
    """
    lengths: Tensor | Tokens = (tokens != pad).sum(-1)
    return lengths


def played_positions(lengths: Tensor, length: int) -> Tensor:
    """Which of `length` positions sequences with lengths `(n,)` have: `(n, length)` bool."""
    return torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)


def as_sequences(real: TokenIds, vocab_size: int, sequence_length: int) -> Tensor:
    """Real sequences `(n, sequence_length)` as an int64 tensor.

    Raises:
        TypeError: they are no integers.
        ValueError: none, of another length, or with ids that are no tokens; `vocab_size` pads.
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
