"""The discriminator as a reward model: its reward and its training."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.utils import get_total_norm

from seqgan_env.rewards.reward_model import LearningRewardModel
from seqgan_env.rewards.text_cnn import TextCNN, make_optimizer
from seqgan_env.support.cuda_graphs import RepeatedStep
from seqgan_env.support.device import fused, prefers_few_kernels
from seqgan_env.support.errors import StepRecord, check_finite, room_for
from seqgan_env.support.precision import product_dtype, products_in
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.state_dicts import load_module_state, load_optimizer_state, module_state, optimizer_state
from seqgan_env.support.training_step import Batches, adamw_step, take_step

_PHASE = "a fit of the discriminator"

DiscriminatorScaling = Literal["probability", "centred", "log", "ratio"]

MAX_RATIO = 100.0
"""The largest reward with the scaling `"ratio"`; with a larger one, a single sequence would outweigh a batch."""


class DiscriminatorReward(LearningRewardModel):
    """How real the discriminator judges a sequence (paper, eq. 4).

    Args:
        discriminator: the network; its config has the settings of its training.
        scaling: `"probability"` D in [0, 1], as published; `"centred"` 2D - 1; `"log"` log D; `"ratio"` D / (1 - D), at most
            `MAX_RATIO`, the ratio of real to generated densities (MaliGAN: Che et al., 2017, section 3.1), for the baseline
            `"maligan"`. If sequences can end early, a reward of one sign favours short or long ones; `"centred"` does not.

    Raises:
        ValueError: the scaling is unknown.
    """

    def __init__(self, discriminator: TextCNN, scaling: DiscriminatorScaling = "probability") -> None:
        if scaling not in get_args(DiscriminatorScaling):
            raise ValueError(f"scaling must be one of {get_args(DiscriminatorScaling)}, got {scaling!r}.")
        self.discriminator = discriminator
        self.scaling = scaling
        self.workers: Workers = ALONE
        self.optimizer = make_optimizer(discriminator)
        self._run: _Fit | None = None

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scaled probabilities `(n,)`."""
        return self.scale(self.discriminator.log_odds(tokens))

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`score`, with products computed in the discriminator's configured precision."""
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

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train for `config.epochs` passes over real `(n, length)` and generated `(m, length)` sequences, shuffled.

        Returns:
            Mean loss (nats) and accuracy over the last pass, as seen in training; norm of the last step's gradient.

        Raises:
            ValueError: there are no real or no generated sequences.
            NumericalFault: the loss of a step, or the last step's gradient, is not finite. Checked after each pass, so that no
                step waits for a GPU; a fault in an earlier gradient shows in the next step's loss.
        """
        network, settings = self.discriminator, self.discriminator.config
        if len(real) == 0 or len(generated) == 0:
            raise ValueError(f"fit needs real and generated sequences, got {len(real)} and {len(generated)}.")
        run = self._run = _Fit.of(self._run, real, generated, settings.batch_size)
        network.train()
        try:
            for epoch in range(settings.epochs):
                if epoch == 0 or settings.reshuffle:
                    order = torch.randperm(len(run.tokens), generator=network.rng, device=run.tokens.device)
                gradients = self._pass(run, order)
                run.record.check(steps_before=epoch * len(run.batches.sizes))
        finally:
            network.eval()
        grad_norm = get_total_norm(gradients).item()
        check_finite("the norm of the gradient", grad_norm, _PHASE, settings.epochs * len(run.batches.sizes))
        self.optimizer.zero_grad()  # a recording's gradients are not ours to keep
        loss, accuracy = (run.record.values.double().sum(dim=0) / len(run.tokens)).tolist()
        return {"loss": loss, "accuracy": accuracy, "grad_norm": grad_norm}

    def _pass(self, run: "_Fit", order: Tensor) -> tuple[Tensor, ...]:
        """Train on all sequences in an order `(n,)`; return the last step's gradients. Never waits for a GPU."""
        config = self.discriminator.config
        run.batches.begin(order)
        run.record.begin()
        sizes = run.batches.sizes
        with products_in(config.precision), room_for(_PHASE, f"its batch_size, {config.batch_size}"):
            sizes = sizes[self._take_compiled_steps(run) :]
            steps = {size: self._step_of(size, run) for size in set(sizes)}
            for size in sizes:
                gradients = steps[size]()
        return gradients

    def _take_compiled_steps(self, run: "_Fit") -> int:
        """Take the steps of a pass for which `config.compile` asks; return their number.

        The last step is not among them, because its gradients are looked at, nor are steps before Adam has its moments. A
        subclass's network may do anything, and several processes add gradients up, so neither is compiled.
        """
        network, size = self.discriminator, self.discriminator.config.batch_size
        n_steps = len(run.batches.sizes) - 1
        compiles = network.config.compile and prefers_few_kernels(run.tokens)
        if not compiles or not network.recordable or self.workers.count > 1 or n_steps == 0 or not self.optimizer.state:
            return 0
        (group,) = self.optimizer.param_groups
        states = [self.optimizer.state[parameter] for parameter in group["params"]]
        loss, count = _Loss(network), states[0]["step"]
        parameters = {name: parameter.detach() for name, parameter in loss.named_parameters()}
        moments = [(state["exp_avg"], state["exp_avg_sq"]) for state in states]

        def step() -> tuple[Tensor, ...]:
            kept, dtype = network.kept_features(size), product_dtype(network.output.weight)
            fused(fit_step)(loss, parameters, moments, count, group["lr"], group["weight_decay"], run, size, kept, dtype)
            return ()

        key = ("compiled fit", size, run.n_real)
        repeated = RepeatedStep(network, key, step, optimizer=self.optimizer, state=run.state)
        for _ in range(n_steps):
            repeated()
        for state in states[1:]:
            state["step"].copy_(count)
        return n_steps

    def _step_of(self, size: int, run: "_Fit") -> Callable[[], tuple[Tensor, ...]]:
        """A step of Adam on the next batch, which has this size, of all workers together; returns the gradients."""
        network = self.discriminator
        part = self.workers.part(size)

        def step() -> tuple[Tensor, ...]:
            rows = run.batches.take(size)
            kept = network.kept_features(size)  # of the whole batch: its random numbers are the same for all workers
            own, kept = rows[part.rows], None if kept is None else kept[part.rows]
            tokens, is_real = run.tokens[own], own < run.n_real
            loss, sums = loss_and_sums(network, tokens, is_real, kept, product_dtype(network.output.weight))
            if self.workers.count > 1:
                loss, sums = part.weight * len(own) / size * loss, part.weight * sums
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            run.record.note(*take_step(network, self.optimizer, gradients, sums, self.workers))
            return gradients

        if self.workers.count > 1:
            return step
        key = ("fit", size, run.n_real)
        return RepeatedStep(network, key, step, optimizer=self.optimizer, state=run.state)

    def share_work(self, workers: Workers) -> None:
        """See `RewardModel`."""
        self.workers = workers

    def training_state(self) -> dict[str, Any]:
        """Parameters, optimiser and random numbers; see `seqgan_env.support.state_dicts`."""
        return {"network": module_state(self.discriminator), "optimizer": optimizer_state(self.optimizer)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""
        load_module_state(self.discriminator, state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])

    def networks(self) -> dict[str, nn.Module]:
        """The discriminator."""
        return {"discriminator.safetensors": self.discriminator}

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        config = dataclasses.asdict(self.discriminator.config)
        return {"reward_model": "discriminator", "scaling": self.scaling, "discriminator": config}


