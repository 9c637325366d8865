"""States of random generators and optimisers, loaded on the same device and on another."""

from typing import Any

import pytest
import torch

from agents.global_random_state import BorrowedRandomness
from seqgan_env.support.state_dicts import (
    detached,
    load_optimizer_state,
    load_random_state,
    optimizer_state,
    random_state,
    seed_of_state,
)
from tests.small import seeded

# What a CUDA generator's state is: its seed and its offset, in 16 bytes.
OF_A_GPU = {"device": "cuda", "state": torch.arange(16, dtype=torch.uint8)}


class OnAGpu:
    """Stands in for a GPU's generator, which torch cannot create without a GPU."""

    device = torch.device("cuda")

    def __init__(self, device: Any = None) -> None:
        self.seeds: list[int] = []
        self.states: list[torch.Tensor] = []

    def manual_seed(self, seed: int) -> "OnAGpu":
        self.seeds.append(seed)
        return self

    def get_state(self) -> torch.Tensor:
        return torch.tensor([*self.seeds[-1].to_bytes(8, "little"), *[0] * 8], dtype=torch.uint8)

    def set_state(self, state: torch.Tensor) -> None:
        self.states.append(state)


def numbers(state: Any) -> torch.Tensor:
    generator = seeded(99)
    load_random_state(generator, state)
    return torch.rand(5, generator=generator)


def test_on_the_same_device_a_generator_continues() -> None:
    generator = seeded()
    torch.rand(3, generator=generator)
    state = random_state(generator)
    assert torch.equal(numbers(state), torch.rand(5, generator=generator))
    gpu: Any = OnAGpu()
    load_random_state(gpu, OF_A_GPU)
    assert [state.tolist() for state in gpu.states] == [list(range(16))]
    assert gpu.seeds == []


def test_a_gpus_state_seeds_a_cpu_the_same_way_each_time() -> None:
    assert torch.equal(numbers(OF_A_GPU), numbers(OF_A_GPU))
    later = {"device": "cuda", "state": torch.arange(1, 17, dtype=torch.uint8)}
    assert not torch.equal(numbers(OF_A_GPU), numbers(later))


def test_a_cpus_state_seeds_a_gpu() -> None:
    gpu: Any = OnAGpu()
    for seed in (0, 0, 1):
        load_random_state(gpu, random_state(seeded(seed)))
    assert gpu.states == []
    assert gpu.seeds[0] == gpu.seeds[1] != gpu.seeds[2]
    assert all(0 <= seed < 2**63 for seed in gpu.seeds)


class TestBorrowed:
    def test_of_a_gpu_continues_without_one(self) -> None:
        state = BorrowedRandomness(0, torch.device("cpu")).training_state()
        borrowed = BorrowedRandomness(1, torch.device("cpu"))
        borrowed.load_training_state(state | {"cuda": OF_A_GPU["state"]})
        with borrowed.lent():
            drawn = torch.rand(2)
        assert torch.equal(drawn, torch.rand(2, generator=seeded(0)))

    def test_without_a_gpu_continues_on_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        state = BorrowedRandomness(0, torch.device("cpu")).training_state()
        kept: list[torch.Tensor] = [torch.zeros(16, dtype=torch.uint8)]
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: kept[-1])
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: kept.append(state))
        borrowed = BorrowedRandomness(1, torch.device("cuda"))
        monkeypatch.setattr(torch, "Generator", OnAGpu)
        borrowed.load_training_state(state)
        with borrowed.lent():
            lent = kept[-1]
        assert lent.tolist() == [*seed_of_state(state["torch"]).to_bytes(8, "little"), *[0] * 8]
        assert not kept[-1].any()  # and given back


class TestOptimizers:
    """Where steps are recorded, the step size is a tensor and the step is `capturable`; see `cuda_graphs`."""

    @staticmethod
    def made(recorded: bool, steps: int = 2, **settings: Any) -> torch.optim.Adam:
        parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = torch.optim.Adam([parameter], **{"lr": 0.25, "fused": True} | settings)
        if recorded:
            optimizer.param_groups[0].update(capturable=True, lr=torch.tensor(0.25))
        for step in range(steps):
            parameter.grad = torch.tensor([0.5, 1.0]) * (step + 1)
            optimizer.step()
        return optimizer

    @staticmethod
    def after_another_step(optimizer: torch.optim.Adam) -> torch.Tensor:
        """The parameter after one more step, always from the same start."""
        (parameter,) = optimizer.param_groups[0]["params"]
        with torch.no_grad():
            parameter.copy_(torch.tensor([1.0, -2.0]))
        parameter.grad = torch.tensor([3.0, -1.0])
        optimizer.step()
        return parameter.detach()

    @pytest.mark.parametrize("saved", [False, True])
    @pytest.mark.parametrize("loading", [False, True])
    def test_continue_with_or_without_recorded_steps(self, saved: bool, loading: bool) -> None:
        before = self.made(saved)
        state = detached(optimizer_state(before))
        (group,) = state["param_groups"]
        assert group["lr"] == 0.25
        assert type(group["lr"]) is float
        assert not {"capturable", "fused", "foreach"} & set(group)
        after = self.made(loading, steps=1)
        load_optimizer_state(after, state)
        (group,) = after.param_groups
        assert (group["lr"], group["capturable"], group["fused"]) == (0.25, loading, True)
        assert type(group["lr"]) is float
        expected = self.after_another_step(before)
        assert torch.equal(self.after_another_step(after), expected)
        assert not torch.equal(self.after_another_step(self.made(False, steps=1)), expected)  # moments of its own

    def test_older_states_with_device_settings_are_loaded(self) -> None:
        before = self.made(True)
        state = before.state_dict()
        older = {
            "state": {str(index): slots for index, slots in state["state"].items()},
            "param_groups": state["param_groups"],
        }
        assert isinstance(older["param_groups"][0]["lr"], torch.Tensor)
        after = self.made(False, steps=1)
        load_optimizer_state(after, detached(older))
        assert after.param_groups[0]["capturable"] is False
        assert type(after.param_groups[0]["lr"]) is float
        assert torch.equal(self.after_another_step(after), self.after_another_step(before))

    def test_of_another_kind_are_refused(self) -> None:
        two = torch.optim.Adam([torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))])
        with pytest.raises(ValueError, match="parameter group"):
            load_optimizer_state(two, optimizer_state(self.made(False)))
