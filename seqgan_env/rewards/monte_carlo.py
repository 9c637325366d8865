"""Monte Carlo search: the value of a prefix is the mean reward of its completions (paper, eqs. 3 and 4)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqgan_env.data.padding import lengths_of, played_positions
from seqgan_env.models.sampling import (
    Mask,
    NextTokens,
    TokenPolicy,
    allowed_tokens,
    allowed_where,
    map_state,
)
from seqgan_env.support.cuda_graphs import replayed
from seqgan_env.support.hashed_random import mix, uniform

Score = Callable[[Tensor, Tensor], Tensor]
Rows = slice | Tensor

UNIFORMS_TOGETHER = 1 << 22
"""Limit on the uniform numbers computed at once; they take 32 MB while they are hashed."""


class UniformPolicy:
    """Uniform tokens: the rollout policy if none is attached."""

    def __init__(self, vocab_size: int, device: torch.device | str = "cpu") -> None:
        self.vocab_size = vocab_size
        self.device = device

    def initial_state(self, n: int) -> Tensor:
        """An empty state."""
        return torch.zeros(n, 0, device=self.device)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Equal logits `(n, vocab_size)`."""
        return torch.zeros(len(tokens), self.vocab_size, device=self.device), state


@dataclass(frozen=True)
class Completions:
    """Completions of prefixes of `n` sequences."""

    tokens: Tensor
    """`(prefixes, n, rollouts, length)` int64, padded."""
    lengths: Tensor
    """`(prefixes, n, rollouts)` int64."""
    open: Tensor
    """`(prefixes, n)` bool: false if the prefix is already a finished sequence, or longer than its sequence."""


