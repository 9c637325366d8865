"""The LSTM: likelihoods by hand, probabilities that sum to one, padding, and an untouched global generator."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.token_model import SeededDropout, TokenModel, training_mode
from tests.references import all_sequences, log_prob_by_steps
from tests.small import V, seeded, small_policy


@pytest.mark.parametrize("end_token", [None, 1])
def test_log_likelihood_is_the_sum_of_log_prob(end_token: int | None) -> None:
    model = TokenLSTM(3, 4, 4, initial_std=1.0, end_token=end_token, generator=seeded())
    tokens = torch.tensor([[0, 2, 1], [2, 1, 3 if end_token else 0]])  # 3 is padding
    values = [model.log_prob(tokens).sum(), model.log_likelihood(tokens)]
    gradients = [torch.autograd.grad(value, list(model.parameters())) for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_log_likelihood_uses_a_custom_log_prob() -> None:
    class Halved(TokenLSTM):
        def log_prob(self, tokens: Tensor) -> Tensor:
            return super().log_prob(tokens) / 2

    tokens = torch.tensor([[0, 2, 1]])
    halved, plain = (kind(3, 4, 4, generator=seeded()) for kind in (Halved, TokenLSTM))
    torch.testing.assert_close(halved.log_likelihood(tokens), plain.log_likelihood(tokens) / 2)


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
    monkeypatch.setattr("seqgan_env.models.token_model.sequences_per_chunk", lambda *_: 2)
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


def deep_lstm(seed: int = 0, **options: Any) -> TokenLSTM:
    """Two layers, tied, in float64."""
    arguments = {"n_layers": 2, "tied": True, "initial_std": 0.5} | options
    return TokenLSTM(V, 4, 4, generator=seeded(seed), **arguments).double()


class TestLayers:
    def test_one_layer_keeps_the_names_and_order_of_its_parameters(self) -> None:
        """Files of earlier runs and the oracle's depend on these names, and a seed's initial parameters on their order."""
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        expected = ["embedding.weight", *(f"lstm.{name}" for name in names), "output.weight", "output.bias"]
        model = TokenLSTM(V, 4, 4, generator=seeded())
        assert list(model.state_dict()) == expected
        source = seeded()
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=source) * 0.1
            assert torch.equal(parameter, torch.zeros_like(drawn) if name == "lstm.bias_hh_l0" else drawn)

    def test_layers_equal_torchs_lstm(self) -> None:
        model = TokenLSTM(V, 4, 3, n_layers=3, initial_std=0.5, generator=seeded()).double()
        reference = nn.LSTM(4, 3, num_layers=3, batch_first=True).double()
        for number, layer in enumerate(model.layers):
            for name, parameter in layer.named_parameters():
                reference.get_parameter(name.replace("l0", f"l{number}")).data.copy_(parameter)
        tokens = torch.tensor([[3, 0, 5, 5, 1], [1, 2, 2, 0, 4]])
        torch.testing.assert_close(model.hidden(tokens), reference(model.embedding(model.inputs(tokens)))[0])

    @pytest.mark.parametrize("options", [{"tied": False}, {"n_layers": 1}, {}], ids=["deep", "tied", "both"])
    def test_log_prob_equals_the_sum_by_steps(self, options: dict[str, Any]) -> None:
        model, sequence = deep_lstm(**options), [3, 0, 5, 5, 1]
        log_prob = model.log_prob(torch.tensor([sequence]))[0].tolist()
        assert log_prob == pytest.approx(log_prob_by_steps(model, sequence), abs=1e-12)
        swapped = copy.deepcopy(model)  # the control: layers in another order, or another bias, are seen
        swapped.layers[-1].get_parameter("bias_ih_l0").data += 1
        assert log_prob != pytest.approx(log_prob_by_steps(swapped, sequence), abs=1e-3)

    @pytest.mark.gpu
    @pytest.mark.parametrize("tied", [False, True])
    def test_a_step_on_a_gpu_equals_one_on_a_cpu(self, tied: bool) -> None:
        model, tokens = deep_lstm(tied=tied), torch.tensor([3, 0, 5])
        state = tuple(torch.randn(part.shape, dtype=part.dtype, generator=seeded()) for part in model.initial_state(3))
        expected = model.step(tokens, state)
        on_gpu = copy.deepcopy(model).cuda().step(tokens.cuda(), tuple(part.cuda() for part in state))
        torch.testing.assert_close(on_gpu, expected, check_device=False)
        assert not torch.equal(expected[1][0], expected[1][2])  # the layers' states differ

    def test_tied_weights_are_one_parameter(self) -> None:
        model = deep_lstm()
        assert "output.weight" not in model.state_dict()
        assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in deep_lstm(tied=False).parameters())
        hidden = torch.ones(1, 4, dtype=torch.float64)
        for one in (model, copy.deepcopy(model), copy.deepcopy(model).float().double()):
            with torch.no_grad():
                one.embedding.weight[3] += 1
            torch.testing.assert_close(one.output(hidden), hidden @ one.embedding.weight[:V].T + one.output.bias)
        assert not torch.equal(model.embedding.weight, deep_lstm().embedding.weight)

    def test_a_copy_ties_its_own_weights(self) -> None:
        model = deep_lstm()
        twin, hidden = copy.deepcopy(model), torch.ones(1, 4, dtype=torch.float64)
        before = twin.output(hidden)
        with torch.no_grad():
            model.embedding.weight += 1
        assert torch.equal(twin.output(hidden), before)

    def test_tied_weights_of_two_widths_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"embedding_dim must equal hidden_dim; got 4 and 8\. Make them equal, or pass"):
            TokenLSTM(V, 4, 8, tied=True)

    def test_no_layer_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 layer, got n_layers=0"):
            TokenLSTM(V, n_layers=0)

    def test_an_invalid_end_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match="end_token must be one of the 6 tokens, 0 to 5, got 6"):
            TokenLSTM(V, end_token=V)


class TestDropout:
    TOKENS = torch.tensor([[3, 0, 5, 5, 1]])

    def test_it_drops_its_share_and_keeps_the_mean(self) -> None:
        dropout = SeededDropout(0.3, seed=1)
        ones = torch.ones(200, 500)
        dropped = dropout(ones)
        assert sorted(set(dropped.flatten().tolist())) == [0, pytest.approx(1 / 0.7)]
        assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
        assert not torch.equal(dropout(ones), dropped)
        assert torch.equal(SeededDropout(0.3, seed=1)(ones), dropped)
        assert not torch.equal(SeededDropout(0.3, seed=2)(ones), dropped)
        assert torch.equal(dropout.eval()(ones), ones)

    def test_it_leaves_the_initial_parameters_unchanged(self) -> None:
        plain, dropping = deep_lstm(), deep_lstm(dropout=0.5)
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), dropping.parameters(), strict=True))
        torch.testing.assert_close(plain.log_prob(self.TOKENS), dropping.log_prob(self.TOKENS), rtol=0, atol=0)

    @pytest.mark.usefixtures("global_generators_at_rest")
    def test_it_acts_only_in_training_mode_and_follows_the_models_seed(self) -> None:
        model = deep_lstm(dropout=0.5)
        still = model.log_prob(self.TOKENS)
        with training_mode(model):
            first, second = model.log_prob(self.TOKENS), model.log_prob(self.TOKENS)
        again, other = deep_lstm(dropout=0.5), deep_lstm(1, dropout=0.5)
        with training_mode(again), training_mode(other):
            assert torch.equal(again.log_prob(self.TOKENS), first)
        assert not torch.equal(first, second)
        assert not torch.equal(first, still)
        assert torch.equal(model.log_prob(self.TOKENS), still)
        assert again.dropout.seed != other.dropout.seed

    def test_it_reaches_the_embedding_and_every_layer(self) -> None:
        """Three draws of features for two layers, in `hidden` and in a `step`."""
        model = deep_lstm(dropout=0.5)
        shapes: list[tuple[int, ...]] = []
        model.dropout.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
        model.hidden(self.TOKENS)
        model.step(torch.tensor([1]), model.initial_state(1))
        assert shapes == [(1, 5, 4)] * 3 + [(1, 4)] * 3

    def test_training_mode_can_leave_it_out_and_ends_after_an_error(self) -> None:
        model = deep_lstm(dropout=0.5)
        still = model.log_prob(self.TOKENS)
        with training_mode(model, dropout=False):
            assert model.lstm.training
            assert torch.equal(model.log_prob(self.TOKENS), still)
        with training_mode(model):
            assert model.dropout.training  # also after a time without
        with pytest.raises(KeyboardInterrupt), training_mode(model):
            raise KeyboardInterrupt
        assert not any(module.training for module in model.modules())

    @pytest.mark.parametrize("share", [-0.1, 1.0])
    def test_a_share_out_of_range_is_refused(self, share: float) -> None:
        with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got"):
            deep_lstm(dropout=share)


def test_a_generator_lacking_a_part_cannot_be_made() -> None:
    class Partial(TokenModel):
        def hidden(self, tokens: Tensor) -> Tensor:
            return tokens

    with pytest.raises(TypeError, match=r"initial_state.*step"):
        Partial(V)  # type: ignore[abstract]
