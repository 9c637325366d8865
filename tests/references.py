"""Plain loops, one sequence and one token at a time, that faster code must equal."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.models.sampling import TokenPolicy, allowed_tokens, forbid
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from seqgan_env.support.hashed_random import mix, uniform
from tests.small import END, T, V, episodes, no_repeats, small_game

KEYS = torch.arange(100, 200)
VARIANTS = {
    "plain": {},
    "end token": {"end_token": END},
    "mask": {"mask": no_repeats},
    "mask and end token": {"mask": no_repeats, "end_token": END},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def log_prob_by_steps(model: TokenModel, sequence: list[int], *, start_step: bool = True) -> list[float]:
    """Log-probability of each token, one `step` at a time; without the start step, the first one has no prediction."""
    state = model.initial_state(1)
    result = []
    for last, token in zip([model.vocab_size, *sequence], sequence, strict=False):
        logits, state = model.step(torch.tensor([last]), state)
        result.append(torch.log_softmax(logits[0], dim=0)[token].item())
    return result if start_step else result[1:]


def all_sequences(vocab_size: int, length: int, end_token: int | None) -> Tensor:
    """Every sequence that can be written, padded."""
    rows = set()
    for sequence in itertools.product(range(vocab_size), repeat=length):
        cut = length if end_token not in sequence else sequence.index(end_token) + 1
        rows.add(sequence[:cut] + (vocab_size,) * (length - cut))
    return torch.tensor(sorted(rows))


def whole_episodes(n: int, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Episodes under the given end token and mask, with their lengths."""
    tokens = episodes(small_game(**options), n)
    return tokens, (tokens < V).sum(dim=1)


def logits_after(policy: TokenPolicy, prefix: list[int]) -> Tensor:
    state = policy.initial_state(1)
    for token in (V, *prefix):
        logits, state = policy.step(torch.tensor([token]), state)
    return logits


def complete_by_loops(one: MonteCarloSearch, prefix: list[int], key: Tensor) -> list[int]:
    sequence = list(prefix)
    while len(sequence) < T and sequence[-1] != one.end_token:
        logits = logits_after(one.policy, sequence)
        if one.mask is not None:
            logits = forbid(logits, allowed_tokens(one.mask, torch.tensor([sequence]), V))
        drawn = draw_tokens_reference(logits, uniform(mix(key, len(sequence))).reshape(1, 1))
        sequence.append(int(drawn))
    return sequence


def action_values_by_loops(one: MonteCarloSearch, tokens: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
    values = torch.zeros(tokens.shape)
    for row, length in enumerate(lengths.tolist()):
        for position in range(length):
            prefix = tokens[row, : position + 1].tolist()
            total = 0.0
            for rollout in range(one.n_rollouts):
                key = mix(mix(keys[row], len(prefix)), rollout)
                sequence = complete_by_loops(one, prefix, key)
                padded = torch.tensor([sequence + [V] * (T - len(sequence))])
                total += float(one.score(padded, torch.tensor([len(sequence)])))
            values[row, position] = total / one.n_rollouts
    return values


def draw_tokens_reference(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw `(n, k)` tokens from logits `(n, vocab_size)` and uniforms `(n, k)`: the first with cumulative probability > u."""
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)
    targets = uniforms.double() * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)


def outside_of_shares(drawn: Tensor, logits: Tensor, uniforms: Tensor) -> Tensor:
    """How far each uniform number lies outside the share of its token, `(n, k)`: 0 if the token is that of the definition."""
    shares = torch.softmax(logits.double(), dim=-1)
    ends = shares.cumsum(dim=-1).gather(1, drawn)
    return torch.maximum(ends - shares.gather(1, drawn) - uniforms, uniforms - ends).clamp_(min=0)


def max_over_windows_reference(embedded: Tensor, filters: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """See `max_over_windows`; by torch's own convolution."""
    _, _, dim = embedded.shape
    pooled = []
    for weight, bias in filters:
        kernel = weight.view(len(weight), -1, dim).transpose(1, 2)  # (filters, dim, width)
        pooled.append(F.conv1d(embedded.permute(1, 2, 0), kernel, bias).amax(dim=2))
    return torch.cat(pooled, dim=1)
