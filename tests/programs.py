"""Programs in processes of their own, as users start them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIMIT = 900.0
"""Seconds. Nothing here takes a tenth of them on an idle machine: only what hangs is ended."""


def _how(environment: dict[str, str]) -> dict[str, Any]:
    """From the project's root, and on one thread, whatever else the machine does."""
    return {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"} | environment, "encoding": "utf-8"}


def run_program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end, and keep what it prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=LIMIT, check=False, **_how(environment))


@contextlib.contextmanager
def started_program(output: Path, *arguments: object, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Python with these arguments, which heeds SIGINT and is killed when the block ends; `output` takes all that it prints."""
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=_heed_interrupts,
            **_how({"PYTHONUNBUFFERED": "1", **environment}),
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _heed_interrupts() -> None:
    """What a process that was started in the background does not do, nor those that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], worth_waiting: Callable[[], bool] = lambda: True) -> None:
    """Wait for what another process does, or for its end."""
    deadline = time.monotonic() + LIMIT
    while not condition() and worth_waiting():
        assert time.monotonic() < deadline, f"nothing happened in {LIMIT:.0f} seconds"
        time.sleep(0.01)
