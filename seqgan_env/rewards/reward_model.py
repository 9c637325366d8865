"""The base class of reward models, and an adapter that makes one from any object with `score`."""

# ruff: noqa: B027 - methods that do nothing are defaults here

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.support.method_overrides import redefined_alone
from seqgan_env.support.process_group import Workers


class HasScore(Protocol):
    """Any object with this method can be a reward model; `adapt` lists its optional methods."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Rewards `(n,)` of tokens `(n, sequence_length)` int64, padded, with lengths `(n,)` int64."""


class RewardModel(ABC):
    """The base class of reward models. Only `score` is required; every other method has a default that does nothing."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if redefined_alone(cls, "score", "score_completions"):  # a subclass with another `score` scores completions by it, too
            cls.score_completions = RewardModel.score_completions  # type: ignore[method-assign]

    @abstractmethod
    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Rewards `(n,)` of tokens `(n, sequence_length)` int64, padded, with lengths `(n,)` int64."""

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`score`, possibly faster and less exact, because these rewards are only averaged."""
        return self.score(tokens, lengths)

    def token_scores(self, tokens: Tensor, lengths: Tensor) -> Tensor | None:
        """A score for each token, `(n, sequence_length)`, 0 at and beyond `lengths`; None if only sequences have a score.

        The scores of a sequence sum to its `score`, and none depends on later tokens, so prefixes need no completions.
        """
        return None

    @property
    def learns(self) -> bool:
        """Whether it can be trained, that is, whether its class defines `fit`."""
        return type(self).fit is not RewardModel.fit

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Learn from real `(n, sequence_length)` and generated `(m, sequence_length)` sequences; return metrics.

        Raises:
            TypeError: it does not learn.
        """
        raise TypeError(f"{type(self.unwrapped).__name__} does not learn: it has no fit(real, generated).")

    def attach_policy(self, policy: TokenPolicy) -> None:
        """Score this policy's sequences from now on; it is held by reference."""

    def share_work(self, workers: Workers) -> None:
        """Let several processes share the work of `fit` from now on; see `seqgan_env.support.process_group`."""

    def log_odds(self, tokens: Tensor) -> Tensor | None:
        """Log odds of being real, `(n,)`, of tokens `(n, sequence_length)`; None without a discriminator."""
        return None

    def probability(self, tokens: Tensor) -> Tensor | None:
        """Probability of being real, `(n,)`, of tokens `(n, sequence_length)`; None without a discriminator."""
        log_odds = self.log_odds(tokens)
        return None if log_odds is None else torch.sigmoid(log_odds)

    def training_state(self) -> dict[str, Any] | None:
        """The state that later fits depend on, see `seqgan_env.support.state_dicts`; None if it cannot be saved."""
        return None

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""

    @property
    def parts(self) -> tuple["RewardModel", ...]:
        """The models of a mixture; any other model is its own only part."""
        return (self,)

    @property
    def unwrapped(self) -> Any:
        """The object that the user passed: the model itself, or the one inside an adapter."""
        return self

    def networks(self) -> dict[str, nn.Module]:
        """The networks whose weights a saved game stores, by file name."""
        return {}

    def description(self) -> dict[str, Any] | None:
        """The arguments of `make_game` that make such a model, for JSON; None if there are none."""
        return None


class LearningRewardModel(RewardModel):
    """A reward model that is retrained against the agent that plays."""

    @abstractmethod
    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Learn from real `(n, sequence_length)` and generated `(m, sequence_length)` sequences; return metrics."""


_OPTIONAL = (
    ("score_completions",),
    ("token_scores",),
    ("fit",),
    ("attach_policy",),
    ("share_work",),
    ("log_odds", "probability"),
    ("training_state", "load_training_state"),
)
"""The optional methods of a custom object; of a pair, it must have both."""


class _Adapter(RewardModel):
    """A custom object with `score` as a `RewardModel`; methods that it lacks keep their defaults."""

    def __init__(self, custom: HasScore) -> None:
        self.custom = custom
        for names in _OPTIONAL:
            if all(callable(getattr(custom, name, None)) for name in names):
                for name in names:
                    setattr(self, name, partial(_call, custom, name))
        if redefined_alone(type(custom), "score", "score_completions"):
            vars(self).pop("score_completions", None)

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.custom.score(tokens, lengths)

    @property
    def learns(self) -> bool:
        return "fit" in vars(self)

    @property
    def unwrapped(self) -> HasScore:
        return self.custom


def _call(custom: Any, name: str, *arguments: Any) -> Any:
    """A method of an object, looked up at the time of the call."""
    return getattr(custom, name)(*arguments)


def adapt(model: HasScore) -> RewardModel:
    """A reward model for any object with `score`, which uses the methods that the object shares with `RewardModel`.

    These are `score_completions`, `token_scores`, `fit`, `attach_policy`, `share_work`, `log_odds` with `probability`, and
    `training_state` with `load_training_state`. A `RewardModel` is returned unchanged.

    Raises:
        TypeError: the object has no `score`.
    """
    if isinstance(model, RewardModel):
        return model
    if not has_score(model):
        raise TypeError(f"A reward model needs score(tokens, lengths); {type(model).__name__} lacks it.")
    return _Adapter(model)


def has_score(model: object) -> TypeGuard[HasScore]:
    """Whether an object can be a reward model."""
    return callable(getattr(model, "score", None))


def learns(model: HasScore) -> bool:
    """Whether a reward model, or a part of a mixture, is retrained against the agent."""
    return adapt(model).learns
