"""Monte Carlo search against plain loops, by hand, and against exact expectations."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.rewards.monte_carlo import MonteCarloSearch, UniformPolicy
from tests.references import KEYS, action_values_by_loops, variants, whole_episodes
from tests.small import END, Ordinal, T, V, nothing_allowed, small_policy


def search(n_rollouts: int = 4, policy: TokenPolicy | None = None, **options: Any) -> MonteCarloSearch:
    return MonteCarloSearch(policy or small_policy(), Ordinal().score, n_rollouts, V, **options)


@variants
@pytest.mark.parametrize("n_rollouts", [1, 4])
def test_action_values_equal_plain_loops(n_rollouts: int, options: dict[str, Any]) -> None:
    tokens, lengths = whole_episodes(5, options)
    one = search(n_rollouts, **options)
    expected = action_values_by_loops(one, tokens, lengths, KEYS[:5])
    assert torch.equal(one.action_values(tokens, lengths, KEYS[:5]), expected)
    assert not torch.equal(one.action_values(tokens, lengths, KEYS[1:6]), expected)  # other keys, other completions


@variants
def test_one_position_at_a_time_gives_the_same_values(options: dict[str, Any]) -> None:
    tokens, lengths = whole_episodes(5, options)
    one = search(**options)
    together = one.action_values(tokens, lengths, KEYS[:5])
    for position in range(T):
        alone = one.action_values(tokens, lengths, KEYS[:5], range(position, position + 1))
        assert torch.equal(alone, together[:, position : position + 1])
    assert torch.equal(one.action_values(tokens, lengths, KEYS[:5], range(1, 4)), together[:, 1:4])


@variants
def test_a_row_alone_gets_the_same_values(options: dict[str, Any]) -> None:
    tokens, lengths = whole_episodes(5, options)
    one = search(**options)
    together = one.action_values(tokens, lengths, KEYS[:5])
    alone = [one.action_values(tokens[row : row + 1], lengths[row : row + 1], KEYS[row : row + 1]) for row in range(5)]
    assert torch.equal(torch.cat(alone), together)


@variants
def test_chunks_do_not_change_the_values(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, lengths = whole_episodes(5, options)
    expected = search(**options).action_values(tokens, lengths, KEYS[:5])
    monkeypatch.setattr("seqgan_env.models.sampling.rows_per_chunk", lambda vocab_size, device: 7)
    monkeypatch.setattr("seqgan_env.models.sampling.LINEAR_LOGITS_PER_CHUNK", 7 * V)
    monkeypatch.setattr("seqgan_env.rewards.monte_carlo.UNIFORMS_TOGETHER", 2 * 5 * 4 * (T - 1))  # of two positions at once
    assert torch.equal(search(**options).action_values(tokens, lengths, KEYS[:5]), expected)


@pytest.mark.parametrize("length_so_far", [1, 2, 4])
def test_tokens_beyond_the_prefix_are_not_read(length_so_far: int) -> None:
    tokens, _ = whole_episodes(5, {})
    unfinished = tokens.masked_fill(torch.arange(T) >= length_so_far, V)
    position = range(length_so_far - 1, length_so_far)
    expected = search().action_values(tokens, torch.full((5,), T), KEYS[:5], position)
    assert torch.equal(search().action_values(unfinished, torch.full((5,), length_so_far), KEYS[:5], position), expected)


# By hand


@dataclass
class Always:
    """A policy that writes one token only."""

    token: int
    vocab_size: int = V

    def initial_state(self, n: int) -> tuple[()]:
        return ()

    def step(self, tokens: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return torch.zeros(len(tokens), self.vocab_size).index_fill(1, torch.tensor(self.token), 100.0), state


def digits(tokens: Tensor, lengths: Tensor) -> Tensor:
    """A sequence's tokens read as a decimal number, the first token in front."""
    return (tokens * 10 ** torch.arange(tokens.shape[1]).flip(0)).sum(dim=1).float()


def test_credit_goes_to_the_row_and_position_whose_prefix_was_completed() -> None:
    tokens = torch.tensor([[1, 2, 3, 4], [5, 4, 3, 2], [3, 3, 1, 1]])
    one = MonteCarloSearch(Always(0), digits, 3, V)
    values = one.action_values(tokens, torch.full((3,), 4), KEYS[:3])
    expected = [[1000, 1200, 1230, 1234], [5000, 5400, 5430, 5432], [3000, 3300, 3310, 3311]]
    assert values.tolist() == expected

    # The trap of an earlier implementation: (position, row, rollout) viewed as (row, position, rollout).
    scores = one.scores(one.complete(tokens, torch.full((3,), 4), KEYS[:3], range(3)))
    wrong = scores.reshape(3, 3, 3).mean(dim=2)
    assert wrong.tolist() != [row[:3] for row in expected]


