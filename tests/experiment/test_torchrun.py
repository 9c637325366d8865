"""Several processes under torchrun give the results of one process, and survive each other's end."""

import copy
import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import train
from agents.experiment.run import Run
from agents.experiment.torchrun import LAUNCH, connected, earlier_run, note_of_launch, store_of_this_life
from benchmarks.scaling import paper_parameters, volume
from seqgan_env.evaluation.run_logs import read_log
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.support.process_group import ALONE, Workers
from tests.programs import run_program
from tests.small import seeded
from tests.tiny_runs import TINY, only_run, oracle_config
from tests.together import CONFIGS, KILLED_AFTER, in_double_precision

pytestmark = pytest.mark.usefixtures("runs_without_pictures")
TOLERANCE = 1e-12
"""Of the norm of a network's parameters: rounding in float64, which Adam makes larger where a gradient is nearly 0."""


def torchrun(case: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Two processes that do a case of `tests.together`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *options]
    return run_program(*launcher, "-m", "tests.together", case, folder)


def distance(one: Path, other: Path, name: str) -> float:
    """The distance of two runs' weights, relative to their norm."""
    a, b = (
        torch.cat([tensor.flatten().double() for _, tensor in sorted(load_file(run / f"{name}.safetensors").items())])
        for run in (one, other)
    )
    return float((a - b).norm() / a.norm())


