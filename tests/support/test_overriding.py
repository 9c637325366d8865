"""Fast forms are taken where they belong to the plain ones, and nowhere else."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import LinearDraws, NextTokens
from seqgan_env.models.transformer import TokenTransformer
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from seqgan_env.support.overriding import still_agree
from tests.small import END, T, V, real_sequences, seeded

CPU = torch.device("cpu")


class Base:
    def plain(self) -> None: ...

    def fast(self) -> None: ...


class OtherPlain(Base):
    def plain(self) -> None: ...


class OtherBoth(OtherPlain):
    def plain(self) -> None: ...

    def fast(self) -> None: ...


@pytest.mark.parametrize(("kind", "agree"), [(Base, True), (OtherPlain, False), (OtherBoth, True), (object, False)])
def test_a_plain_form_that_was_redefined_alone_has_no_fast_one(kind: type, agree: bool) -> None:
    assert still_agree(kind(), "fast", "plain") is agree


def draws_from_features(model: Any, **options: Any) -> bool:
    return isinstance(NextTokens(model, CPU, model.vocab_size, **options).linear, LinearDraws)


class Backwards(TokenLSTM):
    """Another policy by its `step` alone."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(tokens, state)
        return -logits, state


@pytest.mark.parametrize("tied", [False, True])
def test_our_generators_are_drawn_from_by_their_features(tied: bool) -> None:
    models = [
        TokenLSTM(V, 4, 4, tied=tied, generator=seeded()),
        TokenTransformer(V, 4, 8, max_length=T, n_heads=2, tied=tied, generator=seeded()),
    ]
    for model in models:
        assert draws_from_features(model)
        assert not draws_from_features(model, masked=True)
        assert draws_from_features(model, inverse_temperature=2.0)


def test_a_step_of_ones_own_is_what_samples() -> None:
    model = Backwards(V, 4, 4, initial_std=1.0, generator=seeded())
    assert not draws_from_features(model)
    plain = TokenLSTM(V, 4, 4, initial_std=1.0, generator=seeded())
    assert not torch.equal(model.sample(50, T, seeded())[0], plain.sample(50, T, seeded())[0])


class Doubled(nn.Linear):
    """A linear layer and something more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "output", [nn.Linear(4, V, bias=False), Doubled(4, V), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, V))]
)
def test_another_output_layer_counts_as_it_is(output: nn.Module) -> None:
    model = TokenLSTM(V, 4, 4, generator=seeded())
    assert model.linear_output() is not None
    model.output = output  # type: ignore[assignment]
    assert model.linear_output() is None
    assert not draws_from_features(model)
    tokens = real_sequences(5, 0)
    expected = torch.log_softmax(model.logits(tokens), dim=-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(model.log_prob(tokens), expected)
    assert model.sample(5, T, seeded())[0].shape == (5, T)


def test_a_finished_sequences_own_reward_is_scored_exactly_also_if_it_ends_early() -> None:
    def exact(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones(len(tokens))

    def rough(tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 0.5)

    tokens = torch.tensor([[0, 1, END, V, V], [0, 1, 0, 1, 0]])
    lengths = torch.tensor([3, 5])
    policy = TokenLSTM(V, 4, 4, end_token=END, generator=seeded())
    search = MonteCarloSearch(policy, exact, 3, V, end_token=END, score_completions=rough)
    values = search.action_values(tokens, lengths, torch.arange(2))
    assert values.tolist() == [[0.5, 0.5, 1, 0, 0], [0.5, 0.5, 0.5, 0.5, 1]]
