"""Drawing tokens: the fast path against its definition, forbidden tokens, and whole sequences."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import (
    LinearDraws,
    NextTokens,
    TokenPolicy,
    allowed_tokens,
    draw_tokens,
    forbid,
    rows_in_cache,
    rows_per_chunk,
    sample_sequences,
)
from seqgan_env.models.transformer import TokenTransformer
from seqgan_env.rewards.monte_carlo import UniformPolicy
from tests.references import draw_tokens_reference
from tests.small import T, V, no_repeats, nothing_allowed, real_sequences, rows_together, seeded, small_policy

VOCABULARIES = (2, 63, 64, 65, 128, 200, 5000)  # around the edges of blocks of 64
AROUND_BLOCKS = (2, 127, 128, 129, 5000)  # from two blocks on, tokens are drawn by blocks
CPU = torch.device("cpu")
LARGEST_UNIFORM = 1 - 2**-24


def logits_and_uniforms(vocab_size: int, dtype: torch.dtype, rows: int = 300, draws: int = 4) -> tuple[Tensor, Tensor]:
    generator = seeded(vocab_size)
    logits = 2 * torch.randn(rows, vocab_size, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.rand(rows, draws, generator=generator)


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_draws_equal_the_reference_in_float64(vocab_size: int) -> None:
    logits, uniforms = logits_and_uniforms(vocab_size, torch.float64)
    drawn = draw_tokens(logits, uniforms)
    assert drawn.dtype == torch.int64
    assert torch.equal(drawn, draw_tokens_reference(logits, uniforms))


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_draws_equal_the_reference_in_float32_but_for_rounding(vocab_size: int) -> None:
    logits, uniforms = logits_and_uniforms(vocab_size, torch.float32)
    differing = draw_tokens(logits, uniforms) != draw_tokens_reference(logits, uniforms)
    assert differing.double().mean() < 0.003


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("axis", [0, 1])
def test_draws_from_uniforms_of_a_neighbour_differ(vocab_size: int, axis: int) -> None:
    """The negative control of the comparisons above: an error of one place is seen."""
    logits, uniforms = logits_and_uniforms(vocab_size, torch.float64)
    shifted = draw_tokens(logits, uniforms.roll(1, axis))
    assert (shifted != draw_tokens_reference(logits, uniforms)).double().mean() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_forbidden_tokens_are_never_drawn(vocab_size: int, dtype: torch.dtype) -> None:
    logits, uniforms = logits_and_uniforms(vocab_size, dtype)
    allowed = torch.rand(logits.shape, generator=seeded(1)) < min(0.5, 20 / vocab_size)
    allowed[torch.arange(len(logits)), torch.randint(vocab_size, (len(logits),), generator=seeded(2))] = True
    uniforms[:, 0] = 0.0
    uniforms[:, 1] = LARGEST_UNIFORM
    drawn = draw_tokens(forbid(logits, allowed), uniforms)
    assert allowed.gather(1, drawn).all()


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("only", ["first", "last"])
def test_a_single_allowed_token_is_drawn_for_every_uniform(vocab_size: int, only: str) -> None:
    token = 0 if only == "first" else vocab_size - 1
    allowed = torch.arange(vocab_size).unsqueeze(0) == token
    uniforms = torch.tensor([[0.0, 1e-30, 0.5, LARGEST_UNIFORM]])
    assert (draw_tokens(forbid(torch.zeros(1, vocab_size), allowed), uniforms) == token).all()


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_the_extreme_uniforms_draw_the_first_and_the_last_token(vocab_size: int) -> None:
    drawn = draw_tokens(torch.zeros(1, vocab_size), torch.tensor([[0.0, LARGEST_UNIFORM]]))
    assert drawn.tolist() == [[0, vocab_size - 1]]


@pytest.mark.parametrize("vocab_size", [5, 70])
def test_tokens_come_up_as_often_as_they_are_probable(vocab_size: int) -> None:
    logits = torch.randn(1, vocab_size, generator=seeded(3))
    n = 100_000
    drawn = draw_tokens(logits, torch.rand(1, n, generator=seeded(4))).flatten()
    counts = torch.bincount(drawn, minlength=vocab_size)
    expected = n * torch.softmax(logits[0].double(), dim=0)
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = vocab_size - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("draws", [0, 1, 4])
@pytest.mark.parametrize("vocab_size", AROUND_BLOCKS)
def test_no_tokens_are_drawn_without_rows(vocab_size: int, draws: int) -> None:
    """In every way to draw, for vocabularies of one block and of more."""
    uniforms, features = torch.rand(0, draws), torch.rand(0, 3)
    layer = nn.Linear(3, vocab_size)
    drawn = [
        draw_tokens(torch.zeros(0, vocab_size), uniforms),
        draw_tokens_reference(torch.zeros(0, vocab_size), uniforms),
        LinearDraws(layer.weight, layer.bias)(features, uniforms),
    ]
    for policy in (small_policy(vocab_size=vocab_size), UniformPolicy(vocab_size)):
        tokens = torch.empty(0, dtype=torch.int64)
        drawn.append(NextTokens(policy, CPU, vocab_size)(tokens, policy.initial_state(0), uniforms)[0])
    assert all(tokens.shape == (0, draws) and tokens.dtype == torch.int64 for tokens in drawn)


@pytest.mark.parametrize("vocab_size", AROUND_BLOCKS)
@pytest.mark.parametrize("n", [0, 1])
def test_linear_draws_work_after_a_call_without_rows(vocab_size: int, n: int) -> None:
    layer, features, uniforms = linear(vocab_size)
    draws = LinearDraws(layer.weight, layer.bias)
    draws(features[:n], uniforms[:n])
    draws(features[:0], uniforms[:0])
    assert torch.equal(draws(features, uniforms), draw_tokens_reference(layer(features), uniforms))


def test_forbid_without_a_mask_changes_nothing() -> None:
    logits = torch.randn(2, 3, generator=seeded())
    assert forbid(logits, None) is logits


# From features


def linear(vocab_size: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    """A layer, features of 300 rows, and four uniforms a row."""
    generator = seeded(vocab_size)
    layer = nn.Linear(3, vocab_size, dtype=dtype).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return layer, torch.randn(300, 3, generator=generator).to(dtype), torch.rand(300, 4, generator=generator)


@pytest.mark.parametrize("tile", [7, 1000])
@pytest.mark.parametrize("scale", [1.0, 500.0])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_draws_from_features_equal_the_reference(
    vocab_size: int, scale: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a scale of 500 exponentials would be infinite or all zero without a shift."""
    monkeypatch.setattr("seqgan_env.models.sampling.rows_in_cache", lambda columns: tile)
    layer, features, uniforms = linear(vocab_size, scale)
    drawn = LinearDraws(layer.weight, layer.bias)(features, uniforms)
    assert torch.equal(drawn, draw_tokens_reference(layer(features), uniforms))
    shifted = draw_tokens_reference(layer(features.roll(1, 0)), uniforms)
    assert (drawn != shifted).double().mean() > 0.1  # a control: a neighbour's features


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_draws_from_features_in_float32_are_those_of_the_logits_but_for_rounding(scale: float) -> None:
    layer, features, uniforms = linear(5000, scale, torch.float32)
    differing = LinearDraws(layer.weight, layer.bias)(features, uniforms) != draw_tokens_reference(layer(features), uniforms)
    assert differing.double().mean() < 0.005


