"""What a run of train.py has measured, read from its folder."""

import csv
from pathlib import Path

CONFIG = "config.json"
"""The settings, and the preset that they came from."""
PROGRESS = "progress.csv"
"""All metrics, a row for each epoch and each update."""
LIKELIHOOD_PREFIX, ADVERSARIAL_PREFIX = "pretraining", "adversarial"
"""What the names of a generator's metrics begin with in the log, by phase."""


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a run's log, `progress.csv`; missing values are empty strings."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_evaluations(path: Path) -> dict[int, dict[str, float]]:
    """The measurements of the likelihood start and of the adversarial phase, by the number of updates before them.

    Each has NLL_test, and NLL_oracle if there is an oracle. While a run is in its likelihood phase, its latest measurement
    stands for the start.

    Raises:
        ValueError: there are no measurements yet.
    """
    rows = read_log(path)
    starts = [row for row in rows if row.get(f"{LIKELIHOOD_PREFIX}/nll_test")]
    if not starts:
        raise ValueError(f"{path} has no measurement of a likelihood start, or not yet.")
    points = {0: _metrics(starts[-1], LIKELIHOOD_PREFIX)}
    for row in rows:
        if row.get(f"{ADVERSARIAL_PREFIX}/nll_test"):
            points[int(float(row.get("train/n_updates") or 0))] = _metrics(row, ADVERSARIAL_PREFIX)
    return points


def _metrics(row: dict[str, str], phase: str) -> dict[str, float]:
    prefix = f"{phase}/"
    values = {name.removeprefix(prefix): float(value) for name, value in row.items() if name.startswith(prefix) and value}
    return {name: value for name, value in values.items() if name != "loss"}  # of the training, not of an evaluation
