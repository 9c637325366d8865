"""Drawing tokens from logits by the inverse transform: one uniform number a row.

`draw_tokens` is the fast path, `draw_tokens_reference` the plain definition that the tests compare it with.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Rows times vocabulary that are drawn at once: 4 M logits, 16 MB in float32, stay in a processor's last-level cache.
LOGITS_PER_CHUNK = 1 << 22
_BLOCK = 64

Mask = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Which tokens may follow: maps a prefix `(k,)` int64 to `(vocab_size,)` bool."""


@runtime_checkable
class TokenPolicy(Protocol):
    """Anything that writes sequences token by token: a generator, an oracle, a rollout policy.

    The state is a tensor or a tuple of tensors whose first axis is the row; the start token's id is the vocabulary size.
    """

    def initial_state(self, n: int) -> Any:
        """The state before the start token, for `n` rows."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state."""


def draw_tokens_reference(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw `(n, k)` tokens from logits `(n, vocab_size)` and uniforms `(n, k)`: the first with cumulative probability > u."""
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)
    targets = uniforms.double() * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)


def draw_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw `k` tokens a row by a two-level inverse transform.

    Sums over blocks of the vocabulary find the block, a cumulative sum inside that block finds the token, so that most of
    the vocabulary is read once and never accumulated. A token of probability 0 (logit -inf) is never drawn.

    Args:
        logits: `(n, vocab_size)`, float32 or float64; `-inf` forbids a token.
        uniforms: `(n, k)` in [0, 1).

    Returns:
        `(n, k)` int64 token ids.
    """
    n, vocab_size = logits.shape
    weights = torch.softmax(logits, dim=-1)
    uniforms = uniforms.to(weights.dtype)
    whole = vocab_size // _BLOCK
    if whole < 2:  # a small vocabulary is one block
        ends = weights.cumsum(dim=-1)
        return _locate(ends, uniforms * ends[:, -1:])
    block_sums = weights[:, : whole * _BLOCK].view(n, whole, _BLOCK).sum(dim=-1)
    if whole * _BLOCK < vocab_size:
        block_sums = torch.cat([block_sums, weights[:, whole * _BLOCK :].sum(dim=-1, keepdim=True)], dim=-1)
    block_ends = block_sums.cumsum(dim=-1)
    targets = uniforms * block_ends[:, -1:]
    blocks = _locate(block_ends, targets)
    remainders = targets - (block_ends.gather(1, blocks) - block_sums.gather(1, blocks))

    columns = blocks.unsqueeze(-1) * _BLOCK + torch.arange(_BLOCK, device=logits.device)  # (n, k, block)
    inside = weights.gather(1, columns.clamp(max=vocab_size - 1).flatten(1)).view(columns.shape)
    ends = inside.masked_fill(columns >= vocab_size, 0).cumsum(dim=-1)
    return blocks * _BLOCK + _locate(ends, remainders.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def _locate(ends: Tensor, targets: Tensor) -> Tensor:
    """The first of the cumulative weights `ends` `(..., m)` beyond each target `(..., k)`: `(..., k)`.

    Targets are kept under the last one, where rounding carried them there: what is found has a weight.
    """
    last = ends[..., -1:]
    return torch.searchsorted(ends, torch.minimum(targets, torch.nextafter(last, torch.zeros_like(last))), right=True)


def forbid(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Logits with `-inf` where `allowed` (bool, same shape) is false."""
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def allowed_tokens(mask: Mask, prefixes: Tensor, vocab_size: int) -> Tensor:
    """What a mask allows after each prefix `(n, k)`: `(n, vocab_size)` bool, on the prefixes' device.

    Raises:
        ValueError: the mask has another shape, or allows nothing.
    """
    rows = np.empty((len(prefixes), vocab_size), dtype=np.bool_)
    for row, prefix in zip(rows, prefixes.cpu().numpy(), strict=True):
        row[:] = allowed_after(mask, prefix, vocab_size)
    return torch.from_numpy(rows).to(prefixes.device)


def allowed_along(mask: Mask, tokens: Tensor, lengths: Tensor, vocab_size: int) -> Tensor:
    """What a mask allowed at each position of episodes `(n, length)`: `(n, length, vocab_size)` bool, all true beyond the end.

    Args:
        mask: which tokens may follow a prefix.
        tokens: `(n, length)` int64, padded.
        lengths: `(n,)` int64.
        vocab_size: number of tokens.
    """
    steps = range(tokens.shape[1])
    return torch.stack([_allowed_while_alive(mask, tokens[:, :k], lengths > k, vocab_size) for k in steps], dim=1)


def allowed_after(mask: Mask, prefix: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.bool_]:
    """What a mask allows after one prefix `(k,)`, checked; see `allowed_tokens`."""
    allowed = np.asarray(mask(prefix))
    if allowed.shape != (vocab_size,) or allowed.dtype != np.bool_:
        raise ValueError(
            f"mask(prefix) must return bool of shape ({vocab_size},), got {allowed.dtype} of shape {allowed.shape} "
            f"for the prefix {prefix.tolist()}."
        )
    if not allowed.any():
        raise ValueError(
            f"The mask allows no token after the prefix {prefix.tolist()}: an unfinished sequence must be able to go on."
        )
    return allowed


def rows_per_chunk(vocab_size: int) -> int:
    """How many rows of logits to hold at once (see `LOGITS_PER_CHUNK`)."""
    return max(1, LOGITS_PER_CHUNK // vocab_size)


@torch.no_grad()
def sample_sequences(
    policy: TokenPolicy,
    n: int,
    length: int,
    vocab_size: int,
    generator: torch.Generator,
    *,
    end_token: int | None = None,
    inverse_temperature: float = 1.0,
    prefix: Sequence[int] = (),
    mask: Mask | None = None,
    chunk: int | None = None,
    rows: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Sample `n` sequences of at most `length` tokens.

    Args:
        policy: what writes them.
        n: how many.
        length: the most tokens a sequence has.
        vocab_size: the pad id, which also is the start token's.
        generator: on the policy's device; all randomness comes from it.
        end_token: ends a sequence, of which it is the last token.
        inverse_temperature: multiplies the logits; above 1 the policy is sharpened, below 1 flattened.
        prefix: ids that every sequence starts with; fewer than `length`.
        mask: which tokens may follow; it is asked about every unfinished sequence at every position.
        chunk: rows sampled together; by default as many as keep their logits in cache.
        rows: which of the `n` to write; the random numbers are drawn for all.

    Returns:
        tokens `(n, length)` int64, padded with `vocab_size`, and lengths `(n,)` int64. The prefix is part of both.

    Raises:
        ValueError: a prefix that cannot be gone on with, or a mask that allows nothing.
    """
    _check_prefix(prefix, length, vocab_size, end_token, mask)
    device = generator.device
    uniforms = torch.rand((n, length - len(prefix)), generator=generator, device=device)[rows]
    n = len(uniforms)
    tokens = torch.full((n, length), vocab_size, dtype=torch.int64, device=device)
    tokens[:, : len(prefix)] = torch.tensor(prefix, dtype=torch.int64, device=device)
    lengths = torch.full((n,), length, dtype=torch.int64, device=device)
    for rows_together in torch.arange(n, device=device).split(chunk or rows_per_chunk(vocab_size)):
        part = slice(int(rows_together[0]), int(rows_together[-1]) + 1)
        state = policy.initial_state(len(rows_together))
        last = torch.full((len(rows_together),), vocab_size, dtype=torch.int64, device=device)
        alive = torch.ones(len(rows_together), dtype=torch.bool, device=device)
        for token in prefix:
            _, state = policy.step(last, state)
            last = torch.full_like(last, token)
        for position in range(len(prefix), length):
            logits, state = policy.step(last, state)
            if inverse_temperature != 1.0:
                logits = logits * inverse_temperature
            if mask is not None:
                logits = forbid(logits, _allowed_while_alive(mask, tokens[part, :position], alive, vocab_size))
            drawn = position - len(prefix)
            last = draw_tokens(logits, uniforms[part, drawn : drawn + 1]).squeeze(1)
            if end_token is None:
                tokens[part, position] = last
                continue
            last = torch.where(alive, last, vocab_size)
            tokens[part, position] = last
            lengths[part] = torch.where(alive, position + 1, lengths[part])
            alive = alive & (last != end_token)
            if not alive.any():
                break
    return tokens, lengths


def _allowed_while_alive(mask: Mask, prefixes: Tensor, alive: Tensor, vocab_size: int) -> Tensor:
    """What a mask allows after the unfinished of the prefixes `(n, k)`; everything after those that are finished."""
    allowed = torch.ones(len(prefixes), vocab_size, dtype=torch.bool, device=prefixes.device)
    allowed[alive] = allowed_tokens(mask, prefixes[alive], vocab_size)
    return allowed


def _check_prefix(prefix: Sequence[int], length: int, vocab_size: int, end_token: int | None, mask: Mask | None) -> None:
    if not len(prefix):
        return
    shown = list(prefix)
    if len(prefix) >= length:
        raise ValueError(
            f"A prefix of {len(prefix)} tokens leaves nothing to write in sequences of at most {length}: shorten it."
        )
    if not all(0 <= token < vocab_size for token in prefix):
        raise ValueError(f"The prefix {shown} has ids beyond the vocabulary's 0 ... {vocab_size - 1}.")
    if end_token is not None and end_token in prefix:
        raise ValueError(f"The prefix {shown} has the end token {end_token}, after which nothing follows.")
    if mask is not None:
        for k, token in enumerate(prefix):
            if not allowed_after(mask, np.array(prefix[:k], dtype=np.int64), vocab_size)[token]:
                raise ValueError(f"The mask forbids the prefix {shown}: {token} may not follow {list(prefix[:k])}.")
