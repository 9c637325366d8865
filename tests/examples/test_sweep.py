"""The example of a sweep: processes that share a storage share a study."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import train
from seqgan_env.support.errors import NumericalFault
from tests.programs import ROOT
from tests.tiny_runs import oracle_config

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("runs_without_pictures")


def example() -> Any:
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "examples" / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    sweep = example()
    base = oracle_config(tmp_path / "not-used", vocab_size=8)
    config = sweep.Config(storage=str(tmp_path / "shared" / "journal"), trials=1, out=tmp_path / "runs")
    first = sweep.search(base, config)
    second = sweep.search(base, dataclasses.replace(config, seed=1))
    assert [trial.number for trial in second.trials] == [0, 1]
    assert first.trials[0].value == second.trials[0].value
    assert second.trials[0].params != second.trials[1].params
    runs = {run.name.split("-")[1]: run for run in (tmp_path / "runs").iterdir()}
    for trial in second.trials:
        settings = json.loads((runs[str(trial.number)] / "config.json").read_text())
        for name, value in trial.params.items():
            group, _, field = name.partition(".")
            assert settings[group][field] == value
        rows = (runs[str(trial.number)] / "progress.csv").read_text().splitlines()
        header, last = rows[0].split(","), rows[-1].split(",")
        written = [float(last[header.index(f"adversarial/nll_{part}")]) for part in ("oracle", "test")]
        assert trial.value == pytest.approx(sum(written))


def test_a_run_that_fails_is_a_failed_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = example()

    def fail(*_: Any) -> dict[str, float]:
        raise NumericalFault("infinite")

    monkeypatch.setattr(train, "main", fail)
    database = sweep.storage(f"sqlite:///{tmp_path}/study.db")
    monkeypatch.setattr(sweep, "storage", lambda _: database)
    study = sweep.search(oracle_config(tmp_path), sweep.Config(trials=1))
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    database.remove_session()
    database.engine.dispose()  # from Python 3.13 on, a connection that is left open is warned of
