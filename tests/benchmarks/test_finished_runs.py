"""Runs side by side: their order, what they write, and that finished ones do not run again."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.finished_runs import FinishedRuns, side_by_side, spread
from tests.programs import ROOT, started_program, wait_until


@dataclass(frozen=True)
class Run:
    name: str
    number: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)


def make(name: str, number: int) -> Run:
    return Run(name, number)


def fail(name: str) -> Run:
    raise LookupError(name)


def test_separate_processes_do_their_tasks() -> None:
    results = list(side_by_side(make, [("a", 1), ("b", 2), ("c", 3)], jobs=2))
    assert sorted(results, key=str) == [Run("a", 1), Run("b", 2), Run("c", 3)]


def note_process_and_wait(path: Path) -> None:
    """For ever."""
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    while True:
        time.sleep(60)


def is_running(process: int) -> bool:
    """Neither gone nor a zombie that its adoptive parent has not yet asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Even if it is killed, so that it cannot tell them."""
    noted, script = tmp_path / "noted", tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from benchmarks.finished_runs import side_by_side\n"
        "from tests.benchmarks.test_finished_runs import note_process_and_wait\n"
        "if __name__ == '__main__':\n"
        f"    list(side_by_side(note_process_and_wait, [(Path({str(noted)!r}),)], 1))\n"
    )
    with started_program(tmp_path / "printed", script, PYTHONPATH=str(ROOT)) as parent:
        wait_until(noted.exists, lambda: parent.poll() is None)
        child = int(noted.read_text())
        assert is_running(child)
    wait_until(lambda: not is_running(child))


@pytest.mark.usefixtures("in_this_process")
class TestOrder:
    def test_each_runs_after_those_it_needs(self, capsys: pytest.CaptureFixture[str]) -> None:
        needs = {"late": ["middle"], "middle": ["first", "elsewhere"]}
        left = [("late", 1), ("other", 1), ("middle", 1), ("first", 1)]
        results = side_by_side(make, left, 1, lambda key: [(name, key[1]) for name in needs.get(key[0], [])])
        names = [run.name for run in results]
        assert sorted(names) == ["first", "late", "middle", "other"]
        assert names.index("first") < names.index("middle") < names.index("late")
        assert capsys.readouterr().out.count("of 4 runs; about 0 minutes left") == 4

    def test_a_failure_is_reported(self) -> None:
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

    def test_results_before_a_failure_are_kept(self, tmp_path: Path) -> None:
        def make_or_fail(name: str) -> Run:
            return fail(name) if name == "bad" else Run(name)

        file = FinishedRuns(tmp_path / "new" / "runs.jsonl", Run)
        with pytest.raises(LookupError):
            list(file.append(side_by_side(make_or_fail, [("good",), ("bad",)], 1, lambda key: [("good",)][: key[0] == "bad"])))
        assert file.read() == [Run("good")]


def test_written_results_are_read_back(tmp_path: Path) -> None:
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
