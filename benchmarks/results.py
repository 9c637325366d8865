"""The published baselines and controls: `SEQGAN_DATA=... python -m benchmarks.results` runs them and prints a table.

All use the published oracle at the published sizes: 9,984 sequences of 20 tokens out of 5,000, an LSTM of 32/32. Runs with
the published discriminator need a GPU and are not included: `python train.py paper --oracle-params FILE`.
Each finished run is a line of `results.jsonl`; if you call the program again, it continues with the others.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

import train
from agents.experiment.config import TrainConfig
from benchmarks.finished_runs import FinishedRuns, Key, side_by_side, spread, with_needs
from benchmarks.run_folders import NO_UPDATES, ORACLE, Curve, newest_run, read_curve, run_in
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.saved_game import LIKELIHOOD

START = "likelihood"
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    START: ({}, NO_UPDATES),
    "scheduled sampling": ({"scheduled_sampling": True}, NO_UPDATES),
    "then PG-BLEU": ({}, {"reward_model": "bleu"}),
    "then a constant reward": ({}, {"reward_model": "constant"}),
    "then a random reward": ({}, {"reward_model": "random"}),
}
"""Changes of the preset `paper`: of its likelihood training, and of its adversarial phase, which starts from the first row."""


@dataclass(frozen=True)
class Config:
    """Run the baselines over several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the real sequences and the run."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder with the published oracle; by default the environment variable SEQGAN_DATA."""
    epochs: int = 40
    """Epochs of likelihood training."""
    updates: int = 100
    """Updates of the published policy gradient: Adam at 0.01, batches of 64, no baseline."""
    runs: tuple[str, ...] = tuple(RUNS)
    """The rows to run."""
    out: Path = Path("runs/results")
    """The folder for run folders and `results.jsonl`."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    jobs: int = 2
    """Parallel runs, with one thread each."""
    table_only: bool = False
    """Only print the table of the finished runs."""


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
    """Do the unfinished runs, and print the table."""
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
    """The settings of a row: those of the preset `paper` with the row's changes."""
    likelihood, adversarial = RUNS[name]
    arguments = ["paper", "--seed", str(seed), "--oracle-params", str(config.data / ORACLE), "--device", config.device]
    paper, _ = train.command_line(arguments)
    return dataclasses.replace(
        paper,
        pretrain=dataclasses.replace(paper.pretrain, epochs=config.epochs, **likelihood),
        adversarial=dataclasses.replace(paper.adversarial, **{"updates": config.updates, **adversarial}),
        evaluation=dataclasses.replace(paper.evaluation, sweep=False, every_epochs=10),
    )


def run(name: str, seed: int, config: Config) -> Result:
    """Do one run."""
    run_config = settings(name, seed, config)
    for start, *_ in _needs((name, seed, config)):
        weights = newest_run(_parent(start, seed, config)) / f"{LIKELIHOOD}.safetensors"
        run_config = dataclasses.replace(run_config, start_from=weights)
    log = run_in(_parent(name, seed, config), run_config, "paper") / "progress.csv"
    return Result(name, seed, config.epochs, config.updates, read_curve(log))


def _parent(name: str, seed: int, config: Config) -> Path:
    return config.out / f"{name.replace(' ', '-')}-seed{seed}"


def table(results: Sequence[Result]) -> str:
    """A row per kind of run: means ± standard deviations over seeds, at the end."""
    lines = ["| run | NLL_oracle | NLL_test | lowest NLL_oracle on the way | seeds |", "|---|---|---|---|---|"]
    for name in RUNS:
        curves = [result.curve for result in results if result.name == name]
        if curves:
            cells = [spread([curve[-1][i] for curve in curves]) for i in (0, 1)]
            cells.append(spread([min(oracle for oracle, _ in curve) for curve in curves]))
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(curves)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
