"""How many threads a run computes with: as many as its work keeps busy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agents.experiment.config import TrainConfig
from seqgan_env.game import SequenceGame
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.text_cnn import widths_within

# What one thread should have to do in one training step, in floating-point operations: some milliseconds. A step is some
# twenty parallel regions, and each ends when its slowest thread does: with less than this, threads mostly wait for each other,
# and the run with them for whatever else the machine does.
_OPERATIONS_PER_THREAD = 125e6
_PASSES = 3  # forward, and in backward the gradients of inputs and of weights


def threads_for(config: TrainConfig, game: SequenceGame, generator: TokenModel) -> int:
    """Threads that pay on a CPU: 1 for small models, all that torch would take for the paper's.

    Args:
        config: of the run; its `threads`, if any, is what was asked for.
        game: that it describes.
        generator: that it describes.
    """
    if config.threads is not None:
        return config.threads
    length = game.sequence_length
    weights = sum(parameter.numel() for parameter in generator.parameters())
    likelihood = 2 * weights * length * config.pretrain.batch_size
    discriminator = widths_within(length, config.discriminator).operations(length) * config.discriminator.batch_size
    work = _PASSES * max(likelihood, discriminator)
    return max(1, min(torch.get_num_threads(), int(work / _OPERATIONS_PER_THREAD)))


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
