"""The table of published baselines: its settings, and that its program runs only what is missing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from agents.experiment.config import OracleConfig
from agents.experiment.presets import PRESETS
from benchmarks import results
from benchmarks.finished_runs import FinishedRuns
from benchmarks.results import RUNS, START, Config, Result, main, settings, table
from benchmarks.run_folders import ORACLE
from tests.tiny_runs import TINY, oracle_config

FIRST, SECOND = list(RUNS)[:2]


def result(name: str, seed: int, end: tuple[float, float] = (9.0, 8.7), updates: int = 100) -> Result:
    return Result(name, seed, 40, updates, [(9.1, 8.6), (8.8, 8.9), end])


def test_table_by_hand() -> None:
    lines = table([result(SECOND, 0), result(SECOND, 1, (8.6, 8.9)), result(FIRST, 0)]).splitlines()
    assert lines[2] == f"| {FIRST} | 9.000 ± 0.000 | 8.700 ± 0.000 | 8.800 ± 0.000 | 1 |"
    assert lines[3] == f"| {SECOND} | 8.800 ± 0.283 | 8.800 ± 0.141 | 8.700 ± 0.141 | 2 |"
    assert len(lines) == 4


def test_rows_differ_from_the_published_preset_only_as_named() -> None:
    paper = PRESETS["paper"][0]
    config = Config(data=Path("data"), epochs=7, updates=9)
    for name, (likelihood, adversarial) in RUNS.items():
        row = settings(name, 3, config)
        assert isinstance(row, OracleConfig)
        assert (row.seed, row.oracle_params) == (3, Path("data") / ORACLE)
        assert row.pretrain == dataclasses.replace(paper.pretrain, epochs=7, **likelihood)
        assert row.adversarial == dataclasses.replace(paper.adversarial, **{"updates": 9, **adversarial})
        assert row.generator == paper.generator
    assert len({str(settings(name, 3, config)) for name in RUNS}) == len(RUNS)


def test_adversarial_phases_begin_with_the_likelihood_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(name: str, seed: int, config: Config) -> OracleConfig:
        changes = results.NO_UPDATES if name == START else {"reward_model": "constant"}
        return oracle_config(tmp_path, seed=seed, adversarial=dataclasses.replace(TINY["adversarial"], **changes))

    monkeypatch.setattr(results, "settings", tiny)
    config = Config(out=tmp_path / "runs")
    start, phase = (results.run(name, 1, config) for name in (START, "then a constant reward"))
    assert len(start.curve) == 1
    assert phase.curve[0] == start.curve[0]
    assert len(phase.curve) > 1


def test_runs_only_what_is_missing(tmp_path: Path, runs_of_no_time: Any, capsys: pytest.CaptureFixture[str]) -> None:
    called = runs_of_no_time(results, lambda name, seed, _: result(name, seed))
    others = [result(FIRST, 0), result(SECOND, 0, updates=7)]  # the second is of another size
    list(FinishedRuns(tmp_path / "results.jsonl", Result).append(others))
    config = Config(seeds=(0, 1), runs=(FIRST, SECOND), out=tmp_path)
    main(config)
    assert called == [(SECOND, 0, config), (FIRST, 1, config), (SECOND, 1, config)]
    assert f"| {FIRST} | 9.000 ± 0.000 | 8.700 ± 0.000 | 8.800 ± 0.000 | 2 |" in capsys.readouterr().out
    called.clear()
    main(dataclasses.replace(config, seeds=(2,), runs=("then PG-BLEU",)))
    assert [arguments[:2] for arguments in called] == [(START, 2), ("then PG-BLEU", 2)]
    called.clear()
    main(dataclasses.replace(config, seeds=(0, 1, 2), table_only=True))
    main(config)
    assert called == []
