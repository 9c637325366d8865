"""Random numbers computed by hashing what they are used for.

A completion must have the same tokens whether an episode is stepped or played at once, alone or in a batch, on a CPU or a GPU.
A generator with state cannot do that, because its numbers depend on the order of the calls. So a counter-based generator
computes a completion's uniform numbers from the episode's key, the prefix, the completion and the position.
"""

import operator
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor


def as_seed(seed: SupportsIndex) -> int:
    """A seed of any integer type as a Python int; torch and Gymnasium do not accept numpy's integers.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is negative.
    """
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise TypeError(f"A seed must be an integer from 0, got {seed!r} of type {type(seed).__name__}.") from error
    if number < 0:
        raise ValueError(f"A seed must be an integer from 0, got {number}.")
    return number


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit constant."""
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own shift of int64 is arithmetic."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def mix(keys: Tensor | int, counters: Tensor | int) -> Tensor:
    """Derive new keys from keys and counters; chain the calls to combine several counters.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), a bijection of `keys` for each counter.

    Args:
        keys: int64, any shape.
        counters: int64, broadcast against `keys`.

    Returns:
        int64 keys of the broadcast shape; the same bits on every device.
    """
    words = torch.as_tensor(keys) + (torch.as_tensor(counters) + 1) * _GOLDEN
    words = (words ^ _shift_right(words, 30)) * _MULTIPLY_1
    words = (words ^ _shift_right(words, 27)) * _MULTIPLY_2
    return words ^ _shift_right(words, 31)


def key_of_each(tokens: Tensor, seed: int) -> Tensor:
    """A key `(n,)` int64 for each sequence of `(n, length)` int64, a function of the sequence and the seed."""
    keys = torch.full((len(tokens),), seed, dtype=torch.int64, device=tokens.device)
    for column in tokens.T:
        keys = mix(keys, column)
    return keys


def uniform(keys: Tensor) -> Tensor:
    """One float32 in [0, 1) for each int64 key, from its top 24 bits."""
    return _shift_right(keys, 40).to(torch.float32) * 2.0**-24


def stream_key(seed: int) -> int:
    """The int64 from which the episodes of one environment derive their keys."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
