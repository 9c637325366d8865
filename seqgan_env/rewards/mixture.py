"""Weighted sums of reward models."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.rewards.custom import describe
from seqgan_env.rewards.reward_model import HasScore, RewardModel, adapt
from seqgan_env.support.process_group import Workers
from seqgan_env.support.read_only import ReadOnly


class MixtureReward(RewardModel):
    """A weighted sum of reward models; it learns if one of them learns.

    Args:
        weighted_models: pairs of a weight and a reward model, which may be any object with `score`.

    Raises:
        ValueError: there are no pairs.
    """

    def __init__(self, weighted_models: Sequence[tuple[float, HasScore]]) -> None:
        if not weighted_models:
            raise ValueError("A mixture needs at least one (weight, reward model).")
        self.weighted_models = tuple(weighted_models)

    @property
    def _models(self) -> list[RewardModel]:
        return [adapt(model) for _, model in self.weighted_models]

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `(n,)`."""
        return self._sum([model.score(tokens, lengths) for model in self._models])

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `(n,)` of the models' scores of completions."""
        return self._sum([model.score_completions(tokens, lengths) for model in self._models])

    def _sum(self, rewards: list[Tensor]) -> Tensor:
        weighted = [weight * reward for (weight, _), reward in zip(self.weighted_models, rewards, strict=True)]
        return torch.stack(weighted).sum(dim=0)

    @property
    def learns(self) -> bool:
        """Whether one of the models learns."""
        return any(model.learns for model in self._models)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Fit every model that learns; their metrics together."""
        metrics: dict[str, float] = {}
        for model in self._models:
            if model.learns:
                metrics |= model.fit(real, generated)
        return metrics

    def attach_policy(self, policy: TokenPolicy) -> None:
        """See `RewardModel`."""
        for model in self._models:
            model.attach_policy(policy)

    def share_work(self, workers: Workers) -> None:
        """See `RewardModel`."""
        for model in self._models:
            model.share_work(workers)

    def log_odds(self, tokens: Tensor) -> Tensor | None:
        """The first discriminator's; see `RewardModel`."""
        return next((odds for model in self._models if (odds := model.log_odds(tokens)) is not None), None)

    def probability(self, tokens: Tensor) -> Tensor | None:
        """The first discriminator's; see `RewardModel`."""
        return next((value for model in self._models if (value := model.probability(tokens)) is not None), None)

    def training_state(self) -> dict[str, Any]:
        """The states of the models that have one, by index."""
        states = {str(index): model.training_state() for index, model in enumerate(self._models)}
        return {index: state for index, state in states.items() if state is not None}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        models = self._models
        for index in self.training_state():
            models[int(index)].load_training_state(state[index])

    @property
    def parts(self) -> tuple[RewardModel, ...]:
        """The models; a nested mixture is replaced by its own parts."""
        return tuple(part for model in self._models for part in model.parts)

    def networks(self) -> dict[str, nn.Module]:
        """The models' networks; if two share a file name, the first one."""
        networks: dict[str, nn.Module] = {}
        for model in reversed(self._models):
            networks |= model.networks()
        return networks


class ObjectiveMixture(ReadOnly, MixtureReward):
    """A reward model and a custom objective, as in ORGAN (Guimaraes et al., 2017, arXiv 1705.10843, section 3).

    With the discriminator D and the objective O, the reward is lambda D + (1 - lambda) O; `weight` is the objective's,
    1 - lambda. Neither is rescaled, so give the objective the range of D.

    Args:
        model: the discriminator, or any reward model.
        objective: the custom objective.
        weight: the objective's, in (0, 1).

    Raises:
        ValueError: the weight is out of range.
    """

    read_only: ClassVar[frozenset[str]] = frozenset({"model", "objective", "weight", "weighted_models"})

    def __init__(self, model: HasScore, objective: HasScore, weight: float) -> None:
        if not 0 < weight < 1:
            raise ValueError(f"The objective's weight must lie between 0 and 1, got {weight}.")
        super().__init__([(1 - weight, model), (weight, objective)])
        self.model = model
        self.objective = objective
        self.weight = weight

    def description(self) -> dict[str, Any] | None:
        """The model's arguments, the weight, and the objective's name as `own`; None with two objectives."""
        arguments = adapt(self.model).description()
        if arguments is None or "own" in arguments:
            return None
        return arguments | {"objective_weight": self.weight, "own": describe(self.objective)}