def log_of(run: Path) -> list[dict[str, float]]:
    """The numbers of a run's log, without times."""
    rows = read_log(run / "progress.csv")
    return [{k: float(v) for k, v in row.items() if v and not k.startswith("time/")} for row in rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    with in_double_precision():
        for name, make in CONFIGS.items():
            train.main(make(folder / name), name)
    return {name: only_run(folder / name) for name in CONFIGS}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two processes, and of those with a fault."""
    folder = tmp_path_factory.mktemp("together")
    result = torchrun("compare", folder)
    assert result.returncode == 0, result.stderr
    (folder / "printed").write_text(result.stdout)
    return folder


def notes(folder: Path, name: str, rank: int) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}-{rank}.json").read_text()))


@pytest.mark.slow
class TestTwoProcesses:
    @pytest.mark.parametrize("name", list(CONFIGS))
    def test_give_the_results_of_one(self, alone: dict[str, Path], together: Path, name: str) -> None:
        for weights in ("generator_likelihood", "generator", "discriminator", "density"):
            if (alone[name] / f"{weights}.safetensors").exists():
                assert distance(alone[name], only_run(together / name), weights) < TOLERANCE, weights
        for one, two in zip(log_of(alone[name]), log_of(only_run(together / name)), strict=True):
            assert two == pytest.approx(one, rel=1e-6, abs=1e-9)

    def test_differ_without_their_exchange(self, alone: dict[str, Path], together: Path) -> None:
        """A control: deliberate faults are detected, separate gradients in every phase and separate baselines in the last."""
        apart, baseline = only_run(together / "apart"), only_run(together / "baseline")
        for weights in ("generator_likelihood", "generator", "discriminator"):
            assert distance(alone["everything"], apart, weights) > 1e-3
        assert distance(alone["everything"], baseline, "generator_likelihood") < TOLERANCE
        assert distance(alone["everything"], baseline, "generator") > 1e-3

    @pytest.mark.parametrize("name", list(CONFIGS))
    def test_are_equal_to_the_last_bit_after_each_round(self, together: Path, name: str) -> None:
        first, second = (notes(together, name, rank) for rank in (0, 1))
        assert first == second
        assert len(set(first["rounds"])) == len(first["rounds"]) >= 7
        assert notes(together, "apart", 0)["rounds"] != notes(together, "apart", 1)["rounds"]  # a control

    def test_only_the_first_writes_and_prints(self, alone: dict[str, Path], together: Path) -> None:
        def names(run: Path) -> list[str]:
            return sorted(path.name for path in run.iterdir() if "events" not in path.name)

        run = only_run(together / "everything")
        assert names(run) == sorted([*names(alone["everything"]), LAUNCH])
        assert len(list(run.glob("events*"))) == 1
        opened = [json.loads((together / f"opened-{rank}.json").read_text()) for rank in (0, 1)]
        assert any(str(run) in path for path in opened[0])
        assert not any("-1.json" not in path and str(together) in path for path in opened[1])
        printed = (together / "printed").read_text()
        assert printed.count(f"Everything is in {run}") == 1


@pytest.mark.slow
class TestAKilledProcess:
    def test_is_restarted_and_the_run_continues(self, alone: dict[str, Path], tmp_path: Path) -> None:
        result = torchrun("be_killed", tmp_path, "--max-restarts=1")
        assert result.returncode == 0, result.stderr
        run = only_run(tmp_path / "killed")
        saved = re.search(r"Saved (\S+\.safetensors)", result.stdout)
        assert saved is not None, result.stdout
        # The one that is killed ends its round; whether the first has by then, which hears of it, is chance.
        names = [f"round-{rounds:08d}.safetensors" for rounds in (KILLED_AFTER - 1, KILLED_AFTER)]
        assert Path(saved[1]) in [run / "checkpoints" / name for name in names]
        assert f"Resuming from {saved[1]}" in result.stdout
        first, second = (notes(tmp_path, "killed", rank)["rounds"] for rank in (0, 1))
        assert first == second
        self.assert_like(alone["everything"], run)

    def test_ends_the_run_which_one_process_can_resume(self, alone: dict[str, Path], tmp_path: Path) -> None:
        result = torchrun("be_killed", tmp_path)
        assert result.returncode != 0
        run = only_run(tmp_path / "killed")
        assert f"Resume with: python train.py --resume {run}" in result.stdout
        assert not (run / "report.html").exists()
        with in_double_precision():
            train.resume(run)
        self.assert_like(alone["everything"], run)

    def assert_like(self, alone: Path, run: Path) -> None:
        for weights in ("generator_likelihood", "generator", "discriminator"):
            assert distance(alone, run, weights) < TOLERANCE, weights
        assert len(log_of(run)) == len(log_of(alone))


class Two(Workers):
    """The first of two processes."""

    count = 2


class TestSettings:
    def test_a_batch_that_cannot_be_shared_equally(self, tmp_path: Path) -> None:
        adversarial = {**TINY, "adversarial": TINY["adversarial"].__class__(batch_size=9)}["adversarial"]
        with pytest.raises(ValueError, match=r"--adversarial.batch-size is the whole batch.* 2 does not divide 9"):
            Run.start(oracle_config(tmp_path, adversarial=adversarial), "run", Two())
        assert not list(tmp_path.iterdir())

    def test_another_agent(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="only the agent reinforce trains in several processes, got ppo and 2"):
            Run.start(oracle_config(tmp_path, agent="ppo"), "run", Two())

    def test_without_torchrun_one_process_does_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for size in (None, "1"):
            if size is not None:
                monkeypatch.setenv("WORLD_SIZE", size)
            with connected() as workers:
                assert workers is ALONE
                assert not torch.distributed.is_initialized()


class TestRounding:
    def test_occasionally_changes_a_drawn_token(self) -> None:
        """Why runs of one and two processes diverge, however exactly updates are shared: 400,000 tokens of similar models."""
        generator = TokenLSTM(100, 8, 8, initial_std=1.0, generator=seeded())

        def share_of_other_sequences(distance: float) -> float:
            close, noise = copy.deepcopy(generator), seeded(1)
            with torch.no_grad():
                for parameter in close.parameters():
                    parameter.mul_(1 + distance * torch.randn(parameter.shape, generator=noise))
            one, other = (model.sample(20_000, 20, seeded(2))[0] for model in (generator, close))
            return (one != other).any(dim=1).double().mean().item()

        assert share_of_other_sequences(0.0) == 0
        assert 0 < share_of_other_sequences(3e-5) < 0.05


class TestParts:
    @given(n=st.integers(1, 200), count=st.integers(1, 70))
    def test_cover_each_row_once(self, n: int, count: int) -> None:
        weights = torch.zeros(n, dtype=torch.float64)
        lengths = []
        for rank in range(count):
            worker = Workers()
            worker.rank, worker.count = rank, count
            rows, weight = worker.part(n)
            weights[rows] += weight
            lengths.append(len(weights[rows]))
        torch.testing.assert_close(weights, torch.ones_like(weights))
        assert min(lengths) >= 1
        assert max(lengths) - min(lengths) <= 1

    def test_one_process_changes_nothing(self) -> None:
        values: Tensor = torch.arange(3.0)
        assert ALONE.part(3) == (slice(0, 3), 1.0)
        assert ALONE.gather(values, 3) is values
        assert ALONE.sum_gradients([], values) is values
        assert ALONE.of_first(lambda: {"a": 1}) == {"a": 1}


class TestLaunches:
    def test_an_earlier_run_is_found_by_the_launch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
        mine = note_of_launch()
        assert mine is not None
        for age, (name, note) in enumerate({"newest": '{"run_id": "other"}\n', "newer": mine, "old": mine}.items()):
            (tmp_path / name).mkdir()
            (tmp_path / name / LAUNCH).write_text(note)
            os.utime(tmp_path / name / LAUNCH, (1000 - age, 1000 - age))
        assert earlier_run(tmp_path) == tmp_path / "newer"
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
        assert earlier_run(tmp_path) is None

    def test_one_without_a_name_is_named_after_its_launcher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        assert f"torchrun {os.getppid()} on " in str(note_of_launch())
        monkeypatch.delenv("TORCHELASTIC_RUN_ID")
        assert note_of_launch() is None


class TestStores:
    def test_a_restart_ignores_values_of_dead_processes(self) -> None:
        """Three lives over one store, as after restarts by torchrun; one process is late each time."""
        store = torch.distributed.HashStore()

        def live(life: str, rank: int) -> list[str]:
            time.sleep(0.2 * (rank == 2))
            part = store_of_this_life(store, rank, 3)
            assert not part.check([f"from-{rank}"])
            part.set(f"from-{rank}", f"{life}-{rank}")
            return [part.get(f"from-{other}").decode() for other in range(3)]

        for life in ("first", "second", "third"):
            with ThreadPoolExecutor(3) as pool:
                seen = list(pool.map(live, [life] * 3, range(3)))
            assert seen == [[f"{life}-{rank}" for rank in range(3)]] * 3


class TestProjection:
    def test_volume_of_a_ring(self) -> None:
        """In each of 2 (n - 1) steps a process sends an n-th of its gradients."""
        assert volume(1000, 2) == 4000
        assert volume(1000, 8) == 14 * 500
        assert volume(1000, 1) == 0

    def test_parameters_of_the_paper(self) -> None:
        """By hand, from its table of sizes: LSTM 32/32; windows of 64-wide embeddings, one highway layer, two outputs."""
        windows = zip((*range(1, 11), 15, 20), (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160), strict=True)
        filters = sum(n * (64 * width + 1) for width, n in windows)
        discriminator = 5000 * 64 + filters + 2 * 1720 * 1721 + 2 * 1721
        generator = 5001 * 32 + 4 * 32 * (32 + 32 + 2) + 5000 * 33
        assert paper_parameters() == {"likelihood": generator, "fit": discriminator, "updates": generator}
