"""Pictures of an evaluation: the temperature sweep, lengths, and distances to the training data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqgan_env.evaluation.plot_styles import STYLES
from seqgan_env.evaluation.run_evaluation import BLEU_ORDERS, Evaluation, Findings
from seqgan_env.metrics.temperature import SweepPoint

_DATA: dict[str, Any] = {"color": "0.35", "linestyle": (0, (1, 1.5)), "linewidth": 1.6}


def draw_evaluation(evaluation: Evaluation, titles: Mapping[str, str], folder: Path) -> list[Path]:
    """Draw all pictures that apply to the run, as PNG.

    Args:
        evaluation: the results.
        titles: the label of each generator.
        folder: where to write them.

    Returns:
        Their paths.
    """
    findings = {titles[name]: found for name, found in evaluation.generators.items()}
    is_oracle = "nll_oracle" in evaluation.real.metrics
    figures = {"sweep.png": (_draw_nll_sweep if is_oracle else _draw_bleu_sweep)(findings, evaluation.real)}
    if "length_distance" in evaluation.real.metrics:
        figures["lengths.png"] = _draw_lengths(findings, evaluation)
    figures["neighbours.png"] = _draw_neighbours(findings, evaluation.real)
    paths = []
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
        paths.append(folder / name)
    return paths


def _draw_nll_sweep(findings: Mapping[str, Findings], real: Findings) -> Figure:
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for (title, found), (colour, line) in zip(findings.items(), STYLES, strict=False):
        points = [point for point in found.sweep if isinstance(point, SweepPoint)]
        xs, ys = [point.nll_test for point in points], [point.nll_oracle for point in points]
        axis.plot(xs, ys, line, color=colour, marker=".", label=title)
        axis.plot(found.metrics["nll_test"], found.metrics["nll_oracle"], "o", color=colour, markersize=9, fillstyle="none")
    axis.axhline(real.metrics["nll_oracle"], **_DATA, label="the oracle's own sequences")
    axis.set(xlabel="NLL_test, nats per token (coverage: lower is better)", ylabel="NLL_oracle (quality: lower is better)")
    axis.set_title("Temperature sweep; the circle is temperature 1")
    _finish(axis)
    return figure


def _draw_bleu_sweep(findings: Mapping[str, Findings], real: Findings) -> Figure:
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    for k, axis in zip(BLEU_ORDERS, figure.subplots(2, 2).flat, strict=True):
        for (title, found), (colour, line) in zip(findings.items(), STYLES, strict=False):
            points = [point for point in found.sweep if not isinstance(point, SweepPoint)]
            place = BLEU_ORDERS.index(k)
            xs, ys = [point.self_bleu[place] for point in points], [point.bleu[place] for point in points]
            axis.plot(xs, ys, line, color=colour, marker=".", label=title)
            at_one = found.metrics[f"self_bleu_{k}"], found.metrics[f"bleu_{k}"]
            axis.plot(*at_one, "o", color=colour, markersize=9, fillstyle="none")
        data = real.metrics[f"self_bleu_{k}"], real.metrics[f"bleu_{k}"]
        axis.plot(*data, "*", color=_DATA["color"], markersize=12, label="training data")
        axis.set(xlabel=f"Self-BLEU-{k} (lower: more diverse)", ylabel=f"BLEU-{k} against held-out (higher: better)")
        _finish(axis)
    figure.suptitle("Temperature sweep; the circle is temperature 1. Upper left is better.")
    return figure


def _draw_lengths(findings: Mapping[str, Findings], evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    xs = np.arange(len(evaluation.training_lengths))
    axis.bar(xs, evaluation.training_lengths, width=1, color="0.85", label="training data")
    axis.plot(xs, evaluation.real.lengths, **_DATA, label="held-out data")
    for (title, found), (colour, line) in zip(findings.items(), STYLES, strict=False):
        axis.plot(xs, found.lengths, line, color=colour, label=title)
    axis.set(xlabel="tokens, without the end token", ylabel="share of sequences", title="Lengths at temperature 1")
    _finish(axis)
    return figure


def _draw_neighbours(findings: Mapping[str, Findings], real: Findings) -> Figure:
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    for (title, found), (colour, line) in zip(findings.items(), STYLES, strict=False):
        _draw_cumulative(axis, found.neighbours.shares, color=colour, linestyle=line, label=title)
    _draw_cumulative(axis, real.neighbours.shares, **_DATA, label="held-out data")
    axis.set(
        xlabel="edits to the nearest training sequence, as a share of its tokens (0: a copy)",
        ylabel="share of sequences that are nearer",
        title="Left of the held-out line: nearer to the training data than new data are",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    _finish(axis)
    return figure


def _draw_cumulative(axis: Axes, values: npt.NDArray[np.float64], **style: Any) -> None:
    axis.step(np.append(np.sort(values), 1), np.append(np.arange(1, len(values) + 1) / len(values), 1), where="post", **style)


def _finish(axis: Axes) -> None:
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
