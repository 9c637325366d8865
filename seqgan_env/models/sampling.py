"""Draw tokens from logits by the inverse transform, with one uniform number per token.

`draw_tokens` is the fast path from logits. If they come from a linear layer, `linear_draws` has a faster one for the device.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.support.cuda_graphs import replayed
from seqgan_env.support.settings import Temperature, check_number

if TYPE_CHECKING:
    from seqgan_env.models.triton_draws import TritonDraws

# Limit on rows times vocabulary of logits in memory at once. 16 MB in float32 stay in a CPU's last-level cache; a GPU gets
# 256 MB, so that it runs few, large kernels.
_LOGITS_PER_CHUNK = 1 << 22
_LOGITS_PER_CHUNK_ON_GPU = 1 << 26
# The chunk of `LinearDraws` and `linear_log_prob`; with the probabilities 12 MB.
_LOGITS_IN_CACHE = 3 << 19
# Limit for rows that a policy advances together if `LinearDraws` draws: not all of their logits are in memory at once.
LINEAR_LOGITS_PER_CHUNK = 1 << 24
_BLOCK = 64  # tokens in a block, whose probabilities are summed first to find the block

Mask = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""The tokens that may follow: maps a prefix `(k,)` int64 to `(vocab_size,)` bool."""


@runtime_checkable
class TokenPolicy(Protocol):
    """Anything that writes sequences token by token: a generator, an oracle, a rollout policy.

    The state is a tensor or a (nested) tuple of tensors with rows on the first axis. The start token's id is the vocabulary
    size.
    """

    def initial_state(self, n: int) -> Any:
        """The state before the start token, for `n` rows."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state."""


@runtime_checkable
class FeaturePolicy(TokenPolicy, Protocol):
    """A policy whose logits may come from a linear layer, so that they need not be in memory all at once."""

    def linear_output(self) -> tuple[Tensor, Tensor] | None:
        """The layer's weight `(vocab_size, width)` and bias `(vocab_size,)`; None if the logits come from anything else."""

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens `(n,)` int64; return the features `(n, width)` that give the next logits, and the new state."""


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply a function to each tensor of a policy's state."""
    return tuple(map_state(function, part) for part in state) if isinstance(state, tuple) else function(state)


