"""An episode's state as text."""

import numpy as np
import numpy.typing as npt

from seqgan_env.corpus import Vocabulary

RENDER_MODES = ["ansi", "human"]


def draw_step(
    tokens: npt.NDArray[np.int64], length: int, reward: float, sequence_length: int, vocabulary: Vocabulary | None
) -> str:
    """One line: how far, the prefix before the last token, that token, and what it earned."""
    written = [str(token) if vocabulary is None else vocabulary.tokens[token] for token in tokens[:length]]
    if not written:
        return f"[ 0/{sequence_length}] (empty prefix)"
    joiner = " " if vocabulary is None else vocabulary.joiner
    prefix = joiner.join(written[:-1])
    return f"[{length:>2}/{sequence_length}] {prefix} » {written[-1]}  reward {reward:+.4f}"
