"""Runs side by side: in which order, what is written, and how a program goes on."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.finished_runs import FinishedRuns, side_by_side, spread


@dataclass(frozen=True)
class Run:
    name: str
    number: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)


def make(name: str, number: int) -> Run:
    return Run(name, number)


def fail(name: str) -> Run:
    raise LookupError(name)


def test_processes_of_their_own_do_what_they_are_given() -> None:
    results = list(side_by_side(make, [("a", 1), ("b", 2), ("c", 3)], jobs=2))
    assert sorted(results, key=str) == [Run("a", 1), Run("b", 2), Run("c", 3)]


def count(path: Path) -> None:
    """For five minutes."""
    for n in range(3000):
        path.write_text(str(n))
        time.sleep(0.1)


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Even if it is killed, so that it cannot tell them."""
    counter, script, root = tmp_path / "counter", tmp_path / "parent.py", Path(__file__).parent.parent
    script.write_text(
        "from pathlib import Path\n"
        "from benchmarks.finished_runs import side_by_side\n"
        "from tests.test_finished_runs import count\n"
        "if __name__ == '__main__':\n"
        f"    list(side_by_side(count, [(Path({str(counter)!r}),)], 1))\n"
    )
    parent = subprocess.Popen([sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    try:
        assert comes_true(counter.exists)
        assert comes_true(lambda: counts_on(counter))
    finally:
        parent.kill()
        parent.wait()
    assert comes_true(lambda: not counts_on(counter))


def comes_true(condition: Callable[[], bool], seconds: float = 50) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def counts_on(counter: Path) -> bool:
    before = counter.read_text()
    time.sleep(2)
    return counter.read_text() != before


@pytest.mark.usefixtures("in_this_process")
class TestOrder:
    def test_each_after_what_it_needs(self, capsys: pytest.CaptureFixture[str]) -> None:
        needs = {"late": ["middle"], "middle": ["first", "elsewhere"]}
        left = [("late", 1), ("other", 1), ("middle", 1), ("first", 1)]
        results = side_by_side(make, left, 1, lambda key: [(name, key[1]) for name in needs.get(key[0], [])])
        names = [run.name for run in results]
        assert sorted(names) == ["first", "late", "middle", "other"]
        assert names.index("first") < names.index("middle") < names.index("late")
        assert capsys.readouterr().out.count("of 4 runs; about 0 minutes left") == 4

    def test_a_failure_is_told(self) -> None:
        with pytest.raises(LookupError, match="this one"):
            list(side_by_side(fail, [("this one",)], 1))

    def test_a_failure_does_not_stop_the_others(self, capsys: pytest.CaptureFixture[str]) -> None:
        """But those that need what failed."""

        def make_or_fail(name: str) -> Run:
            return fail(name) if name == "bad" else Run(name)

        left = [("bad",), ("needs it",), ("good",), ("better",)]
        runs = side_by_side(make_or_fail, left, 1, lambda key: [("bad",)][: key[0] == "needs it"])
        assert {next(runs).name, next(runs).name} == {"good", "better"}
        with pytest.raises(LookupError, match="bad"):
            next(runs)
        printed = capsys.readouterr().out
        assert "('bad',) failed: LookupError('bad')" in printed
        assert "2 of 4 runs" in printed

    def test_what_came_before_a_failure_is_kept(self, tmp_path: Path) -> None:
        def make_or_fail(name: str) -> Run:
            return fail(name) if name == "bad" else Run(name)

        file = FinishedRuns(tmp_path / "new" / "runs.jsonl", Run)
        with pytest.raises(LookupError):
            list(file.append(side_by_side(make_or_fail, [("good",), ("bad",)], 1, lambda key: [("good",)][: key[0] == "bad"])))
        assert file.read() == [Run("good")]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = FinishedRuns(tmp_path / "runs.jsonl", Run)
    assert file.read() == []
    first, second = Run("a", 1, [(1.5, 2.0)]), Run("b")
    assert list(file.append([first])) == [first]
    assert list(file.append([second])) == [second]
    assert file.read() == [first, second]


def test_spread_by_hand() -> None:
    assert spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert spread([1.0, 2.0, 3.0], "+") == "+2.000 ± 1.000"
    assert spread([-0.5], "+") == "-0.500 ± 0.000"
