"""Sentences of token ids, and how they are drawn at random."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

Sentence = Sequence[int]
PAD = 9


def pad(sentences: Sequence[Sentence], width: int | None = None) -> np.ndarray:
    """Sentences as rows `(n, width)`, padded with `PAD`."""
    rows = np.full((len(sentences), width or max(map(len, sentences))), PAD, dtype=np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return rows


sentences = st.lists(st.lists(st.integers(0, 3), max_size=7), min_size=2, max_size=6)
