"""What the examples measure before and after training: mean reward and mean NLL_oracle of a policy's sequences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqgan_env import SequenceGame
from seqgan_env.game import Layout
from seqgan_env.inspection.tracing import ObservationPolicy
from seqgan_env.models.sampling import sample_sequences


class Judgement(NamedTuple):
    """Means over a policy's sequences."""

    reward: float
    """The current reward model's score of finished sequences. Retraining a discriminator changes this measure."""
    oracle_nll: float
    """Nats per token, lower is better; the oracle never changes."""


def judge(game: SequenceGame, logits: Callable[[Any], Tensor], layout: Layout, n: int = 512) -> Judgement:
    """Sample `n` sequences from a policy's distributions, and score them; does not play episodes.

    Args:
        game: the game that the policy was trained on.
        logits: maps a batch of observations, numpy arrays in `layout`, to logits `(n, vocab_size)`.
        layout: of the observations.
        n: the number of sequences.
    """
    assert game.oracle is not None
    policy, generator = ObservationPolicy(game, layout, logits), torch.Generator().manual_seed(0)
    tokens, lengths = sample_sequences(policy, n, game.sequence_length, game.vocab_size, generator)
    return Judgement(game.reward_model.score(tokens, lengths).mean().item(), game.oracle.nll(tokens).mean().item())


def report(before: Judgement, after: Judgement) -> None:
    """Print both on one line."""
    print(
        f"mean reward {before.reward:.3f} -> {after.reward:.3f}, "
        f"NLL_oracle {before.oracle_nll:.3f} -> {after.oracle_nll:.3f} nats per token"
    )
