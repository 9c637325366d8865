"""The base class of generators: likelihood and sampling for any network that predicts the next token."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.data.padding import lengths_of
from seqgan_env.models.linear_log_prob import linear_log_likelihood, linear_log_prob
from seqgan_env.models.sampling import Mask, sample_sequences, sequences_per_chunk
from seqgan_env.support.cuda_graphs import Recordable
from seqgan_env.support.device import prefers_few_kernels
from seqgan_env.support.method_overrides import redefined_alone


class TokenModel(Recordable, ABC):
    """A network that predicts the next token; the base class of all generators.

    A custom generator derives from it, calls `super().__init__`, sets `output`, and defines `hidden`, `initial_state` and
    `step`. These must agree: `step` reads one token at a time, `hidden` all at once. The start token has the id `vocab_size`,
    which is also padding, so an embedding needs `vocab_size + 1` rows.

    Args:
        vocab_size: number of tokens that can be written.
        end_token: ends a sequence in sampling.

    Raises:
        ValueError: the vocabulary has fewer than two tokens, or the end token is not one of them.
    """

    output: nn.Module
    """Maps hidden states `(..., width)` to logits `(..., vocab_size)`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A subclass that redefines only `log_prob` or `step` does not use the faster form that it inherits."""
        super().__init_subclass__(**kwargs)
        if redefined_alone(cls, "log_prob", "log_likelihood"):
            cls.log_likelihood = _sum_of_log_prob  # type: ignore[assignment, method-assign]
        if redefined_alone(cls, "step", "advance"):  # its logits are no longer the output layer's of what `advance` returns
            cls.linear_output = _no_linear_output  # type: ignore[assignment, method-assign]

    def __init__(self, vocab_size: int, *, end_token: int | None = None) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(f"A vocabulary needs at least 2 tokens to choose from, got vocab_size={vocab_size}.")
        if end_token is not None and not 0 <= end_token < vocab_size:
            raise ValueError(f"end_token must be one of the {vocab_size} tokens, 0 to {vocab_size - 1}, got {end_token}.")
        self.vocab_size = vocab_size
        self.end_token = end_token

    @abstractmethod
    def hidden(self, tokens: Tensor) -> Tensor:
        """The hidden states `(n, length, width)` from which each token of `tokens` `(n, length)` is predicted."""

    @abstractmethod
    def initial_state(self, n: int) -> Any:
        """The state before the start token: a tensor or a tuple of tensors with `n` rows each."""

    @abstractmethod
    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state."""

    @property
    def device(self) -> torch.device:
        """The parameters' device."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def inputs(self, tokens: Tensor) -> Tensor:
        """The inputs that predict `tokens` `(n, length)`: the start token, then all tokens but the last."""
        start = torch.full_like(tokens[:, :1], self.vocab_size)
        return torch.cat([start, tokens[:, :-1]], dim=1)

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits `(n, length, vocab_size)` of each token of `tokens` `(n, length)`, given the tokens before it."""
        logits: Tensor = self.output(self.hidden(tokens))
        return logits

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log-probability in nats of each token given the tokens before it.

        Args:
            tokens: `(n, length)` int64, padded with `vocab_size`.

        Returns:
            `(n, length)`; 0 at padding. Gradients flow.
        """
        log_probs = self._log_prob_of(*self._predicted(tokens))
        if len(log_probs) == tokens.numel():
            return log_probs.view(tokens.shape)
        written, zeros = tokens < self.vocab_size, log_probs.new_zeros(tokens.shape)
        return zeros.masked_scatter(written, log_probs)

    def log_likelihood(self, tokens: Tensor) -> Tensor:
        """The sum of `log_prob(tokens)`, a scalar; faster if only its gradient is needed."""
        layer = self.linear_output()
        if layer is None:
            return _sum_of_log_prob(self, tokens)
        hidden, targets = self._predicted(tokens)
        return linear_log_likelihood(hidden, *layer, targets)

    def _predicted(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states `(m, width)` and the tokens `(m,)` predicted from them, padding included or left out."""
        hidden = self.hidden(tokens)
        # Without an end token no sequence is padded; on a GPU, looking for padding would wait for it.
        if self.end_token is None or prefers_few_kernels(tokens):
            return hidden.flatten(0, 1), tokens.flatten()
        written = tokens < self.vocab_size  # skip the logits of padding: logits are nearly all of the work
        return hidden[written], tokens[written]

    def _log_prob_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities `(n,)` of tokens `(n,)` given hidden states `(n, width)`; 0 at padding."""
        layer = self.linear_output()
        if layer is not None:
            return linear_log_prob(hidden, *layer, tokens)
        return -F.cross_entropy(self.output(hidden), tokens, ignore_index=self.vocab_size, reduction="none")

    def linear_output(self) -> tuple[Tensor, Tensor] | None:
        """Weight `(vocab_size, width)` and bias `(vocab_size,)` if `output` is a plain linear layer; else None."""
        output = self.output
        hooked = bool(output._forward_hooks or output._forward_pre_hooks)
        if type(output) in (nn.Linear, TiedOutput) and isinstance(output.bias, Tensor) and not hooked:
            assert isinstance(output.weight, Tensor)
            return output.weight, output.bias
        return None

    def masked_logits(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """`logits` with a mask `allowed` `(n, length, vocab_size)` bool: excluded tokens have a probability of 0."""
        logits = self.logits(tokens)
        return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min / 2)  # finite, because 0 times infinity is NaN

    @torch.no_grad()
    def nll(self, tokens: Tensor) -> Tensor:
        """Negative log-likelihood of each sequence, in nats per token: `(n,)` float64, the mean over its tokens."""
        chunk = sequences_per_chunk(self.vocab_size, tokens.shape[1], tokens.device)
        lengths = lengths_of(tokens, self.vocab_size)
        sums = torch.cat([self.log_prob(part).double().sum(dim=1) for part in tokens.split(chunk)])
        return -sums / lengths

    def sample(
        self,
        n: int,
        length: int,
        generator: torch.Generator,
        *,
        inverse_temperature: float = 1.0,
        mask: Mask | None = None,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Sample sequences; see `seqgan_env.models.sampling.sample_sequences`."""
        return sample_sequences(
            self,
            n,
            length,
            self.vocab_size,
            generator,
            end_token=self.end_token,
            inverse_temperature=inverse_temperature,
            mask=mask,
            rows=rows,
        )

    @torch.no_grad()
    def draw_parameters(self, generator: torch.Generator, std: float) -> None:
        """Draw all parameters from N(0, `std`²) by a generator on the CPU: torch's own initialisers advance its global one.

        The seed of each `SeededDropout` with a positive share is drawn after them.
        """
        for parameter in self.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        for module in self.modules():
            if isinstance(module, SeededDropout) and module.p > 0:
                module.seed = int(torch.randint(2**62, (), generator=generator))

    def extra_repr(self) -> str:
        """Part of torch's printed representation."""
        return f"vocab_size={self.vocab_size}, end_token={self.end_token}"


