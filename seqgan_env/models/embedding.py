"""Rows of a table by their numbers, with the gradient that is fastest on the device."""

import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.support.device import prefers_few_kernels


def look_up(numbers: Tensor, table: Tensor) -> Tensor:
    """Rows of a table `(m, dim)` for int64 numbers of any shape: `(*numbers.shape, dim)`.

    The same as torch's `embedding`, but on a GPU the gradient adds up all rows at once and not one after the other.
    """
    if prefers_few_kernels(numbers):
        return table.index_select(0, numbers.flatten()).view(*numbers.shape, table.shape[1])
    return F.embedding(numbers, table)


class Embedding(nn.Embedding):
    """Torch's layer, by `look_up`."""

    def forward(self, input: Tensor) -> Tensor:
        """Rows of the weight, `(*input.shape, embedding_dim)`, for int64 numbers."""
        return look_up(input, self.weight)
