"""Sequences of different lengths in one array: after its last token each is padded with an id that is no token."""

from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokens = npt.NDArray[np.int64]
"""Token ids, `(n, length)` of padded sequences or `(length,)` of one."""


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
