"""Each option of a game, with its default: what games, the environments, train.py and saved games share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from seqgan_env.rewards.registry import RewardName, ScoringRules
from seqgan_env.rewards.reward_model import HasScore
from seqgan_env.rewards.text_cnn import TextCNNConfig
from seqgan_env.support.settings import PositiveInt

RewardContract = Literal["terminal", "rollout", "shaped"]

GAMMAS: dict[str, float] = {"terminal": 1.0, "rollout": 0.0, "shaped": 1.0}
"""The discount under which each reward contract states the same objective."""


@dataclass(frozen=True)
class GameRules(ScoringRules):
    """All options of a game. `make_game`, `oracle_game`, `text_game` and the environments also take each as a keyword."""

    reward: RewardContract = "terminal"
    """What a token earns; see `seqgan_env.game.contract_rewards`."""
    reward_model: RewardName | HasScore = ScoringRules.reward_model  # type: ignore[assignment]
    """One of the names above, or any object with `score(tokens, lengths)`."""
    objective: HasScore | Callable[[Any], Any] | None = None
    """A custom reward beside the reward model: a function of one decoded sequence, text or ids, that returns a number; or any
    object with `score`. See `ObjectiveMixture`."""
    retrain_every: PositiveInt | None = None
    """Finished episodes between two fits of the reward model; None leaves them to the caller of `retrain`."""
    discriminator: TextCNNConfig | None = None
    """Sizes and training of the discriminator, or of the ranker; by default the published windows that fit the sequence."""
    model_seed: int = 0
    """Draws the initial parameters of the reward model, or the random control."""
