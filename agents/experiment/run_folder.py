"""The folder of a run: its lock, config, logs, measurements, weights, samples and pictures."""

import dataclasses
import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import torch
from filelock import FileLock, Timeout

matplotlib.use("Agg")  # pictures are written to files, so no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat
from stable_baselines3.common.logger import Figure as LoggedFigure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from agents.experiment.names import (
    DISCRIMINATOR,
    LEARNING_CURVE,
    LOCK,
    LOCK_HOLDER,
    MEASURED,
    QUALITY_COVERAGE,
    REPORT,
    Phase,
)
from seqgan_env.data.padding import played_positions
from seqgan_env.evaluation.plot_styles import BLUE, STYLES
from seqgan_env.evaluation.run_logs import PROGRESS, read_log
from seqgan_env.game import SequenceGame
from seqgan_env.metrics.temperature import SweepPoint
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rendering import printable
from seqgan_env.saved_game import load_generator, save_generator
from seqgan_env.support.atomic_files import check_folder, write_atomically

SUMMARY_COLUMNS = ("", "likelihood", "adversarial", "change")
_X_LABELS = {Phase.LIKELIHOOD: "epochs of maximum likelihood", Phase.ADVERSARIAL: "adversarial updates"}
_TENSORBOARD_ALONE = ("stdout", "log", "json", "csv")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The result of an evaluation after `step` epochs or updates of a phase."""

    phase: Phase
    step: int
    metrics: Mapping[str, float]


class FolderInUse(RuntimeError):  # noqa: N818 - says what it is
    """Another process uses the run folder, or seems to."""


class RunLock:
    """Holds a run folder for this process, until `release` or the process ends.

    The operating system releases the lock of a dead process, so a killed run can be resumed at once. If the holder ran on
    another machine we cannot tell whether it is alive, so the lock must be cleared by hand.

    Args:
        folder: the run's.
        clear: take the folder even if another machine's process is recorded as its holder.

    Raises:
        FolderInUse: says who holds it, since when, and what to do.
    """

    def __init__(self, folder: Path, clear: bool = False) -> None:
        self._holder = folder / LOCK_HOLDER
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise FolderInUse(
                f"{folder} is in use by {_holder_of(self._read())}. Wait until it ends, or end it; "
                "each run needs its own folder."
            ) from error
        holder = self._read()
        if holder is not None and holder.get("host") != socket.gethostname() and not clear:
            self._lock.release()
            raise FolderInUse(
                f"{folder} was taken by {_holder_of(holder)}, and never released. If that process has ended, its lock is "
                "stale: clear it with --clear-lock. If it still runs, two runs would overwrite each other's files."
            )
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        write_atomically(self._holder, json.dumps(note).encode())

    def release(self) -> None:
        """Release the folder."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _read(self) -> dict[str, Any] | None:
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return holder if isinstance(holder, dict) else {}


class RunLog(CSVOutputFormat):
    """`progress.csv`, which can be reset to an earlier state.

    Args:
        path: of the file; its content is lost.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.file.reconfigure(encoding="utf-8")  # SB3 uses the locale's encoding
        self.n_rows = 0
        self.last_step = 0

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row."""
        super().write(key_values, key_excluded, step)
        self.n_rows += 1
        self.last_step = step

    def text(self, n_rows: int) -> str:
        """The header and the first rows."""
        self.file.seek(0)
        lines = self.file.readlines()
        self.file.seek(0, io.SEEK_END)
        return "".join(lines[: n_rows + 1])

    def set_back(self, text: str, last_step: int) -> None:
        """Restore exactly what `text` returned."""
        self.file.seek(0)
        self.file.truncate()
        self.file.write(text)
        self.file.flush()
        lines = text.splitlines()
        self.keys = lines[0].split(self.separator) if lines else []
        self.n_rows = max(0, len(lines) - 1)
        self.last_step = last_step


