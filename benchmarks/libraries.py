"""How well do the examples for other libraries learn? `python -m benchmarks.libraries` runs those with an installed library.

Libraries often need separate virtual environments: call the program in each of them with the same `--out`. Each finished run
is a line of `libraries.jsonl`, and the table shows all lines.
"""

import importlib
import importlib.util
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
import tyro
from stable_baselines3 import PPO

from agents import PrefixExtractor, SB3VecEnv, token_policy
from benchmarks.finished_runs import FinishedRuns, side_by_side, spread
from benchmarks.speed import processor_name
from seqgan_env import FunctionReward, SequenceGame, SequenceVectorEnv, oracle_game
from seqgan_env.models.sampling import sample_sequences
from seqgan_env.rendering import spell_what_cannot_be_encoded

Task = Literal["lesson", "adversarial"]
EXAMPLES = Path(__file__).parent.parent / "examples"
LIBRARIES = {
    "single file": ("torch", "cleanrl_ppo"),
    "TorchRL": ("torchrl", "torchrl_ppo"),
    "skrl": ("skrl", "skrl_ppo"),
    "Tianshou": ("tianshou", "tianshou_ppo"),
    "RLlib": ("ray", "rllib_ppo"),
    "rl_zoo3": ("rl_zoo3", "rl_zoo3"),
}
"""Each library's package, and its example's file or folder."""
LESSON: Any = {"vocab_size": 4, "sequence_length": 4, "num_envs": 32, "retrain_every": None}
"""Settings with which the task `rising` can be learned."""
LESSON_UPDATES = 15
ZOO = """-m rl_zoo3.train --algo ppo --env SeqGAN/Oracle-v0 --gym-packages seqgan_env --conf-file examples/rl_zoo3/ppo.yml \
    --eval-freq 5000 --eval-env-kwargs vocab_size:20 sequence_length:10 n_real:1000 "reward_model:'bleu'"
"""
"""rl_zoo3's own command, as in its example."""


@dataclass(frozen=True)
class Config:
    """Run the examples of installed libraries over several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the networks, the draws and the environments."""
    updates: int = 60
    """PPO updates of each adversarial run; rl_zoo3 plays the 20,000 steps of its YAML instead."""
    out: Path = Path("runs/libraries")
    """The folder for `libraries.jsonl`."""
    jobs: int = 1
    """Parallel runs, with one thread each."""
    table_only: bool = False
    """Only print the table of the finished runs."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    library: str
    version: str
    task: Task
    seed: int
    updates: int
    before: float
    """For `rising` the mean reward; for the adversarial game NLL_oracle in nats per token."""
    after: float
    machine: str


def rising(sequences: list[list[int]]) -> list[float]:
    """The reward of the task `rising`: the share of tokens, out of four, that are one more than their predecessor."""
    return [sum((b - a) % 4 == 1 for a, b in itertools.pairwise(s)) / (len(s) - 1) for s in sequences]


def main(config: Config) -> None:
    """Do the unfinished runs, and print the table."""
    file = FinishedRuns(config.out / "libraries.jsonl", Result)
    results = [result for result in file.read() if result.seed in config.seeds]
    finished = {(result.library, result.task, result.seed, result.updates) for result in results}
    left = [key for key in runs(config) if key not in finished]
    if not config.table_only:
        results += file.append(side_by_side(run, left, config.jobs))
    print(table(results, config.updates))


def runs(config: Config) -> Iterator[tuple[str, Task, int, int]]:
    """Library, task, seed and updates of each run that is possible here."""
    for seed, (library, (package, _)) in itertools.product(config.seeds, LIBRARIES.items()):
        if importlib.util.find_spec(package) is not None:
            if library != "rl_zoo3":
                yield library, "lesson", seed, LESSON_UPDATES
            yield library, "adversarial", seed, config.updates


def run(library: str, task: Task, seed: int, updates: int) -> Result:
    """One run of an example."""
    torch.set_num_threads(1)
    package, example = LIBRARIES[library]
    sys.path.insert(0, str(EXAMPLES))  # the examples import `judging` from their own folder
    if library == "rl_zoo3":
        before, after = run_zoo(seed)
    else:
        module = importlib.import_module(example)
        if task == "lesson":
            settings = module.Config(**LESSON, updates=updates, learning_rate=0.01, seed=seed)
            (before, _), (after, _), *_ = module.main(settings, reward_model=FunctionReward(rising))
        else:
            (_, before), (_, after), *_ = module.main(module.Config(updates=updates, seed=seed))
    machine = f"{processor_name(torch.device('cpu'))}, torch {torch.__version__}, one thread a run"
    return Result(library, version(package), task, seed, updates, before, after, machine)


def run_zoo(seed: int) -> tuple[float, float]:
    """NLL_oracle, nats per token, of rl_zoo3's model before and after its command; equal seeds give equal first networks."""
    game = oracle_game(10, 20)  # as in the YAML; each environment has the same oracle
    env = SB3VecEnv(SequenceVectorEnv(game, 1, autoreset_mode="SameStep"))
    fresh = PPO("MultiInputPolicy", env, seed=seed, policy_kwargs={"features_extractor_class": PrefixExtractor})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *shlex.split(ZOO), "-f", folder, "--seed", str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=EXAMPLES.parent, env=environment, check=True, stdout=subprocess.DEVNULL)
        trained = PPO.load(next(Path(folder).glob("ppo/*/SeqGAN-Oracle-v0.zip")))
    return oracle_nll(game, fresh), oracle_nll(game, trained)


def oracle_nll(game: SequenceGame, model: PPO) -> float:
    """NLL_oracle of 512 sequences that a model draws."""
    policy, generator = token_policy(model.policy, game), torch.Generator().manual_seed(0)
    tokens, _ = sample_sequences(policy, 512, game.sequence_length, game.vocab_size, generator)
    assert game.oracle is not None
    return game.oracle.nll(tokens).mean().item()


def table(results: Sequence[Result], updates: int) -> str:
    """A row per library: means over seeds, ± standard deviation if there are several; and the machines."""
    lines = [
        "| library | version | seeds | the lesson: mean reward | adversarial: NLL_oracle |",
        "|---|---|---|---|---|",
    ]
    shown = [result for result in results if result.updates == (LESSON_UPDATES if result.task == "lesson" else updates)]
    for library in LIBRARIES:
        of_it = [result for result in shown if result.library == library]
        if of_it:
            seeds = ", ".join(str(seed) for seed in sorted({result.seed for result in of_it}))
            cells = [library, ", ".join(sorted({result.version for result in of_it})), seeds]
            for task in ("lesson", "adversarial"):
                ends = [(result.before, result.after) for result in of_it if result.task == task]
                after = [a for _, a in ends]
                reached = spread(after) if len(after) > 1 else "".join(f"{a:.3f}" for a in after)
                cells.append(f"{mean(b for b, _ in ends):.3f} → {reached}" if ends else "–")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *sorted({result.machine for result in shown})])


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
