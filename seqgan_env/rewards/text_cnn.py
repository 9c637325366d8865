"""The discriminator's network: convolutions that tell real sequences from generated ones."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.rewards.convolution import max_over_windows, max_over_windows_at_once, windows_outside
from seqgan_env.support.cuda_graphs import Recordable, replayed
from seqgan_env.support.device import prefers_few_kernels
from seqgan_env.support.precision import Precision, check_precision, product_dtype, products_in
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.settings import NonNegativeFloat, PositiveInt, Share, Width, check_settings

# Tokens of sequences to score together: enough for large products. At the paper's sizes the largest tensor (in bfloat16 the
# copied windows) takes 15 MB, on a GPU 240.
TOKENS_SCORED = 20 << 10
TOKENS_SCORED_ON_GPU = 20 << 14

# Up to so many rows a GPU computes the two logits faster element by element: a product with two columns keeps few of its
# processors busy.
_FEW_ROWS = 2048
# With more rows a GPU is never idle anyway, and a recording of their scores would hold much memory.
_MOST_ROWS_RECORDED = 2048

DELETED_SETTINGS = {"token_dropout": 0.0, "label_smoothing": 0.0, "spectral_norm": False, "validation": 0.0}
"""Settings in older files; see `without_deleted`."""


InitialParameters = Literal["closed-gates", "published"]


@dataclass(frozen=True)
class TextCNNConfig:
    """The discriminator's sizes and training; the defaults are the paper's for length 20 (appendix, table 2)."""

    widths: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
    """Window sizes in tokens."""
    n_filters: tuple[Width, ...] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)
    """Filters for each window size."""
    embedding_dim: Width = 64
    """Width of the discriminator's token embedding."""
    dropout: Share = 0.25
    """Share of features to drop in training; scoring drops none."""
    l2: NonNegativeFloat = 0.2
    """Weight of half the squared norm of the output layer in the loss."""
    learning_rate: NonNegativeFloat = 1e-4
    """Adam's step size."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of all parameters (0: plain Adam, as published)."""
    initial_parameters: InitialParameters = "closed-gates"
    """How training starts. closed-gates: the highway layer's gates nearly closed, by a bias of -2, and its matrices as wide as
    the filters' (0.1). published: as in effect in the published code, gates half open and matrices by Glorot's rule, four
    times smaller at its 1,720 features: a calmer start."""
    batch_size: PositiveInt = 64
    """Sequences per training step, real and generated together."""
    epochs: PositiveInt = 3
    """Passes over the sequences of one `fit`."""
    reshuffle: bool = True
    """Shuffle the sequences of a fit anew for each pass; without it, once for all its passes, as published."""
    precision: Precision = "highest"
    """Precision of products in fits and in a discriminator's scores of completions, whose rewards are averaged: highest,
    float32; high, TF32 on a GPU; medium, bfloat16 if the device has it. Parameters stay in float32."""
    compile: bool = False
    """On a GPU, fuse the kernels of a training step by torch.compile: half a minute once, then steps take half as long, which
    pays from some 100,000 steps."""

    def operations(self, sequence_length: int) -> int:
        """Floating-point operations to score one sequence; only matrix products count, a multiply-add as two.

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

    `DiscriminatorReward` trains it.

    Args:
        vocab_size: number of tokens; the pad id `vocab_size` has an embedding of zeros.
        sequence_length: tokens in a (padded) sequence.
        config: sizes and training.
        seed: of the initial parameters, and of `rng`.
        device: of the parameters.

    Raises:
        ValueError: a window is too wide for the sequence, widths and filters differ in number, or a setting is out of range.
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
        self.n_features = sum(config.n_filters)
        with torch.device("meta"):  # see TokenLSTM: torch's own initialisers would advance its global generator
            self.embedding = nn.Embedding(vocab_size, config.embedding_dim)
            self.filters = nn.ModuleList(
                nn.Linear(width * config.embedding_dim, n) for width, n in zip(config.widths, config.n_filters, strict=True)
            )
            self.highway_gate = nn.Linear(self.n_features, self.n_features)
            self.highway_transform = nn.Linear(self.n_features, self.n_features)
            self.output = nn.Linear(self.n_features, 2)
        outside = windows_outside(sequence_length, config.widths, config.n_filters)
        self.register_buffer("outside", outside, persistent=False)  # copying it when it is needed would wait for a GPU
        self.outside: Tensor
        self.to_empty(device=device)
        self.outside.copy_(outside)
        self._initialise(torch.Generator().manual_seed(seed))
        self._rng = torch.Generator(device).manual_seed(seed)
        self.eval()

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        published = self.config.initial_parameters == "published"
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                value = torch.rand(parameter.shape, generator=generator) * 2 - 1
            elif published and name.startswith("highway"):
                # TensorFlow 1.0 draws by Glorot and Bengio (2010) what has no initialiser; a bias has its length as both fans.
                limit = math.sqrt(6 / (self.n_features + self.n_features))
                value = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * limit
            elif published and parameter.ndim == 2:  # what lies beyond two standard deviations is drawn again
                value = nn.init.trunc_normal_(torch.empty(parameter.shape), 0, 0.1, -0.2, 0.2, generator=generator)
            elif parameter.ndim == 2:
                value = torch.randn(parameter.shape, generator=generator).clamp_(-2, 2) * 0.1
            else:
                value = torch.full(parameter.shape, -2.0 if name == "highway_gate.bias" else 0.1)
            parameter.copy_(value)

    @property
    def device(self) -> torch.device:
        """The parameters' device."""
        return self.embedding.weight.device

    @property
    def rng(self) -> torch.Generator:
        """Draws dropout, and the order of sequences in training."""
        return self._rng

    @property
    def recordable(self) -> bool:
        """See `seqgan_env.support.cuda_graphs.Recordable`; false for subclasses."""
        return type(self) is TextCNN

    def features(self, tokens: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Highway features `(n, n_features)` of tokens `(n, sequence_length)`, before dropout.

        Args:
            tokens: int64, padded.
            dtype: of the products; by default that of `products_in`.
        """
        return self._highway(self._pooled(tokens, product_dtype(self.embedding.weight) if dtype is None else dtype))

    def _pooled(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """The maximum over all positions of each filter, after ReLU: `(n, n_features)`."""
        weight = self.embedding.weight
        embeddings = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])  # with that of padding
        if prefers_few_kernels(tokens):
            filters: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in self._layers()]
            return F.relu(max_over_windows_at_once(tokens, embeddings, filters, self.outside, dtype))
        embedded = F.embedding(tokens.T.contiguous(), embeddings)  # (length, n, dim)
        filters = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in self._layers()]
        return F.relu(max_over_windows(embedded.to(dtype), filters))

    def _highway(self, pooled: Tensor) -> Tensor:
        """The highway layer's features `(n, n_features)`, in the parameters' dtype; computed in that of `pooled`."""
        layers = (self.highway_gate, self.highway_transform)
        if prefers_few_kernels(pooled):  # one product
            weight, bias = (
                torch.cat([getattr(layer, name).to(pooled.dtype) for layer in layers]) for name in ("weight", "bias")
            )
            gate, transform = F.linear(pooled, weight, bias).chunk(2, dim=1)
        else:
            gate, transform = (_linear(layer, pooled) for layer in layers)
        gate = torch.sigmoid(gate)
        features = gate * F.relu(transform) + (1 - gate) * pooled
        return features.to(self.embedding.weight.dtype)

    def _layers(self) -> Iterator[nn.Linear]:
        for layer in self.filters:
            assert isinstance(layer, nn.Linear)
            yield layer

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(n, 2)` of generated and real for tokens `(n, sequence_length)`; with dropout in training mode."""
        return self.logits(tokens, self.kept_features(len(tokens)))

    def kept_features(self, n: int) -> Tensor | None:
        """The features that dropout keeps for `n` sequences, `(n, n_features)` bool; None if it keeps all."""
        if not self.training or self.config.dropout == 0:
            return None
        return torch.rand((n, self.n_features), generator=self._rng, device=self.device) >= self.config.dropout

    def logits(self, tokens: Tensor, kept: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """`forward`, with features `(n, n_features)` bool that dropout keeps, by default all; for `dtype` see `features`."""
        features = self.features(tokens, dtype)
        if kept is not None:
            features = features * kept / (1 - self.config.dropout)
        if prefers_few_kernels(features) and len(features) <= _FEW_ROWS:
            return (features.unsqueeze(1) * self.output.weight).sum(dim=2) + self.output.bias
        logits: Tensor = self.output(features)
        return logits

    @torch.no_grad()
    def log_odds(self, tokens: Tensor, precision: Precision = "highest") -> Tensor:
        """Log odds that each sequence of `(n, sequence_length)` is real: `(n,)`, without dropout or gradient."""
        with products_in(precision):
            chunk = TOKENS_SCORED if tokens.device.type == "cpu" else TOKENS_SCORED_ON_GPU
            return torch.cat([self._log_odds(part) for part in tokens.split(max(1, chunk // tokens.shape[1]))])

    def _log_odds(self, tokens: Tensor) -> Tensor:
        def of(tokens: Tensor) -> tuple[Tensor]:
            logits = self.logits(tokens)
            return (logits[:, 1] - logits[:, 0],)

        return (replayed(self, "log odds", of, tokens) if 0 < len(tokens) <= _MOST_ROWS_RECORDED else of(tokens))[0]

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability in [0, 1] that each sequence of `(n, sequence_length)` is real: `(n,)`."""
        return torch.sigmoid(self.log_odds(tokens))


def make_optimizer(network: TextCNN) -> torch.optim.AdamW:
    """Adam with the step size and weight decay of the network's config."""
    config = network.config
    return torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """A layer's outputs, in the dtype of its inputs."""
    return F.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def _check(config: TextCNNConfig, sequence_length: int) -> None:
    check_settings(config)
    check_windows(config)
    too_wide = [width for width in config.widths if not 1 <= width <= sequence_length]
    if too_wide:
        raise ValueError(
            f"Window widths {too_wide} do not fit sequences of {sequence_length} tokens: use widths from 1 to "
            f"{sequence_length}, or drop the others with widths_within({sequence_length}, config)."
        )
    check_precision(config.precision)
    starts = get_args(InitialParameters)
    if config.initial_parameters not in starts:
        raise ValueError(f"initial_parameters must be one of {starts}, got {config.initial_parameters!r}.")


def check_windows(config: TextCNNConfig) -> None:
    """Refuse different numbers of widths and filters, or none.

    Raises:
        ValueError: they differ, or there are none.
    """
    if len(config.widths) != len(config.n_filters) or not config.widths:
        raise ValueError(
            f"Each window width needs its number of filters, but widths={config.widths} are {len(config.widths)} and "
            f"n_filters={config.n_filters} are {len(config.n_filters)}."
        )


def widths_within(sequence_length: int, config: TextCNNConfig) -> TextCNNConfig:
    """`config` without the windows that are wider than the sequence.

    Raises:
        ValueError: no window is left, or the numbers of widths and filters differ.
    """
    check_windows(config)
    if min(config.widths) > sequence_length:
        raise ValueError(
            f"No window of widths={config.widths} fits sequences of {sequence_length} tokens: use widths from 1 to "
            f"{sequence_length}."
        )
    kept = [(width, n) for width, n in zip(config.widths, config.n_filters, strict=True) if width <= sequence_length]
    return dataclasses.replace(config, widths=tuple(w for w, _ in kept), n_filters=tuple(n for _, n in kept))
