"""Is training fast alone, and beside other work? `python -m benchmarks.beside_work` times what newcomers run.

Each program runs with its own choice of threads and with each number that the machine has, alone, and once more with its own
choice while another process keeps one core busy. Each is timed as it is started by hand, imports included; the ways take
turns, and the fastest of the repeats counts. Nothing else should run meanwhile.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

ROOT = Path(__file__).parent.parent
TRAINING = {
    "quick": ("quick",),
    "text": ("text", "--data", str(ROOT / "examples" / "sentences.txt")),
}
"""Arguments of train.py."""
SNIPPETS = {"environment": "render_mode=", "agent": "Reinforce(", "another algorithm": "PPO("}
"""Examples in the README, each known by what stands in it."""
MOST_BESIDE, MOST_ALONE = 2.5, 1.15
"""Times the duration alone; times that with the best number of threads."""
_UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Config:
    """Time programs alone and beside one busy process."""

    programs: tuple[str, ...] = (*TRAINING, *SNIPPETS)
    """Presets of train.py, and examples of the README."""
    repeats: int = 2
    """How often each is timed; the fastest counts."""
    arguments: tuple[str, ...] = ()
    """More arguments for train.py, such as smaller settings."""


@dataclass(frozen=True)
class Durations:
    """Of one program, in seconds."""

    program: str
    alone: float
    """With its own choice of threads."""
    by_threads: dict[int, float]
    """With a given number of threads."""
    beside: float
    """With its own choice, beside one busy process."""

    @property
    def best_threads(self) -> int:
        """The number with which it was fastest."""
        return min(self.by_threads, key=lambda threads: self.by_threads[threads])

    @property
    def to_best(self) -> float:
        """Its own choice against the best number."""
        return self.alone / self.by_threads[self.best_threads]

    @property
    def to_alone(self) -> float:
        """Beside one busy process against alone."""
        return self.beside / self.alone


def main(config: Config) -> list[Durations]:
    """Time all, printing the table as it grows."""
    print(f"| program | alone, s | best, s (threads) | alone / best (at most {MOST_ALONE}) | beside one, s", end="")
    print(f" | beside / alone (at most {MOST_BESIDE}) |\n|---|---|---|---|---|---|", flush=True)
    rows = []
    for program in config.programs:
        rows.append(time_program(program, config))
        print(table_row(rows[-1]), flush=True)
    return rows


def time_program(program: str, config: Config) -> Durations:
    """All ways of one program in turn."""
    counts = range(1, len(os.sched_getaffinity(0)) + 1)
    alone, beside, by_threads = [], [], {threads: [] for threads in counts}
    for _ in range(config.repeats):
        alone.append(seconds(program, config))
        for threads in counts:
            by_threads[threads].append(seconds(program, config, threads))
        with one_busy_process():
            beside.append(seconds(program, config))
    return Durations(program, min(alone), {threads: min(times) for threads, times in by_threads.items()}, min(beside))


def seconds(program: str, config: Config, threads: int | None = None) -> float:
    """How long a program takes in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    environment["PYTHONPATH"] = str(ROOT)
    with TemporaryDirectory() as folder:
        if program in TRAINING:
            command = [str(ROOT / "train.py"), *TRAINING[program], *config.arguments, "--out", folder]
            command += [] if threads is None else ["--threads", str(threads)]
        else:
            command = ["-c", snippet(program)]
            (Path(folder) / "examples").symlink_to(ROOT / "examples")
            environment |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        duration = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-2000:]}")
    return duration


def snippet(name: str) -> str:
    """An example of the README, as it stands there."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [example for example in examples if SNIPPETS[name] in example]
    return str(found)


@contextmanager
def one_busy_process() -> Iterator["subprocess.Popen[bytes]"]:
    """Another process, which computes without a pause."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def table_row(row: Durations) -> str:
    """One program's durations and their ratios."""
    best = row.best_threads
    return (
        f"| {row.program} | {row.alone:.0f} | {row.by_threads[best]:.0f} ({best}) | {row.to_best:.2f} "
        f"| {row.beside:.0f} | {row.to_alone:.2f} |"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
