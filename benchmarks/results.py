"""The published baselines and controls: `SEQGAN_DATA=... python -m benchmarks.results` runs them and prints a table.

All are on the published oracle at the published sizes: 10,000 sequences of 20 tokens out of 5,000, an LSTM of 32/32. What
needs the published discriminator wants a GPU, and is no part of it: `python train.py paper --oracle-params FILE`.
A finished run is a line of `results.jsonl`: called again, the program goes on with those that are left.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

import train
from agents.experiment.config import TrainConfig
from benchmarks.finished_runs import FinishedRuns, Key, side_by_side, spread, with_needs
from benchmarks.run_folders import NO_UPDATES, ORACLE, Curve, newest_run, read_curve, run_in
from seqgan_env.saved_game import LIKELIHOOD

START = "likelihood"
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    START: ({}, NO_UPDATES),
    "scheduled sampling": ({"scheduled_sampling": True}, NO_UPDATES),
    "then PG-BLEU": ({}, {"reward_model": "bleu"}),
    "then a constant reward": ({}, {"reward_model": "constant"}),
    "then a random reward": ({}, {"reward_model": "random"}),
}
"""Changes of the preset `paper`: of its likelihood training, and of its adversarial phase, which begins with the first row."""


@dataclass(frozen=True)
class Config:
    """Run the baselines over several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the real sequences and the run."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder with the published oracle; by default the environment variable SEQGAN_DATA."""
    epochs: int = 40
    """Of likelihood training."""
    updates: int = 100
    """Of the published policy gradient: Adam at 0.01, batches of 64, no baseline."""
    runs: tuple[str, ...] = tuple(RUNS)
    """Which rows to run."""
    out: Path = Path("runs/results")
    """Where the run folders and `results.jsonl` go."""
    jobs: int = 2
    """Runs side by side, each on one thread."""
    table_only: bool = False
    """Run nothing; print the table of the runs that are finished."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    name: str
    seed: int
    epochs: int
    updates: int
    curve: Curve
    """NLL_oracle and NLL_test, nats per token: of the likelihood start, then of each adversarial evaluation."""


def main(config: Config) -> None:
    """Run what is left to run, print the table."""
    file = FinishedRuns(config.out / "results.jsonl", Result)
    sizes = (config.epochs, config.updates)
    finished_runs = [result for result in file.read() if (result.epochs, result.updates) == sizes]
    results = [result for result in finished_runs if result.seed in config.seeds]
    finished = {(result.name, result.seed) for result in results}
    wanted = [(name, seed, config) for seed in config.seeds for name in config.runs]
    left = [key for key in with_needs(wanted, _needs) if key[:2] not in finished]
    if not config.table_only:
        results += file.append(side_by_side(run, left, config.jobs, _needs))
    print(table(results))


def _needs(key: Key) -> list[Key]:
    name, *rest = key
    return [(START, *rest)] if RUNS[name][1] is not NO_UPDATES else []


def settings(name: str, seed: int, config: Config) -> TrainConfig:
    """The settings of a row: those of the preset `paper`, with its changes."""
    likelihood, adversarial = RUNS[name]
    arguments = ["paper", "--seed", str(seed), "--oracle-params", str(config.data / ORACLE), "--device", "cpu"]
    paper, _ = train.command_line(arguments)
    return dataclasses.replace(
        paper,
        pretrain=dataclasses.replace(paper.pretrain, epochs=config.epochs, **likelihood),
        adversarial=dataclasses.replace(paper.adversarial, **{"updates": config.updates, **adversarial}),
        evaluation=dataclasses.replace(paper.evaluation, sweep=False, every_epochs=10),
    )


def run(name: str, seed: int, config: Config) -> Result:
    """One run."""
    run_config = settings(name, seed, config)
    for start, *_ in _needs((name, seed, config)):
        weights = newest_run(_parent(start, seed, config)) / f"{LIKELIHOOD}.safetensors"
        run_config = dataclasses.replace(run_config, start_from=weights)
    log = run_in(_parent(name, seed, config), run_config, "paper") / "progress.csv"
    return Result(name, seed, config.epochs, config.updates, read_curve(log))


def _parent(name: str, seed: int, config: Config) -> Path:
    return config.out / f"{name.replace(' ', '-')}-seed{seed}"


def table(results: Sequence[Result]) -> str:
    """A row for each kind of run: means ± standard deviations over seeds, at the end."""
    lines = ["| run | NLL_oracle | NLL_test | lowest NLL_oracle on the way | seeds |", "|---|---|---|---|---|"]
    for name in RUNS:
        curves = [result.curve for result in results if result.name == name]
        if curves:
            cells = [spread([curve[-1][i] for curve in curves]) for i in (0, 1)]
            cells.append(spread([min(oracle for oracle, _ in curve) for curve in curves]))
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(curves)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
