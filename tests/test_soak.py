"""Many episodes with retraining: memory stays flat, nothing slows down, no descriptor is left open.

The long form runs by `pytest -m soak tests/test_soak.py -s`, which prints its figures.
"""

import gc
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.logger import Logger

from agents.reinforce import Reinforce
from seqgan_env.vector_env import SequenceVectorEnv
from tests.small import END, small_discriminator, small_game

N = 64
UPDATES = 3
EPISODES_PER_ROUND = (1 + UPDATES) * N
PARTS = 10
WARM_UP = 10  # rounds in which torch and numpy fill their caches


@dataclass
class Soak:
    """What was measured after each of ten parts."""

    episodes: int = 0
    retrainings: int = 0
    megabytes: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """One paragraph."""
        return (
            f"{self.episodes:,} episodes, {self.retrainings} retrainings, {sum(self.cpu_seconds):.0f} s of CPU time. "
            f"MB after each tenth: {', '.join(f'{megabytes:.1f}' for megabytes in self.megabytes)}. "
            f"Descriptors: {self.descriptors}. "
            f"CPU seconds of each tenth: {', '.join(f'{seconds:.2f}' for seconds in self.cpu_seconds)}."
        )


def resident_megabytes() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def soak(episodes: int, after_round: Callable[[], object] = lambda: None) -> Soak:
    """Step and play so many episodes by turns, with an agent that learns and a discriminator that is retrained."""
    game = small_game(reward_model=small_discriminator(), reward="rollout", n_rollouts=2, end_token=END, retrain_every=1000)
    stepped = SequenceVectorEnv(game, N, autoreset_mode=AutoresetMode.NEXT_STEP)
    played = SequenceVectorEnv(game, N, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = Reinforce("GeneratorPolicy", played, 1e-3, seed=0, policy_kwargs={"embedding_dim": 8, "hidden_dim": 8})
    agent.set_logger(Logger(None, []))
    agent.begin(UPDATES * (WARM_UP + episodes // EPISODES_PER_ROUND))
    rng = np.random.default_rng(0)
    stepped.reset(seed=0)
    result = Soak()
    rounds = max(1, episodes // EPISODES_PER_ROUND // PARTS)

    def play_round() -> None:
        ended = 0
        while ended < N:
            _, _, terminated, _, info = stepped.step(rng.integers(game.vocab_size, size=N))
            ended += int(terminated.sum())
            result.retrainings += "retraining" in info
        for _ in range(UPDATES):
            agent.update()
            result.retrainings += "retraining" in agent.last_played.info
        result.episodes += ended + UPDATES * N
        after_round()

    for _ in range(WARM_UP):
        play_round()
    for _ in range(PARTS):
        started = time.process_time()
        for _ in range(rounds):
            play_round()
        result.cpu_seconds.append(time.process_time() - started)
        result.megabytes.append(resident_megabytes())
        result.descriptors.append(len(os.listdir("/proc/self/fd")))
    return result


def growth(result: Soak) -> float:
    """How much memory grew after the first two tenths, the warm-up: as a share."""
    return max(result.megabytes[2:]) / result.megabytes[1] - 1


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.soak
def test_a_hundred_thousand_episodes() -> None:
    result = soak(102_400)
    print(f"\n{result}\nMemory grew by {growth(result):.1%} after the first two tenths.")
    assert result.episodes >= 100_000
    assert result.retrainings >= 90
    assert growth(result) < 0.05
    assert result.cpu_seconds[-1] < 1.25 * result.cpu_seconds[1]
    assert len(set(result.descriptors)) == 1


@pytest.mark.slow
@needs_proc
def test_a_few_thousand_episodes() -> None:
    result = soak(2560)
    assert result.episodes >= 2560
    assert result.retrainings >= 4
    assert growth(result) < 0.05
    assert len(set(result.descriptors)) == 1


@pytest.mark.slow
@needs_proc
def test_a_leak_is_detected() -> None:
    """The negative control: a round that keeps 16 MB and an open file."""
    kept: list[object] = []

    def leak() -> None:
        kept.append(np.ones(2**21))
        kept.append(open(os.devnull))  # noqa: SIM115 - left open on purpose

    result = soak(2560, leak)
    for one in kept[1::2]:
        one.close()  # type: ignore[attr-defined]
    assert growth(result) > 0.05
    assert result.descriptors[-1] == result.descriptors[0] + PARTS - 1
