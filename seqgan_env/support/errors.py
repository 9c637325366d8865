"""What ends training, caught where it appears and named: numbers that are not numbers, and memory that is not there."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

_ADVICE = (
    "Go back to the last good checkpoint, and lower the learning rate or the largest norm of the gradient; if rewards are at "
    "fault, look at the reward model."
)


_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "size calculation overflowed")


class NumericalFault(RuntimeError):  # noqa: N818 - what is at fault is a number
    """A loss, a reward, a gradient or a parameter is infinite or no number."""


class OutOfMemory(MemoryError):  # noqa: N818 - what is at fault is the machine's size
    """A batch does not fit into memory, the processor's or the GPU's."""


@contextmanager
def room_for(what: str, lower: str) -> Iterator[None]:
    """Say what to lower where memory does not suffice.

    Args:
        what: is made in the context, for the message.
        lower: the settings with which its memory grows, and what they are.

    Raises:
        OutOfMemory: in place of torch's own error, whether of a GPU or of the processor.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lacking = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY)
        if isinstance(error, OutOfMemory) or not lacking:
            raise
        said = (str(error).splitlines() or ["no more was said"])[0]
        raise OutOfMemory(f"There is not enough memory for {what}. Lower {lower}. ({said[:300]})") from error


def check_finite(name: str, value: Tensor | float, phase: str, step: int) -> None:
    """Let finite numbers pass.

    On a GPU this waits for the tensor; see `StepRecord` for a loop that must not wait.

    Args:
        name: what the value is, for the message.
        value: a tensor of any shape, or a number.
        phase: of the training, for the message.
        step: of that phase, from 1, for the message.

    Raises:
        NumericalFault: the value, or a part of it, is infinite or no number.
    """
    if isinstance(value, Tensor):
        if not torch.isfinite(value).all():
            raise _fault(name, _count(value), phase, step)
    elif not math.isfinite(value):
        raise _fault(name, f"it is {value}", phase, step)


def check_parameters(module: nn.Module, phase: str, step: int) -> None:
    """Let a module of finite parameters pass; the norm of all is looked at first, each one only where that is not finite.

    Raises:
        NumericalFault: names the first parameter that has an infinite value or one that is no number.
    """
    parameters = dict(module.named_parameters())
    if not math.isfinite(get_total_norm([parameter.detach() for parameter in parameters.values()]).item()):
        for name, parameter in parameters.items():
            check_finite(f"the parameter {name}", parameter.detach(), phase, step)


def clip_finite_gradients(module: nn.Module, max_norm: float, phase: str, step: int) -> float:
    """Scale the gradients of a module to a norm of at most `max_norm`, if they are finite; return their norm before.

    Raises:
        NumericalFault: names the first parameter whose gradient is not finite. Call it before the optimiser's step, and the
            parameters are as they were.
    """
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    norm = get_total_norm(list(gradients.values()))
    value = norm.item()
    if not math.isfinite(value):
        for name, gradient in gradients.items():
            check_finite(f"the gradient of {name}", gradient, phase, step)
        check_finite("the norm of the gradient", value, phase, step)
    clip_grads_with_norm_(module.parameters(), max_norm, norm)
    return value


class StepRecord:
    """A few numbers of each step, kept where they are computed and looked at together: no step waits for a GPU.

    Args:
        names: of the numbers, in the order in which a fault in one becomes a fault in the next.
        n_steps: how many steps there will be.
        phase: of the training, for the message.
        device: where the numbers are.
    """

    def __init__(self, names: Sequence[str], n_steps: int, phase: str, device: torch.device | str = "cpu") -> None:
        self._names = names
        self._phase = phase
        self._values = torch.zeros(n_steps, len(names), device=device)
        self._noted = 0

    def note(self, *values: Tensor) -> None:
        """Keep the numbers of the next step."""
        for column, value in enumerate(values):
            self._values[self._noted, column] = value
        self._noted += 1

    def check(self, steps_before: int = 0) -> None:
        """Let finite numbers pass.

        Args:
            steps_before: steps of the phase before the record's first one, for the message.

        Raises:
            NumericalFault: names the first number that is not finite, and its step.
        """
        wrong = (~torch.isfinite(self._values[: self._noted])).nonzero()
        if len(wrong):
            step, column = wrong[0].tolist()
            value = self._values[step, column].item()
            raise _fault(self._names[column], f"it is {value}", self._phase, steps_before + step + 1)


def _count(value: Tensor) -> str:
    nan, infinite = int(torch.isnan(value).sum()), int(torch.isinf(value).sum())
    return f"of its {value.numel():,} values, {nan:,} are NaN and {infinite:,} infinite"


def _fault(name: str, seen: str, phase: str, step: int) -> NumericalFault:
    return NumericalFault(f"In {phase}, step {step}, {name} is not finite: {seen}. {_ADVICE}")
