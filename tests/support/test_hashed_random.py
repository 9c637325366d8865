"""The counter-based generator: known answers, and numbers that look independent for neighbouring counters."""

import pytest
import torch

from seqgan_env.support.hashed_random import mix, uniform

# The first outputs of SplitMix64 from seed 0, by its authors' own program.
SPLITMIX64 = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC)


@pytest.mark.parametrize(("counter", "expected"), list(enumerate(SPLITMIX64)))
def test_mix_is_splitmix64(counter: int, expected: int) -> None:
    assert int(mix(0, counter)) % 2**64 == expected


def test_mix_broadcasts_keys_against_counters() -> None:
    keys = mix(torch.arange(3).unsqueeze(1), torch.arange(4))
    assert keys.shape == (3, 4)
    assert keys.dtype == torch.int64
    assert all(keys[row, column] == mix(row, column) for row in range(3) for column in range(4))


def test_mix_gives_distinct_keys_for_distinct_keys_and_counters() -> None:
    keys = mix(torch.arange(200).unsqueeze(1), torch.arange(200))
    assert len(keys.unique()) == keys.numel()


@pytest.mark.parametrize(("key", "expected"), [(0, 0.0), (-1, 1 - 2**-24), (1 << 40, 2**-24), ((1 << 40) - 1, 0.0)])
def test_uniform_takes_the_top_24_bits(key: int, expected: float) -> None:
    number = uniform(torch.tensor([key]))
    assert number.dtype == torch.float32
    assert number.item() == expected


def test_numbers_of_neighbouring_counters_are_uniform_and_uncorrelated() -> None:
    numbers = uniform(mix(torch.arange(200).unsqueeze(1), torch.arange(500))).double()
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    chi_square = ((counts - numbers.numel() / 20) ** 2 / (numbers.numel() / 20)).sum()
    assert chi_square < 45  # 19 degrees of freedom: exceeded once in a thousand
    assert abs(torch.corrcoef(torch.stack([numbers[:, :-1].flatten(), numbers[:, 1:].flatten()]))[0, 1]) < 0.015
    assert abs(torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1]) < 0.015