@dataclass(frozen=True, eq=False)
class MonteCarloSearch:
    """Completes prefixes with a rollout policy, and averages a reward model's scores of the completions.

    All completions of all prefixes advance together, one position at a time, so there is one call of the policy per position.
    No prefix is read twice: a completion starts from the policy's state there. All completions of a prefix draw their first
    token from the same row of logits.

    Args:
        policy: the rollout policy.
        score: maps tokens `(n, length)` and lengths `(n,)` to rewards `(n,)`.
        n_rollouts: completions of each prefix.
        vocab_size: number of tokens, and the pad id.
        score_completions: scores completions, of which only means are used, in place of `score`.
        end_token: ends a sequence.
        mask: the tokens that may follow a prefix.

    Raises:
        ValueError: `n_rollouts` is below 1.
    """

    policy: TokenPolicy
    score: Score
    n_rollouts: int
    vocab_size: int
    _: KW_ONLY
    score_completions: Score | None = None
    end_token: int | None = None
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if self.n_rollouts < 1:
            raise ValueError(f"n_rollouts must be at least 1, got {self.n_rollouts}: a prefix is judged by its completions.")

    @torch.no_grad()
    def action_values(self, tokens: Tensor, lengths: Tensor, keys: Tensor, positions: range | None = None) -> Tensor:
        """Q of the action at each position: the mean reward of the completions of the prefix that ends with it (eq. 4).

        The last token completes its sequence, so its Q is the sequence's own reward.

        Args:
            tokens: `(n, length)` int64, padded; ignored beyond the last of `positions`.
            lengths: `(n,)` int64, the number of tokens in each sequence so far.
            keys: `(n,)` int64, one per episode, from which the completions' randomness is derived.
            positions: a contiguous range of positions; all by default.

        Returns:
            `(n, len(positions))` float32 rewards, 0 at and beyond `lengths`.
        """
        n, length = tokens.shape
        positions = positions if positions is not None else range(length)
        values = torch.zeros(n, len(positions), device=tokens.device)
        if n == 0:  # policies and reward models are never called with no rows
            return values
        inner = range(positions.start, min(positions.stop, length - 1))
        if inner:
            completions = self.complete(tokens, lengths, keys, inner)
            values[:, : len(inner)] = self.scores(completions).mean(dim=2).T
        if positions.stop == length:
            values[:, -1] = self.score(tokens, lengths)
        return values * played_positions(lengths, positions.stop)[:, positions.start :]

    def scores(self, completions: Completions) -> Tensor:
        """Rewards `(prefixes, n, rollouts)` of completions."""
        score_completions = self.score if self.score_completions is None else self.score_completions
        scores = torch.zeros(completions.lengths.shape, device=completions.lengths.device)
        if scores.numel() == 0:
            return scores
        if self.end_token is None:
            tokens, lengths = completions.tokens.flatten(0, 2), completions.lengths.flatten()
            return score_completions(tokens, lengths).view_as(scores)
        is_open = completions.open
        if is_open.any():
            tokens, lengths = completions.tokens[is_open].flatten(0, 1), completions.lengths[is_open].flatten()
            scores[is_open] = score_completions(tokens, lengths).view(-1, self.n_rollouts).to(scores.dtype)
        if not is_open.all():  # a finished sequence is its own only completion, not averaged: score it once with `score`
            own = self.score(completions.tokens[~is_open][:, 0], completions.lengths[~is_open][:, 0])
            scores[~is_open] = own.unsqueeze(1).to(scores.dtype)
        return scores

    @torch.no_grad()
    def complete(self, tokens: Tensor, lengths: Tensor, keys: Tensor, positions: range) -> Completions:
        """Complete the prefixes that end at each of `positions`; see `action_values` for the arguments."""
        if len(tokens) == 0:
            shape = (len(positions), 0, self.n_rollouts)
            padded = tokens.new_empty(*shape, tokens.shape[1])
            return Completions(padded, lengths.new_empty(shape), tokens.new_empty(shape[:2], dtype=torch.bool))
        complete = partial(self._complete, positions=positions)
        if self.end_token is None and self.mask is None:  # then completions of equal shapes take the same steps
            key = ("complete", positions, self.n_rollouts, self.vocab_size)
            return Completions(*replayed(self.policy, key, complete, tokens, lengths, keys))
        return Completions(*complete(tokens, lengths, keys))

    def _complete(self, tokens: Tensor, lengths: Tensor, keys: Tensor, positions: range) -> tuple[Tensor, Tensor, Tensor]:
        """The fields of `Completions`. Without end token and mask it never waits for a GPU."""
        n, length = tokens.shape
        first, last = positions.start + 1, positions.stop  # lengths of the shortest and of the longest prefix
        block = n * self.n_rollouts
        prefix_lengths = torch.arange(first, last + 1, device=tokens.device)
        rollouts = torch.arange(self.n_rollouts, device=tokens.device)
        is_open = prefix_lengths.unsqueeze(1) <= lengths  # (prefixes, n)
        if self.end_token is not None:
            is_open &= self.end_token != tokens[:, first - 1 : last].T
        known = torch.arange(length, device=tokens.device) < prefix_lengths.unsqueeze(1)  # (prefixes, length)
        prefixes = torch.where(known.unsqueeze(1), tokens, self.vocab_size)  # (prefixes, n, length)
        # One row per completion, (prefixes, n, rollouts) flattened: shorter prefixes, whose completions start earlier, first.
        keys = mix(mix(keys, prefix_lengths.unsqueeze(1)).unsqueeze(2), rollouts).flatten()
        completed = prefixes.repeat_interleave(self.n_rollouts, dim=1).flatten(0, 1)
        alive = is_open.repeat_interleave(self.n_rollouts, dim=1).flatten()

        next_tokens = NextTokens(self.policy, tokens.device, self.vocab_size, masked=self.mask is not None)
        trunk = self.policy.initial_state(n)  # the policy's state along the sequences themselves
        states: Any = None  # and along their completions
        inputs = torch.cat([torch.full_like(tokens[:, :1], self.vocab_size), tokens], dim=1)
        for position in range(first):
            _, trunk = self.policy.step(inputs[:, position], trunk)
        for position, uniforms in zip(range(first, length), _uniforms_at(keys, range(first, length)), strict=True):
            # Completions of prefixes shorter than `position` each get their next token. Completions of the prefix with that
            # length start now, once the policy has read its last token.
            n_under_way = (min(position, last + 1) - first) * block
            for rows in self._under_way(alive[:n_under_way], next_tokens.rows_together):
                drawn, state = next_tokens(
                    completed[rows, position - 1],
                    map_state(lambda part: part[rows], states),  # noqa: B023 - used at once
                    uniforms[rows].unsqueeze(1),
                    self._allowed(completed[rows, :position]),
                )
                _assign(states, rows, state)
                completed[rows, position] = drawn.squeeze(1)
                if self.end_token is not None:
                    alive[rows] = drawn.squeeze(1) != self.end_token
            if position > last:
                continue
            rows = slice(n_under_way, n_under_way + block)  # `n_rollouts` draws from each row of logits
            now_open = is_open[position - first]
            allowed = self._allowed(tokens[:, :position], now_open)
            drawn, trunk = next_tokens(inputs[:, position], trunk, uniforms[rows].view(n, self.n_rollouts), allowed)
            drawn[~now_open] = self.vocab_size
            completed[rows, position] = drawn.flatten()
            if self.end_token is not None:
                alive[rows] &= drawn.flatten() != self.end_token
            branch = map_state(lambda part: part.repeat_interleave(self.n_rollouts, dim=0), trunk)
            if states is None:
                states = map_state(lambda part: part.new_empty((len(completed), *part.shape[1:])), branch)
            _assign(states, rows, branch)
        shape = (len(prefix_lengths), n, self.n_rollouts)
        completed_lengths = lengths_of(completed, self.vocab_size)
        return completed.view(*shape, length), completed_lengths.view(shape), is_open

    def _under_way(self, alive: Tensor, chunk: int) -> Iterable[Rows]:
        """The rows that have started and not ended, in chunks of at most `chunk`; skips empty chunks."""
        if self.end_token is None:
            return [slice(start, min(start + chunk, len(alive))) for start in range(0, len(alive), chunk)]
        rows = alive.nonzero().squeeze(1)
        return rows.split(chunk) if len(rows) else ()

    def _allowed(self, prefixes: Tensor, rows: Tensor | None = None) -> Tensor | None:
        """What the mask, if any, allows after prefixes `(n, position)`; all tokens where `rows` `(n,)` is false."""
        if self.mask is None:
            return None
        if rows is None:
            return allowed_tokens(self.mask, prefixes, self.vocab_size)
        return allowed_where(rows, self.mask, prefixes, self.vocab_size)


def _uniforms_at(keys: Tensor, positions: range) -> Iterator[Tensor]:
    """The uniform numbers `(rows,)` of each position in turn, for keys `(rows,)`.

    Those of many positions are computed together, because hashing takes as many kernels for one as for all.
    """
    together = max(1, UNIFORMS_TOGETHER // max(1, len(keys)))
    for start in range(positions.start, positions.stop, together):
        some = torch.arange(start, min(start + together, positions.stop), device=keys.device)
        yield from uniform(mix(keys, some.unsqueeze(1)))


def _assign(states: Any, rows: Rows, values: Any) -> None:
    """Write a policy's state into some rows of a larger one."""
    if isinstance(states, tuple):
        for part, value in zip(states, values, strict=True):
            _assign(part, rows, value)
    else:
        states[rows] = values
