"""The discriminator at sampling time: what a generator writes is kept with a probability that the log odds decide.

With q the generator, at any temperature, and r(Y) the discriminator's log odds of a sequence, what is kept has the density

    p(Y) = q(Y) a(Y) / Z,   a(Y) = min(1, exp(r(Y) - c)),   Z = E_q[a]

(as in discriminator rejection sampling: Azadi et al., 2019, arXiv 1810.06758), so that it has a likelihood of real sequences
like any generator; Z is a mean over samples.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from seqgan_env.metrics import INVERSE_TEMPERATURES, mean_nll
from seqgan_env.recurrent import TokenLSTM
from seqgan_env.token_model import TokenModel

KEPT_FOR_SURE = 0.05
"""Share of what the generator writes that is kept with probability 1: the sequences that look most real. It decides c."""


@torch.no_grad()
def rejection_sweep(
    generator: TokenLSTM,
    log_odds: Callable[[Tensor], Tensor],
    oracle: TokenModel,
    held_out: Tensor,
    rng: torch.Generator,
    n_samples: int,
) -> list[tuple[float, float, float]]:
    """Inverse temperature, NLL_oracle of what is kept of `n_samples`, and NLL_test, both in nats per token.

    Args:
        generator: what writes; the discriminator's odds stay those against it without any change of temperature.
        log_odds: the discriminator's, `(n,)`, of sequences `(n, length)`.
        oracle: measures quality.
        held_out: real sequences `(m, length)`, none of which ends early.
        rng: on the generator's device.
        n_samples: sequences written at each temperature, of which some are kept.
    """
    length = held_out.shape[1]
    threshold = torch.quantile(log_odds(generator.sample(n_samples, length, rng)[0]), 1 - KEPT_FOR_SURE)

    def log_acceptance(tokens: Tensor) -> Tensor:
        return (log_odds(tokens) - threshold).clamp(max=0).double()

    log_accepted_real = log_acceptance(held_out).mean()
    points = []
    for alpha in INVERSE_TEMPERATURES:
        colder = at_temperature(generator, alpha)
        written, _ = colder.sample(n_samples, length, rng)
        log_accepted = log_acceptance(written)
        log_share = log_accepted.logsumexp(dim=0) - torch.tensor(n_samples).log()
        kept = written[torch.rand(n_samples, generator=rng, device=rng.device) < log_accepted.exp()]
        nll_test = mean_nll(colder, held_out) - ((log_accepted_real - log_share) / length).item()
        points.append((alpha, mean_nll(oracle, kept), nll_test))
    return points


def at_temperature(generator: TokenLSTM, inverse_temperature: float) -> TokenLSTM:
    """A generator whose own logits are those of another times an inverse temperature."""
    colder = copy.deepcopy(generator)
    for parameter in colder.output.parameters():
        parameter.mul_(inverse_temperature)
    return colder
