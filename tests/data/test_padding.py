import numpy as np
import torch

from seqgan_env.data.padding import lengths_of, played_positions

PAD = 5
SEQUENCES = [[1, 2, 3], [0, PAD, PAD], [PAD, PAD, PAD], [4, 0, PAD]]
LENGTHS = [3, 1, 0, 2]


def test_lengths_of_a_tensor_and_of_an_array() -> None:
    lengths, array = lengths_of(torch.tensor(SEQUENCES), PAD), lengths_of(np.array(SEQUENCES), PAD)
    assert isinstance(lengths, torch.Tensor)
    assert lengths.dtype == torch.int64
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.int64
    assert lengths.tolist() == array.tolist() == LENGTHS


def test_lengths_along_the_last_axis_alone() -> None:
    assert lengths_of(torch.tensor([SEQUENCES, SEQUENCES[::-1]]), PAD).tolist() == [LENGTHS, LENGTHS[::-1]]


def test_played_positions_are_those_before_padding() -> None:
    tokens = torch.tensor(SEQUENCES)
    assert torch.equal(played_positions(lengths_of(tokens, PAD), 3), tokens != PAD)
