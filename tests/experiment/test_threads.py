"""How many threads a run uses, and that their way to wait is set before they start."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agents.experiment.config import OracleConfig, TextConfig, TrainConfig
from agents.experiment.make_agent import make_agent
from agents.experiment.make_task import make_task
from agents.experiment.presets import PRESETS
from agents.experiment.threads import computing_with, threads_for
from tests.programs import LIMIT, ROOT
from tests.tiny_runs import SENTENCES, only_run, oracle_config
from train import main, resume

CORES = 64


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: CORES)


def threads_of(config: TrainConfig) -> int:
    task = make_task(config)
    return threads_for(config, task.game, make_agent(config, task.game).generator)


def oracle_preset(name: str) -> OracleConfig:
    config = PRESETS[name][0]
    assert isinstance(config, OracleConfig)
    return dataclasses.replace(config, n_real=10, device="cpu", evaluation=oracle_config(Path()).evaluation)


@pytest.mark.usefixtures("many_cores")
class TestTheirNumber:
    def test_grows_with_the_work(self, tmp_path: Path) -> None:
        text = PRESETS["text"][0]
        assert isinstance(text, TextConfig)
        assert threads_of(oracle_config(tmp_path)) == 1
        assert threads_of(oracle_preset("quick")) == 2
        assert (
            2 <= threads_of(dataclasses.replace(text, data=SENTENCES, device="cpu")) < 16 < threads_of(oracle_preset("paper"))
        )
        assert threads_of(oracle_preset("paper-cpu")) == CORES

    def test_by_hand(self) -> None:
        """`paper`: 27.02 MFLOP a sequence, 64 of them, three passes: 5.19 GFLOP, of which a thread should have 125 M."""
        assert threads_of(oracle_preset("paper")) == 41

    def test_is_the_requested_one(self, tmp_path: Path) -> None:
        assert threads_of(oracle_config(tmp_path, threads=3)) == 3


def test_is_at_most_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert threads_of(oracle_preset("paper")) == 5


def test_computing_with_them_ends() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), computing_with(before + 1):
        raise KeyError(torch.get_num_threads())
    with computing_with(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_run_records_them_and_resumes_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    main(oracle_config(tmp_path, threads=2), "run")
    run = only_run(tmp_path)
    assert json.loads((run / "config.json").read_text())["threads"] == 2
    assert "threads: 2, writing to" in capsys.readouterr().out
    resume(run)
    assert "figures may differ" not in capsys.readouterr().out
    resume(run, threads=1)
    told = capsys.readouterr().out
    assert "threads: 2; with" in told
    assert "threads: 1 its figures may differ" in told
    assert torch.get_num_threads() == before


WATCH = """
import importlib.abc, os, sys
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("module", ["seqgan_env", "agents", "train", "benchmarks.speed"])
@pytest.mark.parametrize(("given", "seen"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_are_set_to_sleep_before_torch_is_imported(module: str, given: str | None, seen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", f"{WATCH}\nimport {module}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    assert done.stdout.strip() == seen
