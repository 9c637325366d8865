"""The benchmark of training beside other work: its ratios by hand, its programs, and a real run of each way."""

import os

import pytest

from benchmarks import beside_work
from benchmarks.beside_work import SNIPPETS, Config, Durations, main, one_busy_process, seconds, snippet, table_row


def test_ratios_by_hand() -> None:
    row = Durations("quick", alone=66.0, by_threads={1: 60.0, 2: 75.0}, beside=99.0)
    assert table_row(row) == "| quick | 66 | 60 (1) | 1.10 | 99 | 1.50 |"


@pytest.mark.parametrize("name", SNIPPETS)
def test_each_example_is_found(name: str) -> None:
    compile(snippet(name), name, "exec")


def test_each_way_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(beside_work, "snippet", lambda _: "import os; print(os.environ.get('OMP_NUM_THREADS'))")
    (row,) = main(Config(programs=("agent",), repeats=1))
    assert row.by_threads.keys() == {1}
    assert min(row.alone, row.beside, row.by_threads[1]) > 0
    assert "| agent |" in capsys.readouterr().out


def test_a_program_that_fails_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_work, "snippet", lambda _: "raise OSError('no room')")
    with pytest.raises(RuntimeError, match=r"agent failed:(.|\n)*no room"):
        seconds("agent", Config())


def test_the_busy_process_ends() -> None:
    with one_busy_process() as process:
        assert process.poll() is None
    assert process.poll() is not None
