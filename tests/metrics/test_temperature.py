"""The temperature sweep and likelihoods, on known models."""

from collections.abc import Sequence

import pytest
import torch

from seqgan_env.metrics.temperature import SweepPoint, best_sum, mean_nll, nll_at_temperatures, temperature_sweep
from seqgan_env.models.lstm import TokenLSTM


def memoryless(probabilities: Sequence[float], end_token: int | None = None) -> TokenLSTM:
    """A generator whose every token has the same probabilities, whatever came before."""
    model = TokenLSTM(len(probabilities), 2, 2, end_token=end_token)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.output.bias.copy_(torch.tensor(probabilities).log())
    return model


def test_sweep_of_a_memoryless_generator_is_the_formula() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    held_out = torch.tensor([[0, 1, 2, 2], [1, 1, 3, 3]])  # the second is of two tokens
    alphas = (0.5, 1.0, 2.0)
    points = temperature_sweep(
        memoryless(p.tolist()),
        memoryless(q.tolist()),
        held_out,
        torch.Generator().manual_seed(0),
        n_samples=20_000,
        length=4,
        inverse_temperatures=alphas,
    )
    assert tuple(point.inverse_temperature for point in points) == alphas
    for point, alpha in zip(points, alphas, strict=True):
        sharpened = p**alpha / (p**alpha).sum()
        nll = -sharpened.log()
        expected_test = (nll[[0, 1, 2, 2]].mean() + nll[[1, 1]].mean()) / 2
        assert point.nll_test == pytest.approx(expected_test.item(), abs=1e-6)
        assert point.nll_oracle == pytest.approx(-(sharpened * q.log()).sum().item(), abs=0.01)  # 80,000 tokens: 5 sigma
    # Neighbouring temperatures are further apart than the tolerance: a sweep that samples without alpha fails.
    assert points[0].nll_oracle + 0.05 < points[1].nll_oracle < points[2].nll_oracle - 0.05


def test_sweep_is_that_of_nll_at_temperature_one_and_repeats_by_seed() -> None:
    generator, oracle = (TokenLSTM(6, 4, 4, initial_std=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    held_out, _ = oracle.sample(50, 5, torch.Generator().manual_seed(3))
    seed_4 = [torch.Generator().manual_seed(4) for _ in range(2)]
    first, second = (
        temperature_sweep(generator, oracle, held_out, rng, n_samples=20, length=5, inverse_temperatures=[1.0, 3.0])
        for rng in seed_4
    )
    assert first == second
    assert first[0].nll_test == pytest.approx(generator.nll(held_out).mean().item(), abs=1e-6)
    samples, _ = generator.sample(20, 5, torch.Generator().manual_seed(4))
    assert first[0].nll_oracle == pytest.approx(oracle.nll(samples).mean().item(), abs=1e-9)


@pytest.mark.parametrize("end_token", [None, 2])
def test_the_sweep_of_a_linear_output_equals_that_of_its_logits(
    monkeypatch: pytest.MonkeyPatch, end_token: int | None
) -> None:
    """The fast path from hidden states equals the plain one, also at padding; another temperature differs clearly."""
    generator = TokenLSTM(6, 4, 4, initial_std=1.0, end_token=end_token, generator=torch.Generator().manual_seed(1))
    tokens = generator.sample(30, 5, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        fast = nll_at_temperatures(generator, tokens, (0.5, 1.0, 2.0, 2.1))
        monkeypatch.setattr(TokenLSTM, "linear_output", lambda self: None)
        plain = nll_at_temperatures(generator, tokens, (0.5, 1.0, 2.0, 2.1))
    assert fast == pytest.approx(plain, abs=1e-6)
    assert plain[2] != pytest.approx(plain[3], abs=1e-4)
    assert fast[1] == pytest.approx(generator.nll(tokens).mean().item(), abs=1e-6)


def test_sweep_reads_held_out_data_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = TokenLSTM(6, 4, 4, initial_std=1.0, generator=torch.Generator().manual_seed(1))
    held_out, _ = generator.sample(7, 5, torch.Generator().manual_seed(3))
    monkeypatch.setattr("seqgan_env.metrics.temperature.sequences_per_chunk", lambda *_: 3)  # three, and a tail of one
    (point,) = temperature_sweep(
        generator, generator, held_out, torch.Generator().manual_seed(4), n_samples=2, length=5, inverse_temperatures=[1.0]
    )
    assert point.nll_test == pytest.approx(generator.nll(held_out).mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": memoryless([0.5, 0.5])}, "share a vocabulary, got 3 and 2"),
        ({"n_samples": 0}, "got 0 and 1"),
        ({"held_out": torch.empty(0, 2, dtype=torch.int64)}, "got 10 and 0"),
        ({"inverse_temperatures": (1.0, 0.0)}, "Each of inverse_temperatures must be at least 1e-30, got 0.0"),
        ({"inverse_temperatures": ()}, "at least one of inverse_temperatures, got none"),
    ],
)
def test_invalid_sweeps_are_refused(changes: dict[str, object], message: str) -> None:
    model = memoryless([0.5, 0.3, 0.2])
    arguments = {"generator": model, "oracle": model, "held_out": torch.tensor([[0, 1]]), "n_samples": 10, "length": 2}
    with pytest.raises(ValueError, match=message):
        temperature_sweep(rng=torch.Generator(), **(arguments | changes))  # type: ignore[arg-type]


CURVE = [SweepPoint(1.0, nll_oracle=9.0, nll_test=7.0), SweepPoint(3.0, 7.0, 10.0), SweepPoint(2.0, 8.0, 7.5)]


def test_best_sum_is_the_lowest_sum_not_the_lowest_of_either() -> None:
    assert best_sum(CURVE) == SweepPoint(2.0, 8.0, 7.5)
    with pytest.raises(ValueError, match="at least one point"):
        best_sum([])


def test_mean_nll_weighs_every_token_alike() -> None:
    model = TokenLSTM(5, 3, 3, end_token=4, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 4, 5, 5], [2, 3, 0, 1]])
    with torch.no_grad():
        log_probs = model.log_prob(tokens)
    assert mean_nll(model, tokens) == pytest.approx(-log_probs.sum().item() / 6, rel=1e-6)
    assert mean_nll(model, tokens) != pytest.approx(model.nll(tokens).mean().item(), rel=1e-4)  # the mean over sequences
