"""Random numbers that are a function of what they are for.

A completion's tokens must be the same whether an episode is stepped or played at once, alone or in a batch, on a CPU or a GPU.
A generator with a running state cannot give that: its numbers depend on the order of the calls. So a completion's uniform
number is computed from the episode's key, the prefix, the completion and the position, by a counter-based generator.
"""

import operator
from typing import SupportsIndex

import torch
from torch import Tensor


def as_seed(seed: SupportsIndex) -> int:
    """A seed as Python's integer, of whichever kind it is: numpy's are not torch's, nor Gymnasium's.

    Raises:
        TypeError: it is no integer.
        ValueError: it is negative.
    """
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise TypeError(f"A seed is an integer from 0 on, got {seed!r} of type {type(seed).__name__}.") from error
    if number < 0:
        raise ValueError(f"A seed is an integer from 0 on, got {number}.")
    return number


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit constant."""
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own is arithmetic on int64."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def mix(keys: Tensor | int, counters: Tensor | int) -> Tensor:
    """Derive new keys from keys and counters; a chain of calls makes a key of several counters.

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
    """A key `(n,)` of each sequence of `(n, length)` int64: the same sequence and seed, the same key."""
    keys = torch.full((len(tokens),), seed, dtype=torch.int64, device=tokens.device)
    for column in tokens.T:
        keys = mix(keys, column)
    return keys


def uniform(keys: Tensor) -> Tensor:
    """One float32 in [0, 1) for each int64 key, from its top 24 bits."""
    return _shift_right(keys, 40).to(torch.float32) * 2.0**-24
