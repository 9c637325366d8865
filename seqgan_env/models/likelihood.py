"""Maximum-likelihood training of the generator, and scheduled sampling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.data.padding import lengths_of
from seqgan_env.models.sampling import draw_tokens
from seqgan_env.models.token_model import TokenModel, training_mode
from seqgan_env.support.cuda_graphs import RepeatedStep
from seqgan_env.support.errors import StepRecord, room_for
from seqgan_env.support.precision import Precision, check_precision, products_in
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.settings import LargestNorm, NonNegativeInt, PositiveFloat, PositiveInt, check_settings
from seqgan_env.support.state_dicts import (
    load_optimizer_state,
    load_random_state,
    optimizer_state,
    plain_numbers,
    random_state,
)
from seqgan_env.support.training_step import Batches, take_step


@dataclass(frozen=True)
class PretrainConfig:
    """Maximum-likelihood training; the defaults are the paper's."""

    epochs: NonNegativeInt = 120
    """Passes over the real sequences; with 0 the generator keeps its initial parameters."""
    batch_size: PositiveInt = 64
    """Sequences per step."""
    shuffle: bool = True
    """Read the sequences in a new random order in each epoch; without it, always in the same order, as published."""
    learning_rate: PositiveFloat = 0.01
    """Adam's step size."""
    final_learning_rate: PositiveFloat | None = None
    """Adam's step size at the end, reached geometrically; by default it stays constant."""
    max_grad_norm: LargestNorm = 5.0
    """Largest norm of the gradient."""
    precision: Precision = "highest"
    """Precision of float32 products in training, by torch's names: highest, float32; high, TF32 on a GPU; medium, bfloat16 on
    CPUs with AMX, TF32 on a GPU. Measuring and sampling always use float32."""
    scheduled_sampling: bool = False
    """Feed the generator its own tokens with a probability that rises from 0 to 1 (Bengio et al., 2015), as a baseline."""


