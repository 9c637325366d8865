"""Parallel runs in separate processes, with each result saved as a line of a file, so that a program can be continued."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from statistics import mean, stdev
from threading import Thread
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Key = tuple[Any, ...]


class FinishedRuns(Generic[Result]):
    """The results of finished runs, one JSON object per line.

    Args:
        path: the file.
        kind: a dataclass of numbers, strings, and lists of tuples.
    """

    def __init__(self, path: Path, kind: Callable[..., Result]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> list[Result]:
        """All results; none if the file does not exist yet."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [self._kind(**{name: _with_tuples(value) for name, value in json.loads(line).items()}) for line in lines]

    def append(self, results: Iterable[Result]) -> Iterator[Result]:
        """Write each result as soon as it arrives, and yield it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for result in results:
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")  # type: ignore[call-overload]
                file.flush()
                yield result


def side_by_side(
    function: Callable[..., Result], left: Sequence[Key], jobs: int, needs: Callable[[Key], Iterable[Key]] = lambda _: ()
) -> Iterator[Result]:
    """Call `function(*key)` for each key in separate processes; yield results as they arrive, and print the remaining time.

    If a key fails, the others still run, except those that need it; its error is raised at the end.

    Args:
        function: at module level, because processes receive it by name.
        left: the keys.
        jobs: the number of processes.
        needs: the keys that must be done before a key; those that are not in `left` are done.
    """
    begun, missing, running = time.monotonic(), dict.fromkeys(left), dict[Future[Result], Key]()
    failed: dict[Key, BaseException] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        while missing.keys() - failed.keys():
            begun_or_failed = {*running.values(), *failed}
            ready = [key for key in missing if key not in begun_or_failed and missing.keys().isdisjoint(needs(key))]
            running.update({pool.submit(function, *key): key for key in ready})
            if not running:  # the remaining keys need a failed one
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, error = running.pop(future), future.exception()
                if error is not None:
                    failed[key] = error
                    print(f"{key} failed: {error!r}", flush=True)
                    continue
                del missing[key]
                n_done = len(left) - len(missing)
                minutes = (time.monotonic() - begun) / n_done * len(missing) / 60
                print(f"{n_done} of {len(left)} runs; about {minutes:.0f} minutes left", flush=True)
                yield future.result()
    for error in failed.values():
        raise error


def with_needs(keys: Sequence[Key], needs: Callable[[Key], Iterable[Key]]) -> list[Key]:
    """Each key once, after those that it needs; common requirements come first, so that no process waits."""
    return list(dict.fromkeys([needed for key in keys for needed in needs(key)] + [*keys]))


def _end_with_parent() -> None:
    """End this process when its parent ends, because a killed parent cannot shut the pool down."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation; with the sign `"+"` positive numbers show their sign, too."""
    return f"{mean(values):{sign}.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"


def _with_tuples(value: Any) -> Any:
    """Turn lists back into tuples: JSON has only lists."""
    return [tuple(part) if isinstance(part, list) else part for part in value] if isinstance(value, list) else value
