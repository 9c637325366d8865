"""Compare runs of the preset `paper` with the authors' released log: `python -m benchmarks.published_curve RUN [RUN ...]`.

Runs may be unfinished. Those that differ only in their seeds become one curve: their mean, in a band from the lowest to the
highest. The log has only NLL_oracle; for the runs NLL_test is drawn, too, because NLL_oracle falls whenever a policy sharpens,
and what the discriminator knows of sequences that it was not trained on. For a control, use the same command with
`--adversarial.reward-model constant` and `--start-from` the first run's `generator_likelihood.safetensors`; docs/results.md
has all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from textwrap import fill

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.experiment.config import TrainConfig, config_from_json
from agents.experiment.presets import PRESETS
from benchmarks.finished_runs import spread
from benchmarks.run_folders import read_oracle_evaluations
from seqgan_env.evaluation.plot_styles import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION
from seqgan_env.evaluation.run_logs import CONFIG, PROGRESS
from seqgan_env.rendering import spell_what_cannot_be_encoded

RELEASED_START = 9.07058
"""NLL_oracle of the released run after its 116th epoch of maximum likelihood, its last measurement there."""
# github.com/LantaoYu/SeqGAN, save/experiment-log.txt: "adversarial training", epochs 0, 5, ..., 150.
RELEASED = (
    *(9.08457, 9.04511, 9.03079, 8.99239, 8.96401, 8.93864, 8.91642, 8.87761, 8.88582, 8.85920, 8.83388, 8.81342, 8.80247),
    *(8.77778, 8.75670, 8.73002, 8.72488, 8.72233, 8.71473, 8.71163, 8.70113, 8.69879, 8.69208, 8.69291, 8.68371, 8.68900),
    *(8.68989, 8.68269, 8.68647, 8.68066, 8.68320),
)
"""NLL_oracle of the released run, nats per token, after each of `RELEASED_UPDATES`."""
RELEASED_UPDATES = tuple(range(1, 152, 5))
"""One of its epochs is an update and what follows; the measurement of epoch 0 comes after the first update."""
MEASURES = {
    "nll_oracle": ("NLL_oracle", "NLL_oracle of samples (quality: lower is better)", "nats per token"),
    "nll_test": ("NLL_test", "NLL_test (coverage: lower is better)", "nats per token"),
    "discriminator_accuracy": ("accuracy", "discriminator: held-out accuracy", "share of sequences"),
    "discriminator_loss": ("cross-entropy", "discriminator: held-out cross-entropy", "nats"),
}
"""What is shown, by its name in the log: its column, its panel's title and unit."""
_NOTHING_KNOWN = {"discriminator_accuracy": 0.5, "discriminator_loss": float(np.log(2))}
_REWARD_MODELS = {"discriminator": "SeqGAN", "constant": "constant reward", "random": "random reward", "bleu": "PG-BLEU"}
_COLOURS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY_BLUE)


@dataclass(frozen=True)
class Config:
    """Draw and print the curves."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs of `train.py paper`, finished or not."""
    every: int = 10
    """Updates between two rows of the table."""
    out: Path = Path("benchmarks/results/published_curve.png")
    """The picture's file."""


@dataclass(frozen=True)
class Run:
    """The measurements of a run."""

    name: str
    """Its reward, and in what it differs from the preset `paper`; not its seed."""
    points: dict[int, dict[str, float]]
    """Its measurements, by the number of updates before them."""


def main(config: Config) -> None:
    """Read the runs, print the table, draw the picture.

    Raises:
        OSError: a folder is not a run's.
        ValueError: a run has no measurements yet, or has no oracle.
    """
    runs = [read_run(folder) for folder in config.runs]
    print(table(runs, config.every))
    print(f"\nDrawn: {draw(runs, config.out)}")


def read_run(folder: Path) -> Run:
    """A run's curve, with its name."""
    config, _ = config_from_json((folder / CONFIG).read_text(encoding="utf-8"))
    return Run(name_of(config), read_oracle_evaluations(folder / PROGRESS))


def name_of(config: TrainConfig) -> str:
    """The reward of a run, and its settings that are not those of `paper`, as far as they change the curve."""
    ours, paper = _told(config), _told(PRESETS["paper"][0])
    model = config.adversarial.reward_model
    differences = [f"{name} {value}" for name, value in ours.items() if value != paper.get(name, value)]
    return ", ".join([_REWARD_MODELS.get(model, model), *differences])


