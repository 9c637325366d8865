"""Compare runs: grouped by the settings in which they differ, over seeds, and in pairs of the same seed."""

import csv
import filecmp
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqgan_env.evaluation.run_evaluation import LABELS
from seqgan_env.evaluation.run_logs import CONFIG, LIKELIHOOD_PREFIX, PROGRESS, read_evaluations, read_log
from seqgan_env.metrics.intervals import Interval, interval_of
from seqgan_env.saved_game import LAST
from seqgan_env.support.settings import flag

EVALUATION = Path("evaluation", "evaluation.json")
"""In a run's folder, what `python -m seqgan_env evaluate` found."""

MEASURES = {
    **{name: LABELS[name] for name in ("nll_oracle", "nll_test", "nll_sum", "bleu_2", "bleu_4", "self_bleu_2", "self_bleu_4")},
    "entropy": ("entropy, nats/token", "as the start"),
    "unique": LABELS["unique"],
    "length": ("mean length / held-out", "1"),
    "full_length": ("of maximal length", "as the data"),
    "discriminator_accuracy": ("discriminator: accuracy", "–"),
    "discriminator_loss": ("discriminator: cross-entropy, nats", "–"),
}
"""The metrics of a run's log, in this order, with the label of each and the direction that is better."""

_TASK = {
    "oracle": ("sequence_length", "vocab_size", "oracle_seed", "oracle_params"),
    "text": ("data", "tokenizer", "vocab_size", "format", "column", "sequence_length", "min_count", "too_long", "held_out"),
}
"""The settings that make a task. Where they differ, so do the sequences and tokens that figures are about."""

_NOT_COMPARED = {
    *("preset", "seed", "name", "out", "device", "threads", "cuda_graphs", "discriminator.compile"),
    *("evaluation.every_epochs", "evaluation.every_updates", "evaluation.sweep"),
}
"""What does not make a group: seeds, names, and what decides where, how fast and how closely observed a run learns."""

_MOST_IN_LABEL = 3
_UPDATES = "adversarial.updates"


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """The settings and measurements of a run."""

    folder: Path
    settings: Mapping[str, Any]
    """By path, such as `adversarial.updates`."""
    points: Mapping[int, Mapping[str, float]]
    """Its measurements, by the number of updates before them."""
    sweep: tuple[Mapping[str, float], ...] = ()
    """The temperature curve of its last generator, as in `evaluation.json`; empty without one."""
    sweep_settings: tuple[Any, ...] = ()
    """What has to be equal for two temperature curves to be comparable."""

    @property
    def seed(self) -> int:
        """Of its training, and of its data."""
        return int(self.settings["seed"])

    @property
    def end(self) -> int:
        """The last update that was measured."""
        return max(self.points)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but their seeds."""

    label: str
    settings: Mapping[str, Any]
    """Those in which the groups differ."""
    runs: tuple[LoggedRun, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of runs, and the update after which they are compared."""

    groups: tuple[Group, ...]
    """The first one is what the others are compared with."""
    at: int | None
    """None: each run's end."""

    @property
    def measures(self) -> list[str]:
        """The metrics that some group has, in the order of `MEASURES`."""
        return [name for name in MEASURES if any(self.after(group, name) is not None for group in self.groups)]

    def after(self, group: Group, name: str) -> Interval | None:
        """A metric at the end, over the group's seeds; None if a run has not measured it."""
        return _interval(self._value(run, name) for run in group.runs)

    def change(self, group: Group, name: str) -> Interval | None:
        """By how much a metric has moved since the likelihood start, in each run; see `after`."""
        return _interval(_minus(self._value(run, name), run.points[0].get(name)) for run in group.runs)

    def pairs(self, group: Group) -> list[tuple[LoggedRun, LoggedRun]]:
        """The group's runs beside those of the first group with the same seeds, and so with the same data."""
        first = {run.seed: run for run in self.groups[0].runs}
        return [] if group is self.groups[0] else [(run, first[run.seed]) for run in group.runs if run.seed in first]

    def difference(self, group: Group, name: str) -> Interval | None:
        """By how much a metric exceeds that of the first group, in pairs of the same seed; None without pairs."""
        return _interval(_minus(self._value(run, name), self._value(other, name)) for run, other in self.pairs(group))

    def curve(self, group: Group, name: str) -> dict[int, Interval]:
        """A metric over the updates that all of the group's runs have."""
        return _curve([run.points for run in group.runs], name, self.at)

    def difference_curve(self, group: Group, name: str) -> dict[int, Interval]:
        """`difference` over the updates that all pairs have."""
        differences = [
            {
                update: {name: point[name] - other.points[update][name]}
                for update, point in run.points.items()
                if name in point and name in other.points.get(update, {})
            }
            for run, other in self.pairs(group)
        ]
        return _curve(differences, name, self.at)

    @property
    def no_sweeps(self) -> str | None:
        """Why there are no temperature curves; None if there are."""
        runs = [run for group in self.groups for run in group.runs]
        if self.at is not None:
            return "those in the runs' folders are of the runs' ends"
        for run in runs:
            if not run.sweep:
                return f"{run.folder} has no {EVALUATION}, which python -m seqgan_env evaluate --run {run.folder} writes"
            if run.sweep_settings != runs[0].sweep_settings:
                return (
                    f"{run.folder} and {runs[0].folder} were evaluated with other samples, temperatures or references: "
                    "evaluate them alike"
                )
        return None

    def sweep(self, group: Group) -> list[dict[str, Interval]]:
        """The temperature curve over the group's seeds, a point per inverse temperature; empty if `no_sweeps`."""
        if self.no_sweeps:
            return []
        return [
            {name: interval_of([point[name] for point in points]) for name in points[0]}
            for points in zip(*(run.sweep for run in group.runs), strict=True)
        ]

    def _value(self, run: LoggedRun, name: str) -> float | None:
        return run.points[run.end if self.at is None else self.at].get(name)


