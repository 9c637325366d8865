"""Is training fast, alone and beside other work? `python -m benchmarks.beside_work` times what newcomers run.

Each program runs alone with its own choice of threads and with every possible number of threads, and once more with its own
choice while another process keeps one core busy. Times are of whole processes, including imports; the variants alternate, and
the fastest repeat counts. Run nothing else meanwhile.
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
"""Examples in the README, each identified by a piece of its text."""
MOST_BESIDE, MOST_ALONE = 2.5, 1.15
"""Limits: the time beside a busy process over the time alone; the time alone over that with the best number of threads."""
_UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Config:
    """Time programs alone and beside one busy process."""

    programs: tuple[str, ...] = (*TRAINING, *SNIPPETS)
    """Presets of train.py, and examples of the README."""
    repeats: int = 2
    """Repeats of each; the fastest counts."""
    arguments: tuple[str, ...] = ()
    """Further arguments for train.py, such as smaller settings."""


@dataclass(frozen=True)
class Durations:
    """Times of one program, in seconds."""

    program: str
    alone: float
    """With its own choice of threads."""
    by_threads: dict[int, float]
    """With each number of threads."""
    beside: float
    """With its own choice, beside a busy process."""

    @property
    def best_threads(self) -> int:
        """The fastest number of threads."""
        return min(self.by_threads, key=lambda threads: self.by_threads[threads])

    @property
    def to_best(self) -> float:
        """The time with its own choice, divided by the best time."""
        return self.alone / self.by_threads[self.best_threads]

    @property
    def to_alone(self) -> float:
        """The time beside a busy process, divided by the time alone."""
        return self.beside / self.alone


def main(config: Config) -> list[Durations]:
    """Time all programs, and print the table row by row."""
    print(f"| program | alone, s | best, s (threads) | alone / best (at most {MOST_ALONE}) | beside one, s", end="")
    print(f" | beside / alone (at most {MOST_BESIDE}) |\n|---|---|---|---|---|---|", flush=True)
    rows = []
    for program in config.programs:
        rows.append(time_program(program, config))
        print(table_row(rows[-1]), flush=True)
    return rows


def time_program(program: str, config: Config) -> Durations:
    """Time all variants of one program, alternating."""
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
    """Time a program in its own process.

    Raises:
        RuntimeError: the program failed.
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
    """An example's code from the README."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [example for example in examples if SNIPPETS[name] in example]
    return str(found)


@contextmanager
def one_busy_process() -> Iterator["subprocess.Popen[bytes]"]:
    """Keep one core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def table_row(row: Durations) -> str:
    """A program's times and their ratios."""
    best = row.best_threads
    return (
        f"| {row.program} | {row.alone:.0f} | {row.by_threads[best]:.0f} ({best}) | {row.to_best:.2f} "
        f"| {row.beside:.0f} | {row.to_alone:.2f} |"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
