"""Processes that work on one batch together: each takes some rows, draws the same random numbers and gets the same result."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn


class Part(NamedTuple):
    """One process's part of a batch."""

    rows: slice
    """Its rows."""
    weight: float
    """The weight of its loss: less than 1 if other processes work on the same rows."""


class Workers:
    """The process group; here, a single process that does everything. See `agents.experiment.torchrun` for several.

    Every process draws the random numbers of the whole batch and uses those of its rows. Its loss is its rows' share of the
    batch's mean, so that the sum of the gradients is the batch's gradient for any number of processes.
    """

    rank: int = 0
    """This process's number."""
    count: int = 1
    """The number of processes."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, evaluates and logs."""
        return self.rank == 0

    def part(self, n: int) -> Part:
        """This process's part of `n` rows: consecutive rows, nearly equally many for each process.

        If there are fewer rows than processes, each process works on all rows, with a weight of 1 / `count`.
        """
        if n < self.count:
            return Part(slice(0, n), 1 / self.count)
        return Part(slice(*self._bounds(n, self.rank)), 1.0)

    def _bounds(self, n: int, rank: int) -> tuple[int, int]:
        return n * rank // self.count, n * (rank + 1) // self.count

    def gather(self, own: Tensor, n: int) -> Tensor:
        """The `n` rows of a batch, on every process, gathered from each process's own `(k, ...)`; see `part`."""
        return own

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        """Sum the gradients over all processes, in place; return the sum of the numbers `(k,)`, such as losses."""
        return numbers

    def of_first(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The first process's result of `make`, on every process; the others do not call it.

        The result must be a state as in `seqgan_env.support.state_dicts`.
        """
        return make()

    def together(self) -> None:
        """Wait until all processes are here."""


ALONE = Workers()
"""One process."""