def test_logits_whose_exponentials_are_infinite_are_drawn_from_for_every_uniform() -> None:
    layer, features, uniforms = linear(200, 500.0, torch.float32)
    uniforms[:, 0] = 0.0
    uniforms[:, 1] = LARGEST_UNIFORM
    assert layer(features).exp().sum(dim=1).isinf().any()
    differing = LinearDraws(layer.weight, layer.bias)(features, uniforms) != draw_tokens(layer(features), uniforms)
    assert differing.double().mean() < 0.01


def test_one_object_draws_batches_of_any_size() -> None:
    layer, features, uniforms = linear(200)
    draws = LinearDraws(layer.weight, layer.bias)
    for n in (10, 300, 1, 10):
        assert torch.equal(draws(features[:n], uniforms[:n]), draw_tokens(layer(features[:n]), uniforms[:n]))


class Plain:
    """A policy with only the two methods, so that all its logits are computed."""

    initial_state = staticmethod(small_policy(1).initial_state)
    step = staticmethod(small_policy(1).step)


@pytest.mark.parametrize("inverse_temperature", [0.5, 1.0, 3.0])
def test_a_policy_with_two_methods_draws_the_same_as_one_with_features(inverse_temperature: float) -> None:
    tokens, uniforms = torch.arange(V), torch.rand(V, 30, generator=seeded())
    cpu = torch.device("cpu")
    drawn = []
    for policy in (small_policy(1), Plain()):
        state = policy.initial_state(V)
        draw = NextTokens(policy, cpu, V, inverse_temperature=inverse_temperature)
        tokens_drawn, state = draw(tokens, state, uniforms)
        drawn.append((tokens_drawn, state[0]))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    colder = NextTokens(small_policy(1), cpu, V, inverse_temperature=inverse_temperature + 0.5)
    assert not torch.equal(colder(tokens, small_policy(1).initial_state(V), uniforms)[0], drawn[0][0])


