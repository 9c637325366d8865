"""The protocol's runs as tables and pictures: what temperature curves have in common, and what is between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

LEVELS = (8.74, 8.0, 7.04, 6.68)
"""NLL_oracle at which coverage is compared: the paper's SeqGAN, and levels of Caccia et al. (2020)."""

_T_95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
)
"""Student's t, two-sided 95%, for 1, 2, ... degrees of freedom; more count as the last of them."""

Sweep = list[tuple[float, float, float]]
"""Inverse temperature, NLL_oracle and NLL_test, nats per token; in rising order of the first."""


@dataclass(frozen=True)
class Result:
    """A finished row of one seed."""

    row: str
    seed: int
    sweep: Sweep
    accuracy: float = math.nan
    """Of the discriminator, at the end, on held-out real against newly generated sequences; NaN without one."""
    loss: float = math.nan
    """Its cross-entropy there, nats; log 2 is chance."""
    seconds: float = math.nan
    """Of training on one thread, the start's own aside; NaN without any."""
    n_samples: int = 10_000
    """Sequences at each temperature; runs of another number are not shown beside these."""


def curve(sweep: Sweep, points_between: int = 50) -> npt.NDArray[np.float64]:
    """NLL_oracle and NLL_test `(n, 2)` between the temperatures too, each a smooth function of the temperature.

    By cubic Hermite interpolation. Straight lines in the plane of the two would hide that near its lowest NLL_test a curve
    gains NLL_oracle for nearly nothing.
    """
    alpha, values = np.array([point[0] for point in sweep]), np.array([point[1:] for point in sweep])
    slopes = np.gradient(values, alpha, axis=0, edge_order=2)
    t = np.linspace(0, 1, points_between, endpoint=False)[:, None]
    pieces = []
    for k, width in enumerate(np.diff(alpha)):
        left, right = values[k], values[k + 1]
        change = (3 * t**2 - 2 * t**3) * (right - left)
        pieces.append(left + change + width * ((t**3 - 2 * t**2 + t) * slopes[k] + (t**3 - t**2) * slopes[k + 1]))
    return np.concatenate([*pieces, values[-1:]])


def best_sum(sweep: Sweep) -> float:
    """The lowest NLL_oracle + NLL_test over temperatures."""
    return float(curve(sweep).sum(axis=1).min())


def nll_test_at(sweep: Sweep, nll_oracle: float) -> float:
    """The lowest NLL_test on the curve where NLL_oracle is no higher; NaN if the curve does not reach it."""
    return min((test for oracle, test in curve(sweep).tolist() if oracle <= nll_oracle), default=math.nan)


def nll_oracle_at(sweep: Sweep, nll_test: float) -> float:
    """The lowest NLL_oracle on the curve where NLL_test is no higher; NaN if the curve does not reach it."""
    return min((oracle for oracle, test in curve(sweep).tolist() if test <= nll_test), default=math.nan)


def at_own_temperature(sweep: Sweep) -> tuple[float, float]:
    """NLL_oracle and NLL_test without any change of temperature."""
    return next((oracle, test) for alpha, oracle, test in sweep if alpha == 1.0)


