"""A mixture of generators against its definition."""

import pytest
import torch

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.mixture import TokenMixture
from tests.small import END, T, V, real_sequences, seeded, small_policy


def mixture(n: int = 3) -> TokenMixture:
    return TokenMixture([small_policy(seed) for seed in range(n)])


def by_hand(model: TokenMixture, tokens: torch.Tensor) -> torch.Tensor:
    """Probabilities `(n, length, vocab_size)`: the mean of the members' own."""
    parts = [torch.softmax(member.logits(tokens), dim=-1) for member in model.members]  # type: ignore[operator]
    return sum(parts) / len(parts)  # type: ignore[return-value]


def test_gives_the_mean_of_probabilities() -> None:
    model, tokens = mixture(), real_sequences()
    expected = by_hand(model, tokens)
    assert torch.allclose(model.logits(tokens).exp(), expected)
    chosen = expected.gather(2, tokens.unsqueeze(2)).squeeze(2).log()
    assert torch.allclose(model.log_prob(tokens), chosen)
    assert not torch.allclose(model.log_prob(tokens), small_policy(0).log_prob(tokens))  # one member alone is another
    assert torch.allclose(model.log_prob(tokens), torch.stack(model.log_probs(tokens)).exp().mean(dim=0).log())


def test_steps_equal_whole_sequences() -> None:
    model, tokens = mixture(), real_sequences()
    state, inputs, steps = model.initial_state(len(tokens)), torch.full((len(tokens),), V), []
    for position in range(T):
        logits, state = model.step(inputs, state)
        steps.append(logits)
        inputs = tokens[:, position]
    assert torch.allclose(torch.stack(steps, dim=1), model.logits(tokens))


def test_samples_follow_its_probabilities() -> None:
    model = mixture(2)
    first = model.sample(20_000, 1, seeded())[0][:, 0]
    shares = torch.bincount(first, minlength=V) / len(first)
    assert torch.allclose(shares.double(), by_hand(model, first[:1, None])[0, 0], atol=0.02)
    assert not torch.allclose(shares.double(), torch.full((V,), 1 / V).double(), atol=0.02)


def test_padding_counts_nothing() -> None:
    model = TokenMixture([small_policy(seed, end_token=END) for seed in range(2)])
    tokens = torch.tensor([[0, END, V, V, V], [1, 3, 4, 0, 5]])
    log_probs = model.log_prob(tokens)
    assert torch.equal(log_probs[0, 2:], torch.zeros(3).double())
    assert (log_probs[0, :2] < 0).all()
    assert (log_probs[1] < 0).all()


def test_members_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="share a vocabulary size and an end token"):
        TokenMixture([small_policy(), TokenLSTM(V + 1, 4, 4, generator=seeded())])
    with pytest.raises(ValueError, match="no members"):
        TokenMixture([])
