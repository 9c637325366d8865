"""Save the state of an agent's game in the agent's own file; Stable-Baselines3 saves only the player."""

import warnings
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from agents.contract_check import ContractWarning
from seqgan_env.game import SequenceGame
from seqgan_env.support.state_dicts import detached

_UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)
"""Errors that a state of another form may raise."""


class SavesGame(BaseAlgorithm):
    """Saves the game's state, above all the discriminator's, with the algorithm: a mixin that must come before SB3's class.

    `load(path, env=...)` restores the state in the environment's game; without an environment, the first `set_env` does. The
    game stays as it is if the file has no state, or the game has another reward model.
    """

    game: Any  # a property of each player; raises a ValueError without an environment
    _unclaimed_state: Mapping[str, Any] | None = None

    @property
    def game_state(self) -> "GameState":
        """The game, in the form of a module that SB3 saves."""
        return GameState(self)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Play another environment; see SB3."""
        super().set_env(env, force_reset)
        if self._unclaimed_state is not None:
            state, self._unclaimed_state = self._unclaimed_state, None
            self.game_state.load_state_dict(state)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto") -> None:
        """See SB3; also accepts files without the game's state."""
        if isinstance(load_path_or_dict, dict):
            load_path_or_dict = {"game_state": {}, **load_path_or_dict}
        super().set_parameters(load_path_or_dict, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_unclaimed_state"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, tensors = super()._get_torch_save_params()
        return [*names, "game_state"], tensors


class GameState:
    """The state of an algorithm's game, with a module's methods.

    Args:
        algorithm: without an environment it keeps the state for the first one that it gets.
    """

    def __init__(self, algorithm: SavesGame) -> None:
        self.algorithm = algorithm

    def state_dict(self) -> Mapping[str, Any]:
        """The game's state, see `SequenceGame.training_state`, and the class name of its reward model."""
        if self.algorithm.env is None:
            return self.algorithm._unclaimed_state or {}
        game: SequenceGame = self.algorithm.game
        return {"reward_model": type(game.reward_model).__name__, "game": game.training_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Restore the game from `state_dict`.

        Warns:
            ContractWarning: the game has another reward model, which stays as it is.
        """
        if self.algorithm.env is None:
            self.algorithm._unclaimed_state = state or None
            return
        if not state or state["game"]["reward_model"] is None:
            return
        game: SequenceGame = self.algorithm.game
        kind = type(game.reward_model).__name__
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this state is not saved, only restored if loading fails
            before = detached(game.training_state())
        try:
            if kind != state["reward_model"]:
                raise TypeError
            game.load_training_state(state["game"])
        except _UNFIT:
            game.load_training_state(before)
            warnings.warn(
                f"The {state['reward_model']} saved with the agent differs in kind or size from its environment's {kind}, "
                "which stays unchanged.",
                ContractWarning,
                stacklevel=4,
            )
