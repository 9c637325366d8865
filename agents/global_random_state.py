"""Give Stable-Baselines3, which draws from torch's and numpy's global generators, separate random numbers."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from seqgan_env.support.state_dicts import seed_of_state


class BorrowedRandomness:
    """Separate random numbers for code that draws from the global generators.

    Inside `lent()` the global generators of torch and numpy continue from the end of the last `lent()`; afterwards they, and
    Python's, are as they were before.

    Args:
        seed: of the first numbers.
        device: if it is a CUDA device, its generator is replaced, too.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        with self._given_back():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator, on purpose
            self._states = self._global_states()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the global generators draw this object's numbers."""
        with self._given_back():
            self._set_global_states(self._states)
            try:
                yield
            finally:
                self._states = self._global_states()

    def training_state(self) -> dict[str, Any]:
        """The state of the generators; see `seqgan_env.support.state_dicts`."""
        name, keys, position, has_gauss, gauss = self._states["numpy"]
        numpy_state = {"keys": torch.from_numpy(keys.astype(np.int64)), "rest": [name, position, has_gauss, gauss]}
        return {**self._states, "numpy": numpy_state}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned; a GPU that it does not know is seeded from the CPU's state."""
        name, *rest = state["numpy"]["rest"]
        numpy_state = (name, state["numpy"]["keys"].cpu().numpy().astype(np.uint32), *rest)
        self._states = {key: value.cpu() for key, value in state.items() if key != "numpy"} | {"numpy": numpy_state}
        if self._device is not None and "cuda" not in self._states:
            generator = torch.Generator(self._device).manual_seed(seed_of_state(self._states["torch"]))
            self._states["cuda"] = generator.get_state()

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        states, python = self._global_states(), random.getstate()
        try:
            yield
        finally:
            self._set_global_states(states)
            random.setstate(python)

    def _global_states(self) -> dict[str, Any]:
        states: dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}  # noqa: NPY002
        if self._device is not None:
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _set_global_states(self, states: Mapping[str, Any]) -> None:
        torch.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])  # noqa: NPY002
        if self._device is not None:
            torch.cuda.set_rng_state(states["cuda"], self._device)
