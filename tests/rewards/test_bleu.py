"""The BLEU reward against the scorer."""

import numpy as np
import torch

from seqgan_env.metrics.bleu import BleuScorer
from seqgan_env.rewards.bleu import BleuReward
from tests.small import V, real_sequences

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


def test_bleu_is_the_scorers_highest_order() -> None:
    references = real_sequences(30)
    scores = BleuReward(references, V, max_order=3).score(TOKENS, LENGTHS)
    expected = BleuScorer(references.numpy(), V, 3).score(TOKENS.numpy())[:, 2]
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6)


def test_a_copy_of_a_reference_has_bleu_one_and_strange_tokens_none() -> None:
    reward = BleuReward(torch.tensor([[0, 1, 2, 3, 4]]), V)
    assert reward.score(TOKENS, LENGTHS)[:2].tolist() == [1, 0]
