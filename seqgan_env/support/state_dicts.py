"""The state of training beside parameters, in a form that a file can hold: tensors, numbers, strings, lists, mappings.

An object that training changes has `training_state()`, which returns such a state of all that its further training depends on
(tensors may be references, not copies), and `load_training_state(state)`, which resumes from it, bit for bit.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def detached(state: Any) -> Any:
    """A copy of a state that later training does not change; tensors stay on their device."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: detached(value) for key, value in state.items()}
    return [detached(value) for value in state] if isinstance(state, list | tuple) else state


def random_state(generator: torch.Generator) -> dict[str, Any]:
    """The state of a random generator, and its kind of device; see `load_random_state`."""
    return {"device": generator.device.type, "state": generator.get_state()}


def load_random_state(generator: torch.Generator, state: Mapping[str, Any]) -> None:
    """Restore the state of a generator.

    A CPU state cannot be loaded on a GPU, nor the other way round: on another kind of device the generator is seeded with a
    hash of the state. Its numbers then differ, but are the same each time the same state is loaded.
    """
    if state["device"] == generator.device.type:
        generator.set_state(state["state"].cpu())
    else:
        generator.manual_seed(seed_of_state(state["state"]))


def seed_of_state(state: Tensor) -> int:
    """A seed computed from a generator's state, for another kind of device; different states give different seeds."""
    return int.from_bytes(hashlib.sha256(state.cpu().numpy().tobytes()).digest()[:7], "little")


def module_state(module: nn.Module) -> dict[str, Any]:
    """A module's parameters, and its random generators including those of its parts; see `load_module_state`."""
    return {
        "parameters": module.state_dict(),
        "random": {name: random_state(generator) for name, generator in random_generators(module)},
    }


def load_module_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Restore a module from `module_state`."""
    module.load_state_dict(state["parameters"])
    device = next(module.parameters()).device
    for full_name, random in state["random"].items():
        path, _, name = full_name.rpartition(".")
        generator = torch.Generator(device)  # the module may not have made its own yet
        load_random_state(generator, random)
        setattr(module.get_submodule(path), name, generator)


def random_generators(module: nn.Module) -> Iterator[tuple[str, torch.Generator]]:
    """The random generators that are attributes of a module or of its parts, by their names."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Generator):
                yield f"{path}.{name}", value


_OF_A_DEVICE = ("capturable", "fused", "foreach")
"""Settings of torch's optimisers that say how a device takes a step, and not which step."""


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state, with string keys and without what belongs to a device; see `load_optimizer_state`."""
    state = optimizer.state_dict()
    groups = [
        {name: value for name, value in plain_numbers(group).items() if name not in _OF_A_DEVICE}
        for group in state["param_groups"]
    ]
    return {"state": {str(index): slots for index, slots in state["state"].items()}, "param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore an optimiser from `optimizer_state`.

    Raises:
        ValueError: the state is from a different optimiser.
    """
    slots = {int(index): value for index, value in state["state"].items()}
    groups = [_with_tuples(plain_numbers(group)) for group in state["param_groups"]]
    for own, loaded in zip(optimizer.param_groups, groups, strict=False):  # torch refuses another number of groups
        loaded.update({name: own[name] for name in _OF_A_DEVICE if name in own})
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def plain_numbers(settings: Any) -> Any:
    """Settings with numbers in place of tensors, which step sizes are where steps are recorded."""
    if isinstance(settings, Mapping):
        return {name: plain_numbers(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [plain_numbers(value) for value in settings]
    return settings.item() if isinstance(settings, Tensor) else settings


def _with_tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """Turn Adam's betas back into a tuple: JSON has only lists."""
    return {key: tuple(value) if key == "betas" else value for key, value in group.items()}