def draw_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw `k` tokens per row by a two-level inverse transform.

    Sums over blocks of the vocabulary find the block, then a cumulative sum inside that block finds the token. So most of the
    vocabulary is read only once and never accumulated. A token of probability 0 (logit -inf) is never drawn.

    Args:
        logits: `(n, vocab_size)`, float32 or float64; `-inf` forbids a token.
        uniforms: `(n, k)` in [0, 1).

    Returns:
        `(n, k)` int64 token ids.
    """
    weights = torch.softmax(logits, dim=-1)
    if logits.shape[1] < 2 * _BLOCK:  # a small vocabulary is one block
        return _locate_share(weights.cumsum(dim=-1), uniforms)
    return _draw_by_blocks(F.pad(weights, (0, -logits.shape[1] % _BLOCK)), uniforms)


class LinearDraws:
    """`draw_tokens` from a linear layer's logits on a CPU, for many calls.

    The bias is an extra column of the product and the vocabulary is padded to whole blocks. Each call processes cache-sized
    chunks of rows in reused buffers.

    Args:
        weight: `(vocab_size, width)`, float32 or float64; copied.
        bias: `(vocab_size,)`; copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        vocab_size, width = weight.shape
        self._in_one_block = vocab_size < 2 * _BLOCK
        columns = vocab_size if self._in_one_block else -(-vocab_size // _BLOCK) * _BLOCK
        product = weight.new_zeros(columns, width + 1)
        product[vocab_size:, width] = -torch.inf  # columns that fill the last block
        product[:vocab_size, :width] = weight.detach()
        product[:vocab_size, width] = bias.detach()
        self._product = product.T
        self.rows_together = max(1, LINEAR_LOGITS_PER_CHUNK // vocab_size)
        """The best number of rows per call."""
        self._tile = rows_in_cache(columns)
        self._logits = self._weights = product.new_empty(0, columns)

    def __call__(self, features: Tensor, uniforms: Tensor) -> Tensor:
        """Draw `(n, k)` int64 token ids for features `(n, width)` and uniforms `(n, k)` in [0, 1)."""
        features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        if self._in_one_block:
            return draw_tokens(features @ self._product, uniforms)
        if len(self._weights) < min(self._tile, len(features)):  # allocating for every call costs more than the sums
            self._logits = self._logits.new_empty(min(self._tile, len(features)), self._logits.shape[1])
            self._weights = torch.empty_like(self._logits)
        parts = zip(features.split(self._tile), uniforms.split(self._tile), strict=True)
        return torch.cat([self._draw(*part) for part in parts])

    def _draw(self, features: Tensor, uniforms: Tensor) -> Tensor:
        logits = torch.mm(features, self._product, out=self._logits[: len(features)])
        return _draw_by_blocks(torch.softmax(logits, dim=1, out=self._weights[: len(features)]), uniforms)


def linear_draws(policy: TokenPolicy, inverse_temperature: float) -> "LinearDraws | TritonDraws | None":
    """What draws fastest from a policy's features on its device; None if its tokens must be drawn from logits."""
    layer = policy.linear_output() if isinstance(policy, FeaturePolicy) else None
    if layer is None:
        return None
    weight, bias = (part.detach() for part in layer)
    if weight.device.type == "cpu":
        return LinearDraws(inverse_temperature * weight, inverse_temperature * bias)
    on_gpu = weight.device.type == "cuda" and weight.dtype == bias.dtype == torch.float32
    if not (on_gpu and triton_draws_work(weight.device, *weight.shape)):
        return None
    from seqgan_env.models.triton_draws import TritonDraws

    return TritonDraws(weight, bias, inverse_temperature)


@cache
def triton_draws_work(device: torch.device, vocab_size: int, width: int) -> bool:
    """Whether Triton is installed and compiles `TritonDraws` for a layer of this size; if it cannot, this warns, once.

    It is not asked on GPUs without tensor cores for TF32, nor on those of AMD, where the products are not exact to float32.
    """
    if importlib.util.find_spec("triton") is None or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from seqgan_env.models.triton_draws import TritonDraws

        layer = (torch.zeros(vocab_size, width, device=device), torch.zeros(vocab_size, device=device))
        TritonDraws(*layer)(torch.zeros(1, width, device=device), torch.zeros(1, 1, device=device))
    except Exception as error:  # of many kinds: no compiler for C, too little shared memory, another version of Triton
        said = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"Triton failed, so tokens are drawn from logits, which is slower: {said}", stacklevel=2)
        return False
    return True


class NextTokens:
    """Lets a policy read tokens and draws the next ones, step by step, in the fastest available way.

    Args:
        policy: writes the sequences; its parameters must not change.
        device: of the policy.
        vocab_size: number of tokens.
        inverse_temperature: multiplies the logits.
        masked: whether some calls pass `allowed`.
    """

    def __init__(
        self,
        policy: TokenPolicy,
        device: torch.device,
        vocab_size: int,
        *,
        inverse_temperature: float = 1.0,
        masked: bool = False,
    ) -> None:
        self._policy = policy
        self._inverse_temperature = inverse_temperature
        self.linear = None if masked else linear_draws(policy, inverse_temperature)
        """Draws straight from the policy's features; None if its tokens are drawn from logits."""
        self.rows_together = rows_per_chunk(vocab_size, device) if self.linear is None else self.linear.rows_together
        """The best number of rows per call."""

    def __call__(self, tokens: Tensor, state: Any, uniforms: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Any]:
        """Read tokens `(n,)` int64; draw the next ones.

        Args:
            tokens: `(n,)` int64.
            state: the policy's state, with `n` rows.
            uniforms: `(n, k)` in [0, 1).
            allowed: `(n, vocab_size)` bool; by default every token.

        Returns:
            `(n, k)` int64 token ids, and the new state.
        """
        if self.linear is not None:
            assert isinstance(self._policy, FeaturePolicy)
            features, state = self._policy.advance(tokens, state)
            return self.linear(features, uniforms), state
        logits, state = self._policy.step(tokens, state)
        if self._inverse_temperature != 1.0:
            logits = logits * self._inverse_temperature
        return draw_tokens(forbid(logits, allowed), uniforms), state


def _draw_by_blocks(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw `(n, k)` tokens with weights `(n, whole blocks)`."""
    n, k = uniforms.shape
    blocks = weights.view(n, weights.shape[1] // _BLOCK, _BLOCK)
    sums = blocks.sum(dim=-1)
    ends = sums.cumsum(dim=-1)
    targets = uniforms.to(weights.dtype) * ends[:, -1:]
    chosen = _locate(ends, targets).clamp_(max=blocks.shape[1] - 1)  # (n, k); NaN weights would lead beyond the last block
    remainders = targets - (ends.gather(1, chosen) - sums.gather(1, chosen))

    first_blocks = torch.arange(n, device=weights.device).unsqueeze(1) * blocks.shape[1]
    inside = blocks.flatten(0, 1).index_select(0, (first_blocks + chosen).flatten()).cumsum(dim=-1)
    places = _locate(inside, remainders.clamp_(min=0).view(-1, 1))
    return chosen * _BLOCK + places.view(n, k)


def _locate_share(ends: Tensor, uniforms: Tensor) -> Tensor:
    """The first index at which cumulative weights `(n, m)` exceed each share `(n, k)` of the total: `(n, k)`."""
    return _locate(ends, uniforms.to(ends.dtype) * ends[:, -1:])


def _locate(ends: Tensor, targets: Tensor) -> Tensor:
    """The first index at which cumulative weights `ends` `(..., m)` exceed each target `(..., k)`: `(..., k)`.

    Rounding may carry a target up to the total; it is kept below, so that the token found always has a weight.
    """
    last = ends[..., -1:]
    return torch.searchsorted(ends, torch.minimum(targets, torch.nextafter(last, torch.zeros_like(last))), right=True)


def forbid(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Logits with `-inf` where `allowed` (bool, same shape) is false."""
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def allowed_tokens(mask: Mask, prefixes: Tensor, vocab_size: int) -> Tensor:
    """The tokens that a mask allows after each prefix `(n, k)`: `(n, vocab_size)` bool, on the prefixes' device.

    Raises:
        ValueError: the mask returns another shape or dtype, or allows no token.
    """
    rows = np.empty((len(prefixes), vocab_size), dtype=np.bool_)
    for row, prefix in zip(rows, prefixes.cpu().numpy(), strict=True):
        row[:] = allowed_after(mask, prefix, vocab_size)
    return torch.from_numpy(rows).to(prefixes.device)


def allowed_where(alive: Tensor, mask: Mask, prefixes: Tensor, vocab_size: int) -> Tensor:
    """`allowed_tokens` for the prefixes `(n, k)` that are unfinished, `alive` `(n,)`; all tokens for the others."""
    allowed = torch.ones(len(prefixes), vocab_size, dtype=torch.bool, device=prefixes.device)
    allowed[alive] = allowed_tokens(mask, prefixes[alive], vocab_size)
    return allowed


def allowed_along(mask: Mask, tokens: Tensor, lengths: Tensor, vocab_size: int) -> Tensor:
    """The tokens that a mask allowed at each position of episodes `(n, length)`: `(n, length, vocab_size)` bool.

    Args:
        mask: the tokens that may follow a prefix.
        tokens: `(n, length)` int64, padded.
        lengths: `(n,)` int64; beyond them all is true.
        vocab_size: number of tokens.
    """
    steps = range(tokens.shape[1])
    return torch.stack([allowed_where(lengths > k, mask, tokens[:, :k], vocab_size) for k in steps], dim=1)


def allowed_after(mask: Mask, prefix: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.bool_]:
    """The checked result of a mask for one prefix `(k,)`; see `allowed_tokens`."""
    allowed = np.asarray(mask(prefix))
    if allowed.shape != (vocab_size,) or allowed.dtype != np.bool_:
        raise ValueError(
            f"mask(prefix) must return bool of shape ({vocab_size},), got {allowed.dtype} of shape {allowed.shape} "
            f"for the prefix {prefix.tolist()}."
        )
    if not allowed.any():
        raise ValueError(
            f"The mask allows no token after the prefix {prefix.tolist()}, but an unfinished sequence needs at least one."
        )
    return allowed


def rows_per_chunk(vocab_size: int, device: torch.device) -> int:
    """The number of rows of logits to hold in memory at once (see `_LOGITS_PER_CHUNK`)."""
    return max(1, (_LOGITS_PER_CHUNK if device.type == "cpu" else _LOGITS_PER_CHUNK_ON_GPU) // vocab_size)


def sequences_per_chunk(vocab_size: int, length: int, device: torch.device) -> int:
    """The number of sequences of this length to read at once, with one row of logits per token."""
    return max(1, rows_per_chunk(vocab_size, device) // length)


def rows_in_cache(vocab_size: int) -> int:
    """The number of rows of logits that stay in cache until the next step reads them (see `_LOGITS_IN_CACHE`)."""
    return max(1, _LOGITS_IN_CACHE // vocab_size)


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
    rows: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Sample `n` sequences of at most `length` tokens.

    Args:
        policy: writes the sequences.
        n: the number of sequences.
        length: the maximum number of tokens in a sequence.
        vocab_size: number of tokens; also the id of padding and of the start token.
        generator: the source of all randomness, on the policy's device.
        end_token: ends a sequence and is its last token.
        inverse_temperature: multiplies the logits; above 1 sharpens the policy, below 1 flattens it.
        prefix: ids that every sequence starts with, fewer than `length`.
        mask: the tokens that may follow a prefix; called for every unfinished sequence at every position.
        rows: which of the `n` sequences to write; random numbers are drawn for all.

    Returns:
        tokens `(n, length)` int64, padded with `vocab_size`, and lengths `(n,)` int64. Both include the prefix.

    Raises:
        ValueError: a prefix cannot be continued, the mask allows no token, or a number is out of range.
    """
    if n < 0 or length < 1:
        raise ValueError(f"n must be at least 0 and length at least 1, got {n} and {length}.")
    check_number("inverse_temperature", inverse_temperature, Temperature)
    if len(prefix):
        _check_prefix(prefix, length, vocab_size, end_token, mask)
    uniforms = torch.rand((n, length - len(prefix)), generator=generator, device=generator.device)[rows]

    def write(uniforms: Tensor) -> tuple[Tensor, Tensor]:
        return write_sequences(policy, uniforms, tuple(prefix), vocab_size, end_token, inverse_temperature, mask)

    if end_token is None and mask is None and len(uniforms):  # then every sequence takes the same steps
        key = ("sample", tuple(prefix), vocab_size, inverse_temperature)
        tokens, lengths = replayed(policy, key, write, uniforms)
        return tokens, lengths
    return write(uniforms)


def write_sequences(
    policy: TokenPolicy,
    uniforms: Tensor,
    prefix: tuple[int, ...],
    vocab_size: int,
    end_token: int | None,
    inverse_temperature: float,
    mask: Mask | None,
) -> tuple[Tensor, Tensor]:
    """`sample_sequences` from uniforms `(n, tokens to write)`. Without end token and mask it never waits for a GPU."""
    device, (n, n_written) = uniforms.device, uniforms.shape
    length = len(prefix) + n_written
    tokens = torch.full((n, length), vocab_size, dtype=torch.int64, device=device)
    for position, token in enumerate(prefix):
        tokens[:, position] = token
    lengths = torch.full((n,), length, dtype=torch.int64, device=device)
    if n == 0:
        return tokens, lengths
    # All sequences draw their first token from the same row of logits.
    next_tokens = NextTokens(policy, device, vocab_size, inverse_temperature=inverse_temperature, masked=mask is not None)
    first, trunk = _draw_first(policy, next_tokens, prefix, uniforms[:, :1], vocab_size, mask)
    tokens[:, len(prefix)] = first
    for start in range(0, n, next_tokens.rows_together):
        part = slice(start, min(start + next_tokens.rows_together, n))
        last = first[part]
        state = map_state(lambda row: row.repeat_interleave(len(last), dim=0), trunk)  # noqa: B023 - used at once
        alive = torch.ones_like(last, dtype=torch.bool)
        for position in range(len(prefix) + 1, length + 1):
            if end_token is not None:
                lengths[part] = torch.where(alive, position, lengths[part])
                alive = alive & (last != end_token)
                if not alive.any():
                    break
            if position == length:
                break
            allowed = None if mask is None else allowed_where(alive, mask, tokens[part, :position], vocab_size)
            column = uniforms[part, position - len(prefix)].unsqueeze(1)
            drawn, state = next_tokens(last, state, column, allowed)
            last = drawn.squeeze(1)
            if end_token is not None:
                last = torch.where(alive, last, vocab_size)
            tokens[part, position] = last
    return tokens, lengths


def _draw_first(
    policy: TokenPolicy,
    next_tokens: NextTokens,
    prefix: Sequence[int],
    uniforms: Tensor,
    vocab_size: int,
    mask: Mask | None,
) -> tuple[Tensor, Any]:
    """Draw the tokens after a prefix: `(n,)` for uniforms `(n, 1)`; also return the policy's state after it, of one row."""
    state = policy.initial_state(1)
    inputs = torch.empty(1, len(prefix) + 1, dtype=torch.int64, device=uniforms.device)
    for position, token in enumerate((vocab_size, *prefix)):  # fill in place: copying a list to a GPU would wait for it
        inputs[:, position] = token
    for position in range(len(prefix)):
        _, state = policy.step(inputs[:, position], state)
    allowed = None if mask is None else allowed_tokens(mask, inputs[:, 1:], vocab_size)
    drawn, state = next_tokens(inputs[:, -1], state, uniforms.T, allowed)
    return drawn.squeeze(0), state


def _check_prefix(prefix: Sequence[int], length: int, vocab_size: int, end_token: int | None, mask: Mask | None) -> None:
    shown = list(prefix)
    if len(prefix) >= length:
        raise ValueError(
            f"A prefix of {len(prefix)} tokens leaves no room in sequences of at most {length} tokens; shorten it."
        )
    if not all(0 <= token < vocab_size for token in prefix):
        raise ValueError(f"The prefix {shown} has ids outside the vocabulary's 0 ... {vocab_size - 1}.")
    if end_token is not None and end_token in prefix:
        raise ValueError(f"The prefix {shown} has the end token {end_token}, so it cannot be continued.")
    if mask is not None:
        for k, token in enumerate(prefix):
            if not allowed_after(mask, np.array(prefix[:k], dtype=np.int64), vocab_size)[token]:
                raise ValueError(f"The mask forbids the prefix {shown}: {token} may not follow {list(prefix[:k])}.")
