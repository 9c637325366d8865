"""Training by several processes, on one machine or many: `torchrun --nproc_per_node=N train.py ...`."""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from agents.experiment.checkpoint import pack, unpack
from agents.experiment.names import LAUNCH
from seqgan_env.support.process_group import ALONE, Workers

# The others wait while the first process evaluates; a process that ends is noticed at once, by its connection (gloo) or by
# torchrun (NCCL).
_PATIENCE = timedelta(hours=2)
_SECONDS_TO_LET_GO = 0.2
_SECONDS_BETWEEN_LOOKS = 0.05


class TorchWorkers(Workers):
    """The processes of torch's default process group."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()

    def gather(self, own: Tensor, n: int) -> Tensor:
        """See `Workers.gather`."""
        if n < self.count:
            return own
        padded = own.new_zeros(-(-n // self.count), *own.shape[1:])  # all processes send equally many rows
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        bounds = [self._bounds(n, rank) for rank in range(self.count)]
        return torch.cat([part[: stop - start] for part, (start, stop) in zip(parts, bounds, strict=True)])

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        """See `Workers.sum_gradients`; a single message for any number of parameters."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), numbers.to(gradients[0].dtype)])
        dist.all_reduce(flat)
        sums = flat.split([*(gradient.numel() for gradient in gradients), len(numbers)])
        for gradient, total in zip(gradients, sums, strict=False):
            gradient.copy_(total.view_as(gradient))
        summed: Tensor = sums[-1]
        return summed

    def of_first(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """See `Workers.of_first`. Sends a checkpoint's bytes, because torch itself would pickle objects."""
        if self.is_first:
            made = make()
            content = torch.frombuffer(bytearray(pack(made)), dtype=torch.uint8)
            dist.broadcast(torch.tensor(len(content)), 0)
            dist.broadcast(content, 0)
            return made
        length = torch.tensor(0)
        dist.broadcast(length, 0)
        content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            path.write_bytes(content.numpy().data)
            return unpack(path)

    def together(self) -> None:
        """See `Workers.together`."""
        dist.all_reduce(torch.zeros(1))


@contextmanager
def connected() -> Iterator[Workers]:
    """The process group that torchrun started; without torchrun, or with one process, this process alone.

    Each process uses the GPU of its local rank, if there are GPUs. Only the first process's output is shown, and all errors.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    store, rank, count = next(rendezvous("env://", timeout=_PATIENCE))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store_of_this_life(store, rank, count),
        rank=rank,
        world_size=count,
        timeout=_PATIENCE,
    )
    workers = TorchWorkers()
    with contextlib.nullcontext() if workers.is_first else _silence():
        yield workers
        workers.together()  # torchrun treats machines whose processes are done as idle
    # After the main thread has the last tensors, a gloo thread still releases them, which needs Python's lock; if Python is
    # already exiting, it aborts.
    time.sleep(_SECONDS_TO_LET_GO)
    dist.destroy_process_group()


def store_of_this_life(store: Store, rank: int, count: int) -> Store:
    """A part of the store that no earlier process has written to: after a restart torchrun's store has old addresses.

    Each process registers under a unique name. Rank 0 publishes the names it sees; some may be stale. A process that finds its
    own name there agrees; once all agree, the names identify this start.
    """
    name = uuid.uuid4().hex
    store.set(f"name/{rank}", name)
    while True:
        if rank == 0:
            store.set("life", ",".join(store.get(f"name/{other}").decode() for other in range(count)))
        life = store.get("life").decode()
        if name in life.split(","):
            store.set(f"{life}/{rank}", "agreed")
            if store.check([f"{life}/{other}" for other in range(count)]):
                return PrefixStore(life, store)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


def note_of_launch() -> str | None:
    """An identifier of the torchrun call that survives restarts, for a run's file `LAUNCH`; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # the call has no name, but torchrun itself outlives its workers
        name = f"torchrun {os.getppid()} on {socket.gethostname()}"
    return None if name is None else json.dumps({"run_id": name}) + "\n"


def earlier_run(out: Path) -> Path | None:
    """The newest run in the folder `out` that this torchrun call began before it restarted its processes, if any."""
    notes = sorted(out.glob(f"*/{LAUNCH}"), key=lambda note: note.stat().st_mtime, reverse=True)
    return next((note.parent for note in notes if note.read_text(encoding="utf-8") == note_of_launch()), None)


def is_restarted() -> bool:
    """Whether torchrun restarted its processes after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
