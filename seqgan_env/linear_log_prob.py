"""The log-probability of tokens under a linear layer's logits, without passing over the logits more often than is needed.

On a CPU the logits of a batch are by far its largest tensor, and what `cross_entropy` does with them takes longer than the
products that make them. `linear_log_prob_reference` is the plain definition that the tests compare `linear_log_prob` with.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqgan_env.sampling import GREATEST_TOTAL, LEAST_TOTAL, rows_per_chunk


def linear_log_prob_reference(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """See `linear_log_prob`."""
    return -F.cross_entropy(F.linear(hidden, weight, bias), tokens, ignore_index=len(bias), reduction="none")


def linear_log_prob(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability in nats of tokens `(n,)` int64 under logits `weight @ hidden + bias`: `(n,)`; 0 at the id `vocab_size`.

    Gradients flow to hidden states `(n, width)`, weight `(vocab_size, width)` and bias `(vocab_size,)`. Exponentials are not
    shifted by a maximum where they need not be; their sums and both gradients are products or sums that read them once, and no
    gradient of the logits is made.
    """
    if hidden.device.type != "cpu":
        return linear_log_prob_reference(hidden, weight, bias, tokens)
    return cast(Tensor, _LinearLogProb.apply(hidden, weight, bias, tokens, torch.is_grad_enabled()))  # type: ignore[no-untyped-call]


class _LinearLogProb(torch.autograd.Function):
    """With logits l, e = exp(l - shift) and s its sum: log p = l_token - shift - log s; d log p / d l = 1_token - e / s."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, keep: bool) -> Tensor:
        padding = tokens == len(bias)
        tokens = tokens.masked_fill(padding, 0)
        features = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        product = torch.cat([weight, bias.unsqueeze(1)], dim=1)  # (vocab_size, width + 1)
        chosen = (features * product[tokens]).sum(dim=1)
        exponentials, totals, shifts, expected = [], [], [], []
        for rows in features.split(rows_per_chunk(len(bias))):
            e, total, shift = _exponentials(rows, product)
            totals.append(total)
            shifts.append(shift)
            if keep:
                exponentials.append(e)
                expected.append(e @ weight)  # while they are in cache
        total = torch.cat(totals)
        if keep:
            ctx.save_for_backward(features, weight, tokens, padding, total, torch.cat(expected), *exponentials)
        return (chosen - torch.cat(shifts) - total.log()).masked_fill_(padding, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, weight, tokens, padding, total, expected, *exponentials = ctx.saved_tensors
        grad = grad.masked_fill(padding, 0)
        scaled = grad / total
        grad_hidden = grad.unsqueeze(1) * weight[tokens] - scaled.unsqueeze(1) * expected
        grad_product = -_sum_of_products(features * scaled.unsqueeze(1), exponentials).T  # (vocab_size, width + 1)
        grad_product.index_add_(0, tokens, features * grad.unsqueeze(1))
        return grad_hidden, grad_product[:, :-1], grad_product[:, -1], None, None


def _sum_of_products(left: Tensor, parts: list[Tensor]) -> Tensor:
    """`left.T @ torch.cat(parts)`."""
    lefts = left.split([len(part) for part in parts])
    total: Tensor = lefts[0].T @ parts[0]
    for rows, part in zip(lefts[1:], parts[1:], strict=True):
        total.addmm_(rows.T, part)
    return total


def _exponentials(features: Tensor, product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exponentials `(n, vocab_size)` of shifted logits, their sums `(n,)`, and the shifts `(n,)`, 0 wherever they can be."""
    e = (features @ product.T).exp_()
    total = e.sum(dim=1)
    shift = torch.zeros_like(total)
    inexact = ~((total > LEAST_TOTAL) & (total < GREATEST_TOTAL))
    if inexact.any():
        logits = features[inexact] @ product.T
        shift[inexact] = logits.amax(dim=1)
        e[inexact] = (logits - shift[inexact].unsqueeze(1)).exp_()
        total[inexact] = e[inexact].sum(dim=1)
    return e, total, shift
