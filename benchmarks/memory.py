"""Peak memory of a process that plays the paper's game: `python -m benchmarks.memory` prints it, in MiB.

It builds game and agent, and takes two generator steps and twenty discriminator steps, as a run of train.py does.
"""

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.logger import Logger

from agents.reinforce import Reinforce
from benchmarks.flops import Shape
from seqgan_env.game import SequenceGame
from seqgan_env.games import oracle_game
from seqgan_env.support.device import resolve_device
from seqgan_env.vector_env import SequenceVectorEnv

GENERATOR_STEPS = 2
FIT_STEPS = 20
_ROOT = Path(__file__).resolve().parent.parent
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Config:
    """Play the paper's game, and print the peak of resident memory in MiB."""

    shape: Shape = field(default_factory=Shape)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Torch's threads on the CPU; by default its own choice."""


def main(config: Config) -> float:
    """Play, and return the peak in MiB."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    shape = dataclasses.replace(config.shape, discriminator=dataclasses.replace(config.shape.discriminator, epochs=1))
    agent = agent_of(game_of(shape, resolve_device(config.device), shape.n_samples), shape)
    agent.learn(GENERATOR_STEPS * shape.batch_size * shape.sequence_length)
    agent.retrain_reward_model(FIT_STEPS * shape.cnn.batch_size // 2)
    return peak()


def game_of(shape: Shape, device: torch.device, n_real: int) -> SequenceGame:
    """The synthetic game with the published reward."""
    return oracle_game(
        shape.sequence_length,
        shape.vocab_size,
        n_real=n_real,
        reward="rollout",
        n_rollouts=shape.n_rollouts,
        discriminator=shape.cnn,
        device=device,
    )


def agent_of(game: SequenceGame, shape: Shape) -> Reinforce:
    """The agent with its defaults, without logging."""
    env = SequenceVectorEnv(game, shape.batch_size, autoreset_mode=AutoresetMode.SAME_STEP)
    sizes = {"embedding_dim": shape.embedding_dim, "hidden_dim": shape.hidden_dim}
    agent = Reinforce("GeneratorPolicy", env, policy_kwargs=sizes, seed=0)
    agent.set_logger(Logger(None, []))
    return agent


def peak() -> float:
    """This process's peak resident memory in MiB."""
    if _STATUS.exists():
        # On Linux ru_maxrss of a new process includes its parent's memory at the start; VmHWM is the process's own peak.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_fresh_process(config: Config) -> float:
    """The result of `main` in a separate process, in MiB."""
    arguments = list(as_arguments(dataclasses.asdict(config)))
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def as_arguments(values: dict[str, Any], prefix: str = "--") -> Iterator[str]:
    """The settings, including nested ones, as command-line arguments."""
    for name, value in values.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(value, dict):
            yield from as_arguments(value, f"{flag}.")
        elif isinstance(value, bool):
            yield flag if value else f"{prefix}no-{name.replace('_', '-')}"
        else:
            yield flag
            yield from map(str, value if isinstance(value, tuple) else (value,))


if __name__ == "__main__":
    print(f"{main(tyro.cli(Config, description=__doc__)):.0f}")
