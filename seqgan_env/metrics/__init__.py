"""Measures of quality and diversity of generated sequences.

No single number suffices. A generator can get good quality (NLL under the oracle, BLEU) by writing only a few sequences, and
good diversity (NLL of held-out data, Self-BLEU) by writing anything. So both are reported together, over one sweep of
temperatures.
"""

from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.nearest_neighbours import Neighbours, NeighbourSearch
from seqgan_env.metrics.shares import (
    distinct_n,
    length_shares,
    novel_share,
    total_variation,
    unique_share,
    valid_share,
    without_end_token,
)
from seqgan_env.metrics.temperature import (
    INVERSE_TEMPERATURES,
    SweepPoint,
    best_sum,
    mean_nll,
    nll_at_temperatures,
    temperature_sweep,
)

__all__ = [
    "INVERSE_TEMPERATURES",
    "BleuScorer",
    "NeighbourSearch",
    "Neighbours",
    "SweepPoint",
    "best_sum",
    "distinct_n",
    "length_shares",
    "mean_nll",
    "nll_at_temperatures",
    "novel_share",
    "self_bleu",
    "temperature_sweep",
    "total_variation",
    "unique_share",
    "valid_share",
    "without_end_token",
]
