"""Log-probabilities of tokens under a linear layer's logits, with as few passes over the logits as possible.

On a CPU the logits of a batch are by far its largest tensor, and `cross_entropy` takes longer than the matrix products. Here
logits are computed and used in chunks that stay in cache, and none are kept.
`linear_log_prob_reference` is the plain definition that the tests compare with.
"""

import threading
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqgan_env.models.sampling import rows_in_cache
from seqgan_env.support.device import prefers_few_kernels

_LEAST = 1e-30  # a smaller float32 probability may have lost digits


def linear_log_prob_reference(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """See `linear_log_prob`."""
    return -F.cross_entropy(F.linear(hidden, weight, bias), tokens, ignore_index=len(bias), reduction="none")


def linear_log_prob(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability in nats of tokens `(n,)` int64 under logits `weight @ hidden + bias`: `(n,)`; 0 for the id `vocab_size`.

    Gradients flow to hidden states `(n, width)`, weight `(vocab_size, width)` and bias `(vocab_size,)`.
    """
    if prefers_few_kernels(hidden):
        return linear_log_prob_reference(hidden, weight, bias, tokens)
    return cast(Tensor, _LinearLogProb.apply(hidden, weight, bias, tokens))  # type: ignore[no-untyped-call, unused-ignore]


def linear_log_likelihood(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """The sum of `linear_log_prob`; computes the gradient in the same pass, while the logits are in memory."""
    return cast(Tensor, _LinearLogLikelihood.apply(hidden, weight, bias, tokens, torch.is_grad_enabled()))  # type: ignore[no-untyped-call, unused-ignore]


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, tokens)
        return _log_prob(hidden, weight, bias, tokens)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Recompute the logits: keeping those of a batch would take more time, and much memory."""
        hidden, weight, bias, tokens = ctx.saved_tensors
        return (*_log_prob(hidden, weight, bias, tokens, grad)[1], None)


class _LinearLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, keep: bool) -> Tensor:
        compute = log_prob_at_once if prefers_few_kernels(hidden) else _log_prob
        log_prob, gradients = compute(hidden, weight, bias, tokens, torch.ones_like(hidden[:, 0]) if keep else None)
        ctx.save_for_backward(*gradients)
        return log_prob.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(grad * gradient for gradient in ctx.saved_tensors), None, None)


def log_prob_at_once(
    hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, grad: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`_log_prob` for a GPU: all rows in few kernels, and nothing that waits for it."""
    padding = tokens == len(bias)
    tokens = tokens.masked_fill(padding, 0).unsqueeze(1)
    every = torch.log_softmax(torch.addmm(bias, hidden, weight.T), dim=1)
    log_prob = every.gather(1, tokens).squeeze(1).masked_fill(padding, 0)
    if grad is None:
        return log_prob, ()
    grad = grad.masked_fill(padding, 0).unsqueeze(1)
    errors = every.exp_().scatter_add_(1, tokens, every.new_full((), -1.0).expand(tokens.shape))
    scaled = hidden * -grad
    return log_prob, ((errors @ weight).mul_(-grad), errors.T @ scaled, errors.T @ -grad.squeeze(1))


_kept = threading.local()


def _room(rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Buffers for logits and probabilities, reused by all calls of a thread: mapping new memory is as slow as a product."""
    key = rows, columns, dtype
    if getattr(_kept, "key", None) != key:
        with torch.inference_mode(False):  # inference tensors could not be written to outside inference mode
            _kept.room = torch.empty(rows, columns, dtype=dtype), torch.empty(rows, columns, dtype=dtype)
        _kept.key = key
    room: tuple[Tensor, Tensor] = _kept.room
    return room


def _log_prob(
    hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, grad: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Log-probabilities `(n,)`; if their gradient `(n,)` is given, also the gradients of hidden states, weight and bias.

    With p the softmax of the logits, d log p_token / d logits = 1_token - p.
    """
    vocab_size = len(bias)
    padding = tokens == vocab_size
    tokens = tokens.masked_fill(padding, 0).unsqueeze(1)
    features = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)  # the bias is an extra column of the product
    product = torch.cat([weight, bias.unsqueeze(1)], dim=1).T
    chunk = rows_in_cache(vocab_size)
    logits, probabilities = _room(chunk, vocab_size, features.dtype)
    log_prob = torch.empty_like(features[:, 0])
    if grad is not None:
        grad = grad.masked_fill(padding, 0).unsqueeze(1)
        gradients = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
    for start in range(0, len(features), chunk):
        rows = slice(start, start + chunk)
        n = len(features[rows])
        p = torch.softmax(torch.mm(features[rows], product, out=logits[:n]), dim=1, out=probabilities[:n])
        chosen = p.gather(1, tokens[rows]).squeeze(1)
        log_prob[rows] = chosen.log()
        small = chosen < _LEAST
        if small.any():
            exact = torch.log_softmax(features[rows][small] @ product, dim=1)
            log_prob[rows][small] = exact.gather(1, tokens[rows][small]).squeeze(1)
        if grad is not None:
            p.scatter_add_(1, tokens[rows], -torch.ones_like(grad[rows]))
            gradients[0][rows] = (p @ weight).mul_(-grad[rows])
            gradients[1].addmm_(p.T, hidden[rows] * -grad[rows])
            gradients[2].addmv_(p.T, -grad[rows, 0])
    return log_prob.masked_fill_(padding, 0), () if grad is None else gradients
