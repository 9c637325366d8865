"""Prefixes as a player sees them: Gymnasium's spaces and arrays, in two layouts."""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Layout = Literal["dict", "flat"]
Observation = dict[str, npt.NDArray[np.int64]] | npt.NDArray[np.int64]


def observation_space(vocab_size: int, sequence_length: int, layout: Layout) -> spaces.Space[Any]:
    """The space of a prefix.

    Args:
        vocab_size: number of tokens; the pad id.
        sequence_length: the most tokens of a sequence.
        layout: `"dict"`, tokens and length apart; `"flat"`, in one array, the length last.

    Raises:
        ValueError: another layout.
    """
    if layout == "dict":
        return spaces.Dict(
            tokens=spaces.Box(0, vocab_size, (sequence_length,), np.int64),
            length=spaces.Box(0, sequence_length, (1,), np.int64),
        )
    if layout == "flat":
        return spaces.Box(0, max(vocab_size, sequence_length), (sequence_length + 1,), np.int64)
    raise ValueError(f"layout must be one of {get_args(Layout)}, got {layout!r}.")


def observe(tokens: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], layout: Layout) -> Observation:
    """A fresh observation of prefixes `(..., sequence_length)` with lengths `(..., 1)`."""
    if layout == "flat":
        return np.concatenate([tokens, lengths], axis=-1)
    return {"tokens": tokens.copy(), "length": lengths.copy()}
