"""Nearest training sequences by edit distance, which reveal memorised sequences.

The distances to all training sequences are computed together, one column of the dynamic programme at a time, with its cells
as bits of machine words (Myers, 1999; Hyyrö, 2003). This is exact, and about a hundred times faster than a table per pair.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqgan_env.data.padding import Tokens, lengths_of

Words = npt.NDArray[np.uint64]

_BITS = 64
_ONE = np.uint64(1)
_TOP = np.uint64(_BITS - 1)
_ALL = np.uint64(2**_BITS - 1)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training sequence of each of `n` sequences."""

    indices: Tokens
    """`(n,)`: its row in the training data; if several are equally near, always the same one."""
    edits: Tokens
    """`(n,)`: the number of tokens to insert, remove or replace."""
    lengths: Tokens
    """`(n,)`: the number of tokens in the sequence itself."""
    shares: npt.NDArray[np.float64]
    """`(n,)`: the edits divided by the length of the longer sequence; 0 is a copy, 1 has nothing in common."""


class NeighbourSearch:
    """Finds nearest training sequences by edit distance.

    Args:
        training: `(m, length)` int64, padded with `pad` at the end.
        pad: the pad id; tokens lie in 0 ... `pad` - 1.

    Raises:
        ValueError: there are no training sequences.
    """

    def __init__(self, training: Tokens, pad: int) -> None:
        if not len(training):
            raise ValueError("Nearest neighbours need at least one training sequence, got none.")
        lengths = lengths_of(training, pad)
        self._order = np.argsort(-lengths, kind="stable")  # longest first: the sequences that reach a column are a prefix
        self._lengths = lengths[self._order]
        self._columns = np.ascontiguousarray(training[self._order].T)  # (length, m)
        self._reaching = [int((lengths > column).sum()) for column in range(lengths.max())]
        self._pad = pad

    def edit_distances(self, sequence: Tokens) -> Tokens:
        """Edit distances `(m,)` from a sequence `(k,)` without padding to each training sequence, in their order."""
        distances = np.empty(len(self._order), dtype=np.int64)
        distances[self._order] = self._distances(sequence)
        return distances

    def nearest(self, sequences: Tokens, pad: int) -> Neighbours:
        """The nearest training sequence of each sequence.

        Args:
            sequences: `(n, length)` int64, padded with `pad`; ids outside the training vocabulary match nothing.
            pad: their pad id.
        """
        indices, edits = np.empty((2, len(sequences)), dtype=np.int64)
        lengths = lengths_of(sequences, pad)
        longer = np.empty(len(sequences), dtype=np.int64)
        for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            distances = self._distances(sequence[:length])
            place = int(distances.argmin())
            indices[row], edits[row] = self._order[place], distances[place]
            longer[row] = max(length, self._lengths[place])
        return Neighbours(indices, edits, lengths, edits / np.maximum(1, longer))

    def _distances(self, sequence: Tokens) -> Tokens:
        """Edit distances `(m,)`, longest training sequence first."""
        if not len(sequence):
            return np.array(self._lengths)
        n_words = -(-len(sequence) // _BITS)
        matches = np.zeros((n_words, self._pad + 1), dtype=np.uint64)  # bit i of a token's words: it is at position i
        for i, token in enumerate(sequence.tolist()):
            if 0 <= token < self._pad:
                matches[i // _BITS, token] |= _ONE << np.uint64(i % _BITS)
        last_bit = np.uint64((len(sequence) - 1) % _BITS)
        # Bits of the cells that are one more (up), or one less (down), than the cell above; the first column only rises.
        up = np.full((n_words, len(self._order)), _ALL)
        down = np.zeros_like(up)
        distances = np.full(len(self._order), len(sequence), dtype=np.int64)
        for tokens, n in zip(self._columns, self._reaching, strict=False):
            # The first row rises from column to column; each word passes its last row's change on to the next word.
            change_up, change_down = np.full(n, _ONE), np.zeros(n, dtype=np.uint64)
            for word in range(n_words):
                change_up, change_down = _advance(
                    up[word, :n],
                    down[word, :n],
                    matches[word][tokens[:n]],
                    change_up,
                    change_down,
                    last_bit if word == n_words - 1 else _TOP,
                )
            distances[:n] += change_up.astype(np.int64) - change_down.astype(np.int64)
        return distances


def _advance(
    up: Words, down: Words, matches: Words, change_up: Words, change_down: Words, last_bit: np.uint64
) -> tuple[Words, Words]:
    """Advance one word of cells to the next column, in place (Hyyrö, 2003, figure 6, with several words per column).

    Args:
        up: bits of the cells that are one more than the cell above, `(n,)`.
        down: bits of the cells that are one less.
        matches: bits of the cells that match the column's token.
        change_up: 1 if the cell above the word is one more than in the column before.
        change_down: 1 if it is one less.
        last_bit: the bit whose change to return.

    Returns:
        `change_up` and `change_down` for the cell at `last_bit`.
    """
    vertical = matches | down
    matches = matches | change_down
    diagonal = (((matches & up) + up) ^ up) | matches
    rises = down | ~(diagonal | up)
    falls = up & diagonal
    out_up, out_down = (rises >> last_bit) & _ONE, (falls >> last_bit) & _ONE
    rises = (rises << _ONE) | change_up
    falls = (falls << _ONE) | change_down
    up[:] = falls | ~(vertical | rises)
    down[:] = rises & vertical
    return out_up, out_down