def _sum_of_log_prob(model: TokenModel, tokens: Tensor) -> Tensor:
    return model.log_prob(tokens).sum()


def _no_linear_output(model: TokenModel) -> tuple[Tensor, Tensor] | None:
    return None


class SeededDropout(nn.Dropout):
    """Dropout with its own random generator; torch's dropout draws from the global one.

    If `rows` is set to `(n, rows)`, the features are these rows of a batch of `n`, and it draws for the whole batch; see
    `training_mode`.

    Args:
        p: the share of the features that training sets to 0; the others are scaled by 1 / (1 - p).
        seed: of its random numbers; see also `TokenModel.draw_parameters`.

    Raises:
        ValueError: the share is outside [0, 1).
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {p}: it is the share of features that training sets to 0.")
        super().__init__(p)
        self.seed = seed
        self.rows: tuple[int, slice] | None = None
        self._rng: torch.Generator | None = None  # created at first use, on the features' device

    def forward(self, input: Tensor) -> Tensor:
        """The features; in training mode some are dropped."""
        if not self.training or self.p == 0:
            return input
        if self._rng is None or self._rng.device != input.device:
            self._rng = torch.Generator(input.device).manual_seed(self.seed)
        n, rows = self.rows if self.rows is not None else (len(input), slice(None))
        kept = torch.rand((n, *input.shape[1:]), generator=self._rng, device=input.device)[rows] >= self.p
        return input * kept / (1 - self.p)


@contextmanager
def training_mode(model: nn.Module, *, dropout: bool = True, rows: tuple[int, slice] | None = None) -> Iterator[None]:
    """Training mode in this context, evaluation mode afterwards in any case, so that nothing samples with dropout.

    Args:
        model: the module to train.
        dropout: false turns only dropout off: cuDNN can differentiate recurrent layers only in training mode.
        rows: `(n, rows)` if the model gets these rows of a batch of `n`; a `SeededDropout` then draws for the whole batch.
    """
    model.train()
    try:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.train(dropout)
            if isinstance(module, SeededDropout):
                module.rows = rows
        yield
    finally:
        model.eval()
        for module in model.modules():
            if isinstance(module, SeededDropout):
                module.rows = None


class TiedOutput(nn.Module):
    """Logits from the embedding's rows without the start token's (Press and Wolf, 2017), plus a bias."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that torch does not list its weight here a second time
        self.bias = nn.Parameter(torch.empty(embedding.num_embeddings - 1))

    @property
    def weight(self) -> Tensor:
        """The embedding's rows of the tokens, `(vocab_size, width)`."""
        return self._embedding[0].weight[:-1]

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits `(..., vocab_size)` of hidden states `(..., width)`."""
        return F.linear(hidden, self.weight, self.bias)
