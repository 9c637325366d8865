"""Several processes that work on one batch: each on its rows, with the same random numbers, to the same result."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn


class Part(NamedTuple):
    """What one process does of a batch."""

    rows: slice
    """Its rows."""
    weight: float
    """How much they count: less than 1 where others work on the same rows."""


class Workers:
    """The processes that share the work; here, one alone, which does it all. See `agents.experiment.torchrun`.

    Every process draws the random numbers of the whole batch, and takes those of its rows. A process's loss is its rows' part
    of the batch's mean, so that the sum of the gradients is the gradient of the batch, whatever the number of processes.
    """

    rank: int = 0
    """This process's number."""
    count: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files, evaluates and talks."""
        return self.rank == 0

    def part(self, n: int) -> Part:
        """What this process does of `n` rows: neighbouring rows, all but equally many for each process.

        Fewer rows than processes are worked on by every process, and counted a `count`-th.
        """
        if n < self.count:
            return Part(slice(0, n), 1 / self.count)
        return Part(slice(*self._bounds(n, self.rank)), 1.0)

    def _bounds(self, n: int, rank: int) -> tuple[int, int]:
        return n * rank // self.count, n * (rank + 1) // self.count

    def gather(self, own: Tensor, n: int) -> Tensor:
        """The `n` rows of a batch, on every process, from each one's own `(k, ...)` of them; see `part`."""
        return own

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        """Give every process the sum of all gradients, in place; return the sum of the numbers `(k,)`, such as losses."""
        return numbers

    def of_first(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the first process makes, on every process; the others do not call `make`.

        It is a state as of `seqgan_env.support.state_dicts`.
        """
        return make()

    def together(self) -> None:
        """Wait until all processes are here."""


ALONE = Workers()
"""One process."""
