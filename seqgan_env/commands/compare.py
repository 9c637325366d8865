"""`python -m seqgan_env compare`: runs side by side, as a table, `comparison.json` and a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqgan_env.evaluation.comparison import MEASURES, Comparison, Group, compare_runs, find_runs, read_run, told
from seqgan_env.evaluation.comparison_picture import draw_comparison
from seqgan_env.metrics.intervals import Interval
from seqgan_env.rendering import printable
from seqgan_env.support.atomic_files import check_folder, write_atomically
from seqgan_env.support.settings import NonNegativeInt, flag

SCHEMA = 1
"""The version of `comparison.json`."""


@dataclass(frozen=True)
class Compare:
    """Compare runs over their seeds, grouped by the settings in which they differ: means, intervals, paired differences."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or folders that hold some. The others are compared with the first one's group."""
    at: NonNegativeInt | None = None
    """Compare after this many adversarial updates; by default at the runs' ends, and all must have reached theirs."""
    out: Path = Path("comparison")
    """The folder to write comparison.json and comparison.png to."""

    def __call__(self) -> dict[str, Any]:
        """Compare the runs; write and print the results.

        Returns:
            The content of `comparison.json`.

        Raises:
            ValueError: the runs cannot be compared, or a file is damaged; the message says which, and what to do.
            OSError: a run or a file of it does not exist, or the results cannot be written.
        """
        check_folder(self.out, "--out")
        comparison = compare_runs([read_run(folder) for folder in find_runs(self.runs)], self.at)
        report = _report(comparison)
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(self.out / "comparison.json", (text + "\n").encode())
        draw_comparison(comparison, self.out / "comparison.png")
        _print(Console(), comparison)
        print(f"comparison.json and comparison.png are in {self.out}")
        return report


def _report(comparison: Comparison) -> dict[str, Any]:
    """All figures of the table and the picture, for JSON."""
    return {
        "schema": SCHEMA,
        "at": comparison.at,
        "interval": "95%, Student's t over seeds",
        "compared_with": comparison.groups[0].label,
        "groups": [_group_report(comparison, group) for group in comparison.groups],
    }


def _group_report(comparison: Comparison, group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "settings": dict(group.settings),
        "runs": [{"folder": str(run.folder), "seed": run.seed, "updates": run.end} for run in group.runs],
        "paired_seeds": [run.seed for run, _ in comparison.pairs(group)],
        "metrics": {
            name: {
                "value": _numbers(comparison.after(group, name)),
                "change_since_likelihood": _numbers(comparison.change(group, name)),
                "paired_difference": _numbers(comparison.difference(group, name)),
                "curve": {update: _numbers(point) for update, point in comparison.curve(group, name).items()},
                "paired_difference_curve": {
                    update: _numbers(point) for update, point in comparison.difference_curve(group, name).items()
                },
            }
            for name in comparison.measures
        },
        "sweep": [{name: _numbers(value) for name, value in point.items()} for point in comparison.sweep(group)],
    }


def _numbers(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _print(console: Console, comparison: Comparison) -> None:
    groups = comparison.groups
    end = "at the end" if comparison.at is None else f"after {comparison.at} updates"
    table = Table(title=f"Mean over seeds ± 95% interval, {end}", title_justify="left")
    table.add_column("")
    for group in groups:
        table.add_column(Text(printable(group.label)), justify="right")
    table.add_column("better")
    table.add_row("seeds", *(" ".join(str(run.seed) for run in group.runs) for group in groups))
    for name in groups[0].settings:
        table.add_row(Text(flag(name)), *(Text(printable(told(group.settings[name]))) for group in groups))
    parts = [("", comparison.after, "{:.3f}"), ("since the likelihood start", comparison.change, "{:+.3f}")]
    if any(comparison.pairs(group) for group in groups):
        parts.append(("minus the first, same seeds", comparison.difference, "{:+.3f}"))
    for title, figures, form in parts:
        table.add_section()
        if title:
            table.add_row(Text(title, style="bold"))
        for name in comparison.measures:
            cells = [figures(group, name) for group in groups]
            if any(cells):
                label, better = MEASURES[name]
                table.add_row(label, *("–" if cell is None else form.format(cell) for cell in cells), "" if title else better)
    console.print(table)
    for note in _notes(comparison):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    first, *others = comparison.groups
    if not others:
        notes.append("The runs differ in nothing but their seeds.")
    alone = [group.label for group in comparison.groups if len(group.runs) == 1]
    if alone:
        notes.append(f"One seed has no interval, and its figure may be chance: {'; '.join(alone)}. Run more seeds.")
    unpaired = [group.label for group in others if not comparison.pairs(group)]
    if unpaired:
        notes.append(f"No seed in common with {first.label}, so no paired differences: {'; '.join(unpaired)}.")
    if comparison.no_sweeps:
        notes.append(f"No temperature curves: {comparison.no_sweeps}.")
    return [printable(note) for note in notes]
