"""The native vector environment as a Stable-Baselines3 `VecEnv`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from seqgan_env.observations import Observation
from seqgan_env.rendering import as_image, draw_step
from seqgan_env.vector_env import IntArray, PlayedEpisodes, SequenceVectorEnv


class SB3VecEnv(VecEnv):
    """A `SequenceVectorEnv` as SB3's `VecEnv`; a new episode begins in the step that ends the old one.

    The info of a row that ended has `terminal_observation` and the environment's facts about the sequence; the last such row
    has the metrics of `retraining`, if it took place. Infos have no `action_mask`: SB3 calls `action_masks()`.

    Args:
        venv: in autoreset mode `SAME_STEP`, because others would give SB3 steps that no policy made. It may be inside
            Gymnasium's vector wrappers, such as those of rewards and, from Gymnasium 1.4 on, of statistics, if they keep numpy
            arrays and a dict of infos.

    Raises:
        TypeError: it is not a `SequenceVectorEnv`, or a wrapper changes the form of infos or arrays.
        ValueError: it has another autoreset mode.
    """

    def __init__(self, venv: VectorEnv[Any, Any, Any]) -> None:
        self.venv = venv
        self.sequences = _sequence_env(venv)
        self._actions: IntArray = np.zeros(venv.num_envs, dtype=np.int64)
        self._recorded: list[tuple[IntArray, VecEnvStepReturn]] | None = None
        self._outermost: VecEnv = self  # the outermost wrapper through which a recording is replayed
        self._wrappers_wait = False
        self._shown: tuple[IntArray, npt.NDArray[np.float32], IntArray] | None = None
        self.is_midway = False
        """Whether any row is in the middle of an episode."""
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def reset(self) -> VecEnvObs:
        """Restart all rows, with the arguments of earlier calls of `seed()` and `set_options()`."""
        if self._recorded is not None:
            return self.sequences.game.observe(*self._fresh(), self.sequences.layout)
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds  # one a row
        options = {name: value for of_row in self._options for name, value in of_row.items()}
        observation: VecEnvObs = self.venv.reset(seed=seeds, options=options)[0]
        parts = observation.values() if isinstance(observation, dict) else [observation]
        if not all(isinstance(part, np.ndarray) for part in parts):
            raise TypeError(
                f"Stable-Baselines3 needs observations as numpy arrays, but {type(self.venv).__name__} converts them: leave "
                "it out."
            )
        self._reset_seeds()
        self._reset_options()
        self.is_midway = self._wrappers_wait = False
        self._shown = None
        return observation

    def step_async(self, actions: IntArray) -> None:
        """Store the actions `(num_envs,)`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play them; return observations, rewards float32, dones, and a dict of infos per row."""
        if self._recorded is not None:
            if not self._recorded or not np.array_equal(self._actions, self._recorded[0][0]):
                raise _not_as_played(self._outermost)
            return self._recorded.pop()[1]
        observation, rewards, terminated, _, infos = self.venv.step(self._actions)
        rows = [info_of_row(infos, row) for row in range(self.num_envs)]
        for info, over in zip(rows, terminated, strict=True):
            if over:
                info |= info.pop("final_info", {})
                info |= _end_of_episode(info.pop("final_obs"))
            info.pop("action_mask", None)
        self.is_midway = not terminated.all()
        self._shown = None
        return observation, rewards.astype(np.float32), terminated, rows

    def play(self, env: VecEnv, tokens: Tensor) -> PlayedEpisodes:
        """Play whole episodes at once; see `SequenceVectorEnv.play`.

        Rows left in the middle of an episode, for example by an evaluation on this environment, restart first.

        Args:
            env: this environment, or SB3 wrappers around it.
            tokens: `(num_envs, sequence_length)` int64, padded after the end token.

        Raises:
            ValueError: a wrapper plays its own steps.
        """
        if self.is_midway:
            env.reset()
        if self.is_midway:
            raise _not_as_played(env)
        return self.sequences.play(tokens)

    def replay(
        self, env: VecEnv, tokens: Tensor, played: PlayedEpisodes
    ) -> Iterator[tuple[npt.NDArray[np.int64], VecEnvStepReturn]]:
        """Step through episodes that `play` has already played, so that SB3's wrappers and callbacks see them.

        A row that ends early waits until `sequence_length` steps are over, with the pad id as its action, reward 0 and the
        first observation of its next episode. Wrappers see a `reset` before the next replay.

        Args:
            env: this environment, or SB3 wrappers around it.
            tokens: `(num_envs, sequence_length)` int64, as played.
            played: the result of `play`.

        Yields:
            Actions `(num_envs,)`, and what `env.step` returns for them.

        Raises:
            ValueError: a wrapper plays other actions, or its own steps.
        """
        if self._wrappers_wait:
            with self._answering(env):
                env.reset()
        self._wrappers_wait = True
        for actions, answer in self._record(tokens.cpu().numpy(), played):
            with self._answering(env, (actions, answer)):
                seen = env.step(actions)
            yield actions, seen
        self._wrappers_wait = bool((played.lengths < tokens.shape[1]).any())

    @contextmanager
    def _answering(self, env: VecEnv, *recorded: tuple[IntArray, VecEnvStepReturn]) -> Iterator[None]:
        """In this context, steps of this environment return what is recorded for their actions, and nothing is played.

        Raises:
            ValueError: the wrappers in `env` ask for anything else.
        """
        self._recorded, self._outermost = list(recorded), env
        try:
            yield
            if self._recorded:
                raise _not_as_played(env)
        finally:
            self._recorded, self._outermost = None, self

    def _record(self, tokens: IntArray, played: PlayedEpisodes) -> Iterator[tuple[IntArray, VecEnvStepReturn]]:
        """Actions, and the results of a step through each position of played episodes."""
        rewards, lengths = played.rewards.float().cpu().numpy(), played.lengths.cpu().numpy()
        known = {name: values for name, values in played.info.items() if name != "retraining"}
        game, layout = self.sequences.game, self.sequences.layout
        for position in range(tokens.shape[1]):
            dones, goes_on = lengths == position + 1, lengths > position + 1
            prefixes, prefix_lengths = self._fresh()
            prefixes[goes_on, : position + 1] = tokens[goes_on, : position + 1]
            prefix_lengths[goes_on] = position + 1
            infos: list[dict[str, Any]] = [{} for _ in dones]
            for row in np.flatnonzero(dones).tolist():
                last = game.observe(tokens[row], lengths[row : row + 1], layout)
                infos[row] = info_of_row(known, row) | _end_of_episode(last)
            if "retraining" in played.info and position + 1 == lengths.max():
                infos[int(np.flatnonzero(dones)[-1])]["retraining"] = played.info["retraining"]
            observation = game.observe(prefixes, prefix_lengths, layout)
            self._shown = (prefixes, rewards, prefix_lengths[:, 0])
            yield tokens[:, position], (observation, rewards[:, position].copy(), dones, infos)

    def _fresh(self) -> tuple[IntArray, IntArray]:
        """Tokens `(num_envs, sequence_length)` and lengths `(num_envs, 1)` of empty prefixes."""
        game = self.sequences.game
        tokens = np.full((self.num_envs, game.sequence_length), game.vocab_size, dtype=np.int64)
        return tokens, np.zeros((self.num_envs, 1), dtype=np.int64)

    def close(self) -> None:
        """Close the environment."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, which all rows share, once per row."""
        value = getattr(self._holder(attr_name), attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, for all rows."""
        if indices is not None and len(list(self._get_indices(indices))) < self.num_envs:
            raise ValueError(f"All rows share one environment: {attr_name} cannot be set only for rows {indices}.")
        setattr(self.sequences if hasattr(self.sequences, attr_name) else self._holder(attr_name), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once; row `i` of an array that it returns goes to row `i`."""
        result = getattr(self._holder(method_name), method_name)(*method_args, **method_kwargs)
        by_row = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[row] if by_row else result for row in self._get_indices(indices)]

    def _holder(self, name: str) -> VectorEnv[Any, Any, Any]:
        """The outermost Gymnasium wrapper that has an attribute, or the environment itself."""
        return next((wrapper for wrapper in vector_wrappers(self.venv) if hasattr(wrapper, name)), self.sequences)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether a Gymnasium wrapper around the environment is of this class; SB3's wrappers are outside this one."""
        wrapped = any(isinstance(wrapper, wrapper_class) for wrapper in vector_wrappers(self.venv))
        return [wrapped for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """The rows' images `(height, width, 3)` uint8 in render mode `"rgb_array"`, else None."""
        if self.venv.render_mode != "rgb_array":
            return [None] * self.num_envs
        if self._shown is not None:
            game = self.sequences.game
            texts = [draw_step(*row, game.sequence_length, game.vocabulary) for row in zip(*self._shown, strict=True)]
            return [as_image(text) for text in texts]
        return [np.asarray(image) for image in self.venv.render() or ()]


def vector_wrappers(venv: VectorEnv[Any, Any, Any]) -> "list[VectorWrapper[Any, Any, Any, Any, Any]]":
    """Gymnasium's wrappers around a vector environment, the outermost first."""
    wrappers = []
    while isinstance(venv, VectorWrapper):
        wrappers.append(venv)
        venv = venv.env
    return wrappers


def info_of_row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row's infos from Gymnasium's infos of a batch: arrays, with masks if not all rows have a value."""
    own = [name for name in infos if not name.startswith("_") and (f"_{name}" not in infos or infos[f"_{name}"][row])]
    return {name: info_of_row(infos[name], row) if isinstance(infos[name], dict) else infos[name][row] for name in own}


def _not_as_played(env: VecEnv) -> ValueError:
    names = []
    while isinstance(env, VecEnvWrapper):
        names.append(type(env).__name__)
        env = env.venv
    return ValueError(
        f"Whole sequences are played at once, but a wrapper around SB3VecEnv ({', '.join(names)}) plays other actions, or "
        "its own steps: leave it out, or use an algorithm that plays step by step, such as PPO."
    )


def _end_of_episode(last: Observation) -> dict[str, Any]:
    """Fields that SB3 reads from the info of a row that ended."""
    return {"terminal_observation": last, "TimeLimit.truncated": False}


def _sequence_env(venv: VectorEnv[Any, Any, Any]) -> SequenceVectorEnv:
    """The environment inside Gymnasium's wrappers, if SB3 can play it."""
    inner = getattr(venv, "unwrapped", venv)
    if not isinstance(inner, SequenceVectorEnv):
        raise TypeError(
            f"SB3VecEnv needs a SequenceVectorEnv, got {type(inner).__name__}. Make one with gym.make_vec(id, num_envs=..., "
            "vectorization_mode='vector_entry_point', autoreset_mode='SameStep')."
        )
    if inner.autoreset_mode is not AutoresetMode.SAME_STEP:
        raise ValueError(
            f"Stable-Baselines3 resets in the step that ends an episode; this environment has {inner.autoreset_mode}. "
            "Make it with autoreset_mode='SameStep'."
        )
    if any(isinstance(wrapper, DictInfoToList) for wrapper in vector_wrappers(venv)):
        raise TypeError("SB3VecEnv gives each row its own info: leave out DictInfoToList.")
    return inner
