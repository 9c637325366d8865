"""How cost grows with the sequence length T and the number of completions N: fitted exponents, and a picture.

By operation counts (see `flops`), sampling grows with T and completions with N·T²; so does the discriminator's part, nearly,
because each of N·T sequences has about T windows. Windows wider than the sequence are left out, so the shortest sequences have
fewer filters.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.flops import Shape
from seqgan_env.evaluation.plot_styles import BLUE, GREEN, VERMILION

Along = Literal["sequence_length", "n_rollouts"]
TimeOf = Callable[[str, Shape], list[float]]
"""Times a piece, by name, at a shape; returns the seconds of each repeat."""
_LENGTH: Along = "sequence_length"
_ROLLOUTS: Along = "n_rollouts"
_SYMBOLS = {_LENGTH: "T", _ROLLOUTS: "N"}
_AXES = {_LENGTH: "T, tokens in a sequence", _ROLLOUTS: "N, completions of each prefix"}
_COLOURS = {"sampling": BLUE, "rewards": VERMILION, "generator": GREEN}


@dataclass(frozen=True)
class Sizes:
    """The sizes to measure; the batch is smaller than the paper's, because the longest sequences are the most expensive."""

    lengths: tuple[int, ...] = (10, 20, 40, 80)
    """Sequence lengths, for sampling, rewards and generator step."""
    rollouts: tuple[int, ...] = (4, 16, 64)
    """Completions of each prefix, for rewards."""
    batch_size: int = 16
    """Episodes per batch."""
    n_samples: int = 1000
    """Sequences to sample."""
    repeats: int = 3
    """Repeats, of which the median counts, so that warming up does not matter."""


@dataclass(frozen=True)
class Curve:
    """How the time of one piece grows with a size."""

    piece: str
    along: Along
    sizes: list[int]
    repeats: list[list[float]]
    """Seconds of each repeat, for each size."""

    @property
    def seconds(self) -> list[float]:
        """The median time at each size."""
        return [median(times) for times in self.repeats]

    @property
    def exponent(self) -> float:
        """The exponent of the best-fitting power law."""
        return fitted_exponent(self.sizes, self.seconds)

    @property
    def law(self) -> str:
        """The power law as text."""
        return f"{self.piece} ~ {_SYMBOLS[self.along]}^{self.exponent:.2f}"

    def as_json(self) -> dict[str, Any]:
        """All fields, with medians and exponent."""
        return dataclasses.asdict(self) | {"seconds": self.seconds, "exponent": self.exponent}


def plan(sizes: Sizes) -> list[tuple[str, Along, tuple[int, ...]]]:
    """The measurements: a piece, the size that varies, and its values.

    Raises:
        ValueError: there are too few different values to fit an exponent.
    """
    for name in ("lengths", "rollouts"):
        if len(set(getattr(sizes, name))) < 2:
            raise ValueError(f"An exponent needs at least two different {name}, got {getattr(sizes, name)}.")
    along_length = [(piece, _LENGTH, sizes.lengths) for piece in ("sampling", "rewards", "generator")]
    return [*along_length, ("rewards", _ROLLOUTS, sizes.rollouts)]


def grow(shape: Shape, sizes: Sizes, time_of: TimeOf) -> list[Curve]:
    """Time every piece of the plan at every size; everything else is as in `shape`."""
    small = dataclasses.replace(shape, batch_size=sizes.batch_size, n_samples=sizes.n_samples)
    return [
        Curve(piece, along, list(values), [time_of(piece, resized(small, along, value)) for value in values])
        for piece, along, values in plan(sizes)
    ]


def resized(shape: Shape, along: Along, value: int) -> Shape:
    """The shape with another length or number of completions."""
    if along == "sequence_length":
        return dataclasses.replace(shape, sequence_length=value)
    return dataclasses.replace(shape, n_rollouts=value)


def fitted_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The k of seconds = c · size^k, by least squares on the logarithms."""
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope)


def draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Draw the curves as PNG: over length on the left, over completions on the right."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    for along, axis in zip((_LENGTH, _ROLLOUTS), figure.subplots(1, 2), strict=True):
        _draw_panel(axis, [curve for curve in curves if curve.along == along])
        axis.set(xlabel=_AXES[along], ylabel="seconds")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_panel(axis: Axes, curves: Sequence[Curve]) -> None:
    axis.set(xscale="log", yscale="log")
    for curve in curves:
        axis.plot(curve.sizes, curve.seconds, marker="o", color=_COLOURS[curve.piece], label=curve.law)
    ticks = sorted({size for curve in curves for size in curve.sizes})
    axis.set_xticks(ticks, [str(size) for size in ticks])
    axis.xaxis.set_minor_locator(NullLocator())  # otherwise it would add labels such as 3 x 10^1
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