class RunFolder:
    """All files of a run; close it at the end.

    Args:
        path: the run's own, existing folder; see `create`.
        lock: holds it for this process; released by `close`.
        purge_after: the step after which TensorBoard hides what an earlier part of the run logged.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, path: Path, lock: RunLock, *, purge_after: int | None = None) -> None:
        self.path = path
        self._lock = lock
        self.measurements: list[Measurement] = []
        self.log = RunLog(path / PROGRESS)
        tensorboard = TensorBoardOutputFormat(str(path))
        if purge_after is not None:
            tensorboard.writer.close()
            tensorboard.writer = SummaryWriter(str(path), purge_step=purge_after + 1)
        self.logger = Logger(str(path), [self.log, tensorboard])

    @classmethod
    def create(cls, out: Path, name: str) -> "RunFolder":
        """Create the folder `<name>-<time>` of a new run in the folder `out`.

        Raises:
            OSError: it cannot be created or written to.
            ValueError: the name leads outside `out`, or `out` is `-`, which is not a folder.
        """
        check_folder(out, "--out")
        stem = f"{_plain(name)}-{datetime.now():%Y%m%d-%H%M%S}"
        path = out / stem
        try:
            out.mkdir(parents=True, exist_ok=True)
            for number in count(2):
                try:
                    path.mkdir()
                    break
                except FileExistsError:  # of a run that began in the same second, perhaps just now
                    path = out / f"{stem}-{number}"
        except OSError as error:
            raise OSError(f"The run folder {path} cannot be created ({error.strerror}): choose another with --out.") from error
        return cls(path, RunLock(path))

    def close(self) -> None:
        """Close the logs, and release the folder."""
        self.logger.close()
        self._lock.release()

    def discard(self) -> None:
        """Remove the folder of a run that was refused, or that ended before it had learned anything."""
        self.close()
        shutil.rmtree(self.path)

    def training_state(self) -> dict[str, Any]:
        """The measurements, and what the logger has not written yet; see `full_state`."""
        pending: Mapping[str, Any] = self.logger.name_to_value
        excluded = self.logger.name_to_excluded
        return {
            "measurements": [[m.phase.prefix, m.step, dict(m.metrics)] for m in self.measurements],
            "pending": {
                name: [*_number_and_type(value), list(excluded[name])]
                for name, value in pending.items()
                if isinstance(value, int | float | str | np.number)
            },
            "n_rows": self.log.n_rows,
            "last_step": self.log.last_step,
        }

    def full_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state of `training_state` with the rows of `progress.csv` until then, which are too long to copy each time."""
        return {**state, "log": self.log.text(state["n_rows"])}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of `full_state`."""
        self._load_measurements(state)
        self.log.set_back(state["log"], state["last_step"])
        self.logger.name_to_value.clear()
        for name, (value, dtype, excluded) in state["pending"].items():
            self.logger.record(name, value if dtype is None else np.dtype(dtype).type(value), exclude=tuple(excluded))

    def _load_measurements(self, state: Mapping[str, Any]) -> None:
        self.measurements = [Measurement(MEASURED[phase], step, metrics) for phase, step, metrics in state["measurements"]]

    def save_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_atomically(self.path / _plain(name), text.encode())

    def save_weights(self, name: str, generator: TokenModel, game: SequenceGame) -> None:
        """Write a generator's kind, sizes, tokens and parameters to `<name>.safetensors`."""
        save_generator(generator, self.path / f"{_plain(name)}.safetensors", game)

    def load_generator(self, name: str, game: SequenceGame) -> TokenModel:
        """A generator that `save_weights` wrote."""
        return load_generator(self.path / f"{_plain(name)}.safetensors", game)

    def measure(self, phase: Phase, step: int, metrics: Mapping[str, float]) -> None:
        """Store an evaluation's results, and log them."""
        self.measurements.append(Measurement(phase, step, metrics))
        for name, value in metrics.items():
            self.logger.record(f"{phase.prefix}/{name}", value)
        if not sys.stderr.isatty():  # in a terminal a progress bar shows it
            print(f"{phase.value} {step}: " + "  ".join(f"{name} {value:.3f}" for name, value in metrics.items()), flush=True)

    def show_samples(self, phase: Phase, lines: Sequence[str]) -> None:
        """Show sequences in TensorBoard; indented by four, they are not changed by its Markdown."""
        text = "".join(f"    {printable(line)}\n" for line in lines)
        self.logger.record(f"{phase.prefix}/samples", text, exclude=_TENSORBOARD_ALONE)

    def show_rewards(self, phase: Phase, rewards: Tensor, lengths: Tensor) -> None:
        """Show the rewards of each token of a batch of episodes in TensorBoard.

        Args:
            phase: the phase in which the batch was played.
            rewards: `(n, sequence_length)`.
            lengths: `(n,)` int64; nothing is drawn beyond.
        """
        played = played_positions(lengths, rewards.shape[1])
        shown = rewards.where(played, torch.nan).cpu().numpy()
        figure = Figure(figsize=(5, 3.5), dpi=80)  # plain, because drawing it is most of the cost of an evaluation's pictures
        axis = figure.subplots(gridspec_kw={"bottom": 0.15})
        n, length = shown.shape
        axis.imshow(shown, aspect="auto", interpolation="nearest", extent=(0.5, length + 0.5, n + 0.5, 0.5))
        axis.set(xlabel="position", ylabel="episode")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(f"reward of each token: dark {np.nanmin(shown):.3g}, bright {np.nanmax(shown):.3g}")
        self.logger.record(f"{phase.prefix}/reward_per_position", LoggedFigure(figure, close=True), exclude=_TENSORBOARD_ALONE)

    def last(self, phase: Phase) -> Measurement | None:
        """The latest measurement of a phase."""
        return next((m for m in reversed(self.measurements) if m.phase == phase), None)

    def draw_learning_curve(self, panels: Sequence[Sequence[str]], labels: Mapping[str, str], floor: float | None) -> None:
        """Draw `learning_curve.png`: a row per group of metrics, a column per phase.

        Args:
            panels: names of the metrics of each row.
            labels: their labels.
            floor: the oracle's own entropy, a line across the first row.
        """
        phases = [phase for phase in (Phase.LIKELIHOOD, Phase.ADVERSARIAL) if self.last(phase) is not None]
        if not phases:
            return
        figure, axes = plt.subplots(
            len(panels),
            len(phases),
            sharey="row",
            sharex="col",
            squeeze=False,
            figsize=(5 * len(phases), 3.2 * len(panels)),
            layout="constrained",
        )
        for names, row in zip(panels, axes, strict=True):
            for phase, axis in zip(phases, row, strict=True):
                self._draw_phase(axis, phase, names, labels)
                if floor is not None and names is panels[0]:
                    axis.axhline(floor, color="0.4", linewidth=1, linestyle=(0, (1, 3)), label="floor: the oracle's entropy")
                axis.grid(alpha=0.25)
            row[-1].legend(frameon=False)
        for phase, axis in zip(phases, axes[-1], strict=True):
            axis.set_xlabel(_X_LABELS[phase])
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for phase, axis in zip(phases, axes[0], strict=True):
            axis.set_title(f"{phase.value} phase")
        self._save(figure, LEARNING_CURVE)

    def _draw_phase(self, axis: Axes, phase: Phase, names: Sequence[str], labels: Mapping[str, str]) -> None:
        points = [m for m in self.measurements if m.phase == phase]
        for name, (colour, line) in zip(names, STYLES, strict=False):
            values = [m.metrics[name] for m in points]
            axis.plot([m.step for m in points], values, line, color=colour, marker=".", label=labels[name])

    def draw_quality_against_coverage(self, sweeps: Mapping[str, Sequence[SweepPoint]], floor: float) -> None:
        """Draw `quality_coverage.png`: NLL_oracle against NLL_test over inverse temperatures, a curve per generator."""
        figure, axis = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
        for (name, points), (colour, line) in zip(sweeps.items(), STYLES, strict=False):
            axis.plot([p.nll_test for p in points], [p.nll_oracle for p in points], line, color=colour, marker=".", label=name)
            plain = min(points, key=lambda p: abs(p.inverse_temperature - 1))
            axis.plot(plain.nll_test, plain.nll_oracle, "o", color=colour, markersize=9, fillstyle="none")
        axis.axhline(floor, color="0.4", linewidth=1, linestyle=(0, (1, 3)), label="floor: the oracle's entropy")
        axis.set_xlabel("NLL_test, nats per token (coverage: lower is better)")
        axis.set_ylabel("NLL_oracle, nats per token (quality: lower is better)")
        axis.set_title("Temperature sweep; the circle is inverse temperature 1")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
        self._save(figure, QUALITY_COVERAGE)

    def draw_discriminator(self) -> None:
        """Draw `discriminator.png`: its accuracy at each retraining, if it was logged."""
        rows = [row for row in read_log(self.path / PROGRESS) if row.get("discriminator/accuracy")]
        if not rows:
            return
        figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
        updates = [int(float(row["train/n_updates"])) for row in rows]
        axis.plot(updates, [float(row["discriminator/accuracy"]) for row in rows], color=BLUE)
        axis.axhline(0.5, color="0.4", linewidth=1, linestyle=(0, (1, 3)), label="it cannot tell")
        axis.set(xlabel=_X_LABELS[Phase.ADVERSARIAL], ylabel="accuracy in its training", title="The discriminator")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
        self._save(figure, DISCRIMINATOR)

    def _save(self, figure: Any, name: str) -> None:
        figure.savefig(self.path / name, dpi=150)
        plt.close(figure)

    def summary(self, labels: Mapping[str, str], floor: float | None) -> list[tuple[str, str, str, str]]:
        """Likelihood compared with adversarial training: rows of a label, both values and their difference, as text."""
        before, after = self.last(Phase.LIKELIHOOD), self.last(Phase.ADVERSARIAL)
        rows = []
        for name, label in labels.items():
            values = [None if m is None else m.metrics.get(name) for m in (before, after)]
            if values == [None, None]:
                continue  # a discriminator's metric, without a discriminator
            cells = ["–" if value is None else f"{value:.3f}" for value in values]
            change = "–" if values[0] is None or values[1] is None else f"{values[1] - values[0]:+.3f}"
            rows.append((label, cells[0], cells[1], change))
        if floor is not None:
            rows.append(("floor: the oracle's entropy", f"{floor:.3f}", f"{floor:.3f}", ""))
        return rows

    def print_summary(self, labels: Mapping[str, str], floor: float | None) -> None:
        """Print a table that compares likelihood with adversarial training, and where all files are."""
        console = Console()
        table = Table(title="Maximum likelihood against adversarial training", title_justify="left")
        for column in SUMMARY_COLUMNS:
            table.add_column(column, justify="right" if column else "left")
        for row in self.summary(labels, floor):
            table.add_row(*row)
        console.print(table)
        console.print(f"Everything is in {self.path}", soft_wrap=True, highlight=False)
        console.print(f"Open {self.path / REPORT}", soft_wrap=True, highlight=False)


