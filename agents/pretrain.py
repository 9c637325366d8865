"""Maximum-likelihood training of the generator, and scheduled sampling."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.recurrent import TokenLSTM
from seqgan_env.sampling import draw_tokens


@dataclass(frozen=True)
class PretrainConfig:
    """Maximum-likelihood training; the defaults are the paper's."""

    epochs: int = 120
    """Passes over the real sequences."""
    batch_size: int = 64
    """Sequences in one step."""
    learning_rate: float = 0.01
    """Adam's step size."""
    final_learning_rate: float | None = None
    """Adam's step size at the end, reached geometrically; by default it stays the same."""
    max_grad_norm: float = 5.0
    """Largest norm of the gradient."""
    scheduled_sampling: bool = False
    """Feed the generator its own tokens with a probability that rises from 0 to 1 (Bengio et al., 2015), as a baseline."""


def pretrain(
    generator: TokenLSTM,
    real: Tensor,
    config: PretrainConfig,
    rng: torch.Generator,
    after_epoch: Callable[[int, float], bool | None] | None = None,
) -> None:
    """Teach the generator real sequences (paper, section 4; Algorithm 1, line 2), in place.

    Args:
        generator: what learns.
        real: `(n, length)` int64, padded, on the generator's device.
        config: how.
        rng: on the same device: the order of the sequences, and what scheduled sampling draws.
        after_epoch: called with the number of finished epochs and the epoch's mean loss (nats per token); false stops.

    Raises:
        ValueError: fewer sequences than a batch.
    """
    if len(real) < config.batch_size:
        raise ValueError(
            f"Only {len(real)} sequences for batches of {config.batch_size}: give more data, or take a smaller batch size."
        )
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, _decay_per_step(config, len(real)))
    for epoch in range(config.epochs):
        feed_own = epoch / max(1, config.epochs - 1) if config.scheduled_sampling else 0.0
        nats = torch.zeros((), device=real.device)
        tokens = torch.zeros((), device=real.device)
        for batch in _batches(real, config.batch_size, rng):
            log_probs = _log_prob_with_own_tokens(generator, batch, feed_own, rng) if feed_own else generator.log_prob(batch)
            count = (batch < generator.vocab_size).sum()
            optimizer.zero_grad()
            (-log_probs.sum() / count).backward()
            torch.nn.utils.clip_grad_norm_(generator.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            nats -= log_probs.detach().sum()
            tokens += count
        if after_epoch is not None and after_epoch(epoch + 1, (nats / tokens).item()) is False:
            return


def _decay_per_step(config: PretrainConfig, n_sequences: int) -> float:
    """The factor that takes the learning rate to its final value in as many steps as there are."""
    if config.final_learning_rate is None:
        return 1.0
    n_steps = config.epochs * -(-n_sequences // config.batch_size)
    return float((config.final_learning_rate / config.learning_rate) ** (1 / n_steps))


def _batches(real: Tensor, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(len(real), generator=rng, device=real.device)
    for rows in order.split(batch_size):
        yield real[rows]


def _log_prob_with_own_tokens(generator: TokenLSTM, tokens: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """`generator.log_prob`, but each input token is the generator's own draw with `probability`: `(n, length)`."""
    n, length = tokens.shape
    state = generator.initial_state(n)
    inputs = torch.full_like(tokens[:, 0], generator.vocab_size)
    log_probs = []
    for position in range(length):
        logits, state = generator.step(inputs, state)
        targets = tokens[:, position]
        log_probs.append(-F.cross_entropy(logits, targets, ignore_index=generator.vocab_size, reduction="none"))
        uniforms = torch.rand((n, 2), generator=rng, device=tokens.device)
        own = draw_tokens(logits.detach(), uniforms[:, :1]).squeeze(1)
        inputs = torch.where((uniforms[:, 1] < probability) & (targets < generator.vocab_size), own, targets)
    return torch.stack(log_probs, dim=1)
