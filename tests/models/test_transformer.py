"""The Transformer: cached steps against whole sequences and against the equations, causality, Monte Carlo, samples."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.models.likelihood import PretrainConfig, log_prob_with_own_tokens, pretrain
from seqgan_env.models.oracle import seeded_oracle
from seqgan_env.models.token_model import training_mode
from seqgan_env.models.transformer import TokenTransformer, TransformerBlock
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from tests.references import KEYS, action_values_by_loops, all_sequences, log_prob_by_steps, variants, whole_episodes
from tests.small import Ordinal, T, V, seeded, small_transformer


def some_tokens(n: int = 7, length: int = T) -> Tensor:
    return torch.randint(V, (n, length), generator=seeded(3))


def logits_by_steps(model: TokenTransformer, tokens: Tensor) -> Tensor:
    state = model.initial_state(len(tokens))
    result = []
    for token in model.inputs(tokens).T:
        logits, state = model.step(token, state)
        result.append(logits)
    return torch.stack(result, dim=1)


def logits_by_the_equations(model: TokenTransformer, tokens: list[int]) -> list[float]:
    """Of the token after these: Vaswani et al. (2017), eq. 1, one query and head at a time, with norms in front."""
    width, heads = model.embedding.embedding_dim, model.n_heads
    size = width // heads
    features = [model.embedding.weight[t] + model.positions.weight[p] for p, t in enumerate([V, *tokens])]
    for block in model.blocks:
        assert isinstance(block, TransformerBlock)
        projected = [block.query_key_value(block.attention_norm(x)) for x in features]
        after = []
        for position, x in enumerate(features):
            found = []
            for head in range(heads):
                at = slice(head * size, (head + 1) * size)
                query = projected[position][:width][at]
                keys = torch.stack([p[width : 2 * width][at] for p in projected[: position + 1]])
                values = torch.stack([p[2 * width :][at] for p in projected[: position + 1]])
                found.append(torch.softmax(keys @ query / math.sqrt(size), dim=0) @ values)
            x = x + block.projection(torch.cat(found))
            inner = block.widen(block.feed_norm(x))
            after.append(x + block.narrow(0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))))  # GELU
        features = after
    logits: list[float] = model.output(model.norm(features[-1])).tolist()
    return logits


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one layer": {"n_layers": 1},
    "one head": {"n_heads": 1},
    "tied": {"tied": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cached_steps_equal_whole_sequences_and_the_equations(options: dict[str, Any]) -> None:
    model, tokens = small_transformer(**options), some_tokens()
    every = model.logits(tokens)
    torch.testing.assert_close(logits_by_steps(model, tokens), every, rtol=0, atol=1e-12)
    assert every[2, 3].tolist() == pytest.approx(logits_by_the_equations(model, tokens[2, :3].tolist()), abs=1e-12)


def test_a_step_that_reads_empty_slots_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above: a mask that allows positions without a token."""
    model, tokens = small_transformer(), some_tokens()
    right = TransformerBlock.step
    monkeypatch.setattr(TransformerBlock, "step", lambda self, x, cache, here, seen: right(self, x, cache, here, seen | True))
    difference = (logits_by_steps(model, tokens) - model.logits(tokens)).abs().amax(dim=(0, 2))
    assert (difference[:-1] > 1e-3).all()  # with the last token, every slot but that of a token beyond is taken


def test_no_token_is_predicted_from_itself_or_later_ones() -> None:
    model, tokens = small_transformer(), some_tokens()
    before = model.logits(tokens)
    for position in range(T):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % V
        after = model.logits(changed)
        assert torch.equal(after[:, : position + 1], before[:, : position + 1])
        assert not torch.isclose(after[:, position + 1 :], before[:, position + 1 :]).all(dim=2).any()


def test_rows_may_be_at_different_positions() -> None:
    model, tokens = small_transformer(), some_tokens(3)
    read = (4, 1, 2)
    states = []
    for row, length in enumerate(read):
        state = model.initial_state(1)
        for token in model.inputs(tokens)[row, :length]:
            _, state = model.step(token.unsqueeze(0), state)
        states.append(state)
    together = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    logits, _ = model.step(torch.stack([model.inputs(tokens)[row, length] for row, length in enumerate(read)]), together)
    expected = torch.stack([model.logits(tokens)[row, length] for row, length in enumerate(read)])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_a_step_does_not_change_its_input_state() -> None:
    model = small_transformer()
    _, state = model.step(torch.tensor([1, 2]), model.initial_state(2))
    before = [part.clone() for part in state]
    model.step(torch.tensor([3, 4]), state)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


