"""What a finished sequence is worth. A prefix is worth the mean of its completions, which is `monte_carlo.py`'s affair."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeGuard, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.metrics.bleu import BleuScorer
from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.rewards.custom import Decode, FunctionReward
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.support.hashed_random import key_of_each, uniform
from seqgan_env.support.overriding import still_agree
from seqgan_env.support.process_group import Workers
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.state_dicts import Resumable

DiscriminatorScaling = Literal["probability", "centred", "log", "ratio"]

MAX_RATIO = 100.0
"""The greatest reward under the scaling `"ratio"`: beyond it, one sequence would have a whole batch's weight."""


@runtime_checkable
class RewardModel(Protocol):
    """What sequences are worth: any object with this method serves."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Rewards `(n,)` of tokens `(n, sequence_length)` int64, padded, with lengths `(n,)` int64."""


@runtime_checkable
class LearningRewardModel(RewardModel, Protocol):
    """A reward model that is retrained against the agent that plays."""

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Learn from real `(n, sequence_length)` and generated `(m, sequence_length)` sequences; return metrics."""


@runtime_checkable
class ScoresCompletions(RewardModel, Protocol):
    """A reward model with a faster, rougher way for completions, of whose rewards only means are used."""

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`score`, nearly."""


@runtime_checkable
class ScoresTokens(RewardModel, Protocol):
    """A reward model for which a sequence is worth the sum of what its tokens are: prefixes need no completions."""

    def token_scores(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What each token is worth, `(n, sequence_length)`; 0 at and beyond `lengths`. No token's depends on later ones."""


@runtime_checkable
class JudgesPolicy(RewardModel, Protocol):
    """A reward model that looks at the policy which plays, not at its sequences alone."""

    def attach_policy(self, policy: TokenPolicy) -> None:
        """Look at this one from now on; it is held by reference."""


@runtime_checkable
class Discriminates(RewardModel, Protocol):
    """A reward model that can say how likely a sequence is to be real."""

    def log_odds(self, tokens: Tensor) -> Tensor:
        """Log of the odds of being real, `(n,)`, of tokens `(n, sequence_length)`."""

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability of being real, `(n,)`."""


@runtime_checkable
class SharesWork(Protocol):
    """A reward model whose `fit` several processes can do together; see `seqgan_env.support.process_group`."""

    def share_work(self, workers: Workers) -> None:
        """Do it with these from now on."""


def learns(model: RewardModel) -> TypeGuard[LearningRewardModel]:
    """Whether a reward model, or a part of a mixture, is retrained against the agent."""
    if isinstance(model, MixtureReward):
        return any(learns(part) for _, part in model.weighted_models)
    return isinstance(model, LearningRewardModel)


def parts_that_learn(model: RewardModel) -> list[RewardModel]:
    """The reward model if it learns, or the parts of a mixture that do."""
    if isinstance(model, MixtureReward):
        return [part for _, weighted in model.weighted_models for part in parts_that_learn(weighted)]
    return [model] if learns(model) else []


class DiscriminatorReward:
    """How real the discriminator takes a sequence to be (paper, eq. 4).

    Args:
        discriminator: the network.
        scaling: `"probability"` D in [0, 1], as published; `"centred"` 2D - 1; `"log"` log D; `"ratio"` D / (1 - D), at most
            `MAX_RATIO`: of densities, real to generated (MaliGAN: Che et al., 2017, section 3.1), for the baseline
            `"maligan"`. Where sequences can end early, a reward of one sign favours one length, and `"centred"` does not.
    """

    def __init__(self, discriminator: TextCNN, scaling: DiscriminatorScaling = "probability") -> None:
        if scaling not in get_args(DiscriminatorScaling):
            raise ValueError(f"scaling must be one of {get_args(DiscriminatorScaling)}, got {scaling!r}.")
        self.discriminator = discriminator
        self.scaling = scaling

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scaled probabilities `(n,)`."""
        return self.scale(self.discriminator.log_odds(tokens))

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`score`, with products made in the precision that the discriminator is configured for."""
        return self.scale(self.discriminator.log_odds(tokens, self.discriminator.config.precision))

    def scale(self, log_odds: Tensor) -> Tensor:
        """The reward for given log odds of being real."""
        if self.scaling == "log":
            return F.logsigmoid(log_odds)
        if self.scaling == "ratio":
            return log_odds.clamp(max=math.log(MAX_RATIO)).exp()
        probability = torch.sigmoid(log_odds)
        return probability if self.scaling == "probability" else 2 * probability - 1

    def log_odds(self, tokens: Tensor) -> Tensor:
        """Log of the odds of being real, `(n,)`."""
        return self.discriminator.log_odds(tokens)

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability of being real, `(n,)`."""
        return self.discriminator.probability(tokens)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train the discriminator; see `TextCNN.fit`."""
        return self.discriminator.fit(real, generated)

    def share_work(self, workers: Workers) -> None:
        """See `SharesWork`."""
        self.discriminator.workers = workers

    def training_state(self) -> dict[str, Any]:
        """See `TextCNN.training_state`."""
        return self.discriminator.training_state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """See `TextCNN.load_training_state`."""
        self.discriminator.load_training_state(state)


def completion_score(model: RewardModel) -> Callable[[Tensor, Tensor], Tensor]:
    """How a reward model scores completions."""
    if isinstance(model, ScoresCompletions) and still_agree(model, "score_completions", "score"):
        return model.score_completions
    return model.score


def find_discriminator(model: RewardModel) -> Discriminates | None:
    """The discriminator that a reward model is, or that is a part of a mixture."""
    if isinstance(model, Discriminates):
        return model
    parts = [find_discriminator(part) for _, part in model.weighted_models] if isinstance(model, MixtureReward) else []
    return next((part for part in parts if part is not None), None)


class BleuReward:
    """BLEU against real sequences: the paper's baseline PG-BLEU.

    Args:
        references: `(n, length)` int64, padded with `pad`.
        pad: the pad id.
        max_order: n-grams up to this length count.
    """

    def __init__(self, references: Tensor, pad: int, max_order: int = 4) -> None:
        self._scorer = BleuScorer(references.cpu().numpy(), pad, max_order)

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Sentence BLEU in [0, 1], smoothed: `(n,)`."""
        scores = self._scorer.score(tokens.cpu().numpy())[:, -1]
        return torch.from_numpy(scores).to(tokens.device, torch.float32)


class MixtureReward:
    """A weighted sum of reward models: `fit` reaches those that learn."""

    def __init__(self, weighted_models: Sequence[tuple[float, RewardModel]]) -> None:
        if not weighted_models:
            raise ValueError("A mixture needs at least one (weight, reward model).")
        self.weighted_models = tuple(weighted_models)

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `(n,)`."""
        parts = [weight * model.score(tokens, lengths) for weight, model in self.weighted_models]
        return torch.stack(parts).sum(dim=0)

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `(n,)`; see `ScoresCompletions`."""
        parts = [weight * completion_score(model)(tokens, lengths) for weight, model in self.weighted_models]
        return torch.stack(parts).sum(dim=0)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Fit every part that learns; their metrics together."""
        metrics: dict[str, float] = {}
        for _, model in self.weighted_models:
            if learns(model):
                metrics |= model.fit(real, generated)
        return metrics

    def attach_policy(self, policy: TokenPolicy) -> None:
        """See `JudgesPolicy`."""
        for _, model in self.weighted_models:
            if isinstance(model, JudgesPolicy):
                model.attach_policy(policy)

    def share_work(self, workers: Workers) -> None:
        """See `SharesWork`."""
        for _, model in self.weighted_models:
            if isinstance(model, SharesWork):
                model.share_work(workers)

    def training_state(self) -> dict[str, Any]:
        """The states of the parts that have one; see `seqgan_env.support.state_dicts.Resumable`."""
        return {str(i): m.training_state() for i, (_, m) in enumerate(self.weighted_models) if isinstance(m, Resumable)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""
        for index, (_, model) in enumerate(self.weighted_models):
            if isinstance(model, Resumable):
                model.load_training_state(state[str(index)])


class ObjectiveMixture(ReadOnly, MixtureReward):
    """A reward model and an objective of one's own, as in ORGAN (Guimaraes et al., 2017, arXiv 1705.10843, section 3).

    With the discriminator D and the objective O, the reward is lambda D + (1 - lambda) O; `weight` is the objective's,
    1 - lambda. Both count as they are: scale the objective to the range of D.

    Args:
        model: what learns to tell real sequences, or any reward model.
        objective: what is wanted beside that.
        weight: the objective's, in (0, 1).

    Raises:
        ValueError: a weight outside.
    """

    read_only: ClassVar[frozenset[str]] = frozenset({"model", "objective", "weight", "weighted_models"})

    def __init__(self, model: RewardModel, objective: RewardModel, weight: float) -> None:
        if not 0 < weight < 1:
            raise ValueError(f"The objective's weight must lie between 0 and 1, got {weight}.")
        super().__init__([(1 - weight, model), (weight, objective)])
        self.model = model
        self.objective = objective
        self.weight = weight


def as_reward_model(reward: RewardModel | Callable[[Any], Any], decode: Decode | None, batched: bool) -> RewardModel:
    """A reward model as it is; a function as a `FunctionReward`."""
    return reward if isinstance(reward, RewardModel) else FunctionReward(reward, decode, batched=batched)


class ConstantReward:
    """A control: every sequence is worth the same. What an agent gains from it, it gains without any discriminator."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`value`, `(n,)` times."""
        return torch.full((len(tokens),), self.value, device=tokens.device)


class RandomReward:
    """A control: a fixed random function of the sequence, uniform in [0, 1), which knows nothing of real sequences."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Uniform numbers `(n,)`; the same sequence gets the same one."""
        return uniform(key_of_each(tokens, self.seed))
