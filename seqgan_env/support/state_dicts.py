"""What training remembers beside parameters, in a form that a file can hold: tensors, numbers, texts, lists, mappings."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Resumable(Protocol):
    """What can be left in the middle of training, and taken up again: what comes after is the same, bit for bit."""

    def training_state(self) -> dict[str, Any]:
        """All that the rest of the training depends on; tensors may be the living ones, not copies."""

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""


def detached(state: Any) -> Any:
    """A copy of a state that later training does not reach; tensors stay on their device."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: detached(value) for key, value in state.items()}
    return [detached(value) for value in state] if isinstance(state, list | tuple) else state


def random_state(generator: torch.Generator) -> dict[str, Any]:
    """Where a generator of random numbers stands, and on which kind of device; see `load_random_state`."""
    return {"device": generator.device.type, "state": generator.get_state()}


def load_random_state(generator: torch.Generator, state: Mapping[str, Any]) -> None:
    """Let a generator go on where `random_state` was taken down.

    A CPU's state means nothing to a GPU, nor the other way round: on another kind of device the generator is seeded with a
    hash of the state. Its numbers are then others, but the same each time the same state is loaded.
    """
    if state["device"] == generator.device.type:
        generator.set_state(state["state"].cpu())
    else:
        generator.manual_seed(seed_of_state(state["state"]))


def seed_of_state(state: Tensor) -> int:
    """A seed from a generator's state, for one on another kind of device: states that differ give seeds that differ."""
    return int.from_bytes(hashlib.sha256(state.cpu().numpy().tobytes()).digest()[:7], "little")


def module_state(module: nn.Module) -> dict[str, Any]:
    """A module's parameters, and the random numbers of it and its parts; see `load_module_state`."""
    return {
        "parameters": module.state_dict(),
        "random": {name: random_state(generator) for name, generator in _random_numbers(module)},
    }


def load_module_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a module what `module_state` took down."""
    module.load_state_dict(state["parameters"])
    device = next(module.parameters()).device
    for full_name, random in state["random"].items():
        path, _, name = full_name.rpartition(".")
        generator = torch.Generator(device)  # the module may not have made its own yet
        load_random_state(generator, random)
        setattr(module.get_submodule(path), name, generator)


def _random_numbers(module: nn.Module) -> Iterator[tuple[str, torch.Generator]]:
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Generator):
                yield f"{path}.{name}", value


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser remembers, by texts; see `load_optimizer_state`."""
    state = optimizer.state_dict()
    return {"state": {str(index): slots for index, slots in state["state"].items()}, "param_groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Let an optimiser remember what `optimizer_state` took down.

    Raises:
        ValueError: it is another optimiser's.
    """
    slots = {int(index): value for index, value in state["state"].items()}
    groups = [_with_tuples(group) for group in state["param_groups"]]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _with_tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, which Adam's betas are."""
    return {key: tuple(value) if key == "betas" else value for key, value in group.items()}