@dataclass(frozen=True)
class _Fit:
    """What the steps of a fit read and write, at fixed addresses."""

    tokens: Tensor
    """Real sequences, then generated ones: `(n, sequence_length)` int64."""
    n_real: int
    batches: Batches
    record: StepRecord
    """Each step's sums of loss and of right answers."""

    @classmethod
    def of(cls, last: "_Fit | None", real: Tensor, generated: Tensor, batch_size: int) -> "_Fit":
        """That of the last fit if all sizes are equal; otherwise a new one."""
        n, device = len(real) + len(generated), real.device
        if last is None or (last.tokens.shape, last.n_real, last.tokens.device) != ((n, real.shape[1]), len(real), device):
            batches = Batches(n, batch_size, device)
            record = StepRecord(["the loss", "the number of right answers"], len(batches.sizes), _PHASE, device)
            last = cls(torch.empty(n, real.shape[1], dtype=torch.int64, device=device), len(real), batches, record)
        torch.cat([real, generated], out=last.tokens)
        return last

    @property
    def state(self) -> list[Tensor]:
        """All tensors."""
        return [self.tokens, *self.batches.state, *self.record.state]


def loss_and_sums(
    network: TextCNN, tokens: Tensor, is_real: Tensor, kept: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and the sums of cross-entropy and of right answers in it.

    Args:
        network: what is trained.
        tokens: `(n, sequence_length)` int64.
        is_real: `(n,)` bool.
        kept: which features dropout keeps, `(n, n_features)` bool; None for all.
        dtype: of the products.

    Returns:
        The batch's mean cross-entropy in nats, plus the output layer's penalty: a scalar. And the sums, `(2,)`.
    """
    labels = is_real.long()
    logits = network.logits(tokens, kept, dtype)
    loss = F.cross_entropy(logits, labels)
    penalty = 0.5 * (network.output.weight.square().sum() + network.output.bias.square().sum())
    right = (logits.detach().argmax(dim=1) == labels).sum()
    return loss + network.config.l2 * penalty, torch.stack([loss.detach() * len(labels), right])


class _Loss(nn.Module):
    """`loss_and_sums` as a module, whose parameters torch.func can replace."""

    def __init__(self, network: TextCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, is_real: Tensor, kept: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return loss_and_sums(self.network, tokens, is_real, kept, dtype)


def fit_step(
    loss: nn.Module,
    parameters: dict[str, Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    count: Tensor,
    learning_rate: Tensor,
    weight_decay: float,
    run: _Fit,
    size: int,
    kept: Tensor | None,
    dtype: torch.dtype,
) -> None:
    """A step of a fit as one function of tensors, which changes them in place, for a compiler.

    Args:
        loss: a `_Loss`.
        parameters: its parameters by name, without gradients.
        moments: see `adamw_step`.
        count: the number of steps so far, a scalar.
        learning_rate: a scalar.
        weight_decay: see `adamw_step`.
        run: knows the next batch.
        size: of that batch.
        kept: see `loss_and_sums`.
        dtype: see `loss_and_sums`.
    """
    rows = run.batches.take(size)
    batch = (run.tokens[rows], rows < run.n_real, kept, dtype)

    def of(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        value, sums = functional_call(loss, parameters, batch)
        return value, sums

    gradients, sums = grad(of, has_aux=True)(parameters)
    count += 1
    adamw_step(parameters.values(), gradients.values(), moments, count, learning_rate, weight_decay)
    run.record.note(*sums)
