"""RankGAN's reward: how high a sequence ranks among real ones, relative to real references."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.rewards.reward_model import LearningRewardModel
from seqgan_env.rewards.text_cnn import TextCNN, make_optimizer
from seqgan_env.support.errors import StepRecord, check_finite, room_for
from seqgan_env.support.precision import products_in
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.settings import PositiveFloat, PositiveInt, check_settings
from seqgan_env.support.state_dicts import load_module_state, load_optimizer_state, module_state, optimizer_state
from seqgan_env.support.training_step import gradient_norm, take_step

_SCORE_CHUNK = 256
_PHASE = "a fit of the ranker"


@dataclass(frozen=True)
class RankConfig:
    """The ranker's sets and sharpness; the values are this project's."""

    gamma: PositiveFloat = 10.0
    """The factor on cosines in the softmax: the higher, the more a better rank counts."""
    n_references: PositiveInt = 32
    """Real sequences that serve as references."""
    n_comparisons: PositiveInt = 32
    """Sequences to rank a sequence among."""


class RankReward(ReadOnly, LearningRewardModel, nn.Module):
    """The log of a sequence's rank (Lin et al., 2017, "Adversarial Ranking for Language Generation", section 3.3).

    With features y of a sequence, a reference u and a comparison set C:

        alpha(s|u) = cos(y_s, y_u)
        P(s|u, C) = exp(gamma alpha(s|u)) / sum over s' in C and s itself of exp(gamma alpha(s'|u))
        R(s|U, C) = mean over u in U of P(s|u, C)

    and the reward is log R(s|U, C+), where C+ are real sequences: log(1 / (|C+| + 1)) for a sequence that is like them. It is
    always negative; if sequences can end early, centre it with a baseline.

    U and C+ are drawn from the real sequences when the ranker is created and after each `fit`, and stay fixed in between, so
    that a sequence's reward does not depend on its batch.

    Args:
        encoder: computes the features, `TextCNN.features`. Its output layer is not used; of its config's training settings
            only step size, weight decay, batch size, epochs and precision are.
        real: real sequences `(n, sequence_length)` int64, padded.
        config: sets and sharpness.
        seed: draws the sets and the order of training.

    Raises:
        ValueError: there are no real sequences, a set is empty, or `gamma` is not positive and finite.
    """

    read_only: ClassVar[frozenset[str]] = frozenset({"config"})

    references: Tensor
    rivals: Tensor

    def __init__(self, encoder: TextCNN, real: Tensor, config: RankConfig = RankConfig(), *, seed: int = 0) -> None:
        super().__init__()
        check_settings(config)
        self.encoder = encoder
        self.workers: Workers = ALONE
        self.optimizer = make_optimizer(encoder)
        self.config = config
        self._rng = torch.Generator(encoder.device).manual_seed(seed)
        # Directions of the references' features, and for each the log of C+'s sum in P's denominator.
        self.register_buffer("references", torch.zeros(config.n_references, encoder.n_features, device=encoder.device))
        self.register_buffer("rivals", torch.zeros(config.n_references, device=encoder.device))
        self._draw_sets(real.to(encoder.device))

    @torch.no_grad()
    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log ranks `(n,)`, at most 0."""
        return torch.cat([self._log_rank(part) for part in tokens.split(_SCORE_CHUNK)])

    def _log_rank(self, tokens: Tensor) -> Tensor:
        own = self.config.gamma * self._directions(tokens) @ self.references.T
        return log_rank(own, self.rivals)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train the ranker to rank real `(n, length)` above generated `(m, length)` sequences (section 3.1, eq. 1).

        The loss is -log R(real|U, C-) - log(1 - R(generated|U, C+)), averaged over a batch; C- are generated sequences. Each
        step draws new U, C- and C+, from outside the batch if there are enough sequences.

        Returns:
            Mean loss (nats) and accuracy over the last pass: the share of real sequences that rank above, and of generated
            ones that rank below, the rank of one among |C| + 1 equals; norm of the last step's gradient.

        Raises:
            ValueError: there are no real or no generated sequences.
            NumericalFault: a loss or the last gradient is not finite.
        """
        if len(real) == 0 or len(generated) == 0:
            raise ValueError(f"fit needs real and generated sequences, got {len(real)} and {len(generated)}.")
        settings, half = self.encoder.config, max(1, self.encoder.config.batch_size // 2)
        starts = range(0, max(len(real), len(generated)), half)
        losses = StepRecord(["the loss"], settings.epochs * len(starts), _PHASE, real.device)
        totals = torch.zeros(2, device=real.device)
        for _ in range(settings.epochs):
            totals.zero_()
            orders = [torch.randperm(len(s), generator=self._rng, device=s.device) for s in (real, generated)]
            for start in starts:
                n_batch = min(half, starts.stop - start)
                with products_in(settings.precision), room_for(_PHASE, f"its batch_size, {settings.batch_size}"):
                    sums = self._train_step(*self._step_sets(real, generated, orders, start, n_batch))
                losses.note(sums[0])
                totals += sums * n_batch
        losses.check()
        grad_norm = gradient_norm(self.encoder).item()
        check_finite("the norm of the gradient", grad_norm, _PHASE, settings.epochs * len(starts))
        self._draw_sets(real)
        loss, accuracy = (totals / starts.stop).tolist()
        return {"loss": loss, "accuracy": accuracy, "grad_norm": grad_norm}

    def _step_sets(
        self, real: Tensor, generated: Tensor, orders: list[Tensor], start: int, n_batch: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Real and generated sequences to rank, references, C- and C+: adjacent in the shuffled order, so without repeats."""
        config = self.config
        n_real, n_generated = n_batch + config.n_references + config.n_comparisons, n_batch + config.n_comparisons
        own = real[_window(orders[0], start, n_real)]
        others = generated[_window(orders[1], start, n_generated)]
        ranked, references, positives = own.split([n_batch, config.n_references, config.n_comparisons])
        written, negatives = others.split([n_batch, config.n_comparisons])
        return ranked, written, references, negatives, positives

    def _train_step(self, real: Tensor, generated: Tensor, references: Tensor, negatives: Tensor, positives: Tensor) -> Tensor:
        """One step of Adam, shared by all workers; returns loss and accuracy, `(2,)`."""
        n = len(real)
        part = self.workers.part(n)
        parts = [real[part.rows], generated[part.rows], references, negatives, positives]
        directions = self._directions(torch.cat(parts)).split([len(part) for part in parts])
        seen = [self.config.gamma * part @ directions[2].T for part in directions]  # (n, n_references) each
        of_real, of_generated = seen[0], seen[1]
        below_real, below_generated = seen[3].logsumexp(dim=0), seen[4].logsumexp(dim=0)
        loss = -(log_rank(of_real, below_real).mean() + log_rank_of_others(of_generated, below_generated).mean())
        share = part.weight * len(of_real) / n
        with torch.no_grad():
            even = -math.log(self.config.n_comparisons + 1)
            right = torch.cat([log_rank(of_real, below_real) > even, log_rank(of_generated, below_generated) < even])
            means = share * torch.stack([loss.detach(), right.float().mean()])
        return take_step(self.encoder, self.optimizer, share * loss, means, self.workers)

    def _directions(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.encoder.features(tokens), dim=1)

    @torch.no_grad()
    def _draw_sets(self, real: Tensor) -> None:
        if len(real) == 0:
            raise ValueError("A ranker needs real sequences, got none.")
        order = torch.randperm(len(real), generator=self._rng, device=real.device)
        drawn = real[_window(order, 0, self.config.n_references + self.config.n_comparisons)]
        references, comparisons = self._directions(drawn).split([self.config.n_references, self.config.n_comparisons])
        self.references.copy_(references)
        self.rivals.copy_((self.config.gamma * comparisons @ references.T).logsumexp(dim=0))

    def share_work(self, workers: Workers) -> None:
        """Let several processes rank a step's sequences together; each computes the sets itself."""
        self.workers = workers

    def training_state(self) -> dict[str, Any]:
        """Parameters, sets, optimiser and random numbers; see `seqgan_env.support.state_dicts`."""
        return {"network": module_state(self), "optimizer": optimizer_state(self.optimizer)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        load_module_state(self, state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])

    def networks(self) -> dict[str, nn.Module]:
        """The ranker: its encoder and sets."""
        return {"ranker.safetensors": self}

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        config, ranking = dataclasses.asdict(self.encoder.config), dataclasses.asdict(self.config)
        return {"reward_model": "rank", "ranking": ranking, "discriminator": config}


def log_rank(own: Tensor, rivals: Tensor) -> Tensor:
    """Log R: the log of a sequence's share in the softmax, averaged over references.

    Args:
        own: gamma times the cosine of each sequence and reference, `(n, n_references)`.
        rivals: `(n_references,)`, the log of the sum of exp(gamma cos) over the comparison set.

    Returns:
        `(n,)`.
    """
    return (own - torch.logaddexp(own, rivals)).logsumexp(dim=1) - math.log(own.shape[1])


def log_rank_of_others(own: Tensor, rivals: Tensor) -> Tensor:
    """log(1 - R), finite even if R is nearly 1; arguments as in `log_rank`."""
    return (rivals - torch.logaddexp(own, rivals)).logsumexp(dim=1) - math.log(own.shape[1])


def _window(order: Tensor, start: int, n: int) -> Tensor:
    """`n` entries of an order from `start` on, wrapping around at its end."""
    return order[torch.arange(start, start + n, device=order.device) % len(order)]
