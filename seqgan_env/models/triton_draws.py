"""Draw tokens from a linear layer's logits on a GPU, without writing the logits: two kernels in Triton.

The first reads the vocabulary once and keeps two numbers for each row and block of tokens: the largest logit and the sum of
exponentials. The second finds the block from these, computes that block's logits again, and finds the token in it.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64  # tokens whose exponentials are summed together
_ROWS = 64  # rows of a product
_BLOCKS_PER_PROGRAM = 8  # so few that a small batch occupies the whole GPU, so many that its features are loaded seldom
_WIDEST_PRODUCT = 32  # features multiplied at once; more are added up in turns
_SUMS_PER_PROGRAM = 2048  # sums of blocks that a program of the second kernel reads at once
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # Triton 3.9 warns unless it is told about the second
_FLOATS_TOGETHER = 1 << 26  # limit on the floats of rows that are drawn for together: 256 MB


class TritonDraws:
    """`draw_tokens` from a linear layer's logits on a GPU, for many calls.

    Products are exact to float32 (`tf32x3`), whatever torch's own setting. A call does not wait for the GPU, so that it can be
    part of a CUDA graph.

    Args:
        weight: `(vocab_size, width)`, float32; must not change.
        bias: `(vocab_size,)`, float32; must not change.
        inverse_temperature: multiplies the logits.
    """

    def __init__(self, weight: Tensor, bias: Tensor, inverse_temperature: float = 1.0) -> None:
        self._weight, self._bias = weight.detach().contiguous(), bias.detach().contiguous()
        self._scale = inverse_temperature * math.log2(math.e)  # the kernels take powers of 2
        vocab_size, width = weight.shape
        n_blocks = triton.cdiv(vocab_size, _BLOCK)
        self._n_spans = triton.cdiv(n_blocks, _BLOCKS_PER_PROGRAM)
        self._blocks_per_span = triton.cdiv(n_blocks, self._n_spans)
        self._n_blocks = self._n_spans * self._blocks_per_span  # the last ones may be empty
        self.rows_together = max(1, _FLOATS_TOGETHER // (2 * self._n_blocks + 8 * width))
        """The best number of rows per call. Apart from the two sums of each block, a row's state and gates take memory."""

    def __call__(self, features: Tensor, uniforms: Tensor) -> Tensor:
        """Draw `(n, k)` int64 token ids for features `(n, width)` and uniforms `(n, k)` in [0, 1)."""
        (n, width), k, vocab_size = features.shape, uniforms.shape[1], len(self._bias)
        tokens = torch.empty(uniforms.shape, dtype=torch.int64, device=uniforms.device)
        if tokens.numel() == 0:
            return tokens
        features = features.contiguous()
        tops, sums = features.new_empty(2, self._n_blocks, n, dtype=torch.float32)
        layer = (features, self._weight, self._bias)
        with torch.cuda.device_of(features):
            chunk = max(16, triton.next_power_of_2(min(width, _WIDEST_PRODUCT)))
            _sum_blocks[(triton.cdiv(n, _ROWS), self._n_spans)](
                *layer,
                tops,
                sums,
                n,
                vocab_size,
                self._scale,
                WIDTH=width,
                CHUNK=chunk,
                ROWS=_ROWS,
                BLOCK=_BLOCK,
                BLOCKS_PER_PROGRAM=self._blocks_per_span,
                PRECISION="tf32x3",
                **_OPTIONS,
            )
            blocks = max(32, triton.next_power_of_2(self._n_blocks))  # Triton 3.6 cannot add up fewer than a warp has threads
            draws = max(1, min(8, _SUMS_PER_PROGRAM // blocks))
            _find_tokens[(triton.cdiv(n * k, draws),)](
                *layer,
                tops,
                sums,
                uniforms,
                tokens,
                n,
                k,
                *uniforms.stride(),
                vocab_size,
                self._n_blocks,
                self._scale,
                WIDTH=width,
                CHUNK=16,
                DRAWS=draws,
                BLOCK=_BLOCK,
                BLOCKS=blocks,
                **_OPTIONS,
            )
        return tokens


@triton.jit(do_not_specialize=["n"])
def _sum_blocks(
    features,
    weight,
    bias,
    tops,
    sums,
    n,
    vocab_size,
    scale,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS_PER_PROGRAM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The largest logit (in powers of 2) and the sum of exponentials of each block and row: tops and sums `(n_blocks, n)`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, CHUNK)
    features_at = features + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    if WIDTH <= CHUNK:
        x = tl.load(features_at, mask=(rows < n)[:, None] & (columns < WIDTH)[None, :], other=0.0)
    for turn in range(BLOCKS_PER_PROGRAM):
        block = tl.program_id(1) * BLOCKS_PER_PROGRAM + turn
        tokens = block * BLOCK + tl.arange(0, BLOCK)
        known = tokens < vocab_size
        weights_at = weight + tokens.to(tl.int64)[:, None] * WIDTH + columns[None, :]
        if WIDTH <= CHUNK:
            w = tl.load(weights_at, mask=known[:, None] & (columns < WIDTH)[None, :], other=0.0)
            products = tl.dot(x, tl.trans(w), input_precision=PRECISION)
        else:
            products = tl.zeros((ROWS, BLOCK), tl.float32)
            for start in range(0, WIDTH, CHUNK):
                inside = (start + columns < WIDTH)[None, :]
                x = tl.load(features_at + start, mask=(rows < n)[:, None] & inside, other=0.0)
                w = tl.load(weights_at + start, mask=known[:, None] & inside, other=0.0)
                products = tl.dot(x, tl.trans(w), products, input_precision=PRECISION)
        logits = products * scale + (tl.load(bias + tokens, mask=known, other=-float("inf")) * scale)[None, :]
        top = tl.max(logits, 1)
        powers = tl.exp2(logits - tl.where(top == -float("inf"), 0.0, top)[:, None])
        place = block.to(tl.int64) * n + rows
        tl.store(tops + place, top, mask=rows < n)
        tl.store(sums + place, tl.sum(powers, 1), mask=rows < n)


@triton.jit(do_not_specialize=["n", "k", "row_stride", "draw_stride"])
def _find_tokens(
    features,
    weight,
    bias,
    tops,
    sums,
    uniforms,
    drawn,
    n,
    k,
    row_stride,
    draw_stride,
    vocab_size,
    n_blocks,
    scale,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    DRAWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """The token of each draw, from the block sums of `_sum_blocks`."""
    draws = tl.program_id(0) * DRAWS + tl.arange(0, DRAWS)
    within = draws < n * k
    rows = draws // k
    uniform = tl.load(uniforms + rows * row_stride + draws % k * draw_stride, mask=within, other=0.0)

    blocks = tl.arange(0, BLOCKS)[None, :]
    place = blocks.to(tl.int64) * n + rows[:, None]
    known = within[:, None] & (blocks < n_blocks)
    top = tl.load(tops + place, mask=known, other=-float("inf"))
    highest = tl.max(top, 1)
    highest = tl.where(highest == -float("inf"), 0.0, highest)[:, None]
    weights = tl.load(sums + place, mask=known, other=0.0) * tl.exp2(top - highest)
    target = uniform * tl.sum(weights, 1)
    chosen = _first_beyond(weights, target, BLOCKS)
    target -= tl.sum(tl.where(blocks < chosen[:, None], weights, 0.0), 1)

    tokens = chosen[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    known = within[:, None] & (tokens < vocab_size)
    products = tl.zeros((DRAWS, BLOCK), tl.float32)
    for start in range(0, WIDTH, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        inside = columns < WIDTH
        features_at = features + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
        x = tl.load(features_at, mask=within[:, None] & inside[None, :], other=0.0)
        weights_at = weight + tokens.to(tl.int64)[:, :, None] * WIDTH + columns[None, None, :]
        w = tl.load(weights_at, mask=known[:, :, None] & inside[None, None, :], other=0.0)
        products += tl.sum(x[:, None, :] * w, 2)
    logits = products * scale + tl.load(bias + tokens, mask=known, other=-float("inf")) * scale
    token = chosen * BLOCK + _first_beyond(tl.exp2(logits - highest), target, BLOCK)
    tl.store(drawn + draws, token.to(tl.int64), mask=within)


@triton.jit
def _first_beyond(weights, targets, SIZE: tl.constexpr):
    """The first index at which cumulative weights `(n, SIZE)` exceed each target `(n,)`; always one that has a weight.

    Rounding may carry a target up to the total: then it is the last that has a weight. With NaN it is 0.
    """
    places = tl.arange(0, SIZE)[None, :]
    ends = tl.cumsum(weights, 1)
    first = tl.min(tl.where((weights > 0) & (ends > targets[:, None]), places, SIZE), 1)
    last = tl.max(tl.where(weights > 0, places, 0), 1)
    return tl.minimum(first, last)
