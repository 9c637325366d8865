"""What a finished sequence is worth. A prefix is worth the mean of its completions, which is `monte_carlo.py`'s affair."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.discriminator import TextCNN
from seqgan_env.metrics import BleuScorer
from seqgan_env.randomness import mix, uniform

DiscriminatorScaling = Literal["probability", "centred", "log"]


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


class DiscriminatorReward:
    """How real the discriminator takes a sequence to be (paper, eq. 4).

    Args:
        discriminator: the network.
        scaling: `"probability"` D in [0, 1], as published; `"centred"` 2D - 1; `"log"` log D. Where sequences can end early,
            a reward of one sign favours one length, and `"centred"` does not.
    """

    def __init__(self, discriminator: TextCNN, scaling: DiscriminatorScaling = "probability") -> None:
        if scaling not in ("probability", "centred", "log"):
            raise ValueError(f"scaling must be 'probability', 'centred' or 'log', got {scaling!r}.")
        self.discriminator = discriminator
        self.scaling = scaling

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scaled probabilities `(n,)`."""
        return self.scale(self.discriminator.log_odds(tokens))

    def scale(self, log_odds: Tensor) -> Tensor:
        """The reward for given log odds of being real."""
        if self.scaling == "log":
            return F.logsigmoid(log_odds)
        probability = torch.sigmoid(log_odds)
        return probability if self.scaling == "probability" else 2 * probability - 1

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability of being real, `(n,)`."""
        return self.discriminator.probability(tokens)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train the discriminator; see `TextCNN.fit`."""
        return self.discriminator.fit(real, generated)


def find_discriminator(model: RewardModel) -> DiscriminatorReward | None:
    """The discriminator that a reward model is, or that is a part of a mixture."""
    if isinstance(model, DiscriminatorReward):
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


class FunctionReward:
    """A function of one's own, of whole batches of decoded sequences.

    Args:
        function: maps a list of `n` decoded sequences to `n` finite numbers.
        decode: turns a list of token ids into what the function takes; by default they stay a list of ints.
    """

    def __init__(
        self, function: Callable[[list[Any]], Sequence[float]], decode: Callable[[list[int]], Any] | None = None
    ) -> None:
        self._function = function
        self._decode = decode

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The function's values `(n,)`.

        Raises:
            ValueError: values of another number, or not finite.
        """
        sequences: list[Any] = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        if self._decode is not None:
            sequences = [self._decode(sequence) for sequence in sequences]
        values = torch.as_tensor(self._function(sequences), dtype=torch.float32, device=tokens.device)
        if values.shape != (len(tokens),):
            raise ValueError(f"The reward function returned shape {tuple(values.shape)} for {len(tokens)} sequences.")
        if not torch.isfinite(values).all():
            at = int((~torch.isfinite(values)).nonzero()[0])
            raise ValueError(
                f"The reward function returned {values[at].item()} for {sequences[at]!r}; rewards must be finite."
            )
        return values


class MixtureReward:
    """A weighted sum of reward models, as in ORGAN (Guimaraes et al., 2017, eq. 5): `fit` reaches those that learn."""

    def __init__(self, weighted_models: Sequence[tuple[float, RewardModel]]) -> None:
        if not weighted_models:
            raise ValueError("A mixture needs at least one (weight, reward model).")
        self.weighted_models = tuple(weighted_models)

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sum `(n,)`."""
        parts = [weight * model.score(tokens, lengths) for weight, model in self.weighted_models]
        return torch.stack(parts).sum(dim=0)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Fit every part that learns; their metrics together."""
        metrics: dict[str, float] = {}
        for _, model in self.weighted_models:
            if isinstance(model, LearningRewardModel):
                metrics |= model.fit(real, generated)
        return metrics


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
        keys = torch.full((len(tokens),), self.seed, dtype=torch.int64, device=tokens.device)
        for column in tokens.T:
            keys = mix(keys, column)
        return uniform(keys)
