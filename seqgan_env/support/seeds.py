"""The offset that each use of a seed adds to it, so that no two uses draw the same random numbers.

A run has one seed. The oracle writes its training sequences with the seed itself, so all other samples need a different one;
otherwise they would repeat training sequences.
"""

HELD_OUT = 1_000_003
"""The oracle's held-out sequences, written at the start of a run."""
PROGRESS = 2_000_003
"""Samples with which train.py measures progress."""
FINAL_SWEEP = 3_000_003
"""Samples of the temperature sweep at the end of a run."""
EVALUATION = 4_000_003
"""Samples of `python -m seqgan_env evaluate`."""
REFERENCES = 5_000_003
"""The oracle's reference sequences for an evaluation, if the run has no held-out ones."""
SAMPLES = 6_000_003
"""Sequences of `python -m seqgan_env sample`."""
LEARNING_BENCHMARK = 4_000_037
"""Samples with which benchmarks/learning.py measures finished runs."""
DENSITY_MODELS = 1_000_000_007
"""Initial parameters of a density ratio's models, which must differ from the generator's, or both would end up alike."""
