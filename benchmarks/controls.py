"""Does the discriminator help? `python -m benchmarks.controls` runs `quick` with it and with the controls, and prints a table.

The controls share data, schedule and random numbers, but their reward knows nothing of real sequences. Runs are compared at
equal NLL_test: a run against the lowest NLL_oracle that the control had while its NLL_test was no higher.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tyro

import train
from agents.experiment.config import TrainConfig
from benchmarks.finished_runs import side_by_side, spread
from benchmarks.run_folders import Curve, read_curve, run_in
from seqgan_env.rendering import spell_what_cannot_be_encoded

RUNS: dict[str, dict[str, Any]] = {
    "discriminator": {"reward_model": "discriminator"},
    "random": {"reward_model": "random"},
    "constant": {"reward_model": "constant"},
    "constant, no baseline": {"reward_model": "constant", "baseline": "none"},
    "random, no baseline": {"reward_model": "random", "baseline": "none"},
}


@dataclass(frozen=True)
class Config:
    """Run `quick` with each reward over several seeds."""

    seeds: tuple[int, ...] = (4, 5, 6)
    """Seeds of the oracle, its sequences, and the run. Seeds 0 to 3 were used to choose the preset's settings."""
    out: Path = Path("runs/controls")
    """The folder for run folders and `controls.json`."""
    jobs: int = 2
    """Parallel runs, with one thread each."""


def main(config: Config) -> None:
    """Run all, save the curves, print the table."""
    pairs = [(name, seed) for seed in config.seeds for name in RUNS]
    curves = dict(side_by_side(run, [(name, seed, config.out) for name, seed in pairs], config.jobs))
    by_run = {name: [curves[name, seed] for seed in config.seeds] for name in RUNS}
    (config.out / "controls.json").write_text(json.dumps({"seeds": config.seeds, "curves": by_run}, indent=2) + "\n")
    print(table(by_run))


def run(name: str, seed: int, out: Path) -> tuple[tuple[str, int], Curve]:
    """Run the preset once; return the run's name and seed, and its curve."""
    config = quick(seed)
    adversarial = dataclasses.replace(config.adversarial, **RUNS[name])
    folder = out / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    return (name, seed), read_curve(run_in(folder, dataclasses.replace(config, adversarial=adversarial)) / "progress.csv")


def quick(seed: int) -> TrainConfig:
    """The preset on the CPU; the seed also seeds the oracle."""
    config, _ = train.command_line(["quick", "--seed", str(seed), "--oracle-seed", str(seed), "--device", "cpu"])
    return config


def lowest_at(control: Curve, nll_test: float) -> float:
    """The control's lowest NLL_oracle while its NLL_test was no higher, including its start."""
    return min(oracle for oracle, test in control if test <= max(nll_test, control[0][1]))


def table(by_run: dict[str, list[Curve]]) -> str:
    """A row per reward: mean ± standard deviation over seeds."""
    lines = [
        "| reward | NLL_oracle: likelihood → adversarial | change | NLL_test: likelihood → adversarial | change "
        "| change of the sum | discriminator lower by, at equal NLL_test |",
        "|---|---|---|---|---|---|---|",
    ]
    judged = by_run["discriminator"]
    for name, curves in by_run.items():
        before, after = [curve[0] for curve in curves], [curve[-1] for curve in curves]
        cells = []
        for i in (0, 1):
            changes = [a[i] - b[i] for a, b in zip(after, before, strict=True)]
            cells.append(f"{mean(b[i] for b in before):.3f} → {mean(a[i] for a in after):.3f}")
            cells.append(spread(changes, "+"))
        cells.append(spread([sum(a) - sum(b) for a, b in zip(after, before, strict=True)], "+"))
        gaps = [lowest_at(control, best[-1][1]) - best[-1][0] for control, best in zip(curves, judged, strict=True)]
        cells.append("–" if name == "discriminator" else spread(gaps, "+"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
