"""A player makes its updates one by one, as `learn` makes them."""

from typing import Any

import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger

from tests.agents.small_agents import new_agent, weights


class Rows(KVWriter):
    """What an agent logs, the times aside."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append({name: x for name, x in key_values.items() if name not in ("time/fps", "time/time_elapsed")})


def test_updates_one_by_one_equal_learn() -> None:
    """The schedule of the learning rate and the log included."""
    changes: dict[str, Any] = {"learning_rate": lambda remaining: 0.05 * remaining, "rollout_lag": 0.5}
    learned, updated = new_agent(**changes), new_agent(**changes)
    logs = Rows(), Rows()
    for agent, log in zip((learned, updated), logs, strict=True):
        agent.set_logger(Logger(None, [log]))
    learned.learn(3 * 40)
    updated.begin(3)
    for _ in range(3):
        updated.update()
    assert torch.equal(weights(learned), weights(updated))
    assert (updated._n_updates, updated.num_timesteps) == (3, 120)
    assert logs[0].rows == logs[1].rows
    assert len(logs[0].rows) == 3


def test_more_updates_continue_after_the_first() -> None:
    whole, parts = new_agent(), new_agent()
    for agent, numbers in ((whole, [4]), (parts, [3, 4])):
        for n_updates in numbers:
            agent.begin(n_updates)
            while agent._n_updates < n_updates:
                agent.update()
    assert torch.equal(weights(whole), weights(parts))
    assert whole.num_timesteps == parts.num_timesteps == 160


def test_update_needs_begin_first() -> None:
    with pytest.raises(ValueError, match=r"call begin\(n_updates\) first"):
        new_agent().update()