class LikelihoodTraining:
    """Maximum-likelihood training that can be interrupted between any two steps, and resumed.

    The generator's dropout, if any, is active in training only; afterwards the generator is in evaluation mode.

    Args:
        generator: trained in place.
        real: `(n, length)` int64, padded, on the generator's device.
        config: settings.
        rng: on the same device; draws the order of the sequences, and the tokens of scheduled sampling.
        workers: the processes that take each step together.
        optimizer: of the generator's parameters; by default a new Adam.
        phase: the training's name in errors.

    Raises:
        ValueError: there are fewer sequences than a batch, the precision is unknown, or a setting is out of range.
    """

    def __init__(
        self,
        generator: TokenModel,
        real: Tensor,
        config: PretrainConfig,
        rng: torch.Generator,
        workers: Workers = ALONE,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        phase: str = "likelihood training",
    ) -> None:
        check_settings(config)
        if config.epochs and len(real) < config.batch_size:
            raise ValueError(
                f"Only {len(real)} sequences for batches of {config.batch_size}: use more data, or a smaller batch_size."
            )
        check_precision(config.precision)
        self.generator = generator
        self.real = real
        self.config = config
        self.rng = rng
        self.workers = workers
        self.finished_epochs = 0
        self.phase = phase
        self.optimizer = optimizer or torch.optim.Adam(generator.parameters(), lr=config.learning_rate, fused=True)
        self._schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, _decay_per_step(config, len(real)))
        # What the steps of an epoch read and write, at fixed addresses.
        self._batches = Batches(len(real), config.batch_size, real.device)
        names = ["the loss", "the norm of the gradient"]
        self._record = StepRecord(names, len(self._batches.sizes), phase, real.device)
        self._sums = torch.zeros(2, device=real.device)  # nats and tokens of the epoch
        self._order: Tensor | None = None
        self._begin_epoch()

    def restart(self, real: Tensor) -> None:
        """Begin anew on other sequences, as many and as long as before; they are copied into `real`.

        Unlike a new training, this moves nothing in memory, so that recorded steps can be replayed.
        """
        self.real.copy_(real)
        self.finished_epochs = 0
        self._begin_epoch()

    def run(self, after_epoch: Callable[[int, float], bool | None] | None = None) -> None:
        """Train for the remaining epochs.

        Args:
            after_epoch: called with the number of finished epochs and the epoch's mean loss (nats per token); false stops.

        Raises:
            NumericalFault: see `train_epoch`.
        """
        while self.finished_epochs < self.config.epochs:
            loss = self.train_epoch()
            if after_epoch is not None and after_epoch(self.finished_epochs, loss) is False:
                return

    def train_epoch(self, after_step: Callable[[], None] | None = None) -> float:
        """Train on every real sequence once, or on those that remain of an unfinished epoch.

        Args:
            after_step: called after each step but the last one.

        Returns:
            The epoch's mean loss in nats per token.

        Raises:
            NumericalFault: the loss or the gradient of a step is not finite; checked at the end of the epoch, so that no step
                waits for a GPU.
        """
        loss = self._finish_epoch(after_step)
        self.finished_epochs += 1
        self._begin_epoch()
        return loss

    def training_state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, except the generator's parameters."""
        return {
            "optimizer": optimizer_state(self.optimizer),
            "schedule": plain_numbers(self._schedule.state_dict()),
            "rng": random_state(self.rng),
            "finished_epochs": self.finished_epochs,
            "finished_steps": self._finished_steps,
            "order": self._order,
            "sums": self._sums,
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        load_optimizer_state(self.optimizer, state["optimizer"])
        self._schedule.load_state_dict(dict(state["schedule"]))
        load_random_state(self.rng, state["rng"])
        self.finished_epochs = state["finished_epochs"]
        self._finished_steps = state["finished_steps"]
        order = state["order"]
        self._order = None if order is None else order.to(self.real.device)
        self._sums.copy_(state["sums"])

    def _begin_epoch(self) -> None:
        self._finished_steps = 0
        self._order = None
        self._sums.zero_()

    def _finish_epoch(self, after_step: Callable[[], None] | None) -> float:
        """Take the remaining steps of the epoch; return its mean loss in nats per token."""
        if self._order is None:
            n, device = len(self.real), self.real.device
            shuffle = self.config.shuffle
            self._order = torch.randperm(n, generator=self.rng, device=device) if shuffle else torch.arange(n, device=device)
        sizes = self._batches.sizes
        before = self.finished_epochs * len(sizes) + self._finished_steps
        self._batches.begin(self._order, self._finished_steps)
        self._record.begin()
        steps = {size: self._step_of(size) for size in set(sizes)}
        for size in sizes[self._finished_steps :]:
            with products_in(self.config.precision), room_for(self.phase, f"its batch_size, {self.config.batch_size}"):
                steps[size]()
            self._decay_learning_rate()
            self._finished_steps += 1
            if after_step is not None and self._finished_steps < len(sizes):
                after_step()
        self._record.check(steps_before=before)
        self.optimizer.zero_grad()  # a recording's gradients are not ours to keep
        nats, tokens = self._sums.tolist()
        return float(nats / tokens)

    def _step_of(self, size: int) -> Callable[[], object]:
        """The step on the next batch, which has this size."""
        feed_own = self.finished_epochs / max(1, self.config.epochs - 1) if self.config.scheduled_sampling else 0.0

        def step() -> tuple[Tensor, ...]:
            batch = self.real[self._batches.take(size)]

            def with_own_tokens(rows: slice) -> Tensor:
                return log_prob_with_own_tokens(self.generator, batch, feed_own, self.rng, rows).sum()

            loss, log_likelihood, norm = likelihood_step(
                self.generator,
                self.optimizer,
                batch,
                self.workers,
                max_grad_norm=self.config.max_grad_norm,
                log_likelihood=with_own_tokens if feed_own else None,
            )
            self._record.note(loss, norm)
            self._sums.sub_(torch.stack([log_likelihood, -lengths_of(batch, self.generator.vocab_size).sum()]))
            return ()

        if feed_own or self.workers.count > 1:
            return step
        state = [self.real, self._sums, *self._batches.state, *self._record.state]
        return RepeatedStep(self.generator, ("likelihood", size, self.config), step, optimizer=self.optimizer, state=state)

    def _decay_learning_rate(self) -> None:
        if self._schedule.gamma != 1:
            self._schedule.step()


def likelihood_step(
    model: TokenModel,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    workers: Workers = ALONE,
    *,
    max_grad_norm: float,
    log_likelihood: Callable[[slice], Tensor] | None = None,
    check: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """One step of maximum likelihood on real sequences `(n, length)`; see `take_step`.

    Args:
        model: the model to train; its dropout is active in the step.
        optimizer: of its parameters.
        batch: the sequences, padded.
        workers: the processes that take the step together.
        max_grad_norm: the norm to clip the gradient to.
        log_likelihood: the sum, in nats, over some rows of the batch; by default the model's own.
        check: gets the result before the parameters change.

    Returns:
        The batch's loss in nats per token, its log-likelihood in nats, and the norm of the gradient before clipping: `(3,)`.
    """
    rows, weight = workers.part(len(batch))
    count = lengths_of(batch, model.vocab_size).sum()
    with training_mode(model, rows=(len(batch), rows)):
        own = weight * (model.log_likelihood(batch[rows]) if log_likelihood is None else log_likelihood(rows))
        loss = -own / count
        numbers = torch.stack([loss, own])
        return take_step(model, optimizer, loss, numbers, workers, max_grad_norm=max_grad_norm, check=check)


def pretrain(
    generator: TokenModel,
    real: Tensor,
    config: PretrainConfig,
    rng: torch.Generator,
    after_epoch: Callable[[int, float], bool | None] | None = None,
) -> None:
    """Train the generator on real sequences (paper, section 4; Algorithm 1, line 2), in place; see `LikelihoodTraining`."""
    LikelihoodTraining(generator, real, config, rng).run(after_epoch)


def _decay_per_step(config: PretrainConfig, n_sequences: int) -> float:
    """The factor per step that takes the learning rate to its final value by the last step."""
    if config.final_learning_rate is None or config.epochs == 0:
        return 1.0
    n_steps = config.epochs * -(-n_sequences // config.batch_size)
    return float((config.final_learning_rate / config.learning_rate) ** (1 / n_steps))


def log_prob_with_own_tokens(
    generator: TokenModel, batch: Tensor, probability: float, rng: torch.Generator, rows: slice = slice(None)
) -> Tensor:
    """`generator.log_prob` of some rows of a batch; each input is the generator's own draw with `probability`."""
    tokens = batch[rows]
    n, length = tokens.shape
    state = generator.initial_state(n)
    inputs = torch.full_like(tokens[:, 0], generator.vocab_size)
    log_probs = []
    for position in range(length):
        logits, state = generator.step(inputs, state)
        targets = tokens[:, position]
        log_probs.append(-F.cross_entropy(logits, targets, ignore_index=generator.vocab_size, reduction="none"))
        uniforms = torch.rand((len(batch), 2), generator=rng, device=tokens.device)[rows]
        own = draw_tokens(logits.detach(), uniforms[:, :1]).squeeze(1)
        inputs = torch.where((uniforms[:, 1] < probability) & (targets < generator.vocab_size), own, targets)
    return torch.stack(log_probs, dim=1)
