"""How cost grows with the sequence's length T and the number of completions N: fitted exponents, and a picture.

Counted (see `flops`), sampling grows with T, completions with N·T²; the discriminator's part with about N·T² too, as each of
N·T sequences has about T windows. Windows wider than the sequence are left out, so that the shortest one has fewer filters.
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
"""Seconds of each repeat of a piece, by its name, at a shape."""
_LENGTH: Along = "sequence_length"
_ROLLOUTS: Along = "n_rollouts"
_SYMBOLS = {_LENGTH: "T", _ROLLOUTS: "N"}
_AXES = {_LENGTH: "T, tokens in a sequence", _ROLLOUTS: "N, completions of each prefix"}
_COLOURS = {"sampling": BLUE, "rewards": VERMILION, "generator": GREEN}


@dataclass(frozen=True)
class Sizes:
    """The sizes that are gone through; a smaller batch than the paper's, for the longest sequences cost most."""

    lengths: tuple[int, ...] = (10, 20, 40, 80)
    """Of the sequences, for sampling, rewards and generator step."""
    rollouts: tuple[int, ...] = (4, 16, 64)
    """Completions of each prefix, for rewards."""
    batch_size: int = 16
    """Episodes."""
    n_samples: int = 1000
    """Sequences that are sampled."""
    repeats: int = 3
    """Of which the median counts, so that a first one that warms up does not."""


@dataclass(frozen=True)
class Curve:
    """How the time of one piece grows."""

    piece: str
    along: Along
    sizes: list[int]
    repeats: list[list[float]]
    """Seconds of each repeat, for each size."""

    @property
    def seconds(self) -> list[float]:
        """The median for each size."""
        return [median(times) for times in self.repeats]

    @property
    def exponent(self) -> float:
        """Of the power law that fits best."""
        return fitted_exponent(self.sizes, self.seconds)

    @property
    def law(self) -> str:
        """The power law in words."""
        return f"{self.piece} ~ {_SYMBOLS[self.along]}^{self.exponent:.2f}"

    def as_json(self) -> dict[str, Any]:
        """Everything, medians and exponent included."""
        return dataclasses.asdict(self) | {"seconds": self.seconds, "exponent": self.exponent}


def plan(sizes: Sizes) -> list[tuple[str, Along, tuple[int, ...]]]:
    """What is measured: a piece, along which size, at which sizes.

    Raises:
        ValueError: too few different sizes to fit an exponent to.
    """
    for name in ("lengths", "rollouts"):
        if len(set(getattr(sizes, name))) < 2:
            raise ValueError(f"An exponent needs at least two different {name}, got {getattr(sizes, name)}.")
    along_length = [(piece, _LENGTH, sizes.lengths) for piece in ("sampling", "rewards", "generator")]
    return [*along_length, ("rewards", _ROLLOUTS, sizes.rollouts)]


def grow(shape: Shape, sizes: Sizes, time_of: TimeOf) -> list[Curve]:
    """Time every piece of the plan at every size; all else is as in `shape`."""
    small = dataclasses.replace(shape, batch_size=sizes.batch_size, n_samples=sizes.n_samples)
    return [
        Curve(piece, along, list(values), [time_of(piece, resized(small, along, value)) for value in values])
        for piece, along, values in plan(sizes)
    ]


def resized(shape: Shape, along: Along, value: int) -> Shape:
    """The shape with another length, or another number of completions."""
    if along == "sequence_length":
        return dataclasses.replace(shape, sequence_length=value)
    return dataclasses.replace(shape, n_rollouts=value)


def fitted_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The k of seconds = c · size^k, by least squares between their logarithms."""
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope)


def draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Draw the curves along the length on the left and along the completions on the right, as PNG."""
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
    axis.xaxis.set_minor_locator(NullLocator())  # or it would write 3 x 10^1 between them
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
