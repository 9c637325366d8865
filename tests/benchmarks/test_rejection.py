"""Rejection by the discriminator: the likelihood of what is kept, against all sequences counted one by one."""

import itertools

import pytest
import torch
from torch import Tensor

from benchmarks.rejection import KEPT_FOR_SURE, rejection_sweep
from seqgan_env.metrics.temperature import temperature_sweep
from seqgan_env.models.lstm import TokenLSTM
from tests.small import seeded

VOCABULARY, LENGTH = 3, 3
EVERY_SEQUENCE = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))


def model(seed: int) -> TokenLSTM:
    return TokenLSTM(VOCABULARY, 4, 4, initial_std=1.0, generator=seeded(seed)).requires_grad_(False)


def odds(tokens: Tensor) -> Tensor:
    """Real sequences have small tokens."""
    return -1.5 * tokens.float().sum(dim=1)


def test_the_likelihood_of_what_is_kept_is_exact_but_for_the_share() -> None:
    generator, oracle, held_out = model(0), model(1), EVERY_SEQUENCE[::2]
    sweep = rejection_sweep(generator, odds, oracle, held_out, seeded(), n_samples=20_000)
    of_all = odds(generator.sample(20_000, LENGTH, seeded())[0])  # the same draws
    threshold = torch.quantile(of_all, 1 - KEPT_FOR_SURE)
    for alpha, nll_oracle, nll_test in sweep:
        log_probs = torch.log_softmax(alpha * generator.logits(EVERY_SEQUENCE), dim=2)
        written = log_probs.gather(2, EVERY_SEQUENCE.unsqueeze(2)).sum(dim=(1, 2)).exp()
        density = written * (odds(EVERY_SEQUENCE) - threshold).exp().clamp(max=1)
        density /= density.sum()
        assert nll_test == pytest.approx(-density[::2].log().mean().item() / LENGTH, abs=0.02)
        expected = (density * oracle.nll(EVERY_SEQUENCE)).sum().item()
        assert nll_oracle == pytest.approx(expected, abs=0.05)


def test_odds_that_know_nothing_keep_everything() -> None:
    """Then the sweep is the generator's own."""
    generator, oracle, held_out = model(0), model(1), EVERY_SEQUENCE[::2]
    sweep = rejection_sweep(generator, lambda tokens: torch.zeros(len(tokens)), oracle, held_out, seeded(), 5000)
    plain = temperature_sweep(generator, oracle, held_out, seeded(), n_samples=5000, length=LENGTH)
    for (alpha, nll_oracle, nll_test), point in zip(sweep, plain, strict=True):
        assert alpha == point.inverse_temperature
        assert nll_test == pytest.approx(point.nll_test, abs=1e-5)
        assert nll_oracle == pytest.approx(point.nll_oracle, abs=0.05)


def test_temperatures_at_which_a_few_samples_decide_are_left_out() -> None:
    """The likelihood would be that of a share that the samples do not show."""

    generator = model(0)

    def rare(tokens: Tensor) -> Tensor:
        return -50 * generator.log_prob(tokens).sum(dim=1)

    left = [alpha for alpha, _, _ in rejection_sweep(generator, rare, model(1), EVERY_SEQUENCE[::2], seeded(), 2000)]
    assert 1.0 in left
    assert 3.0 not in left  # a cold generator writes next to none of them
    assert len(rejection_sweep(generator, odds, model(1), EVERY_SEQUENCE[::2], seeded(), 2000)) == 10