@pytest.mark.parametrize("end_token", [None, 0, 2])
def test_the_probabilities_of_all_sequences_sum_to_one(end_token: int | None) -> None:
    model = small_transformer(vocab_size=3, end_token=end_token)
    log_probs = model.log_prob(all_sequences(3, 4, end_token)).sum(dim=1)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_log_prob_equals_the_sum_by_steps_and_skips_padding() -> None:
    model, sequence = small_transformer(end_token=2), [3, 0, 2]
    log_prob = model.log_prob(torch.tensor([[*sequence, V, V]]))[0].tolist()
    assert log_prob == pytest.approx([*log_prob_by_steps(model, sequence), 0, 0], abs=1e-12)


@variants
def test_monte_carlo_search_equals_plain_loops(options: dict[str, Any]) -> None:
    tokens, lengths = whole_episodes(4, options)
    search = MonteCarloSearch(small_transformer(), Ordinal().score, 3, V, **options)
    expected = action_values_by_loops(search, tokens, lengths, KEYS[:4])
    assert torch.equal(search.action_values(tokens, lengths, KEYS[:4]), expected)
    other = MonteCarloSearch(small_transformer(1), Ordinal().score, 3, V, **options)
    assert not torch.equal(other.action_values(tokens, lengths, KEYS[:4]), expected)


def test_samples_follow_the_seed_and_are_padded_after_their_end() -> None:
    model = small_transformer(end_token=2)
    tokens, lengths = model.sample(300, T, seeded(1))
    assert torch.equal(model.sample(300, T, seeded(1))[0], tokens)
    assert not torch.equal(model.sample(300, T, seeded(2))[0], tokens)
    assert len(set(lengths.tolist())) == T
    for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        assert row[length:] == [V] * (T - length)
        assert 2 not in row[: length - 1]
        assert length == T or row[length - 1] == 2


def test_samples_have_the_likelihood_that_the_model_gives_them() -> None:
    model = small_transformer(vocab_size=3, end_token=1)
    sequences = all_sequences(3, 4, 1)
    log_probs = model.log_prob(sequences).sum(dim=1)
    entropy = -(log_probs.exp() * log_probs).sum().item()
    tokens, _ = model.sample(20_000, 4, seeded(5))
    assert -model.log_prob(tokens).sum(dim=1).mean().item() == pytest.approx(entropy, abs=0.03)


def test_gradients_flow_through_steps_as_through_whole_sequences() -> None:
    """Scheduled sampling trains through steps."""
    model, tokens = small_transformer().requires_grad_(True), some_tokens()
    by_steps = log_prob_with_own_tokens(model, tokens, 0.0, seeded())
    gradients = [torch.autograd.grad(x.sum(), list(model.parameters())) for x in (by_steps, model.log_prob(tokens))]
    for name, a, b in zip(dict(model.named_parameters()), *gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        assert a.abs().max() > 1e-8, name


@pytest.mark.rounding
@pytest.mark.usefixtures("global_generators_at_rest")
def test_it_learns_a_language() -> None:
    oracle = seeded_oracle(0, 12)
    real, held_out = (oracle.sample(n, 6, seeded(n))[0] for n in (1000, 300))
    model = TokenTransformer(12, 16, 32, max_length=6, dropout=0.1, generator=seeded())
    pretrain(model, real, PretrainConfig(epochs=4), seeded())
    assert model.nll(held_out).mean() < math.log(12) - 0.3
    assert not any(module.training for module in model.modules())


def test_dropout_acts_only_in_training_mode() -> None:
    model, tokens = small_transformer(dropout=0.3), some_tokens()
    still = model.log_prob(tokens)
    assert torch.equal(still, small_transformer().log_prob(tokens))
    with training_mode(model):
        assert not torch.isclose(model.log_prob(tokens), still).all(dim=1).any()
    assert torch.equal(model.log_prob(tokens), still)


def test_initial_parameters_have_the_given_spread() -> None:
    model = TokenTransformer(300, 32, 64, max_length=20, initial_std=0.3, generator=seeded(1))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.3, rel=0.1), name


class TestBadInput:
    def test_longer_sequences_than_it_has_positions_for(self) -> None:
        model = small_transformer()
        message = r"positions for sequences of max_length=5 tokens, but got 6\. Create it with a larger max_length"
        model.logits(some_tokens(2, T + 1))  # what follows a whole sequence can be asked for
        with pytest.raises(ValueError, match=message):
            model.logits(some_tokens(2, T + 2))
        with pytest.raises(ValueError, match=message):
            model.sample(2, T + 2, seeded())

    def test_heads_that_do_not_divide_the_width(self) -> None:
        with pytest.raises(ValueError, match="n_heads must divide it; got embedding_dim=32, n_heads=3"):
            TokenTransformer(V, max_length=T, n_heads=3)

    @pytest.mark.parametrize("options", [{"n_layers": 0}, {"max_length": 0}])
    def test_no_layers_or_positions(self, options: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="needs n_layers and max_length of at least 1, got"):
            small_transformer(**options)
