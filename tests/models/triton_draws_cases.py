"""What `test_triton_draws` runs in a process of its own: Triton's interpreter has to be chosen before Triton is imported.

There, TRITON_INTERPRET=1 makes NumPy run the kernels on a CPU. Without it they run on a GPU, compiled.
"""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqgan_env.models import sampling
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.triton_draws import TritonDraws
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from tests.references import draw_tokens_reference, outside_of_shares
from tests.small import seeded

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
LARGEST_UNIFORM = 1 - 2**-24
SHAPES = [
    # vocabulary, width, rows, draws
    (2, 3, 12, 1),
    (63, 20, 70, 1),  # less than a block; more rows than in a program; a width that is padded
    (64, 32, 9, 1),  # a block
    (65, 48, 5, 3),  # a second block of one token; features in two chunks
    (1100, 16, 3, 2),  # 18 blocks, of which each of three programs sums 6
    (200, 600, 4, 1),
    (300, 5, 1, 20),  # many draws from one row, as completions take
]
every_shape = pytest.mark.parametrize(("vocab_size", "width", "n", "k"), SHAPES)


def case(vocab_size: int, width: int, n: int, k: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias, features and uniforms."""
    generator = seeded(vocab_size)
    shapes = ((vocab_size, width), (vocab_size,), (n, width))
    weight, bias, features = (torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes)
    return scale * 2 / width**0.5 * weight, bias, features, torch.rand(n, k, generator=generator).to(DEVICE)


def outside(drawn: Tensor, weight: Tensor, bias: Tensor, features: Tensor, uniforms: Tensor) -> Tensor:
    logits = features.double() @ weight.double().T + bias.double()
    return outside_of_shares(drawn, logits, uniforms)


@every_shape
def test_every_uniform_number_lies_in_the_share_of_its_token(vocab_size: int, width: int, n: int, k: int) -> None:
    inverse_temperature = 1.0 if vocab_size % 2 else 0.3
    weight, bias, features, uniforms = case(vocab_size, width, n, k)
    drawn = TritonDraws(weight, bias, inverse_temperature)(features, uniforms)
    assert (drawn.shape, drawn.dtype) == ((n, k), torch.int64)
    colder = (inverse_temperature * weight, inverse_temperature * bias)
    assert outside(drawn, *colder, features, uniforms).max() < 1e-6
    logits = torch.nn.functional.linear(features, *colder)
    assert (drawn != draw_tokens_reference(logits, uniforms)).sum() <= 1  # at an edge, it may be the next token
    assert outside(drawn, *colder, features, (uniforms + 0.5) % 1).max() > 0.01  # the control: other numbers are seen


@every_shape
def test_tokens_without_a_probability_are_never_drawn(vocab_size: int, width: int, n: int, k: int) -> None:
    weight, bias, features, uniforms = case(vocab_size, width, n, k)
    bias[torch.rand(vocab_size, generator=seeded(1)).to(DEVICE) < 0.7] = -torch.inf
    bias[:64] = -torch.inf  # a whole block
    bias[vocab_size // 2] = 0.0
    uniforms[0] = 0.0
    uniforms[-1] = LARGEST_UNIFORM
    assert bias[TritonDraws(weight, bias)(features, uniforms)].isfinite().all()


@pytest.mark.parametrize("vocab_size", [2, 64, 65, 200])
@pytest.mark.parametrize("last", [False, True])
def test_the_only_token_is_drawn_for_every_uniform_number(vocab_size: int, last: bool) -> None:
    bias = torch.full((vocab_size,), -torch.inf, device=DEVICE)
    token = vocab_size - 1 if last else 0
    bias[token] = 0.0
    uniforms = torch.tensor([[0.0, 1e-30, 0.5, LARGEST_UNIFORM]], device=DEVICE)
    weight, features = torch.zeros(vocab_size, 3, device=DEVICE), torch.zeros(1, 3, device=DEVICE)
    assert (TritonDraws(weight, bias)(features, uniforms) == token).all()
    both = TritonDraws(weight, torch.zeros_like(bias))(features, uniforms)
    assert both.tolist()[0][::3] == [0, vocab_size - 1]


def test_logits_whose_exponentials_are_infinite_or_all_zero_are_drawn_from() -> None:
    weight, bias, features, uniforms = case(200, 8, 8, 2, scale=300.0)
    logits = features @ weight.T + bias
    assert logits.exp().sum(dim=1).isinf().any()
    drawn = TritonDraws(weight, bias)(features, uniforms)
    assert outside(drawn, weight, bias, features, uniforms).max() < 1e-3  # float32 rounds logits of 1,000 to 6e-5
    far_below = TritonDraws(weight, bias - 1e4)(features, uniforms)
    assert outside(far_below, weight, bias, features, uniforms).max() < 1e-2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # by NumPy, in the interpreter
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_leads_to_no_token_that_does_not_exist(bad: float) -> None:
    weight, bias, features, uniforms = case(200, 8, 5, 2)
    expected = TritonDraws(weight, bias)(features, uniforms)
    features[2] = bad
    drawn = TritonDraws(weight, bias)(features, uniforms)
    others = torch.arange(5) != 2
    assert torch.equal(drawn[others], expected[others])
    bias[70] = bad
    everywhere = TritonDraws(weight, bias)(features, uniforms)
    for tokens in (drawn, everywhere):
        assert ((tokens >= 0) & (tokens < 200)).all()


@pytest.mark.parametrize(("n", "k"), [(0, 1), (0, 3), (3, 0)])
def test_no_rows_draw_no_tokens(n: int, k: int) -> None:
    weight, bias, features, uniforms = case(65, 4, n, k)
    drawn = TritonDraws(weight, bias)(features, uniforms)
    assert (drawn.shape, drawn.dtype) == ((n, k), torch.int64)


def test_views_draw_what_copies_draw() -> None:
    """A column of a table of uniform numbers, a part of the features, and tied weights, which are all rows but the last."""
    weight, bias, features, uniforms = case(66, 8, 9, 6)
    expected = TritonDraws(weight[:-1].clone(), bias[:-1].clone())(features[:, :4].clone().repeat(1, 2), uniforms[:, 2:3])
    views = TritonDraws(weight[:-1], bias[:-1])
    assert torch.equal(views(features.T[:4].T.repeat(1, 2), uniforms[:, 2].unsqueeze(1)), expected)
    transposed = uniforms.T.contiguous().T
    assert torch.equal(views(features, transposed), views(features, uniforms))


@settings(max_examples=6)
@given(
    vocab_size=st.integers(2, 140),
    width=st.integers(1, 40),
    n=st.integers(1, 5),
    k=st.integers(1, 3),
    scale=st.floats(0.0, 3.0),
    inverse_temperature=st.floats(0.1, 3.0),
)
def test_any_layer(vocab_size: int, width: int, n: int, k: int, scale: float, inverse_temperature: float) -> None:
    weight, bias, features, uniforms = case(vocab_size, width, n, k, scale)
    drawn = TritonDraws(weight, bias, inverse_temperature)(features, uniforms)
    assert outside(drawn, inverse_temperature * weight, inverse_temperature * bias, features, uniforms).max() < 1e-5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("end_token", [None, 1])
def test_sequences_and_completions_are_those_drawn_from_logits(
    tied: bool, end_token: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = TokenLSTM(7, 4, 4, tied=tied, end_token=end_token, initial_std=1.0, generator=seeded(), device=DEVICE)
    tokens = policy.requires_grad_(False).sample(3, 4, torch.Generator(DEVICE).manual_seed(1))[0]
    lengths = (tokens < 7).sum(dim=1)
    search = MonteCarloSearch(policy, lambda *_: None, 2, 7, end_token=end_token)  # type: ignore[arg-type, return-value]
    made: list[Any] = []

    def draws(policy: TokenLSTM, inverse_temperature: float) -> TritonDraws:
        layer = policy.linear_output()
        assert layer is not None
        made.append(layer)
        return TritonDraws(*layer, inverse_temperature)

    def written() -> list[Tensor]:
        sampled = policy.sample(5, 4, torch.Generator(DEVICE).manual_seed(2), inverse_temperature=1.5)
        return [*sampled, search.complete(tokens, lengths, torch.arange(3, device=DEVICE), range(3)).tokens]

    monkeypatch.setattr(sampling, "linear_draws", lambda *_: None)
    plain = written()
    monkeypatch.setattr(sampling, "linear_draws", draws)
    assert all(torch.equal(a, b) for a, b in zip(written(), plain, strict=True))
    assert len(made) == 2
