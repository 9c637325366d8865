"""Updates whose policy gradients are recorded, emulated on a CPU or on a GPU, against plain ones."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from agents.reinforce import Reinforce
from seqgan_env import SequenceVectorEnv
from seqgan_env.support.cuda_graphs import without_graphs
from tests.agents.small_agents import new_agent, new_game
from tests.recordings import NothingFromTheHost, RecordedOn, forms_for_gpus, values_of, without_values

N, UPDATES = 8, 4
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "entropy": {"ent_coef": 0.1},
    "divergence": {"kl_coef": 0.2},
    "sum": {"loss_reduction": "sum", "ent_coef": 0.1, "kl_coef": 0.2},
    "with likelihood": {"likelihood_steps": 1, "likelihood_batch_size": 8},
}


class Remainder:
    """Plain arithmetic, so that all that is recorded is the agent's."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return (tokens % 3).float().mean(dim=1)


@pytest.fixture
def only_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written and scored stays plain, so that both agents learn from the same sequences."""
    for module in ("models.sampling", "rewards.monte_carlo"):
        monkeypatch.setattr(f"seqgan_env.{module}.replayed", lambda owner, key, function, *inputs: function(*inputs))


def agent_of(on: RecordedOn, **arguments: Any) -> Reinforce:
    game = new_game(device=on.device, reward_model=Remainder())
    env = SequenceVectorEnv(game, N, autoreset_mode=AutoresetMode.SAME_STEP)
    return new_agent(env, device=on.device, **arguments)


def learn(agent: Reinforce, updates: int = UPDATES) -> Tensor:
    agent.learn(updates * N * agent.game.sequence_length)
    return values_of(agent.generator)


@pytest.mark.usefixtures("only_gradients")
@pytest.mark.parametrize("settings", SETTINGS)
def test_recorded_updates_are_plain_updates(recorded_on: RecordedOn, settings: str) -> None:
    recorded, plain, other = (agent_of(recorded_on, **SETTINGS[settings]) for _ in range(3))
    start = values_of(plain.generator)
    found = learn(recorded)
    assert recorded_on.made == 1
    with without_graphs():
        expected = learn(plain)
        control = learn(other, UPDATES - 1)
    assert recorded_on.made == 1
    assert recorded_on.alike(found, expected, start)
    assert not recorded_on.alike(found, control, start)


@pytest.mark.usefixtures("only_gradients")
@pytest.mark.parametrize("change", ["", "ent_coef", "loss_reduction", "reference", "frozen"])
def test_what_an_update_depends_on_is_recorded_anew(recorded_on: RecordedOn, change: str) -> None:
    agents = recorded, plain = [agent_of(recorded_on, kl_coef=0.2) for _ in range(2)]
    start = values_of(plain.generator)
    for agent in agents:
        with nullcontext() if agent is recorded else without_graphs():
            learn(agent, 3)
            made = recorded_on.made
            if change == "ent_coef":
                agent.ent_coef = 0.3
            elif change == "loss_reduction":
                agent.loss_reduction = "sum"
            elif change == "reference":
                agent.reference_policy = copy.deepcopy(agent.generator)
            elif change == "frozen":
                agent.generator.embedding.weight.requires_grad_(False)
            frozen = agent.generator.embedding.weight.detach().clone()
            agent.learn(3 * N * agent.game.sequence_length, reset_num_timesteps=False)
            assert torch.equal(agent.generator.embedding.weight, frozen) == (change == "frozen")
        if agent is recorded:
            assert (made, recorded_on.made) == (1, 2 if change else 1)
    assert recorded_on.alike(*(values_of(agent.generator) for agent in agents), start)


@pytest.mark.usefixtures("only_gradients")
def test_a_mask_is_asked_in_each_update(recorded_on: RecordedOn) -> None:
    asked: list[int] = []

    def mask(prefix: np.ndarray) -> np.ndarray:
        asked.append(1)
        return np.ones(12, dtype=np.bool_)

    game = new_game(device=recorded_on.device, reward_model=Remainder(), mask=mask)
    agent = new_agent(SequenceVectorEnv(game, N, autoreset_mode=AutoresetMode.SAME_STEP), device=recorded_on.device)
    learn(agent, 3)
    assert recorded_on.made == 0
    assert asked


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_of_a_policy_never_wait_for_the_host(settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without values."""
    functions: list[Callable[..., Any]] = []

    def note(owner: object, key: Any, function: Callable[..., Any], *inputs: Tensor) -> Any:
        functions.append(function)
        return function(*inputs)

    monkeypatch.setattr("agents.reinforce.replayed", note)
    agent = agent_of(RecordedOn("cpu", object), **SETTINGS[settings])
    learn(agent, 1)
    (compute,) = functions
    parameters = list(agent.generator.named_parameters())
    inputs = [torch.empty(3, 5, dtype=dtype, device="meta") for dtype in (torch.int64, torch.float32)]
    inputs += [torch.empty(shape, dtype=torch.int64, device="meta") for shape in ((3,), ())]
    without_values(agent.generator)
    if agent.reference_policy is not None:
        without_values(agent.reference_policy)
    trained = next(cell for cell in closure(compute) if isinstance(cell, list))
    trained[:] = agent.generator.parameters()
    with forms_for_gpus(), NothingFromTheHost():
        _, *gradients = compute(*inputs)
    assert [gradient.shape for gradient in gradients] == [parameter.shape for _, parameter in parameters]


def closure(function: Callable[..., Any]) -> list[Any]:
    """What a function within another one sees of it."""
    return [cell.cell_contents for cell in function.__closure__ or ()]
