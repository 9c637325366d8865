"""The discriminator: a convolutional network that tells real sequences from generated ones."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.rewards.convolution import max_over_windows
from seqgan_env.support.cuda_graphs import Recordable, replayed
from seqgan_env.support.errors import StepRecord, check_finite, room_for
from seqgan_env.support.precision import Precision, check_precision, product_dtype, products_in
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.settings import NonNegativeFloat, PositiveInt, Share, Width, check_settings
from seqgan_env.support.state_dicts import load_module_state, load_optimizer_state, module_state, optimizer_state
from seqgan_env.support.training_step import gradient_norm, take_step

# Tokens of sequences scored together: enough for large products; at the paper's sizes the largest, and in bfloat16 the copied
# windows, take 15 MB, on a GPU 240.
TOKENS_SCORED = 20 << 10
TOKENS_SCORED_ON_GPU = 20 << 14
_PHASE = "a fit of the discriminator"

DELETED_SETTINGS = {"token_dropout": 0.0, "label_smoothing": 0.0, "spectral_norm": False, "validation": 0.0}
"""Settings that older files hold; see `without_deleted`."""


@dataclass(frozen=True)
class TextCNNConfig:
    """Sizes and training of the discriminator; the defaults are the paper's for length 20 (appendix, table 2)."""

    widths: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
    """Window sizes in tokens."""
    n_filters: tuple[Width, ...] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)
    """Filters for each window size."""
    embedding_dim: Width = 64
    """Width of its token embedding."""
    dropout: Share = 0.25
    """Share of features left out in training; none is in scoring."""
    l2: NonNegativeFloat = 0.2
    """Weight of half the squared norm of the output layer in the loss."""
    learning_rate: NonNegativeFloat = 1e-4
    """Adam's step size."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of all parameters (0: plain Adam, as published)."""
    batch_size: PositiveInt = 64
    """Sequences, real and generated together, in one training step."""
    epochs: PositiveInt = 3
    """Passes over the sequences that one `fit` is given."""
    precision: Precision = "highest"
    """How products are made in fits and in scoring a discriminator's completions, whose rewards are means: highest, in
    float32; high, in TF32 on a GPU; medium, in bfloat16 where the machine has it. Parameters stay in float32."""

    def operations(self, sequence_length: int) -> int:
        """Floating-point operations of judging one sequence; matrix products alone count, a multiply-add is two.

        T - w + 1 windows of w x dim numbers for each filter; gate and transform F x F; two outputs.
        """
        windows = sum(
            2 * (sequence_length - width + 1) * width * self.embedding_dim * n
            for width, n in zip(self.widths, self.n_filters, strict=True)
        )
        n_features = sum(self.n_filters)
        return windows + 2 * 2 * n_features**2 + 2 * n_features * 2


