"""The batches of a pass; and one step of an optimiser, written out, alone and as a share of several processes' work."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.training_step import Batches, gradient_norm, take_step
from tests.small import seeded

INPUTS = torch.arange(12.0).view(4, 3) / 10


class Twice(Workers):
    """As if another process had done the same."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad *= 2
        return 2 * numbers


def made() -> tuple[nn.Linear, torch.optim.Optimizer]:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded()))
    return module, torch.optim.SGD(module.parameters(), lr=0.1)


def loss_of(module: nn.Module) -> Tensor:
    loss: Tensor = module(INPUTS).square().sum()
    return loss


@pytest.mark.parametrize("as_gradients", [False, True])
@pytest.mark.parametrize(("workers", "factor"), [(ALONE, 1), (Twice(), 2)])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 1e6])
def test_a_step_equals_the_step_written_out(
    as_gradients: bool, workers: Workers, factor: int, max_grad_norm: float | None
) -> None:
    module, optimizer = made()
    expected = copy.deepcopy(module)
    (factor * loss_of(expected)).backward()
    norm = torch.nn.utils.clip_grad_norm_(expected.parameters(), torch.inf if max_grad_norm is None else max_grad_norm)
    assert norm > 0.5
    with torch.no_grad():
        for parameter in expected.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad

    loss_of(module).backward()  # gradients of before do not count
    loss = loss_of(module)
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) if as_gradients else loss
    numbers = take_step(
        module, optimizer, gradients, torch.stack([loss, loss + 1]), workers, max_grad_norm=max_grad_norm
    ).tolist()
    torch.testing.assert_close(dict(module.named_parameters()), dict(expected.named_parameters()))
    wanted = [factor * loss.item(), factor * (loss.item() + 1), *([] if max_grad_norm is None else [norm.item()])]
    assert numbers == pytest.approx(wanted)


def test_a_check_that_fails_leaves_parameters_and_gradients_unchanged() -> None:
    module, optimizer = made()
    before, loss = copy.deepcopy(module.state_dict()), loss_of(module)
    seen: list[list[float]] = []

    def check(numbers: Tensor) -> None:
        seen.append(numbers.tolist())
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        take_step(module, optimizer, loss, loss.view(1), max_grad_norm=0.01, check=check)
    assert seen == [[loss.item(), gradient_norm(module).item()]]
    assert gradient_norm(module) > 0.01
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_frozen_and_unused_parameters_stay_unchanged() -> None:
    module, optimizer = made()
    module.extra = nn.Linear(1, 1)
    optimizer.add_param_group({"params": module.extra.parameters()})
    module.bias.requires_grad_(False)
    module.extra.weight.grad = torch.ones(1, 1)  # of before, which does not count
    before = copy.deepcopy(module.state_dict())
    take_step(module, optimizer, loss_of(module), torch.zeros(1), max_grad_norm=1.0)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"weight"}


# Batches


@pytest.mark.parametrize(("n", "size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (3, 1, [1, 1, 1])])
def test_batches_have_every_row_once_in_the_order_of_the_pass(n: int, size: int, sizes: list[int]) -> None:
    batches = Batches(n, size)
    assert batches.sizes == sizes
    places = [tensor.data_ptr() for tensor in batches.state]
    for seed in range(2):
        order = torch.randperm(n, generator=seeded(seed))
        batches.begin(order)
        assert torch.cat([batches.take(of_one) for of_one in batches.sizes]).equal(order)
    assert [tensor.data_ptr() for tensor in batches.state] == places


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_pass_can_begin_after_some_batches(taken: int) -> None:
    batches, order = Batches(7, 3), torch.randperm(7, generator=seeded())
    batches.begin(order, taken)
    rows = torch.cat([batches.take(size) for size in batches.sizes[taken:]])
    assert rows.equal(order[3 * taken :])


def test_the_next_pass_leaves_earlier_batches_alone() -> None:
    batches = Batches(4, 3)
    first, last = batches.take(3), batches.take(1)
    batches.begin(torch.tensor([3, 2, 1, 0]))
    assert (first.tolist(), last.tolist()) == ([0, 1, 2], [3])
