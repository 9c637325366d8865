"""The native vector environment for Stable-Baselines3."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from seqgan_env.vector_env import SequenceVectorEnv


class SB3VecEnv(VecEnv):
    """A `SequenceVectorEnv` as SB3's `VecEnv`, with a new episode in the step that ends the old one.

    An info of a row that ended carries `terminal_observation` beside what the environment knows of the sequence.

    Args:
        venv: in autoreset mode `SAME_STEP`; the others would feed SB3 steps that no policy made.
    """

    def __init__(self, venv: SequenceVectorEnv) -> None:
        if venv.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Stable-Baselines3 resets in the step that ends an episode; this environment has {venv.autoreset_mode}. "
                "Make it with autoreset_mode='SameStep'."
            )
        self.venv = venv
        self._actions: npt.NDArray[np.int64] = np.zeros(venv.num_envs, dtype=np.int64)
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def reset(self) -> VecEnvObs:
        """Start all rows anew, with the seeds given to `seed()` before."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, _ = self.venv.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Take note of the actions `(num_envs,)`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play them: observations, rewards float32, dones, and a dict of infos a row."""
        observation, rewards, terminated, _, infos = self.venv.step(self._actions)
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated).tolist():
            rows[row] = {name: values[row] for name, values in infos["final_info"].items() if not name.startswith("_")}
            rows[row]["terminal_observation"] = infos["final_obs"][row]
            rows[row]["TimeLimit.truncated"] = False
        return observation, rewards.astype(np.float32), terminated, rows

    def close(self) -> None:
        """Close the environment."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, which all rows share, once a row."""
        value = getattr(self.venv, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, for all rows."""
        if indices is not None and len(list(self._get_indices(indices))) < self.num_envs:
            raise ValueError(f"All rows share one environment: {attr_name} cannot be set for rows {indices} alone.")
        setattr(self.venv, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once; row `i` of an array that it returns goes to row `i`."""
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        by_row = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[row] if by_row else result for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: wrappers for SB3 go around this one."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """Sequences have no images."""
        return [None] * self.num_envs
