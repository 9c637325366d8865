"""The steps of training: which rows a step reads, and one step of an optimiser, which several processes can take together."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from seqgan_env.support.process_group import ALONE, Workers


class Batches:
    """The numbers `0 ... n - 1` in the order of a pass, batch by batch; the last batch may be smaller.

    A counter on the device says which batch comes next, and nothing moves in memory, so that a step that takes its own rows
    can be recorded; see `seqgan_env.support.cuda_graphs`.

    Args:
        n: rows in a pass.
        size: rows in a batch.
        device: where they are.
    """

    def __init__(self, n: int, size: int, device: torch.device | str = "cpu") -> None:
        self.order = torch.arange(n, device=device)
        """The order of the pass, `(n,)` int64."""
        self.sizes = [len(rows) for rows in self.order.split(size)]
        """The number of rows of each batch."""
        self._taken = torch.zeros(1, dtype=torch.int64, device=device)
        n_whole = n // size * size
        self._whole, self._rest = self.order[:n_whole].view(-1, size), self.order[n_whole:]

    @property
    def state(self) -> list[Tensor]:
        """All tensors, which stay where they are."""
        return [self.order, self._taken]

    def begin(self, order: Tensor, taken: int = 0) -> None:
        """Begin a pass in an order `(n,)` int64, after the batches already taken."""
        self.order.copy_(order)
        self._taken.fill_(taken)

    def take(self, size: int) -> Tensor:
        """The rows `(size,)` int64 of the next batch, which has this size; never waits for a GPU."""
        if size == len(self._rest):
            return self._rest.clone()
        rows = self._whole.index_select(0, self._taken).squeeze(0)
        self._taken += 1
        return rows


def take_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor | Sequence[Tensor | None],
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
            parameter that is trained; None where it is unused.
        numbers: further values of this process's part, `(k,)`, to sum with the gradients.
        workers: the processes that take the step together.
        max_grad_norm: the norm to clip the gradient to; by default it is not clipped.
        check: gets the result before gradients are clipped and parameters change; may raise an error.

    Returns:
        The numbers summed over all processes, `(k,)`; with `max_grad_norm` followed by the gradient's norm before clipping.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer.zero_grad()
    # Not by `backward`: the place where it adds gradients up may belong to another stream than that of a recording.
    gradients = torch.autograd.grad(loss, trained, allow_unused=True) if isinstance(loss, Tensor) else loss
    for parameter, gradient in zip(trained, gradients, strict=True):
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


def adamw_step(
    parameters: Iterable[Tensor],
    gradients: Iterable[Tensor],
    moments: Iterable[tuple[Tensor, Tensor]],
    count: Tensor,
    learning_rate: Tensor,
    weight_decay: float,
) -> None:
    """AdamW's step (Loshchilov and Hutter, 2019, algorithm 2) with torch's defaults, in place.

    Torch's own cannot be compiled together with the gradients.

    Args:
        parameters: of the model.
        gradients: one for each of them.
        moments: for each the running means of its gradient and of the gradient's square.
        count: the number of steps, this one included; a scalar.
        learning_rate: a scalar.
        weight_decay: decoupled.
    """
    bias, bias_of_square = 1 - 0.9**count, 1 - 0.999**count
    for parameter, gradient, (mean, mean_square) in zip(parameters, gradients, moments, strict=True):
        mean.lerp_(gradient, 0.1)
        mean_square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        parameter.mul_(1 - learning_rate * weight_decay)
        parameter.sub_(learning_rate / bias * mean / ((mean_square / bias_of_square).sqrt() + 1e-8))
