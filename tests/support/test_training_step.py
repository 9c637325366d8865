"""One step of an optimiser: against the same step written out, alone and as a share of several processes' work."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.training_step import gradient_norm, take_step
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
def test_is_the_step_written_out(as_gradients: bool, workers: Workers, factor: int, max_grad_norm: float | None) -> None:
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


def test_a_check_that_fails_leaves_parameters_and_gradients_as_they_are() -> None:
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