def compare_runs(runs: Sequence[LoggedRun], at: int | None = None) -> Comparison:
    """Group runs by the settings in which they differ.

    Args:
        runs: the first one's group is what the others are compared with.
        at: compare all runs after this many updates; by default at their ends.

    Raises:
        ValueError: there is only one run; they have different tasks; two have the same settings and seed; a run is not
            finished, or has no measurement after `at` updates.
    """
    if len(runs) < 2:
        raise ValueError(
            f"A comparison needs at least two runs, got {', '.join(str(run.folder) for run in runs) or 'none'}. To look at "
            "one, open its report.html or use python -m seqgan_env evaluate --run FOLDER."
        )
    _check_tasks(runs)
    _check_ends(runs, at)
    return Comparison(_grouped(runs), at)


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The folders of runs among the given ones, and inside those that are none; each once, in this order.

    Raises:
        FileNotFoundError: a folder does not exist, or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"There is no folder {path}. Expected runs of train.py, or a folder that holds some.")
        inside = [path] if (path / CONFIG).is_file() else sorted(file.parent for file in path.rglob(CONFIG))
        if not inside:
            raise FileNotFoundError(
                f"{path} holds no run: no {CONFIG} in it. Expected runs of train.py, such as runs/quick-…."
            )
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_run(folder: Path) -> LoggedRun:
    """A run, finished or not.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the run has not measured anything yet, or a file is damaged.
    """
    settings = _flat(_read_json(folder / CONFIG))
    numbers = [settings.get(name) for name in ("seed", _UPDATES, "pretrain.epochs")]
    if settings.get("task") not in [*_TASK] or not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"{folder / CONFIG} is not that of a run of train.py of this version: leave the run out.")
    log = folder / PROGRESS
    if not log.is_file():
        raise FileNotFoundError(f"{folder} has no {PROGRESS}, the log of what was measured: leave the run out.")
    try:
        n_epochs = sum(bool(row.get(f"{LIKELIHOOD_PREFIX}/loss")) for row in read_log(log))
        points = read_evaluations(log)
    except (ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise ValueError(
            f"{log} cannot be used: {str(error).rstrip('.')}. Wait until the run has measured something, or leave it out."
        ) from error
    epochs = 0 if settings.get("start_from") else settings["pretrain.epochs"]
    if n_epochs < epochs:
        raise ValueError(
            f"{folder} is still in its likelihood phase, after {n_epochs} of {epochs} epochs: let it go on (train.py --resume "
            f"{folder}), or leave it out."
        )
    for update, point in points.items():
        for name, value in point.items():
            if not math.isfinite(value):
                raise ValueError(f"{log}: {name} after {update} updates is {value}, which has no mean: leave the run out.")
    return LoggedRun(folder, settings, points, *_read_sweep(folder / EVALUATION))


def _check_tasks(runs: Sequence[LoggedRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        names = _TASK[_task(run)] if _task(run) == _task(first) else ("task",)
        pairs = {name: (first.settings.get(name), run.settings.get(name)) for name in names}
        different = [
            f"{name} {told(one)} against {told(other)}" for name, (one, other) in pairs.items() if not _same(one, other)
        ]
        if different:
            raise ValueError(
                f"{first.folder} and {run.folder} are of different tasks: {' and '.join(different)}. Their figures are about "
                "other sequences, and cannot be compared: pass runs of one task."
            )


def _task(run: LoggedRun) -> str:
    return str(run.settings["task"])


def _same(one: Any, other: Any) -> bool:
    """Whether two settings are equal, or name files with the same content."""
    if one == other:
        return True
    if not (isinstance(one, str) and isinstance(other, str) and Path(one).is_file() and Path(other).is_file()):
        return False
    return filecmp.cmp(one, other, shallow=False)


def _check_ends(runs: Sequence[LoggedRun], at: int | None) -> None:
    common = sorted(set.intersection(*({*run.points} for run in runs)))
    all_have = f"All of these runs were measured after {', '.join(map(str, common))} updates."
    for run in runs:
        if at is None and run.end < run.settings[_UPDATES]:
            raise ValueError(
                f"{run.folder} was last measured after {run.end} of {run.settings[_UPDATES]} updates: it was stopped, has "
                "stopped itself (--collapse.stop), or still runs. Let it go on (train.py --resume), leave it out, or compare "
                f"all runs earlier, such as with --at {common[-1]}. {all_have}"
            )
        if at is not None and at not in run.points:
            raise ValueError(f"{run.folder} has no measurement after {at} updates. {all_have}")


def _grouped(runs: Sequence[LoggedRun]) -> tuple[Group, ...]:
    compared = [_compared(run) for run in runs]
    names = list(dict.fromkeys(name for settings in compared for name in settings))
    varied = [name for name in names if any(settings.get(name) != compared[0].get(name) for settings in compared)]
    members: dict[str, list[LoggedRun]] = {}
    for run, settings in zip(runs, compared, strict=True):
        members.setdefault(json.dumps([settings.get(name) for name in varied]), []).append(run)
    groups: list[Group] = []
    for same in members.values():
        seeds: dict[int, LoggedRun] = {}
        for run in same:
            if run.seed in seeds:
                raise ValueError(
                    f"{seeds[run.seed].folder} and {run.folder} have the same settings and seed {run.seed}: the second "
                    "repeats the first, and tells nothing about chance. Leave one out."
                )
            seeds[run.seed] = run
        settings = {name: _compared(same[0]).get(name) for name in varied}
        label = _label(settings, same[0], len(groups))
        groups.append(Group(label, settings, tuple(seeds[seed] for seed in sorted(seeds))))
    return tuple(groups)


def _compared(run: LoggedRun) -> dict[str, Any]:
    """The settings that make a group. Starts from a file count as alike, because each seed has its own."""
    settings = {
        name: value
        for name, value in run.settings.items()
        if name not in _NOT_COMPARED and not name.startswith("checkpoint.") and name not in _TASK[_task(run)]
    }
    return {**settings, "start_from": "a file" if settings.get("start_from") else None}


def _label(settings: Mapping[str, Any], run: LoggedRun, number: int) -> str:
    if not settings:
        return "all runs"
    if len(settings) > _MOST_IN_LABEL:
        return f"{number + 1}: {run.settings.get('preset', '')} {run.settings.get('agent', '')}".rstrip()
    shorts = [name.rpartition(".")[2] for name in settings]
    labels = [short if shorts.count(short) == 1 else name for short, name in zip(shorts, settings, strict=True)]
    return ", ".join(f"{flag(label)[2:]} {told(value)}" for label, value in zip(labels, settings.values(), strict=True))


def told(value: Any) -> str:
    """A setting's value as a reader would write it."""
    if isinstance(value, list):
        return " ".join(map(told, value))
    return "default" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _flat(values: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{group}{name}.") if isinstance(value, dict) else {f"{group}{name}": value}
    return flat


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): leave the run out.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not that of a run of train.py: leave the run out.")
    return values


def _read_sweep(path: Path) -> tuple[tuple[Mapping[str, float], ...], tuple[Any, ...]]:
    """The temperature curve of a run's last generator, and what it depends on."""
    if not path.is_file():
        return (), ()
    report = _read_json(path)
    try:
        settings = report["settings"]
        depends_on = (settings["n"], settings["reference"], *settings["inverse_temperatures"])
        sweep = tuple(
            {str(name): float(value) for name, value in point.items()} for point in report["generators"][LAST]["sweep"]
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} does not hold what this version writes ({error!r}): evaluate the run again.") from error
    return sweep, depends_on


def _interval(values: Iterable[float | None]) -> Interval | None:
    given = list(values)
    known = [value for value in given if value is not None]
    return interval_of(known) if given and len(known) == len(given) else None


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _curve(runs: Sequence[Mapping[int, Mapping[str, float]]], name: str, until: int | None) -> dict[int, Interval]:
    if not runs:
        return {}
    updates = [update for update in sorted(runs[0]) if until is None or update <= until]
    curve = {update: _interval(points.get(update, {}).get(name) for points in runs) for update in updates}
    return {update: interval for update, interval in curve.items() if interval is not None}
