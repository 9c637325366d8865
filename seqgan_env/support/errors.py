"""Clear errors for non-finite values and exhausted memory."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

_ADVICE = (
    "Go back to the last good checkpoint, and lower the learning rate or the largest gradient norm; if the rewards are the "
    "cause, check the reward model."
)


_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "size calculation overflowed")


class NumericalFault(RuntimeError):  # noqa: N818 - a public name
    """A loss, reward, gradient or parameter is infinite or NaN."""


class OutOfMemory(MemoryError):  # noqa: N818 - a public name
    """A batch does not fit into the memory of the CPU or the GPU."""


@contextmanager
def room_for(what: str, lower: str) -> Iterator[None]:
    """If memory runs out in this context, raise an error that says which settings to lower.

    Args:
        what: what the context computes, for the message.
        lower: the settings that determine its memory, and their values, for the message.

    Raises:
        OutOfMemory: in place of torch's own error, on a CPU or a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lacking = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY)
        if isinstance(error, OutOfMemory) or not lacking:
            raise
        said = (str(error).splitlines() or ["no further details"])[0]
        raise OutOfMemory(f"There is not enough memory for {what}. Lower {lower}. ({said[:300]})") from error


def check_finite(name: str, value: Tensor | float, phase: str, step: int) -> None:
    """Raise an error unless all values are finite.

    On a GPU this waits for the tensor; see `StepRecord` for a loop that must not wait.

    Args:
        name: what the value is, for the message.
        value: a tensor of any shape, or a number.
        phase: the phase of training, for the message.
        step: the step of that phase, from 1, for the message.

    Raises:
        NumericalFault: a value is infinite or NaN.
    """
    if isinstance(value, Tensor):
        if not torch.isfinite(value).all():
            raise _fault(name, _count(value), phase, step)
    elif not math.isfinite(value):
        raise _fault(name, f"it is {value}", phase, step)


def check_parameters(module: nn.Module, phase: str, step: int) -> None:
    """Raise an error unless all parameters are finite. Checks their common norm first, and each one only if that fails.

    Raises:
        NumericalFault: names the first parameter that is not finite.
    """
    parameters = dict(module.named_parameters())
    if not math.isfinite(get_total_norm([parameter.detach() for parameter in parameters.values()]).item()):
        for name, parameter in parameters.items():
            check_finite(f"the parameter {name}", parameter.detach(), phase, step)


def check_gradients(module: nn.Module, norm: Tensor, phase: str, step: int) -> None:
    """Raise an error unless the norm of a module's gradients is finite.

    Raises:
        NumericalFault: names the first parameter whose gradient is not finite, or else the norm.
    """
    value = norm.item()
    if not math.isfinite(value):
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                check_finite(f"the gradient of {name}", parameter.grad, phase, step)
        check_finite("the norm of the gradient", value, phase, step)


class StepRecord:
    """Numbers of each step, kept on the device and checked together, so that no step waits for a GPU.

    Its tensors stay where they are, so that steps can be recorded; see `seqgan_env.support.cuda_graphs`.

    Args:
        names: of the numbers. If a fault in one causes a fault in another, list the cause first.
        n_steps: the largest number of steps.
        phase: the phase of training, for the message.
        device: where the numbers are.
    """

    def __init__(self, names: Sequence[str], n_steps: int, phase: str, device: torch.device | str = "cpu") -> None:
        self._names = names
        self._phase = phase
        self.values = torch.zeros(n_steps, len(names), device=device)
        """The numbers `(n_steps, names)`; 0 for steps to come."""
        self.noted = torch.zeros(1, dtype=torch.int64, device=device)
        """The number of steps so far."""

    @property
    def state(self) -> list[Tensor]:
        """All tensors, which stay where they are."""
        return [self.values, self.noted]

    def begin(self) -> None:
        """Forget the numbers so far."""
        self.values.zero_()
        self.noted.zero_()

    def note(self, *values: Tensor) -> None:
        """Keep the numbers of the next step, scalars."""
        self.values.index_copy_(0, self.noted, torch.stack(values).to(self.values.dtype).unsqueeze(0))
        self.noted += 1

    def check(self, steps_before: int = 0) -> None:
        """Raise an error unless all numbers are finite.

        Args:
            steps_before: steps of the phase before the record's first one, for the message.

        Raises:
            NumericalFault: names the first number that is not finite, and its step.
        """
        wrong = (~torch.isfinite(self.values)).nonzero()
        if len(wrong):
            step, column = wrong[0].tolist()
            value = self.values[step, column].item()
            raise _fault(self._names[column], f"it is {value}", self._phase, steps_before + step + 1)


def _count(value: Tensor) -> str:
    nan, infinite = int(torch.isnan(value).sum()), int(torch.isinf(value).sum())
    return f"of its {value.numel():,} values, {nan:,} are NaN and {infinite:,} infinite"


def _fault(name: str, seen: str, phase: str, step: int) -> NumericalFault:
    return NumericalFault(f"In {phase}, step {step}, {name} is not finite: {seen}. {_ADVICE}")