# Masks


def test_allowed_tokens_calls_the_mask_for_each_prefix() -> None:
    allowed = allowed_tokens(no_repeats, torch.tensor([[0, 1], [4, 4]]), V)
    assert allowed.tolist() == [[False, False, True, True, True, True], [True, True, True, True, False, True]]


@pytest.mark.parametrize(
    ("returned", "got"),
    [(np.ones(V - 1, dtype=np.bool_), r"bool of shape \(5,\)"), (np.ones(V), r"float64 of shape \(6,\)"), (True, r"\(\)")],
)
def test_a_mask_with_an_invalid_result_is_refused(returned: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"must return bool of shape \(6,\), got .*{got}.*prefix \[3\]"):
        allowed_tokens(lambda prefix: returned, torch.tensor([[3]]), V)  # type: ignore[arg-type, return-value]


def test_a_mask_that_allows_nothing_is_refused_with_the_prefix() -> None:
    with pytest.raises(ValueError, match=r"allows no token after the prefix \[3, 1\]"):
        allowed_tokens(nothing_allowed, torch.tensor([[3, 1]]), V)


# Whole sequences

POLICY = small_policy(1)


def sample(
    seed: int = 0, *, n: int = 200, length: int = 7, end_token: int | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    return sample_sequences(POLICY, n, length, V, seeded(seed), end_token=end_token, **options)


def test_the_same_seed_samples_the_same_sequences() -> None:
    tokens, _ = sample(seed=3)
    assert torch.equal(tokens, sample(seed=3)[0])
    assert not torch.equal(tokens, sample(seed=4)[0])


def test_sequences_without_an_end_token_are_full() -> None:
    tokens, lengths = sample()
    assert tokens.shape == (200, 7)
    assert tokens.dtype == lengths.dtype == torch.int64
    assert ((tokens >= 0) & (tokens < V)).all()
    assert (lengths == 7).all()


def test_a_sequence_ends_with_its_first_end_token_and_is_padded_from_there() -> None:
    tokens, lengths = sample(end_token=2)
    for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        assert 2 not in row[: length - 1]
        assert length == 7 or row[length - 1] == 2
        assert row[length:] == [V] * (7 - length)
    assert 1 < lengths.double().mean() < 7  # both kinds came up


def test_an_end_token_cuts_sequences_and_changes_nothing_before() -> None:
    (cut, lengths), (full, _) = sample(end_token=2), sample()
    inside = torch.arange(7) < lengths.unsqueeze(1)
    assert torch.equal(cut[inside], full[inside])


@pytest.mark.parametrize("vocab_size", AROUND_BLOCKS)
@pytest.mark.parametrize("options", [{}, {"end_token": 1}, {"prefix": [0]}, {"rows": slice(0, 0), "n": 3}])
def test_no_sequences_can_be_sampled(vocab_size: int, options: dict[str, Any]) -> None:
    asked = {"n": 0} | options
    tokens, lengths = sample_sequences(
        small_policy(vocab_size=vocab_size), length=7, vocab_size=vocab_size, generator=seeded(), **asked
    )
    assert (tokens.shape, lengths.shape) == ((0, 7), (0,))


@pytest.mark.parametrize("vocab_size", AROUND_BLOCKS)
def test_all_sequences_may_end_with_their_first_token(vocab_size: int) -> None:
    policy = small_policy(vocab_size=vocab_size, end_token=1)
    policy.output.bias[1] += 1e3
    tokens, lengths = policy.sample(5, 7, seeded())
    assert tokens.tolist() == [[1] + [vocab_size] * 6] * 5
    assert lengths.tolist() == [1] * 5


@pytest.mark.parametrize("end_token", [None, 2])
@pytest.mark.parametrize("chunk", [1, 64, 200, 1000])
def test_chunks_do_not_change_what_is_sampled(chunk: int, end_token: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(end_token=end_token)
    rows_together(monkeypatch, chunk)
    for chunked, expected in zip(sample(end_token=end_token), whole, strict=True):
        assert torch.equal(chunked, expected)


def test_inverse_temperature_sharpens_and_flattens() -> None:
    means = [POLICY.nll(sample(inverse_temperature=alpha)[0]).mean() for alpha in (0.5, 1.0, 2.0, 50.0)]
    assert means == sorted(means, reverse=True)
    greedy = torch.full((1, 7), V)
    for position in range(7):
        greedy[:, position] = POLICY.logits(greedy)[:, position].argmax(dim=1)
    assert torch.equal(sample(inverse_temperature=1e6)[0], greedy.expand(200, 7))


def test_first_tokens_follow_the_policy_from_the_start_token() -> None:
    first = sample(n=20_000)[0][:, 0]
    logits, _ = POLICY.step(torch.tensor([V]), POLICY.initial_state(1))
    shares = torch.bincount(first, minlength=V) / len(first)
    assert (shares - torch.softmax(logits[0], dim=0)).abs().max() < 0.015


def test_rows_per_chunk_is_at_least_one() -> None:
    assert rows_per_chunk(10**9, CPU) == rows_in_cache(10**9) == 1
    assert rows_per_chunk(5000, CPU) == (1 << 22) // 5000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inverse_temperature": -1.0}, "inverse_temperature must be at least 1e-30, got -1.0"),
        ({"inverse_temperature": 1e39}, r"inverse_temperature must be at most 1e\+30, got 1e\+39"),
        ({"inverse_temperature": float("nan")}, r"inverse_temperature must be at least 1e-30 and at most 1e\+30, got nan"),
        ({"n": -1}, "n must be at least 0 and length at least 1, got -1 and 7"),
        ({"length": 0}, "n must be at least 0 and length at least 1, got .* and 0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**changes)


@pytest.mark.parametrize("inverse_temperature", [1e-30, 1e30])
def test_the_extreme_temperatures_draw_tokens(inverse_temperature: float) -> None:
    policy = small_policy().float()
    tokens, lengths = sample_sequences(policy, 50, 7, V, seeded(), end_token=2, inverse_temperature=inverse_temperature)
    assert torch.equal((tokens < V).sum(dim=1), lengths)


def test_a_gpu_gets_more_rows_at_once() -> None:
    assert rows_per_chunk(5000, torch.device("cuda")) == (1 << 26) // 5000


def test_a_token_policy_is_recognised_by_its_methods() -> None:
    assert isinstance(POLICY, TokenPolicy)
    assert not isinstance(object(), TokenPolicy)


# Policies whose logits are a linear layer's


def draws_from_features(model: Any, **options: Any) -> bool:
    return NextTokens(model, CPU, model.vocab_size, **options).linear is not None


class Backwards(TokenLSTM):
    """Another policy, because of its `step`."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(tokens, state)
        return -logits, state


@pytest.mark.parametrize("tied", [False, True])
def test_our_generators_draw_from_features(tied: bool) -> None:
    models = [
        TokenLSTM(V, 4, 4, tied=tied, generator=seeded()),
        TokenTransformer(V, 4, 8, max_length=T, n_heads=2, tied=tied, generator=seeded()),
    ]
    for model in models:
        assert draws_from_features(model)
        assert not draws_from_features(model, masked=True)
        assert draws_from_features(model, inverse_temperature=2.0)


def test_sampling_uses_a_custom_step() -> None:
    model = Backwards(V, 4, 4, initial_std=1.0, generator=seeded())
    assert not draws_from_features(model)
    plain = TokenLSTM(V, 4, 4, initial_std=1.0, generator=seeded())
    assert not torch.equal(model.sample(50, T, seeded())[0], plain.sample(50, T, seeded())[0])


def test_sampling_uses_a_step_of_a_second_base_class() -> None:
    class Plain:
        def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            return torch.zeros(len(tokens), V), state

    class Uniform(Plain, TokenLSTM):
        """Does not define `advance`."""

    assert not draws_from_features(Uniform(V, 4, 4, generator=seeded()))


class Doubled(nn.Linear):
    """More than a linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "output", [nn.Linear(4, V, bias=False), Doubled(4, V), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, V))]
)
def test_sampling_uses_another_output_layer(output: nn.Module) -> None:
    model = TokenLSTM(V, 4, 4, generator=seeded())
    assert model.linear_output() is not None
    model.output = output  # type: ignore[assignment]
    assert model.linear_output() is None
    assert not draws_from_features(model)
    tokens = real_sequences(5, 0)
    expected = torch.log_softmax(model.logits(tokens), dim=-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(model.log_prob(tokens), expected)
    assert model.sample(5, T, seeded())[0].shape == (5, T)


# Prefixes and masks


def sample_plainly(prefix: list[int], uniforms: Tensor, allowed: bool) -> list[int]:
    """One sequence, token by token from the definition, each time from the whole sequence so far."""
    row = list(prefix)
    for uniform in uniforms:
        so_far = torch.tensor([[*row, V]])
        logits = POLICY.logits(so_far)[:, -1]
        if allowed:
            logits = forbid(logits, torch.from_numpy(no_repeats(np.array(row, dtype=np.int64))).unsqueeze(0))
        row.append(int(draw_tokens_reference(logits, uniform.view(1, 1))))
    return row


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("prefix", [[], [4], [0, 3, 1]])
def test_prefix_and_mask_follow_the_definition(prefix: list[int], masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_together(monkeypatch, 7)
    tokens, lengths = sample_sequences(POLICY, 40, 6, V, seeded(5), prefix=prefix, mask=no_repeats if masked else None)
    uniforms = torch.rand((40, 6 - len(prefix)), generator=seeded(5))
    assert tokens.tolist() == [sample_plainly(prefix, row, masked) for row in uniforms]
    assert (lengths == 6).all()
    other = [*prefix[:-1], 5]
    assert not prefix or tokens.tolist() != [sample_plainly(other, row, masked) for row in uniforms]


def test_a_sequence_may_end_after_its_prefix() -> None:
    tokens, lengths = sample_sequences(POLICY, 300, 7, V, seeded(), end_token=2, prefix=[1, 1])
    assert tokens[:, :2].tolist() == [[1, 1]] * 300
    assert lengths.min() == 3
    assert ((tokens < V).sum(dim=1) == lengths).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": [1] * 7}, "A prefix of 7 tokens leaves no room in sequences of at most 7 tokens"),
        ({"prefix": [1, V]}, r"The prefix \[1, 6\] has ids outside the vocabulary's 0 \.\.\. 5"),
        ({"prefix": [-1]}, r"The prefix \[-1\] has ids outside"),
        ({"prefix": [1, 2], "end_token": 2}, r"The prefix \[1, 2\] has the end token 2"),
        ({"prefix": [1, 3, 1], "mask": no_repeats}, r"The mask forbids the prefix \[1, 3, 1\]: 1 may not follow \[1, 3\]"),
        ({"mask": nothing_allowed}, r"allows no token after the prefix \[\]"),
    ],
)
def test_prefixes_that_cannot_be_continued_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**options)  # type: ignore[arg-type]
