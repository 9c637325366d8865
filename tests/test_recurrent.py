"""The LSTM: likelihoods by hand, probabilities that sum to one, padding, and no hand on torch's global generator."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from seqgan_env.recurrent import TokenLSTM
from tests.small import V, seeded, small_policy


def log_prob_by_steps(model: TokenLSTM, sequence: list[int], *, start_step: bool = True) -> list[float]:
    """Log-probability of each token, one `step` at a time; without the start step, the first one has no prediction."""
    state = model.initial_state(1)
    result = []
    for last, token in zip([model.vocab_size, *sequence], sequence, strict=False):
        logits, state = model.step(torch.tensor([last]), state)
        result.append(torch.log_softmax(logits[0], dim=0)[token].item())
    return result if start_step else result[1:]


def test_log_prob_equals_the_sum_by_steps() -> None:
    model, sequence = small_policy(), [3, 0, 5, 5, 1]
    log_prob = model.log_prob(torch.tensor([sequence]))
    assert log_prob.shape == (1, 5)
    assert log_prob[0].tolist() == pytest.approx(log_prob_by_steps(model, sequence), abs=1e-12)
    assert log_prob.sum().item() != pytest.approx(sum(log_prob_by_steps(model, sequence, start_step=False)), abs=0.1)


def test_a_step_is_the_papers_equations() -> None:
    """Equations 9 and 10 with the gates of an LSTM written out; torch stacks them as input, forget, cell, output."""
    model = small_policy(3)
    token = torch.tensor([4])
    hidden, cell = torch.randn(2, 1, 4, generator=seeded(), dtype=torch.float64)
    x = model.embedding.weight[token]
    sums = x @ model.lstm.weight_ih_l0.T + hidden @ model.lstm.weight_hh_l0.T + model.lstm.bias_ih_l0
    i, f, g, o = sums.chunk(4, dim=1)
    new_cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    new_hidden = torch.sigmoid(o) * torch.tanh(new_cell)
    logits, state = model.step(token, (hidden, cell))
    torch.testing.assert_close(state, (new_hidden, new_cell))
    torch.testing.assert_close(logits, new_hidden @ model.output.weight.T + model.output.bias)


def all_sequences(vocab_size: int, length: int, end_token: int | None) -> Tensor:
    """Every sequence that can be written, padded."""
    rows = set()
    for sequence in itertools.product(range(vocab_size), repeat=length):
        cut = length if end_token not in sequence else sequence.index(end_token) + 1
        rows.add(sequence[:cut] + (vocab_size,) * (length - cut))
    return torch.tensor(sorted(rows))


@pytest.mark.parametrize("end_token", [None, 0, 2])
def test_the_probabilities_of_all_sequences_sum_to_one(end_token: int | None) -> None:
    model = small_policy(vocab_size=3, end_token=end_token)
    log_probs = model.log_prob(all_sequences(3, 4, end_token)).sum(dim=1)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_padding_counts_nothing_and_passes_no_gradient() -> None:
    model = small_policy().requires_grad_(True)
    short, padded = torch.tensor([[3, 0, 5]]), torch.tensor([[3, 0, 5, V, V]])
    log_prob = model.log_prob(padded)
    assert log_prob[0, 3:].tolist() == [0, 0]
    torch.testing.assert_close(log_prob[:, :3], model.log_prob(short))
    gradients = torch.autograd.grad(log_prob.sum(), list(model.parameters()))
    expected = torch.autograd.grad(model.log_prob(short).sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected)


def test_nll_is_the_mean_over_each_sequences_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_policy()
    sequences = [[3, 0, 5], [1, 1, 2, 4, 0], [5]]
    expected = [-sum(log_prob_by_steps(model, sequence)) / len(sequence) for sequence in sequences]
    padded = torch.tensor([sequence + [V] * (5 - len(sequence)) for sequence in sequences])
    monkeypatch.setattr("seqgan_env.recurrent.rows_per_chunk", lambda vocab_size: 10)  # two sequences at a time
    nll = model.nll(padded)
    assert nll.dtype == torch.float64
    assert nll.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_uniform_model_costs_the_log_of_its_vocabulary() -> None:
    model = TokenLSTM(V, generator=seeded(), initial_std=0)
    assert model.nll(torch.tensor([[0, 1, 2, 3]])).item() == pytest.approx(math.log(V), abs=1e-6)


def test_samples_have_the_likelihood_that_the_model_gives_them() -> None:
    """The mean NLL of a model's own samples is its entropy, here known from all sequences."""
    model = small_policy(vocab_size=3, end_token=1)
    sequences = all_sequences(3, 4, 1)
    log_probs = model.log_prob(sequences).sum(dim=1)
    entropy = -(log_probs.exp() * log_probs).sum().item()
    tokens, _ = model.sample(20_000, 4, seeded(5))
    assert -model.log_prob(tokens).sum(dim=1).mean().item() == pytest.approx(entropy, abs=0.03)


def test_parameters_are_drawn_from_the_seed_with_the_given_spread() -> None:
    model = TokenLSTM(500, 64, 64, initial_std=0.3, generator=seeded(1))
    again = TokenLSTM(500, 64, 64, initial_std=0.3, generator=seeded(1))
    other = TokenLSTM(500, 64, 64, initial_std=0.3, generator=seeded(2))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if name == "lstm.bias_hh_l0":  # torch's second bias
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.3, rel=0.2)
            assert not torch.equal(parameter, other.get_parameter(name))


@pytest.mark.usefixtures("global_generators_at_rest")
def test_construction_and_sampling_leave_the_global_generator_alone() -> None:
    model = TokenLSTM(V, generator=seeded())
    model.sample(4, 3, seeded())


def test_a_vocabulary_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 tokens to choose from, got vocab_size=1"):
        TokenLSTM(1)


def test_its_description_names_vocabulary_and_end_token() -> None:
    assert "vocab_size=6, end_token=2" in repr(small_policy(end_token=2))
