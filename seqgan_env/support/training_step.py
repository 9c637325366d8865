"""One optimiser step, which several processes can take together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from seqgan_env.support.process_group import ALONE, Workers


def take_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor | Sequence[Tensor],
    numbers: Tensor,
    workers: Workers = ALONE,
    *,
    max_grad_norm: float | None = None,
    check: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Differentiate, sum the gradients of all processes, clip them, and step. This never waits for a GPU.

    Args:
        module: the module to train.
        optimizer: of its parameters.
        loss: this process's part of the batch's loss, a scalar (see `Workers`), or the gradients of that part, one per
            parameter.
        numbers: further values of this process's part, `(k,)`, to sum with the gradients.
        workers: the processes that take the step together.
        max_grad_norm: the norm to clip the gradient to; by default it is not clipped.
        check: gets the result before gradients are clipped and parameters change; may raise an error.

    Returns:
        The numbers summed over all processes, `(k,)`; with `max_grad_norm` followed by the gradient's norm before clipping.
    """
    optimizer.zero_grad()
    if isinstance(loss, Tensor):
        loss.backward()
    else:
        for parameter, gradient in zip(module.parameters(), loss, strict=True):
            parameter.grad = gradient
    numbers = workers.sum_gradients(module.parameters(), numbers.detach())
    if max_grad_norm is not None:
        norm = gradient_norm(module)
        numbers = torch.cat([numbers, norm.view(1)])
    if check is not None:
        check(numbers)
    if max_grad_norm is not None:
        clip_grads_with_norm_(module.parameters(), max_grad_norm, norm)
    optimizer.step()
    return numbers


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of all gradients of a module together, a scalar."""
    return get_total_norm([parameter.grad for parameter in module.parameters() if parameter.grad is not None])
