"""Likelihood, and the temperature sweep: a generator's quality against its coverage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.data.padding import lengths_of
from seqgan_env.models.linear_log_prob import linear_log_prob
from seqgan_env.models.sampling import sequences_per_chunk
from seqgan_env.models.token_model import TokenModel
from seqgan_env.support.settings import Temperature, check_number

INVERSE_TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)


def mean_nll(model: TokenModel, tokens: Tensor) -> float:
    """Negative log-likelihood of sequences `(n, length)` under a model, in nats per token, averaged over all tokens."""
    lengths = lengths_of(tokens, model.vocab_size)
    return ((model.nll(tokens) * lengths).sum() / lengths.sum()).item()


@dataclass(frozen=True)
class SweepPoint:
    """A generator at one temperature; NLL in nats per token."""

    inverse_temperature: float
    """The factor on the logits."""
    nll_oracle: float
    """NLL of the generator's samples under the oracle: quality. Lower is better, but collapsing lowers it, too."""
    nll_test: float
    """NLL of held-out data under the generator: coverage. Lower is better, and collapsing does not lower it."""


@torch.no_grad()
def temperature_sweep(
    generator: TokenModel,
    oracle: TokenModel,
    held_out: Tensor,
    rng: torch.Generator,
    *,
    n_samples: int = 10_000,
    length: int,
    inverse_temperatures: Sequence[float] = INVERSE_TEMPERATURES,
) -> list[SweepPoint]:
    """Quality against coverage over temperatures, applied to both at inference (Caccia et al., 2020).

    Compare two generators by their curves: if one is better only at its own temperature, it may merely be sharper.

    Args:
        generator: the model to judge.
        oracle: the model that wrote the held-out data.
        held_out: `(n, length)` int64 real sequences that the generator has not seen, padded with the vocabulary size.
        rng: draws the samples; on the generator's device.
        n_samples: samples per temperature.
        length: the maximum number of tokens in a sample.
        inverse_temperatures: above 1 sharpens the generator, below 1 flattens it.

    Returns:
        One point per temperature, in the given order. Each NLL is the mean over sequences of their nats per token.

    Raises:
        ValueError: there are no samples, held-out sequences or temperatures, a temperature is out of range, or the
            vocabularies differ.
    """
    if generator.vocab_size != oracle.vocab_size:
        raise ValueError(
            f"Generator and oracle must share a vocabulary, got {generator.vocab_size} and {oracle.vocab_size} tokens."
        )
    if n_samples < 1 or not len(held_out):
        raise ValueError(f"A sweep needs samples and held-out sequences, got {n_samples} and {len(held_out)}.")
    if not inverse_temperatures:
        raise ValueError("A sweep needs at least one of inverse_temperatures, got none.")
    for alpha in inverse_temperatures:
        check_number("Each of inverse_temperatures", alpha, Temperature)
    nll_tests = nll_at_temperatures(generator, held_out, inverse_temperatures)
    points = []
    for alpha, nll_test in zip(inverse_temperatures, nll_tests, strict=True):
        samples, _ = generator.sample(n_samples, length, rng, inverse_temperature=alpha)
        points.append(SweepPoint(alpha, oracle.nll(samples).mean().item(), nll_test))
    return points


@torch.no_grad()
def nll_at_temperatures(generator: TokenModel, tokens: Tensor, inverse_temperatures: Sequence[float]) -> list[float]:
    """Mean NLL of sequences `(n, length)` at each temperature, in nats per token; the generator reads them only once."""
    totals = torch.zeros(len(inverse_temperatures), dtype=torch.float64, device=tokens.device)
    for part in tokens.split(sequences_per_chunk(generator.vocab_size, tokens.shape[1], tokens.device)):
        log_probs_at = _log_probs_by_temperature(generator, part)
        lengths = lengths_of(part, generator.vocab_size)
        for index, alpha in enumerate(inverse_temperatures):
            totals[index] -= (log_probs_at(alpha).view(part.shape).double().sum(dim=1) / lengths).sum()
    means: list[float] = (totals / len(tokens)).tolist()
    return means


def _log_probs_by_temperature(generator: TokenModel, tokens: Tensor) -> Callable[[float], Tensor]:
    """A function from the inverse temperature to the log-probabilities of all tokens of `(n, length)`, flat; 0 at padding."""
    hidden, targets, layer = generator.hidden(tokens).flatten(0, 1), tokens.flatten(), generator.linear_output()
    if layer is not None:
        weight, bias = layer
        return lambda alpha: linear_log_prob(alpha * hidden, weight, alpha * bias, targets)
    logits, pad = generator.output(hidden), generator.vocab_size
    return lambda alpha: -F.cross_entropy(alpha * logits, targets, ignore_index=pad, reduction="none")


def best_sum(points: Sequence[SweepPoint]) -> SweepPoint:
    """The point with the lowest nll_oracle + nll_test; the first one if several are equal.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("The best sum of a temperature sweep needs at least one point, got none.")
    return min(points, key=lambda point: point.nll_oracle + point.nll_test)
