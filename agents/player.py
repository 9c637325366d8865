"""What `Reinforce` and the actor-critics share: a generator that plays a game and learns from it, update by update."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, is_vecenv_wrapped
from torch import Tensor

from agents.saved_game_state import SavesGame
from agents.vec_env import SB3VecEnv
from seqgan_env.game import SequenceGame
from seqgan_env.models.token_model import TokenModel
from seqgan_env.support.state_dicts import (
    load_module_state,
    load_optimizer_state,
    load_random_state,
    module_state,
    optimizer_state,
    random_state,
)
from seqgan_env.vector_env import PlayedEpisodes, SequenceVectorEnv

PHASE = "adversarial training"
"""The name in messages of the phase in which players learn."""


class Player(SavesGame, OnPolicyAlgorithm):
    """An SB3 algorithm whose policy contains a generator of sequences: a mixin that must come before SB3's class.

    There are two ways to train it. SB3's `learn(total_timesteps, callback)` contains the loop. Or write the loop yourself, as
    in `train.py`: `begin(n_updates)`, then call `update()` that many times, with anything else in between.
    """

    policy: Any
    _rng: torch.Generator  # draws the generator's own sequences
    _played: PlayedEpisodes
    _empty_callback: BaseCallback | None = None  # what `begin` gives to SB3, which wants one in each update

    @property
    def generator(self) -> TokenModel:
        """The policy's network."""
        generator: TokenModel = self.policy.generator
        return generator

    @property
    def game(self) -> SequenceGame:
        """The game that the environment plays."""
        return self.sequence_env.game

    @property
    def sequence_env(self) -> SequenceVectorEnv:
        """The vector environment inside all wrappers."""
        return sb3_vec_env(self._env_or_error(), type(self).__name__).sequences

    def _env_or_error(self) -> VecEnv:
        if self.env is None:
            raise ValueError("This agent has no environment: pass one to load(..., env=...) or set_env().")
        return self.env

    @property
    def last_played(self) -> PlayedEpisodes:
        """The rewards of the latest update's episodes."""
        if not hasattr(self, "_played"):
            raise ValueError("Nothing has been played yet: call learn() or update() first.")
        return self._played

    def sync_rollout_policy(self) -> None:
        """Let the current generator write the environment's completions."""
        raise NotImplementedError

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Let the generator write `n` sequences: tokens `(n, length)` int64, padded, and lengths `(n,)`, on the device."""
        game, workers = self.game, self.game.workers
        rows = workers.part(n).rows
        tokens, lengths = self.generator.sample(n, game.sequence_length, self._rng, mask=game.mask, rows=rows)
        return workers.gather(tokens, n), workers.gather(lengths, n)

    def retrain_reward_model(self, n_generated: int) -> dict[str, float]:
        """Fit the reward model to this many new sequences against real ones; return its metrics."""
        return self.game.retrain(self.sample(n_generated)[0])

    def begin(self, n_updates: int) -> None:
        """Prepare for calls of `update`, in place of `learn`.

        Args:
            n_updates: the total number of updates, including those already done. The learning rate's schedule ends with the
                last one, if no sequence ends early.
        """
        n_steps, is_new = n_updates * self.n_steps * self.n_envs, self._n_updates == 0
        done = 0 if is_new else self.num_timesteps
        _, self._empty_callback = self._setup_learn(n_steps - done, reset_num_timesteps=is_new)

    def update(self) -> None:
        """Play a batch of episodes and learn from it; log as `learn` does.

        Raises:
            ValueError: `begin` was not called.
            NumericalFault: rewards, loss or gradient are not finite.
            OutOfMemory: the batch is too large.
        """
        if self._empty_callback is None:
            raise ValueError("update() needs to know how many updates there are: call begin(n_updates) first.")
        self.collect_rollouts(self._env_or_error(), self._empty_callback, self.rollout_buffer, self.n_steps)
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self.dump_logs(self._n_updates + 1)
        self.train()

    def _note_episodes(self, infos: Mapping[str, Any]) -> None:
        """Update SB3's episode statistics, unless a `VecMonitor` does, and log the sequences' rewards.

        Args:
            infos: the environment's facts about the episodes, numbers by name.
        """
        rewards, lengths = self._played.rewards.cpu(), self._played.lengths.cpu()
        if not is_vecenv_wrapped(self._env_or_error(), VecMonitor):
            assert self.ep_info_buffer is not None
            self.ep_info_buffer.extend(
                {"r": total, "l": length} for total, length in zip(rewards.sum(dim=1).tolist(), lengths.tolist(), strict=True)
            )
        self.logger.record("rollout/reward_per_token", (rewards.sum() / lengths.sum()).item())
        for name, values in infos.items():
            self.logger.record(f"rollout/{name}", float(np.mean(values)))

    def training_state(self) -> dict[str, Any]:
        """All that later updates depend on, taken between two updates; see `seqgan_env.support.state_dicts`.

        To resume, call `begin` with the same number of updates, or `learn` for the rest with `reset_num_timesteps=False`.
        """
        return {
            "generator": module_state(self.generator),
            "optimizer": optimizer_state(self.policy.optimizer),
            "rng": random_state(self._rng),
            "n_updates": self._n_updates,
            "num_timesteps": self.num_timesteps,
            "recent_episodes": [[float(episode["r"]), int(episode["l"])] for episode in self.ep_info_buffer or ()],
            "env": self.sequence_env.training_state(),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        load_module_state(self.generator, state["generator"])
        load_optimizer_state(self.policy.optimizer, state["optimizer"])
        load_random_state(self._rng, state["rng"])
        self._n_updates = state["n_updates"]
        self.num_timesteps = state["num_timesteps"]
        episodes = [{"r": total, "l": length} for total, length in state["recent_episodes"]]
        self.ep_info_buffer = deque(episodes, maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        self.sequence_env.load_training_state(state["env"])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_rng", "_played", "_empty_callback"]


def sb3_vec_env(env: VecEnv, player: str = "Reinforce") -> SB3VecEnv:
    """The environment inside SB3's wrappers.

    Raises:
        TypeError: it is not an `SB3VecEnv`; the message names the player.
    """
    inner = env.unwrapped
    if not isinstance(inner, SB3VecEnv):
        raise TypeError(f"{player} needs an SB3VecEnv over a SequenceVectorEnv, got {type(inner).__name__}.")
    return inner
