"""The table of other libraries, and that its program continues in another environment."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import libraries
from benchmarks.finished_runs import FinishedRuns
from benchmarks.libraries import LESSON_UPDATES, LIBRARIES, Config, Result, Task, main, runs, table


def result(library: str, task: Task, seed: int, after: float, updates: int = 60, version: str = "1.0") -> Result:
    updates = LESSON_UPDATES if task == "lesson" else updates
    return Result(library, version, task, seed, updates, 5.25, after, "a processor, torch 2.13.0, one thread a run")


def test_table_by_hand() -> None:
    results = [
        result("skrl", "adversarial", 0, 3.5),
        result("skrl", "adversarial", 1, 3.7),
        result("skrl", "lesson", 0, 0.75),
        result("rl_zoo3", "adversarial", 2, 3.0),
        result("TorchRL", "adversarial", 0, 9.0, updates=61),  # another size
    ]
    assert table(results, 60).splitlines()[2:] == [
        "| skrl | 1.0 | 0, 1 | 5.250 → 0.750 | 5.250 → 3.600 ± 0.141 |",
        "| rl_zoo3 | 1.0 | 2 | – | 5.250 → 3.000 |",
        "",
        "a processor, torch 2.13.0, one thread a run",
    ]


def test_only_installed_libraries_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None if name in ("ray", "skrl") else name)
    found = list(runs(Config(seeds=(3,), updates=7)))
    assert {library for library, *_ in found} == {*LIBRARIES} - {"RLlib", "skrl"}
    assert [run for run in found if run[0] in ("TorchRL", "rl_zoo3")] == [
        ("TorchRL", "lesson", 3, LESSON_UPDATES),
        ("TorchRL", "adversarial", 3, 7),
        ("rl_zoo3", "adversarial", 3, 7),
    ]


def test_runs_only_what_is_missing(
    tmp_path: Path, runs_of_no_time: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from another virtual environment, with the same folder."""

    def make(library: str, task: Task, seed: int, updates: int) -> Result:
        return result(library, task, seed, 3.0, updates)

    called = runs_of_no_time(libraries, make)
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: name if name in ("torch", "skrl") else None)
    file = FinishedRuns(tmp_path / "libraries.jsonl", Result)
    list(file.append([result("RLlib", "adversarial", 0, 3.6), result("skrl", "adversarial", 0, 3.2)]))
    config = Config(seeds=(0,), out=tmp_path)
    main(config)
    assert called == [
        ("single file", "lesson", 0, LESSON_UPDATES),
        ("single file", "adversarial", 0, 60),
        ("skrl", "lesson", 0, LESSON_UPDATES),
    ]
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if " | 1.0 | " in line] == [
        "| single file",
        "| skrl",
        "| RLlib",
    ]
    main(config)
    assert len(called) == 3  # nothing is left
    main(Config(out=tmp_path, table_only=True))
    assert len(called) == 3


def test_a_run_at_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tasks of the program that needs no library; the lesson's start is chance, 1 in 4."""
    monkeypatch.setattr(libraries.sys, "path", [*libraries.sys.path])
    lesson = libraries.run("single file", "lesson", 0, 1)
    assert 0.1 < lesson.before < 0.4
    monkeypatch.setattr(libraries, "LESSON", {**libraries.LESSON, "num_envs": 4})
    smaller = libraries.run("single file", "lesson", 0, 1)
    assert smaller.before != lesson.before
    adversarial = libraries.run("single file", "adversarial", 0, 1)
    assert 4 < adversarial.before < 6.5
    assert adversarial.before == adversarial.after  # of the episodes of the first update and of the last
    assert adversarial.machine.endswith("one thread a run")
