"""How good generated sequences are, and how varied.

No single number says enough. Quality (NLL under the oracle, BLEU) can be had by writing few sequences well, variety (NLL of
held-out data, Self-BLEU) by writing anything; so they are reported together, over the same temperatures.
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
