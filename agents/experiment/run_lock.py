"""One run folder, one process: a lock that says who holds it."""

import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from seqgan_env.support.atomic_files import write_atomically


class FolderInUse(RuntimeError):  # noqa: N818 - says what it is
    """Another process works on the run folder, or seems to."""


class RunLock:
    """Holds a run folder for this process, until `release` or the process ends.

    The operating system drops the lock of a process that is gone, so that a killed run can be taken up at once. Only where the
    holder was on another machine can nobody tell whether it is gone: then the lock has to be cleared by hand.

    Args:
        folder: the run's.
        clear: take the folder whatever another machine's process may have noted.

    Raises:
        FolderInUse: says who holds it, since when, and what to do.
    """

    def __init__(self, folder: Path, clear: bool = False) -> None:
        self._holder = folder / "run.holder.json"
        self._lock = FileLock(folder / "run.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise FolderInUse(
                f"{folder} is in use by {_describe(self._read())}. Wait until it ends, or end it; "
                "each run needs a folder of its own."
            ) from error
        holder = self._read()
        if holder is not None and holder.get("host") != socket.gethostname() and not clear:
            self._lock.release()
            raise FolderInUse(
                f"{folder} was taken by {_describe(holder)}, and never given back. If that process is gone, its lock is "
                "stale: clear it with --clear-lock. If it still works, two runs would overwrite each other's files."
            )
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        write_atomically(self._holder, json.dumps(note).encode())

    def release(self) -> None:
        """Give the folder back."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _read(self) -> dict[str, Any] | None:
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "a process that left no note of itself"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
