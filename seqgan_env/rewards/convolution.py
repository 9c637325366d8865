"""The discriminator's convolution: windows of several widths over a sequence, and the maximum of each filter.

`max_over_windows` is the form for CPUs, `max_over_windows_at_once` the one for GPUs.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqgan_env.models.embedding import look_up


def max_over_windows(embedded: Tensor, filters: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The maximum over all windows of each filter's product, plus bias.

    Positions come first, so that what one place in all windows of a width sees, for the whole batch, is a slice of memory. A
    convolution is then a sum of as many products as the window is wide, without copies. In bfloat16, where each addition would
    round, windows are copied (width times the data) for one product that rounds once.

    Args:
        embedded: `(length, n, dim)`, contiguous.
        filters: for each width its weights `(filters, width * dim)` and bias `(filters,)`; all of one dtype.

    Returns:
        `(n, all filters)`. Gradients flow; equal windows share them.
    """
    flat = [tensor for pair in filters for tensor in pair]
    return cast(Tensor, _MaxOverWindows.apply(torch.is_grad_enabled(), embedded, *flat))  # type: ignore[no-untyped-call, unused-ignore]


def max_over_windows_at_once(
    tokens: Tensor, embeddings: Tensor, filters: Sequence[tuple[Tensor, Tensor]], outside: Tensor, dtype: torch.dtype
) -> Tensor:
    """`max_over_windows` of embedded tokens in few large kernels, which is faster on a GPU.

    With gradients, filters are padded with zeros to the widest one for a single product, and windows that would leave the
    sequence are masked.

    Args:
        tokens: `(n, length)` int64.
        embeddings: `(m, dim)`; the last row is of padding, zeros.
        filters: as in `max_over_windows`.
        outside: `(length, all filters)` bool, where the window that begins there would leave the sequence, see
            `windows_outside`.
        dtype: of the products. Gradients to the embeddings are summed in their own.

    Returns:
        `(n, all filters)` of that dtype. Gradients flow; equal windows share them.
    """
    (n, length), (n_embeddings, dim) = tokens.shape, embeddings.shape
    columns = max(weight.shape[1] for weight, _ in filters)
    widest = columns // dim
    padded = F.pad(tokens, (0, widest - 1), value=n_embeddings - 1)
    biases = torch.cat([bias for _, bias in filters]).to(dtype)
    if not torch.is_grad_enabled():  # for many sequences at once, a product for each width: less work, and nothing to mask
        windows = look_up(padded.unfold(1, widest, 1), embeddings.to(dtype)).view(n * length, columns)
        return torch.cat([_best(windows, weight.to(dtype), length, dim) for weight, _ in filters], dim=1) + biases
    embedded = look_up(padded, embeddings)
    windows = torch.cat([embedded[:, place : place + length] for place in range(widest)], dim=2).to(dtype)
    weights = torch.cat([F.pad(weight, (0, columns - weight.shape[1])) for weight, _ in filters]).to(dtype)
    products = (windows.view(n * length, columns) @ weights.T).view(n, length, len(weights))
    return products.masked_fill_(outside, -torch.inf).amax(dim=1) + biases


def _best(windows: Tensor, weight: Tensor, length: int, dim: int) -> Tensor:
    """The largest product of each filter with the windows `(n * length, widest)` that do not leave the sequence."""
    products = (windows[:, : weight.shape[1]] @ weight.T).view(-1, length, len(weight))
    return products[:, : length - weight.shape[1] // dim + 1].amax(dim=1)


def windows_outside(length: int, widths: Sequence[int], n_filters: Sequence[int]) -> Tensor:
    """Where the windows of each filter would leave a sequence, `(length, all filters)` bool, on the CPU."""
    last = torch.tensor([length - width for width in widths]).repeat_interleave(torch.tensor(n_filters))
    return torch.arange(length).unsqueeze(1) > last


class _MaxOverWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keep: bool, embedded: Tensor, *flat: Tensor) -> Tensor:
        n = embedded.shape[1]
        weights, biases = flat[::2], flat[1::2]
        products, pooled = [], []
        for weight, bias in zip(weights, biases, strict=True):
            (first, its_part), *others = _parts(embedded, weight)
            product = torch.addmm(bias, first, its_part.T)
            for seen, part in others:
                product.addmm_(seen, part.T)
            product = product.view(_windows(embedded, weight), n, len(weight))
            pooled.append(product.amax(dim=0))
            if keep:
                products.append(product)
        if keep:
            ctx.save_for_backward(embedded, *weights, *products, *pooled)
        return torch.cat(pooled, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        embedded, *rest = ctx.saved_tensors
        count = len(rest) // 3
        weights, products, pooled = rest[:count], rest[count : 2 * count], rest[2 * count :]
        grad_embedded = torch.zeros_like(embedded, dtype=torch.float32 if _is_bfloat16(embedded) else None)
        grads: list[Tensor] = []
        for weight, product, best, of_width in zip(
            weights, products, pooled, grad.split([len(w) for w in weights], dim=1), strict=True
        ):
            is_best = (product == best).to(grad.dtype)
            grad_product = is_best.mul_(of_width / is_best.sum(dim=0)).view(-1, len(weight))
            grad_weight = torch.empty_like(weight)
            for seen, part in _parts(embedded, grad_weight):
                torch.mm(grad_product.T, seen, out=part)
            _add_products(_places(grad_embedded, weight), grad_product, weight)
            grads += [grad_weight, of_width.sum(dim=0)]
        return (None, grad_embedded.to(embedded.dtype), *grads)


def _is_bfloat16(tensor: Tensor) -> bool:
    """Whether every addition would round, so that sums need another dtype."""
    return tensor.dtype == torch.bfloat16


def _parts(embedded: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What windows see, with its weights: place by place, or in bfloat16 all at once, copied, because adding would round."""
    places = _places(embedded, weight)
    if _is_bfloat16(embedded):
        return [(torch.cat(places, dim=1), weight)]
    return list(zip(places, weight.split(embedded.shape[2], dim=1), strict=True))


def _add_products(into: list[Tensor], rows: Tensor, weight: Tensor) -> None:
    """Add the products of rows `(windows * n, filters)` with the weights of each place to the slice of that place."""
    dim = weight.shape[1] // len(into)
    if _is_bfloat16(rows):
        for there, product in zip(into, (rows @ weight).split(dim, dim=1), strict=True):
            there += product
        return
    for there, part in zip(into, weight.split(dim, dim=1), strict=True):
        there.addmm_(rows, part)


def _places(embedded: Tensor, weight: Tensor) -> list[Tensor]:
    """What each place in the windows sees: slices `(windows * n, dim)` of `embedded` `(length, n, dim)`."""
    length, n, dim = embedded.shape
    width = weight.shape[1] // dim
    flat, rows = embedded.view(length * n, dim), _windows(embedded, weight) * n
    return [flat[place * n : place * n + rows] for place in range(width)]


def _windows(embedded: Tensor, weight: Tensor) -> int:
    """The number of windows of a filter's width in `embedded` `(length, n, dim)`."""
    length, _, dim = embedded.shape
    return length - weight.shape[1] // dim + 1
