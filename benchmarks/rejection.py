"""Use the discriminator for rejection sampling: keep a generator's sample with a probability computed from its log odds.

With q the generator at any temperature, and r(Y) the discriminator's log odds of a sequence, the kept samples have the density

    p(Y) = q(Y) a(Y) / Z,   a(Y) = min(1, exp(r(Y) - c)),   Z = E_q[a]

(as in discriminator rejection sampling: Azadi et al., 2019, arXiv 1810.06758). So they have a likelihood of real sequences,
like any generator; Z is estimated by a mean over samples.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seqgan_env.metrics.temperature import INVERSE_TEMPERATURES, nll_at_temperatures
from seqgan_env.models.token_model import TokenModel

KEPT_FOR_SURE = 0.05
"""The share of samples to keep with probability 1: those that look most real. It determines c."""
LEAST_EFFECTIVE = 0.05
"""Minimum effective number of samples, (sum of a)^2 / sum of a^2, as a share of all. With fewer, a handful of samples decides
the mean of a, and both figures look better than they are."""


@torch.no_grad()
def rejection_sweep(
    generator: TokenModel,
    log_odds: Callable[[Tensor], Tensor],
    oracle: TokenModel,
    held_out: Tensor,
    rng: torch.Generator,
    n_samples: int,
) -> list[tuple[float, float, float]]:
    """Inverse temperature, NLL_oracle of the kept ones of `n_samples`, and NLL_test, both in nats per token.

    NLL_oracle weights each sample by its probability of being kept, which has less noise than actually keeping some.
    Temperatures with too small an effective number are left out; see `LEAST_EFFECTIVE`.

    Args:
        generator: writes the samples; the discriminator's odds are always those against it at temperature 1.
        log_odds: the discriminator's, `(n,)`, of sequences `(n, length)`.
        oracle: measures quality.
        held_out: real sequences `(m, length)` of full length.
        rng: on the generator's device.
        n_samples: samples per temperature.
    """
    length = held_out.shape[1]
    threshold = torch.quantile(log_odds(generator.sample(n_samples, length, rng)[0]), 1 - KEPT_FOR_SURE)

    def log_acceptance(tokens: Tensor) -> Tensor:
        return (log_odds(tokens) - threshold).clamp(max=0).double()

    log_accepted_real = log_acceptance(held_out).mean().item()
    points = []
    for alpha, nll_test in zip(
        INVERSE_TEMPERATURES, nll_at_temperatures(generator, held_out, INVERSE_TEMPERATURES), strict=True
    ):
        written, _ = generator.sample(n_samples, length, rng, inverse_temperature=alpha)
        log_accepted = log_acceptance(written)
        shares = log_accepted.softmax(dim=0)
        if 1 / shares.square().sum() < LEAST_EFFECTIVE * n_samples:
            continue
        nll_oracle = (shares @ oracle.nll(written)).item()
        log_share = log_accepted.logsumexp(dim=0).item() - math.log(n_samples)
        points.append((alpha, nll_oracle, nll_test - (log_accepted_real - log_share) / length))
    return points