def interval(values: Sequence[float], signed: bool = False, digits: int = 3) -> str:
    """Mean and half the width of its 95% interval by Student's t."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < len(values) or not finite:
        return "–"
    text = f"{mean(finite):{'+' if signed else ''}.{digits}f}".replace("-", "−")
    return text if len(finite) < 2 else f"{text} ± {half_width(finite):.{digits}f}"


def half_width(values: Sequence[float]) -> float:
    """Half the 95% interval of a mean; at least two values."""
    n = len(values)
    return _T_95[min(n - 1, len(_T_95)) - 1] * stdev(values) / math.sqrt(n)


def tables(results: Sequence[Result], order: Sequence[str]) -> str:
    """The rows' curves in numbers, and what each row gains over its own start, paired by seed."""
    lines = [
        "| row | NLL_oracle, α = 1 | NLL_test, α = 1 | best sum | "
        + " | ".join(f"NLL_test at {x}" for x in LEVELS)
        + " | seeds |",
        "|---|---|---|---|" + "---|" * len(LEVELS) + "---|",
    ]
    for name in order:
        runs = [result for result in results if result.row == name]
        if runs:
            own = [at_own_temperature(run.sweep) for run in runs]
            cells = [interval([oracle for oracle, _ in own]), interval([test for _, test in own])]
            cells.append(interval([best_sum(run.sweep) for run in runs]))
            cells += [interval([nll_test_at(run.sweep, level) for run in runs]) for level in LEVELS]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(runs)} |")
    lines += [
        "",
        "| row | best sum, less its start's | NLL_oracle at equal NLL_test, less its start's "
        "| discriminator on held-out: accuracy | cross-entropy | training, minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name in order:
        start = name.split(";")[0]
        starts = {result.seed: result.sweep for result in results if result.row == start}
        runs = [result for result in results if result.row == name and result.seed in starts]
        if name != start and runs:
            cells = [
                interval([best_sum(run.sweep) - best_sum(starts[run.seed]) for run in runs], signed=True),
                interval([gain_at_equal_coverage(run.sweep, starts[run.seed]) for run in runs], signed=True),
                interval([run.accuracy for run in runs]),
                interval([run.loss for run in runs]),
                interval([run.seconds / 60 for run in runs], digits=1),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def levers_table(results: Sequence[Result], order: Sequence[str]) -> str:
    """What one changed setting does to the curve, in a line a row; rows of which the start is not there are left out.

    The start of the first row, which most have, is left out of the names.
    """
    lines = [
        "| row | NLL_oracle, α = 1 | NLL_test, α = 1 | best sum | less its start's "
        "| NLL_oracle at equal NLL_test, less its start's | accuracy | cross-entropy | minutes | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_run = {(result.row, result.seed): result for result in results}
    for name in order:
        start, short = name.split("; ")[0], name.removeprefix(order[0].split("; ")[0] + "; ")
        pairs = [(run, by_run[start, run.seed]) for run in results if run.row == name and (start, run.seed) in by_run]
        if not pairs:
            continue
        own = [at_own_temperature(run.sweep) for run, _ in pairs]
        cells = [
            interval([oracle for oracle, _ in own]),
            interval([test for _, test in own]),
            interval([best_sum(run.sweep) for run, _ in pairs]),
            interval([best_sum(run.sweep) - best_sum(begun.sweep) for run, begun in pairs], signed=True),
            interval([gain_at_equal_coverage(run.sweep, begun.sweep) for run, begun in pairs], signed=True),
            interval([run.accuracy for run, _ in pairs]),
            interval([run.loss for run, _ in pairs]),
            interval([run.seconds / 60 for run, _ in pairs], digits=1),
        ]
        lines.append(f"| {short} | " + " | ".join(cells) + f" | {len(pairs)} |")
    return "\n".join(lines)


def gain_at_equal_coverage(sweep: Sweep, *controls: Sweep) -> float:
    """How much lower (negative) NLL_oracle is than any control's, at equal NLL_test.

    The level is the NLL_test that the curve or the first control has at its own temperature, whichever is higher. The
    temperatures of all are free up to there: a colder generator gains nothing by it.
    """
    level = max(at_own_temperature(sweep)[1], at_own_temperature(controls[0])[1])
    others = [nll_oracle_at(control, level) for control in controls]
    return nll_oracle_at(sweep, level) - min(other for other in others if math.isfinite(other))


def against_controls(results: Sequence[Result], row: str, controls: Mapping[str, str]) -> str:
    """A row against the same with a reward that knows nothing, paired by seed. The control's start counts for it, too."""
    by_run = {(result.row, result.seed): result.sweep for result in results}
    lines = ["", "| reward in its place | NLL_oracle at equal NLL_test, discriminator less control | seeds |", "|---|---|---|"]
    start = row.split(";")[0]
    for name, control in controls.items():
        seeds = [seed for (of, seed) in by_run if of == row and {(control, seed), (start, seed)} <= by_run.keys()]
        gains = [gain_at_equal_coverage(*(by_run[which, seed] for which in (row, start, control))) for seed in seeds]
        if gains:
            lines.append(f"| {name} | {interval(gains, signed=True)} | {len(gains)} |")
    return "\n".join(lines)


def draw(results: Sequence[Result], rows: Sequence[str], path: Path) -> Path:
    """Quality against coverage, a line for each row: means over seeds at each temperature."""
    figure, axis = plt.subplots(figsize=(9, 8), layout="constrained")
    for number, name in enumerate(rows):
        sweeps = [result.sweep for result in results if result.row == name]
        if not sweeps:
            continue
        points = np.array(sweeps).mean(axis=0)
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        (line,) = axis.plot(points[:, 1], points[:, 2], style, marker=".", label=name)
        own = points[points[:, 0] == 1.0]
        axis.plot(own[:, 1], own[:, 2], "o", color=line.get_color())
    axis.set_xlabel("NLL_oracle of samples, nats per token (quality: left is better)")
    axis.set_ylabel("NLL_test, nats per token (coverage: down is better)")
    axis.set_xlim(5, 10.5)
    axis.set_ylim(7.2, 10)
    axis.set_title("Temperature sweeps; large dots: no change of temperature")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_gains(results: Sequence[Result], rows: Sequence[str], reference: str, path: Path) -> Path:
    """NLL_oracle at equal NLL_test less its start's, a dot for each row and seed, and a line for the reference's mean."""
    starts = {(result.row, result.seed): result.sweep for result in results}
    gains: dict[str, list[float]] = {}
    for name in rows:
        runs = [result for result in results if result.row == name and (name.split(";")[0], result.seed) in starts]
        if runs:
            gains[name] = [gain_at_equal_coverage(run.sweep, starts[name.split(";")[0], run.seed]) for run in runs]
    figure, axis = plt.subplots(figsize=(9, 1 + 0.25 * len(gains)), layout="constrained")
    axis.axvline(0, color="grey", linewidth=1)
    for height, (name, values) in enumerate(gains.items()):
        if name == reference:
            axis.axvline(mean(values), color="C1", linewidth=1, linestyle=":")
        axis.plot(values, [height] * len(values), "o", color="C1" if name == reference else "C0")
    axis.set_yticks(range(len(gains)), list(gains), fontsize=8)
    axis.set_ylim(len(gains) - 0.5, -0.5)
    axis.set_xlabel("NLL_oracle at equal NLL_test, less its start's (left is better)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
