"""Compare runs of the preset `paper` with the authors' released log: `python -m benchmarks.published_curve RUN [RUN ...]`.

Runs may be unfinished. The log has only NLL_oracle; for the runs NLL_test is drawn, too, because NLL_oracle falls whenever a
policy sharpens. For a control, use the same command with `--adversarial.reward-model constant` and `--start-from` the first
run's `generator_likelihood.safetensors`; docs/results.md has all of them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.run_folders import Curve, read_evaluations
from seqgan_env.evaluation.plot_styles import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION
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
    updates: Sequence[int]
    curve: Curve
    """Measured at each of `updates`."""


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
    """A run's curve, named after its reward.

    For a discriminator the name includes its passes over the sequences after each update and its batch size, which are 15 and
    64 in the published setting.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    adversarial = settings["adversarial"]
    model = adversarial["reward_model"]
    name = _REWARD_MODELS.get(model, model)
    if model == "discriminator":
        discriminator = settings["discriminator"]
        name += f" (passes: {adversarial['d_steps'] * discriminator['epochs']}, batches: {discriminator['batch_size']})"
    evaluations = read_evaluations(folder / "progress.csv")
    updates, curve = zip(*evaluations, strict=True)
    return Run(f"{name}, seed {settings['seed']}", list(updates), list(curve))


def released_at(updates: float) -> float:
    """NLL_oracle of the released run, interpolated between its measurements; NaN after the last."""
    return float(np.interp(updates, (0, *RELEASED_UPDATES), (RELEASED_START, *RELEASED), right=np.nan))


def table(runs: Sequence[Run], every: int) -> str:
    """A row every so many updates."""
    names = [f"{run.name}: NLL_oracle | NLL_test" for run in runs]
    lines = ["| " + " | ".join(["updates", "released log: NLL_oracle", *names]) + " |", "|---" * (2 + 2 * len(runs)) + "|"]
    for updates in sorted({count for run in runs for count in run.updates if count % every == 0}):
        cells = [f"{released_at(updates):.3f}".replace("nan", "–")]
        for run in runs:
            point = dict(zip(run.updates, run.curve, strict=True)).get(updates)
            cells += ["–", "–"] if point is None else [f"{value:.3f}" for value in point]
        lines.append(f"| {updates} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(runs: Sequence[Run], path: Path) -> Path:
    """Draw NLL_oracle on the left, with the released run, and NLL_test on the right."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    quality, coverage = figure.subplots(1, 2)
    quality.plot((0, *RELEASED_UPDATES), (RELEASED_START, *RELEASED), "--", color="0.3", label="the authors' released log")
    for number, run in enumerate(runs):
        _draw_run(quality, run, 0, number)
        _draw_run(coverage, run, 1, number)
    quality.set(title="NLL_oracle of samples (quality: lower is better)", xlabel="updates", ylabel="nats per token")
    coverage.set(title="NLL_test (coverage: lower is better)", xlabel="updates")
    for axis in (quality, coverage):
        axis.grid(alpha=0.25)
    quality.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw_run(axis: Axes, run: Run, measure: int, number: int) -> None:
    values = [point[measure] for point in run.curve]
    axis.plot(run.updates, values, marker=".", color=_COLOURS[number % len(_COLOURS)], label=run.name)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