class NoRunFolder(RunFolder):
    """The run folder of a process that leaves writing to another: it only remembers measurements.

    Args:
        path: for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements = []
        self.logger = Logger(None, [])

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def discard(self) -> None:
        """Do nothing: there are no files."""

    def training_state(self) -> dict[str, Any]:
        """Empty: a checkpoint needs nothing of it."""
        return {}

    def full_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state, unchanged."""
        return {**state}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take over another process's measurements."""
        self._load_measurements(state)

    def save_text(self, name: str, text: str) -> None:
        """Do nothing."""

    def save_weights(self, name: str, generator: TokenModel, game: SequenceGame) -> None:
        """Do nothing."""

    def show_samples(self, phase: Phase, lines: Sequence[str]) -> None:
        """Do nothing."""

    def show_rewards(self, phase: Phase, rewards: Tensor, lengths: Tensor) -> None:
        """Do nothing."""


def _number_and_type(value: Any) -> tuple[int | float | str, str | None]:
    """A value as JSON can hold it, and its numpy type, on which its spelling in the log depends."""
    if isinstance(value, int | float | str):
        return value, None
    return value.item(), value.dtype.name


def _plain(name: str) -> str:
    """The name of a file, checked to contain no folder, which could lead outside the run's own."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"Names of a run and of its files must not contain folders, got {name!r}.")
    return name


def _holder_of(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "an unknown process"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
