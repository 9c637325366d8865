"""What each use of a seed adds to it, so that no two of them draw the same random numbers.

A run has one seed. The oracle writes its training sequences with the seed itself, so whatever else is sampled needs another
one: samples would otherwise repeat training sequences.
"""

HELD_OUT = 1_000_003
"""The oracle's sequences that are kept aside when a run begins."""
PROGRESS = 2_000_003
"""Samples that train.py measures progress on."""
FINAL_SWEEP = 3_000_003
"""Samples of the temperature sweep at the end of a run."""
EVALUATION = 4_000_003
"""Samples of `python -m seqgan_env evaluate`."""
REFERENCES = 5_000_003
"""The oracle's sequences that an evaluation measures by, where a run kept none aside."""
SAMPLES = 6_000_003
"""Sequences of `python -m seqgan_env sample`."""
LEARNING_BENCHMARK = 4_000_037
"""Samples that benchmarks/learning.py measures finished runs on."""
DENSITY_MODELS = 1_000_000_007
"""Initial parameters of a density ratio's models: a generator that began with the same ones would end alike."""
