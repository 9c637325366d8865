"""Recorded and plain steps learn the same, whatever happens between the passes of a loop, in random order.

A run may reuse the memory of an earlier one, so its tensors may have addresses that were recorded for others.
"""

import gc
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.support.cuda_graphs import Recordable, RepeatedStep, without_graphs
from seqgan_env.support.errors import StepRecord
from seqgan_env.support.precision import products_in
from seqgan_env.support.state_dicts import detached, load_module_state, load_optimizer_state, module_state, optimizer_state
from seqgan_env.support.training_step import Batches, take_step
from tests.recordings import RecordedOn, values_of
from tests.small import seeded


class Regression(Recordable):
    """Learns a product, with some inputs dropped."""

    recordable = True

    def __init__(self, device: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))
        self.rng = torch.Generator(device).manual_seed(3)

    def loss(self, inputs: Tensor) -> Tensor:
        kept = torch.rand(inputs.shape, generator=self.rng, device=inputs.device) > 0.2
        wanted = inputs.sum(dim=1) ** 2
        return ((inputs * kept) @ self.weight + self.bias - wanted).square().mean()


class Loop:
    """A training of it, and what can happen to one between two passes."""

    def __init__(self, device: str) -> None:
        self.model = Regression(device)
        self.device = device
        self.precision = "highest"
        self.losses: list[float] = []
        self.state: dict[str, object] | None = None
        self.begin(7, 3)

    def begin(self, n: int, size: int) -> None:
        """A new training, with tensors and an optimiser of its own."""
        self.inputs = torch.randn(n, 3, generator=seeded(n)).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05, fused=True)
        self.batches = Batches(n, size, self.device)
        self.record = StepRecord(["the loss"], len(self.batches.sizes), "a pass", self.device)

    def run(self, seed: int) -> None:
        self.batches.begin(torch.randperm(len(self.inputs), generator=seeded(seed)).to(self.device))
        self.record.begin()
        state = [self.inputs, *self.batches.state, *self.record.state]
        with products_in(self.precision):  # type: ignore[arg-type]
            steps = {
                size: RepeatedStep(self.model, size, self.step_of(size), optimizer=self.optimizer, state=state)
                for size in set(self.batches.sizes)
            }
            for size in self.batches.sizes:
                steps[size]()
        self.record.check()
        self.losses += self.record.values.flatten().tolist()

    def step_of(self, size: int) -> Callable[[], tuple[Tensor, ...]]:
        inputs, batches, record, optimizer = self.inputs, self.batches, self.record, self.optimizer

        def step() -> tuple[Tensor, ...]:
            loss = self.model.loss(inputs[batches.take(size)])
            record.note(*take_step(self.model, optimizer, loss, loss.detach().view(1), max_grad_norm=1.0)[:1])
            return ()

        return step

    def do(self, action: str) -> None:
        if action == "begin":
            self.begin(7, 3)
        elif action == "other sizes":
            self.begin(6, 2)
        elif action == "move":
            self.model.weight.data = self.model.weight.detach().clone()
        elif action == "replace":
            self.model.bias = nn.Parameter(self.model.bias.detach().clone())
            self.begin(7, 3)
        elif action == "freeze":
            self.model.bias.requires_grad_(not self.model.bias.requires_grad)
        elif action == "save":
            self.state = detached({"model": module_state(self.model), "optimizer": optimizer_state(self.optimizer)})
        elif action == "load" and self.state is not None and self.optimizer.state:
            state = detached(self.state)
            load_module_state(self.model, state["model"])
            load_optimizer_state(self.optimizer, state["optimizer"])
        elif action == "forget":  # all but the optimiser's state stays where it is
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.optimizer.param_groups[0]["lr"], fused=True)
        elif action == "rate":
            self.optimizer.param_groups[0]["lr"] *= 0.7
        elif action == "setting":
            self.optimizer.param_groups[0]["weight_decay"] += 0.1
        elif action == "precision":
            self.precision = "high" if self.precision == "highest" else "highest"


ACTIONS = ("", "begin", "other sizes", "move", "replace", "freeze", "save", "load", "forget", "rate", "setting", "precision")


@pytest.mark.parametrize("seed", range(3))
def test_loops_learn_the_same_whatever_happens_between_passes(recorded_on: RecordedOn, seed: int, times: int) -> None:
    for case in range(times):
        rng = seeded(1000 * case + seed)
        actions = [ACTIONS[int(torch.randint(len(ACTIONS), (), generator=rng))] for _ in range(10)]
        loops = recorded, plain = [Loop(recorded_on.device) for _ in range(2)]
        before = recorded_on.made
        start = values_of(plain.model)
        for loop in loops:
            with nullcontext() if loop is recorded else without_graphs():
                for number, action in enumerate(["", *actions]):
                    loop.do(action)
                    for repeat in range(2):
                        loop.run(10 * number + repeat)
            gc.collect()
        assert recorded_on.made > before + 3
        assert recorded.losses == pytest.approx(plain.losses, rel=1e-4), actions
        torch.testing.assert_close(values_of(recorded.model), values_of(plain.model), rtol=1e-4, atol=1e-5)
        assert not torch.equal(values_of(plain.model), start)
