"""Edit distances against the textbook's table, and nearest neighbours by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.metrics.nearest_neighbours import NeighbourSearch

PAD = 5


def pad(sequences: Sequence[Sequence[int]], width: int | None = None, pad_id: int = PAD) -> np.ndarray:
    rows = np.full((len(sequences), width or max(map(len, sequences))), pad_id, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return rows


def table_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Wagner and Fischer (1974), cell by cell."""
    before = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
        before = row
    return before[-1]


def spelled(word: str) -> np.ndarray:
    return np.array([ord(letter) - ord("a") for letter in word], dtype=np.int64)


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [
        ("kitten", "sitting", 3),
        ("intention", "execution", 5),
        ("abc", "abc", 0),
        ("abc", "xyz", 3),
        ("", "abc", 3),
        ("ab", "", 2),
    ],
)
def test_known_distances(a: str, b: str, edits: int) -> None:
    search = NeighbourSearch(pad([spelled(b).tolist()], width=9, pad_id=26), 26)
    assert search.edit_distances(spelled(a)).tolist() == [edits]


rows = st.lists(st.lists(st.integers(0, PAD - 1), max_size=9), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(training=rows, sequence=st.lists(st.integers(0, PAD - 1), max_size=9))
def test_distances_are_the_tables(training: list[list[int]], sequence: list[int]) -> None:
    found = NeighbourSearch(pad(training, 9), PAD).edit_distances(np.array(sequence, dtype=np.int64))
    assert found.tolist() == [table_distance(sequence, other) for other in training]


@pytest.mark.parametrize("length", [63, 64, 65, 128, 130, 200])
def test_sequences_of_several_machine_words(length: int) -> None:
    rng = np.random.default_rng(length)
    sequence = rng.integers(0, PAD, length)
    edited = [np.delete(sequence, [3, length // 2]), np.insert(sequence, 60, 1), rng.integers(0, PAD, length), sequence]
    training = [other.tolist() for other in edited]
    found = NeighbourSearch(pad(training, length + 1), PAD).edit_distances(sequence)
    assert found.tolist() == [table_distance(sequence.tolist(), other) for other in training]
    assert found[3] == 0 < found[0] <= 2 < found[2]


def test_nearest_neighbours_by_hand() -> None:
    training = pad([[0, 1, 2, 3], [4, 4], [0, 1, 2]])
    neighbours = NeighbourSearch(training, PAD).nearest(pad([[0, 1, 2, 3], [4], [0, 1, 1], []], width=6), PAD)
    assert neighbours.indices[:3].tolist() == [0, 1, 2]
    assert neighbours.edits.tolist() == [0, 1, 1, 2]
    assert neighbours.shares.tolist() == [0, 1 / 2, 1 / 3, 1]


def test_words_that_the_training_data_lacks_match_nothing() -> None:
    sequences = np.array([[0, 7, 2, 9]])  # ids up to 8, 9 pads
    neighbours = NeighbourSearch(pad([[0, 1, 2], [3]]), PAD).nearest(sequences, 9)
    assert (neighbours.indices[0], neighbours.edits[0]) == (0, 1)


def test_without_training_sequences_there_is_no_neighbour() -> None:
    with pytest.raises(ValueError, match="at least one training sequence, got none"):
        NeighbourSearch(np.empty((0, 3), dtype=np.int64), PAD)