class TextCNN(ReadOnly, Recordable):
    """Windows of several widths, ReLU, max over time, one highway layer, two-way softmax (paper, appendix).

    Args:
        vocab_size: number of tokens; the pad id `vocab_size` has an embedding of zeros.
        sequence_length: tokens in a (padded) sequence.
        config: sizes and training.
        seed: of its initial parameters, its dropout and the order of its training sequences.
        device: where it lies.

    Raises:
        ValueError: a window wider than the sequence, widths and filters of different number, or a setting out of its range.
    """

    read_only: ClassVar[frozenset[str]] = frozenset({"vocab_size", "config", "n_features"})

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        config: TextCNNConfig = TextCNNConfig(),
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _check(config, sequence_length)
        self.vocab_size = vocab_size
        self.config = config
        self.workers: Workers = ALONE
        self.n_features = sum(config.n_filters)
        with torch.device("meta"):  # see TokenLSTM: torch's own initialisers would draw from its global generator
            self.embedding = nn.Embedding(vocab_size, config.embedding_dim)
            self.filters = nn.ModuleList(
                nn.Linear(width * config.embedding_dim, n) for width, n in zip(config.widths, config.n_filters, strict=True)
            )
            self.highway_gate = nn.Linear(self.n_features, self.n_features)
            self.highway_transform = nn.Linear(self.n_features, self.n_features)
            self.output = nn.Linear(self.n_features, 2)
        self.to_empty(device=device)
        self._initialise(torch.Generator().manual_seed(seed))
        self._rng = torch.Generator(device).manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.eval()

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                value = torch.rand(parameter.shape, generator=generator) * 2 - 1
            elif parameter.ndim == 2:
                value = torch.randn(parameter.shape, generator=generator).clamp_(-2, 2) * 0.1
            else:
                value = torch.full(parameter.shape, -2.0 if name == "highway_gate.bias" else 0.1)
            parameter.copy_(value)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.embedding.weight.device

    @property
    def recordable(self) -> bool:
        """See `seqgan_env.support.cuda_graphs.Recordable`; not where a subclass acts."""
        return type(self) is TextCNN

    def features(self, tokens: Tensor) -> Tensor:
        """Highway features `(n, n_features)` of tokens `(n, sequence_length)`, before dropout."""
        dtype = product_dtype(self.embedding.weight)
        padding = self.embedding.weight.new_zeros(1, self.config.embedding_dim)
        embedded = F.embedding(tokens.T.contiguous(), torch.cat([self.embedding.weight, padding]))  # (length, n, dim)
        filters = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in self._layers()]
        features = F.relu(max_over_windows(embedded.to(dtype), filters))
        gate = torch.sigmoid(_linear(self.highway_gate, features))
        highway = gate * F.relu(_linear(self.highway_transform, features)) + (1 - gate) * features
        return highway.to(self.embedding.weight.dtype)

    def _layers(self) -> Iterator[nn.Linear]:
        for layer in self.filters:
            assert isinstance(layer, nn.Linear)
            yield layer

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(n, 2)` of generated and real for tokens `(n, sequence_length)`. In training mode with dropout."""
        return self._logits(tokens, self._kept_features(len(tokens)))

    def _kept_features(self, n: int) -> Tensor | None:
        """Which features `(n, n_features)` bool dropout keeps of `n` sequences; None where it keeps all."""
        if not self.training or self.config.dropout == 0:
            return None
        return torch.rand((n, self.n_features), generator=self._rng, device=self.device) >= self.config.dropout

    def _logits(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        features = self.features(tokens)
        if kept is not None:
            features = features * kept / (1 - self.config.dropout)
        logits: Tensor = self.output(features)
        return logits

    @torch.no_grad()
    def log_odds(self, tokens: Tensor, precision: Precision = "highest") -> Tensor:
        """Log of the odds that each sequence of `(n, sequence_length)` is real: `(n,)`, no dropout, no gradient."""
        with products_in(precision):
            chunk = TOKENS_SCORED if tokens.device.type == "cpu" else TOKENS_SCORED_ON_GPU
            parts = tokens.split(max(1, chunk // tokens.shape[1]))
            logits = torch.cat([self._logits(part) for part in parts])
        return logits[:, 1] - logits[:, 0]

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability in [0, 1] that each sequence of `(n, sequence_length)` is real: `(n,)`."""
        return torch.sigmoid(self.log_odds(tokens))

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train for `config.epochs` passes over real `(n, length)` and generated `(m, length)` sequences, shuffled together.

        Returns:
            Mean loss (nats) and accuracy over the last pass, as seen in training; norm of the last step's gradient.

        Raises:
            ValueError: nothing to learn from.
            NumericalFault: the loss of a step, or the last step's gradient, is not finite. Looked at when all steps are done,
                so that none waits for a GPU; the loss shows a fault in an earlier gradient one step later.
        """
        if len(real) == 0 or len(generated) == 0:
            raise ValueError(f"fit needs real and generated sequences, got {len(real)} and {len(generated)}.")
        tokens = torch.cat([real, generated])
        labels = torch.cat([torch.ones(len(real)), torch.zeros(len(generated))]).long().to(tokens.device)
        totals = torch.zeros(2, device=tokens.device)
        n_steps = self.config.epochs * -(-len(tokens) // self.config.batch_size)
        losses = StepRecord(["the loss"], n_steps, _PHASE, tokens.device)
        self.train()
        for _ in range(self.config.epochs):
            totals.zero_()
            order = torch.randperm(len(tokens), generator=self._rng, device=tokens.device)
            with products_in(self.config.precision), room_for(_PHASE, f"its batch_size, {self.config.batch_size}"):
                for batch in order.split(self.config.batch_size):
                    sums = self._train_step(tokens[batch], labels[batch])
                    losses.note(sums[0])
                    totals += sums
        self.eval()
        losses.check()
        grad_norm = gradient_norm(self).item()
        check_finite("the norm of the gradient", grad_norm, _PHASE, n_steps)
        self.optimizer.zero_grad()  # a recording's gradients are not ours to keep
        loss, accuracy = (totals / len(tokens)).tolist()
        return {"loss": loss, "accuracy": accuracy, "grad_norm": grad_norm}

    def training_state(self) -> dict[str, Any]:
        """Parameters, optimiser and random numbers; see `seqgan_env.support.state_dicts`."""
        return {"network": module_state(self), "optimizer": optimizer_state(self.optimizer)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""
        load_module_state(self, state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])

    def _train_step(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """One step of Adam, of all workers together; returns the sums of loss and of right answers, `(2,)`."""
        part, n = self.workers.part(len(tokens)), len(tokens)
        kept = self._kept_features(n)  # of the whole batch: its random numbers are the same for all workers
        inputs = [tensor[part.rows] for tensor in (tokens, labels, kept) if tensor is not None]
        share = part.weight * len(inputs[0]) / n
        gradients = partial(self.sums_and_gradients, share=share, weight=part.weight)
        sums, *of_each = replayed(self, ("train", share, part.weight), gradients, *inputs, copies=False)
        return take_step(self, self.optimizer, of_each, sums, self.workers)

    def sums_and_gradients(
        self, tokens: Tensor, labels: Tensor, kept: Tensor | None = None, *, share: float, weight: float
    ) -> tuple[Tensor, ...]:
        """For some rows of a batch: the sums of loss and of right answers, `(2,)`, and the gradient to each parameter.

        Args:
            tokens: `(n, sequence_length)` int64.
            labels: `(n,)` int64, 1 where real.
            kept: which features dropout keeps, `(n, n_features)` bool; all by default.
            share: of the batch's mean loss that the rows' mean is.
            weight: how much their sums count.
        """
        logits = self._logits(tokens, kept)
        loss = F.cross_entropy(logits, labels)
        penalty = 0.5 * (self.output.weight.square().sum() + self.output.bias.square().sum())
        gradients = torch.autograd.grad(share * (loss + self.config.l2 * penalty), list(self.parameters()))
        right = (logits.detach().argmax(dim=1) == labels).sum()
        return weight * torch.stack([loss.detach() * len(labels), right]), *gradients


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """A layer's outputs, in the dtype of its inputs."""
    return F.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def _check(config: TextCNNConfig, sequence_length: int) -> None:
    check_settings(config)
    check_windows(config)
    too_wide = [width for width in config.widths if not 1 <= width <= sequence_length]
    if too_wide:
        raise ValueError(
            f"Window widths {too_wide} do not fit sequences of {sequence_length} tokens: take widths from 1 to "
            f"{sequence_length}; widths_within({sequence_length}, config) leaves the others out."
        )
    check_precision(config.precision)


def check_windows(config: TextCNNConfig) -> None:
    """Refuse widths and filters of different number, or none.

    Raises:
        ValueError: they are.
    """
    if len(config.widths) != len(config.n_filters) or not config.widths:
        raise ValueError(
            f"Each window width needs its number of filters, but widths={config.widths} are {len(config.widths)} and "
            f"n_filters={config.n_filters} are {len(config.n_filters)}."
        )


def widths_within(sequence_length: int, config: TextCNNConfig) -> TextCNNConfig:
    """`config` without the windows that are wider than the sequence.

    Raises:
        ValueError: none is left, or widths and filters are of different number.
    """
    check_windows(config)
    if min(config.widths) > sequence_length:
        raise ValueError(
            f"No window of widths={config.widths} fits sequences of {sequence_length} tokens: take widths from 1 to "
            f"{sequence_length}."
        )
    kept = [(width, n) for width, n in zip(config.widths, config.n_filters, strict=True) if width <= sequence_length]
    return dataclasses.replace(config, widths=tuple(w for w, _ in kept), n_filters=tuple(n for _, n in kept))
