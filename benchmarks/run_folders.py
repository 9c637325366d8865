"""Run train.py for a benchmark in a folder of its own, and read the curve from its log."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

import train
from agents.experiment.config import TrainConfig
from seqgan_env.evaluation.run_logs import read_evaluations

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


def read_curve(path: Path) -> Curve:
    """The curve in a run's log; only the start if there were no adversarial updates."""
    return [(point["nll_oracle"], point["nll_test"]) for point in read_oracle_evaluations(path).values()]


def read_oracle_evaluations(path: Path) -> dict[int, dict[str, float]]:
    """The measurements in the log of a run with an oracle; see `read_evaluations`.

    Raises:
        ValueError: there are no measurements yet, or there is no oracle.
    """
    points = read_evaluations(path)
    if "nll_oracle" not in points[0]:
        raise ValueError(f"{path} has no NLL_oracle: use a run of train.py with an oracle.")
    return points
