"""Which algorithm plays best? `python -m benchmarks.algorithms` runs `quick` with each agent and reward, and prints a table.

All runs with the same seed share oracle, data, likelihood start and first discriminator, and play the same number of tokens.
Each finished run is a line of `algorithms.jsonl`; if you call the program again, it continues with the others.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import tyro

from agents.experiment.config import AgentName
from benchmarks.controls import quick
from benchmarks.finished_runs import FinishedRuns, side_by_side, spread
from benchmarks.run_folders import Curve, read_curve, run_in
from seqgan_env.evaluation.run_logs import read_log
from seqgan_env.rendering import spell_what_cannot_be_encoded

LIKELIHOOD = ("likelihood alone", "–")
RUNS: tuple[tuple[str, str], ...] = (
    LIKELIHOOD,
    ("reinforce", "rollout"),
    *((agent, reward) for agent in get_args(AgentName) for reward in ("terminal", "shaped")),
)
"""Agent and reward contract of each row; the second row is the published method."""


@dataclass(frozen=True)
class Config:
    """Run `quick` with each agent and reward over several seeds."""

    seeds: tuple[int, ...] = (4, 5, 6)
    """Seeds of the oracle, its sequences, and the run. Seeds 0 to 3 were used to choose settings."""
    out: Path = Path("runs/algorithms")
    """The folder for run folders and `algorithms.jsonl`."""
    jobs: int = 2
    """Parallel runs, with one thread each."""
    updates: int | None = None
    """Adversarial updates per run; by default the preset's."""
    table_only: bool = False
    """Only print the table of the finished runs."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    agent: str
    reward: str
    seed: int
    updates: int
    curve: Curve
    """NLL_oracle and NLL_test, nats per token: of the likelihood start, then of each adversarial evaluation."""
    tokens: int
    """Tokens that the agent played."""
    cpu_seconds: float
    """CPU time of the whole run: data, likelihood, discriminator, evaluations and report."""


def main(config: Config) -> None:
    """Do the unfinished runs, and print the table."""
    file = FinishedRuns(config.out / "algorithms.jsonl", Result)
    updates = quick(0).adversarial.updates if config.updates is None else config.updates
    results = [result for result in file.read() if result.updates == updates and result.seed in config.seeds]
    finished = {(result.agent, result.reward, result.seed) for result in results}
    names = [(*names, seed) for seed in config.seeds for names in RUNS if (*names, seed) not in finished]
    if not config.table_only:
        results += file.append(side_by_side(run, [(*one, updates, config.out) for one in names], config.jobs))
    print(table(results, len(config.seeds)))


def run(agent: str, reward: str, seed: int, updates: int, out: Path) -> Result:
    """One run of the preset."""
    config = quick(seed)
    changes: dict[str, Any] = {"updates": updates, "reward": reward}
    if (agent, reward) == LIKELIHOOD:
        changes = {"updates": 0, "d_pretrain_steps": 0}
    else:
        config = dataclasses.replace(config, agent=agent)
    config = dataclasses.replace(config, adversarial=dataclasses.replace(config.adversarial, **changes))
    before = time.process_time()
    name = agent.replace(" ", "-") if (agent, reward) == LIKELIHOOD else f"{agent}-{reward}"
    log = run_in(out / f"{name}-seed{seed}", config) / "progress.csv"
    seconds = time.process_time() - before
    tokens = max((int(row["time/total_timesteps"]) for row in read_log(log) if row.get("time/total_timesteps")), default=0)
    return Result(agent, reward, seed, updates, read_curve(log), tokens, seconds)


def table(results: Sequence[Result], n_seeds: int) -> str:
    """A row per agent and reward: means over seeds; differences with ± standard deviation."""
    lines = [
        "| agent | reward | NLL_oracle: before → after | change | NLL_test: before → after | change | change of the sum "
        "| tokens played | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for names in RUNS:
        runs = [result for result in results if (result.agent, result.reward) == names]
        if not runs:
            continue
        before, after = [result.curve[0] for result in runs], [result.curve[-1] for result in runs]
        cells = [f"{names[0]}{f', {len(runs)} of {n_seeds} seeds' if len(runs) < n_seeds else ''}", names[1]]
        for i in (0, 1):
            cells.append(f"{mean(b[i] for b in before):.3f} → {mean(a[i] for a in after):.3f}")
            cells.append(spread([a[i] - b[i] for a, b in zip(after, before, strict=True)], "+"))
        cells.append(spread([sum(a) - sum(b) for a, b in zip(after, before, strict=True)], "+"))
        cells += [f"{mean(result.tokens for result in runs):,.0f}", f"{mean(result.cpu_seconds for result in runs):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