def _told(config: TrainConfig) -> dict[str, object]:
    adversarial, discriminator = config.adversarial, config.discriminator
    told: dict[str, object] = {
        "loss": adversarial.loss_reduction,
        "learning rate": adversarial.learning_rate,
        "batches of": adversarial.batch_size,
        "baseline": adversarial.baseline,
    }
    if adversarial.reward_model == "discriminator":
        told |= {
            "passes after an update": f"{adversarial.d_steps * discriminator.epochs / adversarial.g_steps:g}",
            "passes before": adversarial.d_pretrain_steps * discriminator.epochs,
            "discriminator's batches of": discriminator.batch_size,
            "start": discriminator.initial_parameters,
            "rollout lag": adversarial.rollout_lag,
        }
    return told


def of_same_name(runs: Iterable[Run]) -> dict[str, dict[int, list[dict[str, float]]]]:
    """For each name the points that all its runs have: by the number of updates, each run's measurements."""
    named: dict[str, list[Run]] = {}
    for run in runs:
        named.setdefault(run.name, []).append(run)
    return {
        name: {updates: [run.points[updates] for run in same] for updates in same[0].points if _all_have(same, updates)}
        for name, same in named.items()
    }


def _all_have(runs: Sequence[Run], updates: int) -> bool:
    return all(updates in run.points for run in runs)


def released_at(updates: float) -> float:
    """NLL_oracle of the released run, interpolated between its measurements; NaN after the last."""
    return float(np.interp(updates, (0, *RELEASED_UPDATES), (RELEASED_START, *RELEASED), right=np.nan))


def table(runs: Sequence[Run], every: int) -> str:
    """A row every so many updates; several runs of one name give a mean ± standard deviation."""
    curves = of_same_name(runs)
    shown = {
        name: [measure for measure in MEASURES if any(measure in point for points in curve.values() for point in points)]
        for name, curve in curves.items()
    }
    heads = [
        f"{name}: {MEASURES[measure][0]}" if measure == "nll_oracle" else MEASURES[measure][0]
        for name, measures in shown.items()
        for measure in measures
    ]
    lines = ["| " + " | ".join(["updates", "released log: NLL_oracle", *heads]) + " |", "|---" * (2 + len(heads)) + "|"]
    for updates in sorted({count for curve in curves.values() for count in curve if count % every == 0}):
        cells = [f"{released_at(updates):.3f}".replace("nan", "–")]
        for name, measures in shown.items():
            cells += [_cell(curves[name].get(updates, []), measure) for measure in measures]
        lines.append(f"| {updates} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(points: Sequence[dict[str, float]], measure: str) -> str:
    values = [point[measure] for point in points if measure in point]
    return "–" if not values else f"{values[0]:.3f}" if len(points) == 1 else spread(values)


def draw(runs: Sequence[Run], path: Path) -> Path:
    """Draw NLL_oracle, with the released run, NLL_test, and the discriminator's accuracy and loss on held-out sequences."""
    figure = Figure(figsize=(10, 7.6), layout="constrained")
    for axis, (measure, (_, title, unit)) in zip(figure.subplots(2, 2).flat, MEASURES.items(), strict=True):
        if measure == "nll_oracle":
            released = (RELEASED_START, *RELEASED)
            axis.plot((0, *RELEASED_UPDATES), released, "--", color="0.3", label="the authors' released log")
        if measure in _NOTHING_KNOWN:
            dots = (0, (1, 3))
            axis.axhline(_NOTHING_KNOWN[measure], color="0.4", linewidth=1, linestyle=dots, label="it tells nothing apart")
        for number, (name, curve) in enumerate(of_same_name(runs).items()):
            _draw_curve(axis, name, curve, measure, number)
        axis.set(title=title, ylabel=unit, xlabel="updates")
        axis.grid(alpha=0.25)
        if measure in ("nll_oracle", "discriminator_accuracy"):
            axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw_curve(axis: Axes, name: str, curve: dict[int, list[dict[str, float]]], measure: str, number: int) -> None:
    measured = {updates: [point[measure] for point in points] for updates, points in curve.items() if measure in points[0]}
    if not measured:
        return
    updates, values, colour = list(measured), list(measured.values()), _COLOURS[number % len(_COLOURS)]
    n_runs = len(values[0])
    label = fill(name if n_runs == 1 else f"{name} ({n_runs} seeds)", 50)
    axis.plot(updates, [mean(one) for one in values], marker=".", color=colour, label=label)
    if n_runs > 1:
        axis.fill_between(updates, [min(one) for one in values], [max(one) for one in values], color=colour, alpha=0.2)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