def test_each_rollout_counts_once_and_for_its_own_prefix() -> None:
    """Scores that differ along every axis: the completion's place in (position, row, rollout)."""
    tokens, lengths = whole_episodes(2, {})

    def place(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.arange(len(tokens), dtype=torch.float32)

    values = MonteCarloSearch(small_policy(), place, 3, V).action_values(tokens, lengths, KEYS[:2], range(T - 1))
    assert values.tolist() == [[1, 7, 13, 19], [4, 10, 16, 22]]


def test_the_last_action_is_worth_the_sequences_reward() -> None:
    tokens, lengths = whole_episodes(5, {})
    values = search().action_values(tokens, lengths, KEYS[:5])
    assert torch.equal(values[:, -1], Ordinal().score(tokens, lengths))


def test_an_end_token_is_worth_the_sequences_reward_and_nothing_comes_after() -> None:
    tokens = torch.tensor([[3, 4, END, V, V], [END, V, V, V, V], [1, 1, 1, 1, END], [1, 1, 1, 1, 1]])
    lengths = torch.tensor([3, 1, 5, 5])
    values = search(end_token=END).action_values(tokens, lengths, KEYS[:4])
    rewards = Ordinal().score(tokens, lengths)
    assert torch.equal(values[torch.arange(4), lengths - 1], rewards)
    assert (values[torch.arange(T) >= lengths.unsqueeze(1)] == 0).all()
    assert (values[torch.arange(T) < lengths.unsqueeze(1)] != 0).all()


def test_completions_keep_their_prefix_end_once_and_are_padded() -> None:
    tokens, lengths = whole_episodes(6, {"end_token": END})
    completions = search(end_token=END).complete(tokens, lengths, KEYS[:6], range(T - 1))
    assert completions.tokens.shape == (T - 1, 6, 4, T)
    for prefix_length in range(1, T):
        for row in range(6):
            finished = lengths[row] < prefix_length or tokens[row, prefix_length - 1] == END
            assert completions.open[prefix_length - 1, row] == (not finished)
            for rollout in range(4):
                sequence = completions.tokens[prefix_length - 1, row, rollout].tolist()
                length = completions.lengths[prefix_length - 1, row, rollout]
                assert sequence[:prefix_length] == tokens[row, :prefix_length].tolist()
                assert sequence[length:] == [V] * (T - length)
                assert END not in sequence[: length - 1]
                assert length == T or sequence[length - 1] == END


def test_a_finished_sequence_is_scored_once_not_once_a_rollout() -> None:
    scored: list[int] = []

    def score(tokens: Tensor, lengths: Tensor) -> Tensor:
        scored.append(len(tokens))
        return Ordinal().score(tokens, lengths)

    tokens, length = torch.tensor([[END, V, V, V, V]]), torch.tensor([1])
    MonteCarloSearch(small_policy(), score, 16, V, end_token=END).action_values(tokens, length, KEYS[:1], range(T - 1))
    assert scored == [T - 1]


# Nothing left to write


def ends_at_once(vocab_size: int, kind: str) -> TokenPolicy:
    """Writes the end token and nothing else; by a linear layer, or as a policy of two methods."""
    if kind == "two methods":
        return Always(END, vocab_size)
    policy = small_policy(vocab_size=vocab_size, end_token=END)
    policy.output.bias[END] += 1e3
    return policy


@pytest.mark.parametrize("rows_together", [1, None])
@pytest.mark.parametrize("kind", ["linear layer", "two methods"])
@pytest.mark.parametrize("vocab_size", [V, 127, 128, 129, 5000])
def test_all_completions_may_have_ended(
    vocab_size: int, kind: str, rows_together: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below and above the size from which tokens are drawn by blocks; values by hand."""
    if rows_together is not None:
        monkeypatch.setattr("seqgan_env.models.sampling.rows_per_chunk", lambda *_: rows_together)
        monkeypatch.setattr("seqgan_env.models.sampling.LINEAR_LOGITS_PER_CHUNK", rows_together * vocab_size)
    one = MonteCarloSearch(ends_at_once(vocab_size, kind), Ordinal().score, 3, vocab_size, end_token=END)
    pad = vocab_size
    tokens = torch.tensor([[4, 3, 1, 0, 1], [4, END, pad, pad, pad], [END, pad, pad, pad, pad]])
    lengths = torch.tensor([5, 2, 1])
    expected = torch.zeros(3, T)
    for row, length in enumerate(lengths.tolist()):
        for position in range(length):
            prefix = tokens[row, : position + 1].tolist()
            sequence = prefix if len(prefix) == T or prefix[-1] == END else [*prefix, END]
            padded = torch.tensor([sequence + [pad] * (T - len(sequence))])
            expected[row, position] = Ordinal().score(padded, torch.tensor([len(sequence)]))[0]
    assert torch.equal(one.action_values(tokens, lengths, KEYS[:3]), expected)
    for position in range(T):  # as `step` asks
        alone = one.action_values(tokens[1:], lengths[1:], KEYS[1:3], range(position, position + 1))
        assert torch.equal(alone, expected[1:, position : position + 1])


class NeverNone:
    """A policy and a score that raise an error without rows."""

    def initial_state(self, n: int) -> Tensor:
        assert n > 0
        return torch.zeros(n, 0)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        assert len(tokens) > 0
        return torch.zeros(len(tokens), V), state

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        assert len(tokens) > 0
        return Ordinal().score(tokens, lengths)


@variants
def test_without_sequences_neither_policy_nor_reward_model_is_called(options: dict[str, Any]) -> None:
    one = MonteCarloSearch(NeverNone(), NeverNone().score, 3, V, **options)
    tokens, lengths = torch.empty(0, T, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert one.action_values(tokens, lengths, KEYS[:0]).shape == (0, T)
    assert one.action_values(tokens, lengths, KEYS[:0], range(1, 3)).shape == (0, 2)
    completions = one.complete(tokens, lengths, KEYS[:0], range(2))
    assert (completions.tokens.shape, completions.lengths.shape) == ((2, 0, 3, T), (2, 0, 3))
    assert (completions.open.shape, completions.open.dtype) == ((2, 0), torch.bool)
    assert one.scores(completions).shape == (2, 0, 3)


@variants
def test_a_policy_is_never_called_without_rows(options: dict[str, Any]) -> None:
    tokens, lengths = whole_episodes(20, options)
    assert (lengths < T).any() == ("end_token" in options)
    one = MonteCarloSearch(NeverNone(), NeverNone().score, 1, V, **options)
    for row in range(20):
        for position in range(int(lengths[row])):
            one.action_values(tokens[row : row + 1], lengths[row : row + 1], KEYS[:1], range(position, position + 1))


# Expectations


def exact_action_values(tokens: Tensor, vocab_size: int) -> list[float]:
    """Q of each action of one sequence: the expectation over all completions, weighted by the policy."""
    policy = small_policy(5, vocab_size=vocab_size, std=2.0)
    everything = torch.cartesian_prod(*[torch.arange(vocab_size)] * tokens.shape[1])
    log_probs, rewards = policy.log_prob(everything), parity(everything, everything)
    values = []
    for length in range(1, tokens.shape[1] + 1):
        completes = (everything[:, :length] == tokens[:, :length]).all(dim=1)
        weights = log_probs[completes, length:].sum(dim=1).exp()
        values.append(float((weights * rewards[completes]).sum()))
    return values


def parity(tokens: Tensor, lengths: Tensor) -> Tensor:
    """A reward in {0, 1} that depends on every token."""
    return (tokens.sum(dim=1) % 2).float()


def test_values_are_expectations_over_completions() -> None:
    tokens, lengths = torch.tensor([[1, 0, 2, 1]]), torch.tensor([4])
    expected = exact_action_values(tokens, 3)

    def values(policy: TokenPolicy) -> list[float]:
        return MonteCarloSearch(policy, parity, 8_000, 3).action_values(tokens, lengths, KEYS[:1])[0].tolist()

    assert values(small_policy(5, vocab_size=3, std=2.0)) == pytest.approx(expected, abs=0.02)
    assert values(small_policy(6, vocab_size=3, std=2.0)) != pytest.approx(expected, abs=0.1)  # another policy, other values


def test_without_a_policy_completions_are_uniform() -> None:
    tokens, lengths = torch.tensor([[4, V, V, V, V]]), torch.tensor([1])
    one = search(5_000, UniformPolicy(V))
    completed = one.complete(tokens, lengths, KEYS[:1], range(1)).tokens[0, 0, :, 1:]
    shares = torch.nn.functional.one_hot(completed, V).double().mean(dim=0)  # (positions, tokens)
    assert (shares - 1 / V).abs().max() < 0.025


# Bad input


@pytest.mark.parametrize("name", ["policy", "score", "score_completions", "n_rollouts", "vocab_size", "end_token", "mask"])
def test_a_search_cannot_be_changed(name: str) -> None:
    one = search()
    with pytest.raises(AttributeError, match=f"cannot assign to field '{name}'"):
        setattr(one, name, None)


@pytest.mark.parametrize("n_rollouts", [0, -1])
def test_no_rollouts_are_refused(n_rollouts: int) -> None:
    with pytest.raises(ValueError, match=f"n_rollouts must be at least 1, got {n_rollouts}"):
        search(n_rollouts)


def test_a_mask_that_allows_nothing_is_refused_with_the_prefix() -> None:
    with pytest.raises(ValueError, match=r"allows no token after the prefix \[3\]"):
        search(mask=nothing_allowed).action_values(torch.tensor([[3, 1, 1, 1, 1]]), torch.tensor([5]), KEYS[:1])


@pytest.mark.usefixtures("global_generators_at_rest")
def test_the_global_generator_is_left_alone() -> None:
    tokens, lengths = whole_episodes(2, {})
    search().action_values(tokens, lengths, KEYS[:2])


def test_a_finished_sequences_reward_is_exact_even_if_it_ends_early() -> None:
    def exact(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones(len(tokens))

    def rough(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 0.5)

    tokens = torch.tensor([[0, 1, END, V, V], [0, 1, 0, 1, 0]])
    lengths = torch.tensor([3, 5])
    policy = small_policy(end_token=END)
    search = MonteCarloSearch(policy, exact, 3, V, end_token=END, score_completions=rough)
    values = search.action_values(tokens, lengths, torch.arange(2))
    assert values.tolist() == [[0.5, 0.5, 1, 0, 0], [0.5, 0.5, 0.5, 0.5, 1]]
