"""Custom reward functions: call them, check their results, and find them by name."""

import importlib
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqgan_env.rewards.reward_model import HasScore, RewardModel, has_score

Decode = Callable[[list[int]], Any]


class RewardError(ValueError):
    """A custom reward function raised an error, or did not return finite numbers."""


class FunctionReward(RewardModel):
    """A custom function of decoded sequences as a reward model.

    Args:
        function: maps a list of `n` decoded sequences to `n` finite numbers; or, if not `batched`, one sequence to one number.
        decode: turns a list of token ids into the function's argument; by default it stays a list of ints.
        batched: whether the function takes all sequences in one call.
    """

    def __init__(self, function: Callable[[Any], Any], decode: Decode | None = None, *, batched: bool = True) -> None:
        if not callable(function):
            raise TypeError(f"A reward function must be callable, got {type(function).__name__}.")
        self.function = function
        self.batched = batched
        self._decode = decode

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The function's values `(n,)`.

        Raises:
            RewardError: the function raised an error, or returned a wrong number of values, or values that are not finite
                numbers.
        """
        if len(tokens) == 0:  # the function need not handle an empty list
            return torch.zeros(0, device=tokens.device)
        sequences: list[Any] = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        if self._decode is not None:
            sequences = [self._decode(sequence) for sequence in sequences]
        values = self._call(sequences) if self.batched else [self._call_single(sequence) for sequence in sequences]
        rewards = _as_tensor(values, len(sequences), tokens.device)
        finite = torch.isfinite(rewards)
        if not finite.all():
            at = int((~finite).nonzero()[0])
            raise RewardError(
                f"The reward function returned {rewards[at].item()} for {_show(sequences[at])}; rewards must be finite."
            )
        return rewards

    def _call(self, sequences: list[Any]) -> Any:
        try:
            return self.function(sequences)
        except Exception as error:
            culprit = find_culprit(self.function, sequences)
            where = (
                f"for the batch of {len(sequences)} sequences, but for none that was tried alone"
                if culprit is None
                else f"for the sequence {_show(culprit)}"
            )
            raise RewardError(f"The reward function raised {type(error).__name__} {where}: {error}") from error

    def _call_single(self, sequence: Any) -> float:
        try:
            value = self.function(sequence)
        except Exception as error:
            raise RewardError(
                f"The reward function raised {type(error).__name__} for the sequence {_show(sequence)}: {error}"
            ) from error
        try:
            number = _as_tensor([value], 1, torch.device("cpu"))
        except RewardError as error:
            raise RewardError(
                f"The reward function must return one number, got {_show(value)} ({type(value).__name__}) for the sequence "
                f"{_show(sequence)}. If it takes a list of sequences, pass batched=True."
            ) from error
        return number.item()


def find_culprit(function: Callable[[list[Any]], Any], sequences: list[Any]) -> Any | None:
    """A single sequence for which a batched function raises an error; None if halving the batch does not find one.

    It calls the function at most twice per halving: 2 log2(n) times.
    """

    def raises(part: list[Any]) -> bool:
        try:
            function(part)
        except Exception:
            return True
        return False

    while len(sequences) > 1:
        middle = len(sequences) // 2
        halves = (sequences[:middle], sequences[middle:])
        sequences = next((half for half in halves if raises(half)), [])
    return sequences[0] if sequences and raises(sequences) else None


def _as_tensor(values: Any, n: int, device: torch.device) -> Tensor:
    try:
        rewards = torch.as_tensor(values, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(
            f"The reward function must return {n} numbers, one for each sequence, got {_show(values)} "
            f"({type(values).__name__})."
        ) from error
    if rewards.shape != (n,):
        raise RewardError(
            f"The reward function returned values of shape {tuple(rewards.shape)}, expected {(n,)}: one for each sequence."
        )
    return rewards.detach()


def _show(value: Any) -> str:
    """A value as text, shortened if it is long."""
    short = reprlib.Repr()
    short.maxlist, short.maxstring, short.maxother = 40, 200, 200
    return short.repr(value)


class MissingReward(RewardModel):
    """Stands in for a custom reward in a game that was loaded without it; it cannot score.

    Args:
        name: the reward's name when the game was saved.
        batched: as in `FunctionReward`.
    """

    def __init__(self, name: str, batched: bool) -> None:
        self.name = name
        self.batched = batched

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Always fails.

        Raises:
            RewardError: always; names the missing reward.
        """
        raise RewardError(
            f"This game's reward uses {self.name}, which is not in its folder, and naming it in a file does not import "
            f"it. Pass it with --objective {self.name} on the command line, or in Python with "
            f"load_game(folder, own_reward=...); load_function({self.name!r}) finds a function."
        )


def as_reward_model(reward: HasScore | Callable[[Any], Any], decode: Decode | None, batched: bool) -> HasScore:
    """An object with `score` unchanged; a function as a `FunctionReward`."""
    if has_score(reward):
        return reward
    return FunctionReward(reward, decode, batched=batched)  # type: ignore[arg-type]


def load_function(name: str) -> Callable[[Any], Any]:
    """The function named `package.module:name`. This imports, and so executes, the module: only name code that you trust.

    Raises:
        ValueError: the name has another form, the module cannot be imported or lacks the name, or it is not a function.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"A function's name must be package.module:function, such as my_rewards:length; got {name!r}.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"The module {module_name!r} of {name!r} cannot be imported: {type(error).__name__}: {error}. "
            "It is searched on Python's path; PYTHONPATH=. adds the current folder."
        ) from error
    function = getattr(module, attribute, None)
    if function is None:
        names: Sequence[str] = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"The module {module_name!r} has no {attribute!r}. It has {', '.join(names) or 'no functions'}.")
    if not callable(function):
        raise ValueError(f"{name!r} is not a function, but of type {type(function).__name__}. Name a function.")
    found: Callable[[Any], Any] = function
    return found


def describe(reward: object) -> dict[str, Any]:
    """A custom reward's name for `MissingReward`, a function's `module:name` or a class's name, and `batched`."""
    if isinstance(reward, MissingReward):
        return {"name": reward.name, "batched": reward.batched}
    if not isinstance(reward, FunctionReward):
        return {"name": type(reward).__qualname__, "batched": True}
    function = reward.function
    name = getattr(function, "__qualname__", None)
    return {
        "name": type(function).__qualname__ if name is None else f"{function.__module__}:{name}",
        "batched": reward.batched,
    }
