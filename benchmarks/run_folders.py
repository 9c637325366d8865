"""Run train.py for a benchmark in a folder of its own, and read the curve from its log."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import torch

import train
from agents.experiment.config import TrainConfig

ORACLE = "seqgan_paper_oracle.npz"
"""The published oracle's file in the folder SEQGAN_DATA."""

NO_UPDATES: dict[str, Any] = {"updates": 0, "d_pretrain_steps": 0}
"""Settings of `AdversarialConfig` for likelihood training alone."""

Curve = list[tuple[float, float]]
"""NLL_oracle and NLL_test, nats per token: of the likelihood start, then of each adversarial evaluation."""


def run_in(folder: Path, config: TrainConfig, preset: str = "quick") -> Path:
    """Run a config on one thread; return the run's own folder inside the given one."""
    torch.set_num_threads(1)
    train.main(dataclasses.replace(config, out=folder), preset)
    return newest_run(folder)


def newest_run(folder: Path) -> Path:
    """The latest run's folder inside the given one."""
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a run's log, `progress.csv`; missing values are empty strings."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_curve(path: Path) -> Curve:
    """The curve in a run's log; only the start if there were no adversarial updates."""
    return [(point["nll_oracle"], point["nll_test"]) for point in read_evaluations(path).values()]


def read_evaluations(path: Path) -> dict[int, dict[str, float]]:
    """The measurements of the likelihood start and of the adversarial phase, by the number of updates before them.

    Raises:
        ValueError: there are no measurements yet, or there is no oracle.
    """
    rows = read_log(path)
    starts = [row for row in rows if row.get("pretraining/nll_oracle")]
    if not starts:
        raise ValueError(f"{path} has no NLL_oracle of a likelihood start, or not yet: use a run of train.py with an oracle.")
    points = {0: _metrics(starts[-1], "pretraining")}
    for row in rows:
        if row.get("adversarial/nll_oracle"):
            points[int(float(row["train/n_updates"] or 0))] = _metrics(row, "adversarial")
    return points


def _metrics(row: dict[str, str], phase: str) -> dict[str, float]:
    prefix = f"{phase}/"
    return {name.removeprefix(prefix): float(value) for name, value in row.items() if name.startswith(prefix) and value}
