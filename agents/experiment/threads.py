"""Choose the number of threads of a run by the size of its work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agents.experiment.config import TrainConfig
from seqgan_env.game import SequenceGame
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.text_cnn import widths_within

# The work per thread in one training step, in floating-point operations: some milliseconds. A step has about twenty parallel
# regions, each of which ends with its slowest thread. With less work threads mostly wait for each other, and so the run waits
# for anything else on the machine.
_OPERATIONS_PER_THREAD = 125e6
_PASSES = 3  # forward, and backward for the gradients of inputs and of weights


def threads_for(config: TrainConfig, game: SequenceGame, generator: TokenModel) -> int:
    """The number of threads that pays off on a CPU: 1 for small models, torch's own choice for the paper's.

    Args:
        config: of the run; its `threads`, if set, is used instead.
        game: the game that it describes.
        generator: the generator that it describes.
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
    """Let torch use this many threads in this context; restores the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
