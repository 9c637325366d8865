"""Trace episodes of a run of train.py with the generators that it saved."""

from collections.abc import Mapping

import torch

from seqgan_env.game import SequenceGame
from seqgan_env.inspection.trace import EpisodeTrace
from seqgan_env.inspection.tracing import trace_batch
from seqgan_env.models.token_model import TokenModel
from seqgan_env.policy_gradient import Baseline, advantages, discounted_returns


def trace_checkpoints(
    game: SequenceGame, generators: Mapping[str, TokenModel], n: int, *, seed: int, baseline: Baseline
) -> dict[str, list[EpisodeTrace]]:
    """Trace the same episodes with each of several generators; each writes its own completions.

    The last generator writes the episodes, and the game's current reward model judges all of them. The episodes together are
    the batch for the advantages.

    Args:
        game: the game to play; its rollout policy is restored afterwards.
        generators: by name.
        n: the number of episodes.
        seed: of tokens and completions.
        baseline: of the advantages, see `seqgan_env.policy_gradient.advantages`.
    """

    def advantage_fn(rewards: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return advantages(discounted_returns(rewards, game.gamma), lengths, baseline)

    attached = game.search.policy
    traces: dict[str, list[EpisodeTrace]] = {}
    try:
        for name, generator in reversed(list(generators.items())):
            game.attach_policy(generator)
            tokens = [trace.tokens for trace in next(iter(traces.values()))] if traces else None
            traces[name] = trace_batch(
                game, generator, None if traces else n, seed=seed, tokens=tokens, advantage_fn=advantage_fn
            )
    finally:
        game.attach_policy(attached)
    return {name: traces[name] for name in generators}
