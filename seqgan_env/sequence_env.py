"""The environment for one episode at a time: the simple reference form."""

from typing import Any, ClassVar, SupportsFloat, SupportsIndex

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import Tensor

from seqgan_env.game import SequenceGame
from seqgan_env.game_environment import GameEnvironment, check_options, masked_out
from seqgan_env.games import oracle_game, text_game
from seqgan_env.observations import Layout, Observation, observe
from seqgan_env.rendering import RENDER_MODES, draw_step, rendered
from seqgan_env.support.hashed_random import as_seed, mix, stream_key


class SequenceEnv(GameEnvironment, gym.Env[Observation, np.int64]):
    """Write a sequence token by token, for a reward that says how real it is.

    ## Description
    The state is the prefix, an action is the next token (Yu et al., AAAI 2017). The reward comes from a reward model,
    usually a discriminator that is retrained against the agent itself.

    ## Action space
    `Discrete(vocab_size)`. `action_masks()` gives the actions that the game's mask allows; any other action is an error.
    If the game has a mask, `info["action_mask"]` of `reset` and `step` has the same as int8, for `action_space.sample(mask)`;
    after the end all are allowed.

    ## Observation space
    `layout="dict"`: `Dict(tokens=Box(0, vocab_size, (T,), int64), length=Box(0, T, (1,), int64))`, padded with `vocab_size`.
    `layout="flat"`: `Box(0, max(vocab_size, T), (T + 1,), int64)`, the length last. `layout="dict-mask"`: as `"dict"`, with
    `action_mask=Box(0, 1, (vocab_size,), int8)` as well.

    ## Starting state
    The empty prefix.

    ## Rewards
    They follow the game's contract; each is right with its own discount `gamma`. `"terminal"` (gamma 1): 0 until the end, then
    the sequence's reward R. `"rollout"` (gamma 0): the mean R of `n_rollouts` completions of the prefix, and R itself at the
    end. `"shaped"` (gamma 1): the differences of the latter, which sum to R.

    ## Episode end
    Terminated at `sequence_length` tokens, or at the end token if there is one; never truncated. The last `info` has
    `discriminator_probability` if the game has a discriminator, and `oracle_nll` (nats per token) if it has an oracle. If the
    episode caused retraining, `retraining` has its metrics.

    ## Arguments
    `game` (see `SequenceGame`), `layout`, `render_mode` (`"ansi"`, `"human"` or `"rgb_array"`). Instead of the game,
    `SeqGAN/Oracle-v0` takes the arguments of `oracle_game`, and `SeqGAN/Text-v0` those of `text_game`. All except
    `render_mode` are read-only attributes; see `SequenceGame` for what can be changed in a game.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 - Gymnasium's own declaration

    read_only: ClassVar[frozenset[str]] = frozenset({"game", "layout", "observation_space", "action_space"})

    def __init__(self, game: SequenceGame, *, layout: Layout = "dict", render_mode: str | None = None) -> None:
        self.game = game
        self.layout = layout
        self.render_mode = render_mode
        self.observation_space = game.observation_space(layout)
        self.action_space = spaces.Discrete(game.vocab_size)
        self._tokens = np.full(game.sequence_length, game.vocab_size, dtype=np.int64)
        self._length = 0
        self._allowed: npt.NDArray[np.bool_] | None = None  # after the present prefix, once it was asked for
        self._over = True
        self._rewards = np.zeros(game.sequence_length)
        self._previous_value = 0.0
        self._stream: int | None = None
        self._episode = -1

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The tokens that may come next: `(vocab_size,)` bool."""
        return self._allowed_now().copy()

    def reset(
        self, *, seed: SupportsIndex | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from the empty prefix.

        Args:
            seed: an integer from 0; makes everything after it reproducible, including completions.
            options: must be empty.

        Raises:
            TypeError, ValueError: the seed is invalid, or there is an option; nothing has changed then. Or the mask allows no
                first token.
        """
        check_options(options)
        seed = None if seed is None else as_seed(seed)
        super().reset(seed=seed)
        if seed is not None or self._stream is None:
            self._stream = stream_key(self.np_random_seed if seed is None else seed)
            self._episode = -1
        if seed is not None:
            self.game.seed(seed)
        self._episode += 1
        self._tokens.fill(self.game.vocab_size)
        self._length = 0
        self._allowed = None
        self._over = False
        self._previous_value = 0.0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._mask_info()

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Append a token.

        Raises:
            ResetNeeded: `reset` was not called, or the episode is over.
            TypeError, ValueError: the action is not an integer, is outside the vocabulary, or is masked; nothing has changed
                then. Or the mask allows nothing after it.
        """
        if self._over:
            when = "before the first reset()" if self._episode < 0 else "after the end of an episode"
            raise ResetNeeded(f"step() was called {when}: call reset() to start an episode.")
        token, position = self._checked(action), self._length
        self._tokens[position] = token
        self._length, self._allowed = position + 1, None
        terminated = bool(position + 1 == self.game.sequence_length or token == self.game.end_token)
        reward = self._reward(terminated)
        self._rewards[position] = reward
        info = self._mask_info()
        if terminated:
            self._over = True
            info |= self._finish()
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, terminated, False, info

    def render(self) -> str | npt.NDArray[np.uint8] | None:
        """Show the sequence so far with its rewards and the last token in brackets, as text, image, or printed ("human")."""
        if self.render_mode is None:
            gym.logger.warn("render() without a render_mode: pass render_mode='ansi' or 'human' to the environment.")
            return None
        text = draw_step(self._tokens, self._rewards, self._length, self.game.sequence_length, self.game.vocabulary)
        return rendered(text, self.render_mode)

    def _reward(self, terminated: bool) -> float:
        """The reward of the token just appended, under the game's contract."""
        if self.game.reward == "terminal" and not terminated:
            return 0.0  # without any tensor, which would take many times the rest of a step
        tokens, lengths = self._on_device()
        position = range(self._length - 1, self._length)
        if self.game.reward == "terminal":
            return self.game.final_values(tokens, lengths, position).item()
        key = mix(torch.tensor([self._stream], device=self.game.device), self._episode)
        value = self.game.action_values(tokens, lengths, key, position).item()
        reward = value - self._previous_value if self.game.reward == "shaped" else value
        self._previous_value = value
        return reward

    def _finish(self) -> dict[str, Any]:
        """The facts about the finished sequence; also retrains, if due."""
        tokens, lengths = self._on_device()
        info: dict[str, Any] = {name: float(values[0]) for name, values in self.game.final_info(tokens, lengths).items()}
        retraining = self.game.record(tokens.clone())
        return info if retraining is None else info | {"retraining": retraining}

    def _on_device(self) -> tuple[Tensor, Tensor]:
        """Tokens `(1, sequence_length)` and lengths `(1,)`."""
        tokens = torch.from_numpy(self._tokens).unsqueeze(0).to(self.game.device)
        return tokens, torch.tensor([self._length], device=self.game.device)

    def _observation(self) -> Observation:
        allowed = self._allowed_now() if self.layout == "dict-mask" else None
        return observe(self._tokens, np.array([self._length], dtype=np.int64), self.layout, allowed)

    def _allowed_now(self) -> npt.NDArray[np.bool_]:
        if self._allowed is None:  # the mask is asked once for each prefix: it is Python, and slow beside the rest
            self._allowed = self.game.allowed(self._tokens, np.array([self._length]))
        return self._allowed

    def _mask_info(self) -> dict[str, Any]:
        return {} if self.game.mask is None else {"action_mask": self._allowed_now().astype(np.int8)}

    def _checked(self, action: Any) -> int:
        if isinstance(action, np.ndarray) and action.size == 1:
            action = action.item()
        if not isinstance(action, (int, np.integer)):
            raise TypeError(f"An action must be an integer token id, got {action!r} of type {type(action).__name__}.")
        token = int(action)
        if not 0 <= token < self.game.vocab_size:
            raise ValueError(f"Action {token} is outside the vocabulary: token ids go from 0 to {self.game.vocab_size - 1}.")
        if self.game.mask is not None and not self._allowed_now()[token]:
            raise masked_out(token, self._tokens[: self._length])
        return token


class OracleEnv(SequenceEnv):
    """`SeqGAN/Oracle-v0`: an LSTM with random parameters writes the real sequences. Takes the arguments of `oracle_game`."""

    def __init__(self, *, layout: Layout = "dict", render_mode: str | None = None, **game_arguments: Any) -> None:
        super().__init__(oracle_game(**game_arguments), layout=layout, render_mode=render_mode)


class TextEnv(SequenceEnv):
    """`SeqGAN/Text-v0`: the lines of a text are the real sequences. Takes the arguments of `text_game`."""

    def __init__(self, *, layout: Layout = "dict", render_mode: str | None = None, **game_arguments: Any) -> None:
        super().__init__(text_game(**game_arguments), layout=layout, render_mode=render_mode)
