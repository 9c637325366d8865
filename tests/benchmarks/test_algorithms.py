"""The table of algorithms, and that its program runs only what is missing."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import algorithms
from benchmarks.algorithms import LIKELIHOOD, RUNS, Config, Result, main, table
from benchmarks.finished_runs import FinishedRuns
from tests.programs import run_program
from tests.tiny_runs import oracle_config


def result(agent: str, reward: str, seed: int, end: tuple[float, float] = (3.6, 3.2), updates: int = 200) -> Result:
    return Result(agent, reward, seed, updates, [(4.0, 3.0), (3.9, 3.1), end], 512_000, 90.4)


def test_every_agent_plays_under_both_rewards_and_reinforce_as_published() -> None:
    assert len(RUNS) == len(set(RUNS)) == 1 + 1 + 5 * 2
    assert {reward for agent, reward in RUNS if agent == "recurrent-ppo"} == {"terminal", "shaped"}


def test_table_by_hand() -> None:
    results = [result("ppo", "shaped", 4), result("ppo", "shaped", 5, (3.4, 3.1)), result("a2c", "terminal", 4)]
    lines = table([*results, Result(*LIKELIHOOD, 4, 200, [(4.0, 3.0)], 0, 30.0)], 2).splitlines()
    assert lines[2] == (
        "| likelihood alone, 1 of 2 seeds | – | 4.000 → 4.000 | +0.000 ± 0.000 | 3.000 → 3.000 | +0.000 ± 0.000 "
        "| +0.000 ± 0.000 | 0 | 30 |"
    )
    assert lines[3] == (
        "| ppo | shaped | 4.000 → 3.500 | -0.500 ± 0.141 | 3.000 → 3.150 | +0.150 ± 0.071 | -0.350 ± 0.212 | 512,000 | 90 |"
    )
    assert lines[4].startswith("| a2c, 1 of 2 seeds | terminal |")
    assert len(lines) == 5


@pytest.fixture
def played(runs_of_no_time: Any) -> list[Any]:
    """The arguments of runs that take no time."""

    def make(agent: str, reward: str, seed: int, updates: int, _: Path) -> Result:
        return result(agent, reward, seed, updates=updates)

    calls: list[Any] = runs_of_no_time(algorithms, make)
    return calls


def test_runs_only_what_is_missing(tmp_path: Path, played: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    file = FinishedRuns(tmp_path / "algorithms.jsonl", Result)
    finished = [result(*names, 4, updates=7) for names in RUNS[:-4]]
    other = [result(*RUNS[-1], 4, updates=8), result(*RUNS[-1], 9, updates=7)]  # other sizes, another seed
    list(file.append([*finished, *other]))
    config = Config(seeds=(4,), out=tmp_path, updates=7)
    main(config)
    assert played == [(*names, 4, 7, tmp_path) for names in RUNS[-4:]]
    assert len(file.read()) == len(finished) + len(other) + 4
    assert capsys.readouterr().out.count("\n| ") == 1 + len(RUNS)
    main(config)
    assert len(played) == 4  # nothing is left


def test_the_table_alone_runs_nothing(tmp_path: Path, played: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    main(Config(out=tmp_path, table_only=True))
    assert played == []
    assert capsys.readouterr().out.startswith("| agent | reward |")


def test_a_run_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "quick", lambda seed: oracle_config(tmp_path, seed=seed))
    ppo = algorithms.run("ppo", "terminal", 1, 2, tmp_path / "runs")
    likelihood = algorithms.run(*LIKELIHOOD, 1, 2, tmp_path / "runs")
    assert (ppo.tokens, likelihood.tokens) == (2 * 8 * 6, 0)
    assert (len(ppo.curve), len(likelihood.curve)) == (3, 1)
    assert ppo.curve[0] == likelihood.curve[0]
    assert ppo.cpu_seconds > 0


def test_prints_its_table_on_a_terminal_without_arrows(tmp_path: Path) -> None:
    program = ("-m", "benchmarks.algorithms", "--table-only", "--out", tmp_path)
    printed = run_program(*program, PYTHONIOENCODING="ascii")
    assert printed.returncode == 0, printed.stderr
    assert "before \\u2192 after" in printed.stdout
