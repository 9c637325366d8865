"""Tables and pictures of the protocol's runs: what can be read off temperature curves, and how curves differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from seqgan_env.metrics.intervals import interval_of

LEVELS = (8.74, 8.0, 7.04, 6.68)
"""NLL_oracle values at which to compare coverage: the paper's SeqGAN, and levels of Caccia et al. (2020)."""

Sweep = list[tuple[float, float, float]]
"""Inverse temperature, NLL_oracle and NLL_test, nats per token; sorted by the first."""


@dataclass(frozen=True)
class Result:
    """One finished row with one seed."""

    row: str
    seed: int
    sweep: Sweep
    accuracy: float = math.nan
    """The discriminator's accuracy at the end, on held-out real against new generated sequences; NaN without one."""
    loss: float = math.nan
    """Its cross-entropy there, in nats; log 2 is chance."""
    seconds: float = math.nan
    """Training time on one thread, without the start's; NaN if nothing was trained."""
    n_samples: int = 10_000
    """Sequences per temperature; runs with another number are not shown together."""


def curve(sweep: Sweep, points_between: int = 50) -> npt.NDArray[np.float64]:
    """NLL_oracle and NLL_test `(n, 2)`, also between the temperatures, as smooth functions of the temperature.

    By cubic Hermite interpolation. Straight lines between points would hide that near its lowest NLL_test a curve gains
    NLL_oracle at almost no cost.
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
    """The curve's lowest NLL_test at which NLL_oracle is no higher; NaN if the curve does not reach it."""
    return min((test for oracle, test in curve(sweep).tolist() if oracle <= nll_oracle), default=math.nan)


def nll_oracle_at(sweep: Sweep, nll_test: float) -> float:
    """The curve's lowest NLL_oracle at which NLL_test is no higher; NaN if the curve does not reach it."""
    return min((oracle for oracle, test in curve(sweep).tolist() if test <= nll_test), default=math.nan)


def at_own_temperature(sweep: Sweep) -> tuple[float, float]:
    """NLL_oracle and NLL_test at temperature 1."""
    return next((oracle, test) for alpha, oracle, test in sweep if alpha == 1.0)


def interval(values: Sequence[float], signed: bool = False, digits: int = 3) -> str:
    """Mean ± half its 95% interval by Student's t."""
    if not values or not all(map(math.isfinite, values)):
        return "–"
    return f"{interval_of(values):{'+' if signed else ''}.{digits}f}".replace("-", "−")


def tables(results: Sequence[Result], order: Sequence[str]) -> str:
    """The rows' curves as numbers, and each row's gain over its own start, paired by seed."""
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
    """The effect of one changed setting on the curve, one row per setting; rows without their start are left out.

    Names leave out the first row's start, which most rows share.
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
    """How much lower (negative) NLL_oracle is than every control's, at equal NLL_test.

    The level is the NLL_test of the curve or of the first control at temperature 1, whichever is higher. All may use any
    temperature up to that level, so a colder generator gains nothing.
    """
    level = max(at_own_temperature(sweep)[1], at_own_temperature(controls[0])[1])
    others = [nll_oracle_at(control, level) for control in controls]
    return nll_oracle_at(sweep, level) - min(other for other in others if math.isfinite(other))


def against_controls(results: Sequence[Result], row: str, controls: Mapping[str, str]) -> str:
    """A row compared with rewards that know nothing, paired by seed. The control's start counts for the control, too."""
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
    """Quality against coverage, one line per row: means over seeds at each temperature."""
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
    """NLL_oracle at equal NLL_test minus its start's: a dot per row and seed, and a line at the reference's mean."""
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
