"""BLEU against real sequences, as a reward."""

from typing import Any

import torch
from torch import Tensor

from seqgan_env.metrics.bleu import BleuScorer
from seqgan_env.rewards.reward_model import RewardModel


class BleuReward(RewardModel):
    """BLEU against real sequences: the paper's baseline PG-BLEU.

    Args:
        references: `(n, length)` int64, padded with `pad`.
        pad: the pad id.
        max_order: the longest n-grams to count.
    """

    def __init__(self, references: Tensor, pad: int, max_order: int = 4) -> None:
        self._scorer = BleuScorer(references.cpu().numpy(), pad, max_order)

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Sentence BLEU in [0, 1], smoothed: `(n,)`."""
        scores = self._scorer.score(tokens.cpu().numpy())[:, -1]
        return torch.from_numpy(scores).to(tokens.device, torch.float32)

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        return {"reward_model": "bleu"}
