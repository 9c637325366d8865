"""The environment for a batch: a native vector environment, with `play` for whole episodes in one call."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from seqgan_env.data.padding import played_positions
from seqgan_env.game import SequenceGame, contract_rewards
from seqgan_env.game_environment import GameEnvironment, check_options, masked_out
from seqgan_env.games import oracle_game, text_game
from seqgan_env.models.sampling import allowed_after
from seqgan_env.observations import Layout, Observation, observe
from seqgan_env.rendering import RENDER_MODES, draw_step, rendered
from seqgan_env.support.hashed_random import as_seed, mix, stream_key

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Seeds = SupportsIndex | Sequence[SupportsIndex | None] | npt.NDArray[np.integer[Any]]


class PlayedEpisodes(NamedTuple):
    """The result of `play` for `n` whole episodes."""

    rewards: Tensor
    """`(n, sequence_length)` float32, on the game's device; 0 beyond an episode's end."""
    lengths: Tensor
    """`(n,)` int64."""
    info: dict[str, Any]
    """Arrays `(n,)` with facts about the finished sequences, and `retraining` if the reward model was retrained."""


class SequenceVectorEnv(GameEnvironment, VectorEnv[Observation, IntArray, npt.NDArray[Any]]):
    """`num_envs` episodes of `SequenceEnv` in parallel, in one game; see there for spaces, rewards and episode end.

    Row `i` with seed `s` equals the single environment with seed `s + i`. Rows that end restart as `autoreset_mode` says.

    Args:
        game: the game that all rows play.
        num_envs: the number of rows.
        autoreset_mode: Gymnasium's `NEXT_STEP`, `SAME_STEP` or `DISABLED` (then the caller passes
            `options={"reset_mask": ...}` to `reset`).
        layout: of the observations.
        render_mode: `"ansi"` for a tuple of one text per row, `"rgb_array"` of one image per row, or `"human"` to print them.

    All arguments except `render_mode` are read-only attributes; see `SequenceGame` for what can be changed in a game.
    """

    read_only: ClassVar[frozenset[str]] = frozenset(
        {
            "game",
            "num_envs",
            "autoreset_mode",
            "layout",
            "single_observation_space",
            "single_action_space",
            "observation_space",
            "action_space",
        }
    )

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        game: SequenceGame,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        layout: Layout = "dict",
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.game = game
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.layout = layout
        self.render_mode = render_mode
        self.single_observation_space = game.observation_space(layout)
        self.single_action_space = Discrete(game.vocab_size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows = np.arange(num_envs)
        self._tokens = np.full((num_envs, game.sequence_length), game.vocab_size, dtype=np.int64)
        self._lengths = np.zeros((num_envs, 1), dtype=np.int64)
        self._rewards = np.zeros((num_envs, game.sequence_length))
        self._previous_values = np.zeros(num_envs)
        self._streams: IntArray | None = None
        self._episodes = np.full(num_envs, -1, dtype=np.int64)
        self._over = np.ones(num_envs, dtype=np.bool_)
        self._allowed: BoolArray | None = None  # after the present prefixes, once they were asked for

    def action_masks(self) -> BoolArray:
        """The tokens that may come next in each row: `(num_envs, vocab_size)` bool."""
        return self._allowed_now().copy()

    def reset(self, *, seed: Seeds | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start all rows, or those of `options["reset_mask"]`, from the empty prefix.

        Args:
            seed: row `i` gets `seed + i`, or the `i`-th of a sequence; makes everything after it reproducible.
            options: `reset_mask`, `(num_envs,)` bool.

        Raises:
            ResetNeeded: the first reset leaves out rows.
            TypeError, ValueError: the seeds or the mask have a wrong number or type, or there is another option; nothing has
                changed then. Or the mask allows no first token.
        """
        check_options(options, "reset_mask")
        rows = self._rows_to_reset(options)
        self._reseed(seed, rows)
        self._restart(rows)
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._mask_info(np.ones(self.num_envs, dtype=np.bool_))

    def step(self, actions: IntArray) -> tuple[Observation, npt.NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """Append a token to every row, and restart ended rows as `autoreset_mode` says.

        If the game has a mask, the infos' `action_mask` `(num_envs, vocab_size)` int8 has the tokens that may come next in
        each row. It belongs to the observation returned: where a row restarted, to the new episode.

        Args:
            actions: `(num_envs,)` token ids; with `NEXT_STEP`, those of rows that ended in the previous step are ignored.

        Raises:
            ResetNeeded: `reset` was not called, or, with `DISABLED`, a row is over.
            TypeError, ValueError: the actions have a wrong shape or dtype, are outside the vocabulary, or are masked; nothing
                has changed then. Or the mask allows nothing after one of them.
        """
        playing = self._playing_rows()
        actions = self._checked(actions, playing)
        positions = self._lengths[playing, 0]
        self._tokens[playing, positions] = actions
        self._lengths[playing, 0] = positions + 1
        self._allowed = None
        if len(playing) < self.num_envs:
            self._restart(np.flatnonzero(self._over))

        ends = positions + 1 == self.game.sequence_length
        if self.game.end_token is not None:
            ends |= actions == self.game.end_token
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        terminated[playing] = ends
        rewards = self._rewards_of(playing, terminated)
        self._rewards[playing, positions] = rewards[playing]
        infos = self._finish(terminated) if ends.any() else {}
        infos |= self._mask_info(np.ones(self.num_envs, dtype=np.bool_))
        if self.render_mode == "human":
            self.render()
        return self._observation(), rewards, terminated, np.zeros(self.num_envs, dtype=np.bool_), infos

    def play(self, tokens: Tensor) -> PlayedEpisodes:
        """Play one whole episode in every row: the result of `sequence_length` calls of `step`, but faster.

        Retraining, if due, follows after all rewards. Afterwards all rows are at the start of new episodes.

        Args:
            tokens: `(num_envs, sequence_length)` int64, padded after the end token.

        Raises:
            ResetNeeded: `reset` was not called, or a row is in the middle of an episode.
            TypeError, ValueError: the tokens have a wrong shape or dtype, are outside the vocabulary, are masked, or follow
                the end.
        """
        if self._streams is None or (self._lengths[~self._over] > 0).any():
            raise ResetNeeded("play() starts from fresh episodes: call reset() first.")
        lengths = self._checked_episodes(tokens)
        tokens, lengths = tokens.to(self.game.device), lengths.to(self.game.device)
        self._restart(np.flatnonzero(self._over))
        workers, n = self.game.workers, self.num_envs
        rows = workers.part(n).rows
        keys, positions = self._keys(self._rows), range(self.game.sequence_length)
        values = workers.gather(self.game.action_values(tokens[rows], lengths[rows], keys[rows], positions), n)
        rewards = contract_rewards(values, lengths, self.game.reward)
        final = self.game.final_info(tokens[rows], lengths[rows])
        info: dict[str, Any] = {name: workers.gather(torch.from_numpy(own), n).numpy() for name, own in final.items()}
        retraining = self.game.record(tokens.clone())  # the caller may overwrite its own tensor before retraining
        if retraining is not None:
            info["retraining"] = retraining
        self._restart(self._rows)
        return PlayedEpisodes(rewards, lengths, info)

    def render(self) -> tuple[str, ...] | tuple[npt.NDArray[np.uint8], ...] | None:
        """Show each row's sequence so far with its rewards: as a tuple of texts or images, or printed in mode "human"."""
        if self.render_mode is None:
            return None
        length = self.game.sequence_length
        texts = [
            draw_step(self._tokens[row], self._rewards[row], int(self._lengths[row, 0]), length, self.game.vocabulary)
            for row in self._rows
        ]
        shown: Any = tuple(rendered(text, self.render_mode) for text in texts)
        return None if self.render_mode == "human" else shown

    def training_state(self) -> dict[str, Any]:
        """The state of each row and of the game; see `seqgan_env.support.state_dicts`."""
        rows = {name: torch.from_numpy(array) for name, array in self._row_arrays().items()}
        return {"started": self._streams is not None, "rows": rows, "game": self.game.training_state()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned.

        Raises:
            ValueError: the state has another number of rows.
        """
        n = len(state["rows"]["_over"])
        if n != self.num_envs:
            raise ValueError(f"The state has {n} rows, but this environment has {self.num_envs}.")
        self._streams = np.zeros(n, dtype=np.int64) if state["started"] else None
        for name, array in self._row_arrays().items():
            array[...] = state["rows"][name].cpu().numpy()
        self._allowed = None
        self.game.load_training_state(state["game"])

    def _row_arrays(self) -> dict[str, npt.NDArray[Any]]:
        names = ["_tokens", "_lengths", "_rewards", "_previous_values", "_episodes", "_over"]
        return {name: getattr(self, name) for name in (names if self._streams is None else [*names, "_streams"])}

    # --- one step, in the order of its parts -------------------------------------------------------------------------

    def _playing_rows(self) -> IntArray:
        """The rows that take their action; with `NEXT_STEP`, rows that are over start a new episode instead."""
        if self._streams is None:
            raise ResetNeeded("step() was called before the first reset().")
        if not self._over.any():
            return self._rows
        if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            over = np.flatnonzero(self._over).tolist()
            raise ResetNeeded(f"Rows {over} are over: call reset(options={{'reset_mask': ...}}) for them.")
        return np.flatnonzero(~self._over)

    def _rewards_of(self, playing: IntArray, terminated: BoolArray) -> npt.NDArray[np.float64]:
        """The rewards `(num_envs,)` of the tokens just appended, under the game's contract."""
        rewards = np.zeros(self.num_envs)
        judged = playing if self.game.reward != "terminal" else np.flatnonzero(terminated)
        if not len(judged):
            return rewards
        positions = self._lengths[judged, 0] - 1
        for position in np.unique(positions):  # after early ends, rows are at different positions
            rows = judged[positions == position]
            tokens, lengths = self._on_device(rows)
            one = range(int(position), int(position) + 1)
            rewards[rows] = self.game.action_values(tokens, lengths, self._keys(rows), one)[:, 0].cpu().numpy()
        if self.game.reward == "shaped":
            values = rewards.copy()
            rewards[judged] -= self._previous_values[judged]
            self._previous_values = values
        return rewards

    def _finish(self, terminated: BoolArray) -> dict[str, Any]:
        """Infos of the rows that ended; also retrains, and starts new episodes in mode `SAME_STEP`.

        In Gymnasium's form: an array has zeros, or None, for the other rows, and beside it a mask with an underscore.
        """
        rows = np.flatnonzero(terminated)
        tokens, lengths = self._on_device(rows)
        info: dict[str, Any] = {}
        for name, values in self.game.final_info(tokens, lengths).items():
            info[name] = np.zeros(self.num_envs, dtype=values.dtype)
            info[name][rows] = values
            info[f"_{name}"] = terminated.copy()
        retraining = self.game.record(tokens)
        if retraining is not None:  # as in single environments, in the info of the episode that caused it
            info = self._add_info(info, {"retraining": retraining}, int(rows[-1]))
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._over |= terminated
            return info
        info |= self._mask_info(terminated)
        observations = np.full(self.num_envs, None, dtype=np.object_)
        for row in rows:
            observations[row] = self.game.observe(self._tokens[row], self._lengths[row], self.layout)
        self._restart(rows)
        return {
            "final_obs": observations,
            "_final_obs": terminated.copy(),
            "final_info": info,
            "_final_info": terminated.copy(),
        }

    def _mask_info(self, rows: BoolArray) -> dict[str, Any]:
        """`action_mask` for `rows` `(num_envs,)`, in Gymnasium's form; nothing if the game has no mask."""
        if self.game.mask is None:
            return {}
        return {"action_mask": self._allowed_now() * rows[:, None].astype(np.int8), "_action_mask": rows.copy()}

    # --- state of the rows -------------------------------------------------------------------------------------------

    def _observation(self) -> Observation:
        return observe(self._tokens, self._lengths, self.layout, self._allowed_now() if self.layout == "dict-mask" else None)

    def _allowed_now(self) -> BoolArray:
        if self._allowed is None:  # the mask is asked once for each prefix: it is Python, and slow beside the rest
            self._allowed = self.game.allowed(self._tokens, self._lengths)
        return self._allowed

    def _on_device(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        tokens, lengths = torch.from_numpy(self._tokens[rows]), torch.from_numpy(self._lengths[rows, 0])
        return tokens.to(self.game.device), lengths.to(self.game.device)

    def _keys(self, rows: IntArray) -> Tensor:
        assert self._streams is not None
        streams, episodes = torch.from_numpy(self._streams[rows]), torch.from_numpy(self._episodes[rows])
        return mix(streams, episodes).to(self.game.device)

    def _restart(self, rows: IntArray) -> None:
        self._tokens[rows] = self.game.vocab_size
        self._lengths[rows] = 0
        self._allowed = None
        self._previous_values[rows] = 0
        self._episodes[rows] += 1
        self._over[rows] = False

    def _reseed(self, seed: Seeds | None, rows: IntArray) -> None:
        if seed is None and self._streams is not None:
            return
        seeds = self._seed_of_each_row(secrets.randbits(63) if seed is None else seed)
        if self._streams is None:  # rows without a seed at the first reset get a random one
            self._streams = np.array([stream_key(secrets.randbits(63)) for _ in self._rows], dtype=np.int64)
        for row in rows:
            own = seeds[row]
            if own is not None:
                self._streams[row] = stream_key(own)
                self._episodes[row] = -1
        if seeds[0] is not None:
            self.game.seed(seeds[0])

    def _seed_of_each_row(self, seed: Seeds) -> list[int | None]:
        if isinstance(seed, Sequence) or (isinstance(seed, np.ndarray) and seed.ndim > 0):
            seeds = [None if own is None else as_seed(own) for own in seed]
            if len(seeds) != self.num_envs:
                raise ValueError(f"reset() needs a seed for each of the {self.num_envs} rows, got {len(seeds)}.")
            return seeds
        first = as_seed(seed)
        return [first + row for row in range(self.num_envs)]

    def _rows_to_reset(self, options: dict[str, Any] | None) -> IntArray:
        if options is None or "reset_mask" not in options:
            return self._rows
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a numpy array of bool, got {mask!r}.")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must have shape ({self.num_envs},) and a True in it, got {mask!r}.")
        if self._streams is None and not mask.all():
            raise ResetNeeded("The first reset() must start all rows: leave reset_mask out.")
        return np.flatnonzero(mask)

    # --- checks ------------------------------------------------------------------------------------------------------

    def _checked(self, actions: IntArray, playing: IntArray) -> IntArray:
        actions = np.asarray(actions)
        if actions.dtype.kind not in "iu":
            raise TypeError(f"Actions must be integer token ids, got {actions.dtype}.")
        if actions.shape != (self.num_envs,):
            raise ValueError(f"Expected {self.num_envs} actions, one per row, got shape {actions.shape}.")
        actions = actions[playing]
        if len(actions) and (actions.min() < 0 or actions.max() >= self.game.vocab_size):
            wrong = actions[(actions < 0) | (actions >= self.game.vocab_size)]
            raise ValueError(
                f"Actions {wrong.tolist()[:5]} are outside the vocabulary: token ids go from 0 to {self.game.vocab_size - 1}."
            )
        if self.game.mask is not None:
            masked = np.flatnonzero(~self._allowed_now()[playing, actions])
            if len(masked):
                row = playing[masked[0]]
                raise masked_out(actions[masked[0]], self._tokens[row, : self._lengths[row, 0]])
        return actions

    def _checked_episodes(self, tokens: Tensor) -> Tensor:
        """Check whole episodes; return their lengths."""
        if not isinstance(tokens, Tensor):
            raise TypeError(f"play() takes a tensor of int64 token ids, got {type(tokens).__name__}.")
        shape = (self.num_envs, self.game.sequence_length)
        if tokens.dtype != torch.int64:
            raise TypeError(f"play() takes int64 token ids, got {tokens.dtype}.")
        if tuple(tokens.shape) != shape:
            raise ValueError(f"play() takes tokens of shape (num_envs, sequence_length) = {shape}, got {tuple(tokens.shape)}.")
        pad, end = self.game.vocab_size, self.game.end_token
        lengths = torch.full_like(tokens[:, 0], shape[1])
        if end is not None:
            is_end = tokens == end
            lengths = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1) + 1, lengths)
        inside = played_positions(lengths, shape[1])
        legal = torch.where(inside, (tokens >= 0) & (tokens < pad), tokens == pad).all(dim=1)
        if not legal.all():
            row = int((~legal).nonzero()[0])
            raise ValueError(
                f"Row {row} is not a complete episode: {tokens[row].tolist()}. "
                f"Expected {shape[1]} token ids from 0 to {pad - 1}"
                + ("." if end is None else f", or fewer up to the end token {end}, padded with {pad}.")
            )
        if self.game.mask is not None:
            for episode, length in zip(tokens.cpu().numpy(), lengths.tolist(), strict=True):
                for position in range(length):
                    prefix, token = episode[:position], episode[position]
                    if not allowed_after(self.game.mask, prefix.copy(), self.game.vocab_size)[token]:
                        raise masked_out(token, prefix)
        return lengths


class _MadeVectorEnv(SequenceVectorEnv):
    """A vector environment that makes its game, from the arguments that are not its own."""

    make_game: ClassVar[Callable[..., SequenceGame]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        layout: Layout = "dict",
        render_mode: str | None = None,
        **game_arguments: Any,
    ) -> None:
        game = type(self).make_game(**game_arguments)
        super().__init__(game, num_envs, autoreset_mode=autoreset_mode, layout=layout, render_mode=render_mode)


class OracleVectorEnv(_MadeVectorEnv):
    """`SeqGAN/Oracle-v0` for a batch. Takes the arguments of `oracle_game` and its own."""

    make_game = staticmethod(oracle_game)


class TextVectorEnv(_MadeVectorEnv):
    """`SeqGAN/Text-v0` for a batch. Takes the arguments of `text_game` and its own."""

    make_game = staticmethod(text_game)
