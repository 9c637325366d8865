"""Files of an oracle's parameters, as they are published."""

from pathlib import Path
from typing import Any

import numpy as np

from seqgan_env.models.oracle import PARAMETER_NAMES

VOCAB, EMBEDDING, HIDDEN = 5, 3, 4
PARTS = {"W": (EMBEDDING, HIDDEN), "U": (HIDDEN, HIDDEN), "b": (HIDDEN,)}
SHAPES = {name: PARTS[name[-1]] for name in PARAMETER_NAMES[1:-2]} | {
    "embedding": (VOCAB, EMBEDDING),
    "logits_W": (HIDDEN, VOCAB),
    "logits_b": (VOCAB,),
}
Arrays = dict[str, np.ndarray]


def parameters(**changes: Any) -> Arrays:
    """Random parameters of a small oracle, in the published order."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in PARAMETER_NAMES} | changes


def write_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
