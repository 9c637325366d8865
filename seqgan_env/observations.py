"""Observations of prefixes as Gymnasium spaces and arrays, in two layouts."""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Layout = Literal["dict", "flat"]
Observation = dict[str, npt.NDArray[np.int64]] | npt.NDArray[np.int64]


def observation_space(vocab_size: int, sequence_length: int, layout: Layout) -> spaces.Space[Any]:
    """The observation space of a prefix.

    Args:
        vocab_size: number of tokens; also the pad id.
        sequence_length: the maximum number of tokens in a sequence.
        layout: `"dict"` with tokens and length separately; `"flat"` with both in one array, the length last.

    Raises:
        ValueError: the layout is unknown.
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
    """A new observation of prefixes `(..., sequence_length)` with lengths `(..., 1)`."""
    if layout == "flat":
        return np.concatenate([tokens, lengths], axis=-1)
    return {"tokens": tokens.copy(), "length": lengths.copy()}
