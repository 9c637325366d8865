"""Observations of prefixes as Gymnasium spaces and arrays, in three layouts."""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Layout = Literal["dict", "flat", "dict-mask"]
"""`"dict"` has tokens and length separately; `"flat"` both in one array, the length last; `"dict-mask"` is `"dict"` with
`action_mask` as well, the tokens that may come next."""
Observation = dict[str, npt.NDArray[np.integer[Any]]] | npt.NDArray[np.int64]


def observation_space(vocab_size: int, sequence_length: int, layout: Layout) -> spaces.Space[Any]:
    """The observation space of a prefix.

    Args:
        vocab_size: number of tokens; also the pad id.
        sequence_length: the maximum number of tokens in a sequence.
        layout: see `Layout`. The mask is a `Box`, because Stable-Baselines3 cannot learn from a `MultiBinary` beside ids.

    Raises:
        ValueError: the layout is unknown.
    """
    tokens = spaces.Box(0, vocab_size, (sequence_length,), np.int64)
    length = spaces.Box(0, sequence_length, (1,), np.int64)
    if layout == "dict":
        return spaces.Dict(tokens=tokens, length=length)
    if layout == "dict-mask":
        return spaces.Dict(tokens=tokens, length=length, action_mask=spaces.Box(0, 1, (vocab_size,), np.int8))
    if layout == "flat":
        return spaces.Box(0, max(vocab_size, sequence_length), (sequence_length + 1,), np.int64)
    raise ValueError(f"layout must be one of {get_args(Layout)}, got {layout!r}.")


def observe(
    tokens: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    layout: Layout,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Observation:
    """A new observation of prefixes.

    Args:
        tokens: `(..., sequence_length)`.
        lengths: `(..., 1)`.
        layout: see `Layout`.
        allowed: the tokens that may come next `(..., vocab_size)`, for the layout `"dict-mask"`.
    """
    if layout == "flat":
        return np.concatenate([tokens, lengths], axis=-1)
    if layout == "dict":
        return {"tokens": tokens.copy(), "length": lengths.copy()}
    assert allowed is not None
    return {"tokens": tokens.copy(), "length": lengths.copy(), "action_mask": allowed.astype(np.int8)}
