"""What single and vector environments share: the game, and how it is rendered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from seqgan_env.game import SequenceGame
from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.rendering import check_render_mode
from seqgan_env.support.read_only import ReadOnly


class GameEnvironment(ReadOnly):
    """Base of environments that play a game: a mixin that must come before Gymnasium's class."""

    game: SequenceGame

    @property
    def render_mode(self) -> str | None:
        """How `render` shows the episode; you can set it at any time."""
        return self._render_mode

    @render_mode.setter
    def render_mode(self, mode: str | None) -> None:
        check_render_mode(mode)
        self._render_mode = mode

    @property
    def gamma(self) -> float:
        """The discount with which the reward contract states the objective."""
        return self.game.gamma

    def attach_policy(self, policy: TokenPolicy) -> None:
        """Make `policy` write the completions from now on; see `SequenceGame.attach_policy`."""
        self.game.attach_policy(policy)

    def retrain(self, generated: Tensor) -> dict[str, float]:
        """Fit the reward model to generated sequences; see `SequenceGame.retrain`."""
        return self.game.retrain(generated)


def check_options(options: Mapping[str, Any] | None, *known: str) -> None:
    """Refuse unknown options of `reset`, which would have no effect.

    Raises:
        TypeError: the options are not a dictionary.
        ValueError: an option is not `known`.
    """
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"The options of reset() must be a dictionary or None, got {type(options).__name__}.")
    unknown = [name for name in options or () if name not in known]
    if unknown:
        there = f"There is {' and '.join(map(repr, known))}." if known else "There are none."
        raise ValueError(f"reset() has no option {', '.join(map(repr, unknown))}. {there}")


def masked_out(token: int, prefix: npt.NDArray[np.int64]) -> ValueError:
    """The error for an action that the game's mask forbids after a prefix."""
    return ValueError(f"Action {token} is masked out after the prefix {prefix.tolist()}: choose among action_masks().")
