"""The picture of a comparison: learning curves and temperature curves on top of each other, with 95% intervals."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqgan_env.evaluation.comparison import MEASURES, Comparison
from seqgan_env.evaluation.plot_styles import ORANGE, SKY_BLUE, STYLES
from seqgan_env.metrics.intervals import Interval

_STYLES = (*STYLES, (ORANGE, "-"), (SKY_BLUE, "--"))
_CURVES = ("nll_oracle", "nll_test", "bleu_4", "self_bleu_4")


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw each group's mean over its seeds, in a band of its 95% interval, as PNG.

    The first row has the measures themselves, and the temperature curves if all runs have them; the second row the differences
    from the first group in pairs of the same seed, if there are pairs.
    """
    names = [name for name in _CURVES if name in comparison.measures]
    paired = any(comparison.pairs(group) for group in comparison.groups)
    swept = comparison.no_sweeps is None
    n_columns = len(names) + swept
    figure = Figure(figsize=(4.6 * n_columns, 3.6 * (1 + paired)), layout="constrained")
    rows = figure.subplots(1 + paired, n_columns, squeeze=False)
    for axis, name in zip(rows[0], names, strict=False):
        for group, (colour, line) in zip(comparison.groups, _repeated(len(comparison.groups)), strict=True):
            _draw(axis, comparison.curve(group, name), colour, line, f"{_plain(group.label)} ({_seeds(len(group.runs))})")
        _describe(axis, name, "{}")
    if swept:
        _draw_sweeps(rows[0][-1], comparison)
    if paired:
        for axis, name in zip(rows[1], names, strict=False):
            axis.axhline(0, color="0.4", linewidth=1, linestyle=(0, (1, 3)))
            for group, (colour, line) in zip(comparison.groups, _repeated(len(comparison.groups)), strict=True):
                label = f"{_plain(group.label)} ({_seeds(len(comparison.pairs(group)))} in pairs)"
                _draw(axis, comparison.difference_curve(group, name), colour, line, label)
            _describe(axis, name, "{}: difference from the first")
        if swept:
            rows[1][-1].axis("off")
    for row in rows:
        row[0].legend(frameon=False, fontsize="small")
    figure.suptitle("Mean over seeds, and its 95% interval (Student's t)")
    figure.savefig(path, dpi=110)


def _repeated(n: int) -> list[tuple[str, str]]:
    return [_STYLES[number % len(_STYLES)] for number in range(n)]


def _draw(axis: Axes, curve: Mapping[int, Interval], colour: str, line: str, label: str) -> None:
    if not curve:
        return
    axis.plot([*curve], [point.mean for point in curve.values()], line, color=colour, marker=".", label=label)
    if all(point.half_width is not None for point in curve.values()):
        widths = [point.half_width or 0.0 for point in curve.values()]
        low = [point.mean - width for point, width in zip(curve.values(), widths, strict=True)]
        high = [point.mean + width for point, width in zip(curve.values(), widths, strict=True)]
        axis.fill_between([*curve], low, high, color=colour, alpha=0.15, linewidth=0)


def _describe(axis: Axes, name: str, title: str) -> None:
    label, better = MEASURES[name]
    axis.set(xlabel="adversarial updates", ylabel=label, title=title.format(label.partition(",")[0]) + f"\n(better: {better})")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)


def _draw_sweeps(axis: Axes, comparison: Comparison) -> None:
    x, y = ("nll_test", "nll_oracle") if "nll_oracle" in comparison.measures else ("self_bleu_4", "bleu_4")
    for group, (colour, line) in zip(comparison.groups, _repeated(len(comparison.groups)), strict=True):
        points = comparison.sweep(group)
        axis.errorbar(
            [point[x].mean for point in points],
            [point[y].mean for point in points],
            xerr=[point[x].half_width or 0.0 for point in points],
            yerr=[point[y].half_width or 0.0 for point in points],
            fmt=line,
            color=colour,
            marker=".",
            elinewidth=0.8,
        )
        for point in points:
            if point["inverse_temperature"].mean == 1:
                axis.plot(point[x].mean, point[y].mean, "o", color=colour, markersize=9, fillstyle="none")
    (x_label, _), (y_label, better) = MEASURES[x], MEASURES[y]
    place = "lower" if better == "lower" else "upper"
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.set_title(f"Over temperatures, at the end; the circle is 1\n({place} left is better)")
    axis.grid(alpha=0.25)


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _plain(text: str) -> str:
    """A label as it stands, in short lines: matplotlib takes what is between dollar signs for a formula."""
    return fill(text.replace("$", r"\$"), 44)
