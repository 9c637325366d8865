"""However a run was stopped, it resumes as if it never had been, or an error says why it cannot."""

import contextlib
import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

import train
from agents.discriminator_watch import DiscriminatorWatch
from agents.experiment import run as run_module
from agents.experiment.checkpoint import Checkpoints, DamagedCheckpoint, pack, unpack
from agents.experiment.config import CheckpointConfig, OracleConfig, TextConfig, TrainConfig, with_absolute_paths
from agents.experiment.run import Run
from agents.experiment.run_folder import FolderInUse
from agents.reinforce import Reinforce
from seqgan_env.saved_game import HELD_OUT, REAL, load_sequences, save_sequences
from seqgan_env.support.errors import NumericalFault
from seqgan_env.support.state_dicts import random_state
from seqgan_env.vector_env import PlayedEpisodes, SequenceVectorEnv
from tests.oracle_files import parameters, write_npz
from tests.programs import LIMIT, ROOT, started_program, wait_until
from tests.tiny_runs import OBJECTIVE, SENTENCES, TINY, only_run, oracle_config, text_config

pytestmark = pytest.mark.usefixtures("runs_without_pictures")
EVERY_ROUND = CheckpointConfig(every_rounds=1)


def leavings(run: Path) -> dict[str, Any]:
    """The results of a run, without times, name and checkpoints."""
    with (run / "progress.csv").open() as file:
        log = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in csv.DictReader(file)]
    log = [{name: value for name, value in row.items() if value} for row in log]
    weights = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    texts = {path.name: path.read_text() for path in run.glob("*.txt")}
    return {"log": log} | weights | texts


def stop_after(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """Press Ctrl-C after so many rounds."""
    original = Run.round_done
    left = iter(range(rounds))

    def round_done(self: Run) -> None:
        original(self)
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "round_done", round_done)


def stopped(config: TrainConfig, rounds: int) -> Path:
    """A run that was stopped after so many rounds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_after(monkeypatch, rounds)
        with pytest.raises(KeyboardInterrupt):
            train.main(config)
    return only_run(config.out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train.main(lagging(folder))
    return leavings(only_run(folder))


def lagging(out: Path, **changes: Any) -> TrainConfig:
    """A tiny run of two epochs, two fits and three updates, in which much has a state: lag, dropout, learning rates."""
    adversarial = dataclasses.replace(TINY["adversarial"], rollout_lag=0.5, likelihood_steps=1, final_learning_rate=1e-3)
    adversarial = dataclasses.replace(adversarial, kl_coef=0.1)
    pretrain = dataclasses.replace(TINY["pretrain"], final_learning_rate=1e-3)
    generator = dataclasses.replace(TINY["generator"], dropout=0.2)
    fields = {"adversarial": adversarial, "pretrain": pretrain, "generator": generator, "checkpoint": EVERY_ROUND} | changes
    return oracle_config(out, **fields)


class TestStoppedAndResumed:
    @pytest.mark.parametrize("rounds", [0, 1, 2, 4, 6], ids=lambda n: f"after-{n + 1}-rounds")
    def test_equals_a_run_that_was_never_stopped(self, tmp_path: Path, whole: dict[str, Any], rounds: int) -> None:
        run = stopped(lagging(tmp_path), rounds)
        assert leavings(run) != whole
        train.resume(run)
        assert leavings(run) == whole

    def test_several_times(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        run = stopped(lagging(tmp_path), 0)
        for _ in range(3):
            with pytest.MonkeyPatch.context() as monkeypatch:
                stop_after(monkeypatch, 1)
                with pytest.raises(KeyboardInterrupt):
                    train.resume(run)
        train.resume(run)
        assert leavings(run) == whole

    def test_in_the_middle_of_an_epoch(self, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_module, "SECONDS_BETWEEN_NOTES", 0.0)
        original, left = Run.step_done, iter(range(5))

        def step_done(self: Run) -> None:
            original(self)
            if next(left, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "step_done", step_done)
            with pytest.raises(KeyboardInterrupt):
                train.main(lagging(tmp_path))
        run = only_run(tmp_path)
        state = unpack(next((run / "checkpoints").glob("round-00000001*")))
        assert (state["likelihood"]["finished_epochs"], state["likelihood"]["finished_steps"]) == (1, 3)
        train.resume(run)
        assert leavings(run) == whole

    def test_in_the_middle_of_an_update(self, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """The unfinished update is discarded; the checkpoint is of the round before."""
        calls = iter(range(3))

        def interrupted(*_: Any) -> None:
            if next(calls) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            original = DiscriminatorWatch.note

            def note(self: DiscriminatorWatch, *arguments: Any) -> None:
                original(self, *arguments)
                interrupted()

            patch.setattr(DiscriminatorWatch, "note", note)
            with pytest.raises(KeyboardInterrupt):
                train.main(lagging(tmp_path))
        run = only_run(tmp_path)
        train.resume(run)
        assert leavings(run) == whole

    def test_of_a_text(self, tmp_path: Path) -> None:
        train.main(text_config(tmp_path / "whole", checkpoint=EVERY_ROUND))
        run = stopped(text_config(tmp_path / "stopped", checkpoint=EVERY_ROUND), 5)
        train.resume(run)
        assert leavings(run) == leavings(only_run(tmp_path / "whole"))

    @pytest.mark.parametrize("agent", ["ppo", "a2c", "maskable-ppo", "recurrent-ppo"])
    def test_of_another_agent(self, tmp_path: Path, agent: Any) -> None:
        if agent in ("maskable-ppo", "recurrent-ppo"):
            pytest.importorskip("sb3_contrib", reason="needs the extra .[contrib]")
        config = oracle_config(tmp_path / "whole", agent=agent, checkpoint=EVERY_ROUND)
        train.main(config)
        run = stopped(dataclasses.replace(config, out=tmp_path / "stopped"), 5)
        train.resume(run)
        assert leavings(run) == leavings(only_run(tmp_path / "whole"))

    def test_a_finished_run_has_nothing_left_to_do(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        train.main(lagging(tmp_path))
        run = only_run(tmp_path)
        train.resume(run)
        assert leavings(run) == whole

    def test_depends_on_the_checkpoint(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        """A control: a state without its random generator leads to other results."""
        run = stopped(lagging(tmp_path), 5)
        original = Reinforce.load_training_state

        def forgetful(self: Reinforce, state: Any) -> None:
            original(self, state | {"rng": random_state(torch.Generator())})

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(Reinforce, "load_training_state", forgetful)
            train.resume(run)
        assert leavings(run) != whole


def test_a_non_finite_number_leaves_the_last_good_checkpoint(tmp_path: Path, whole: dict[str, Any]) -> None:
    config, original = lagging(tmp_path), SequenceVectorEnv.play
    plays = iter(range(3))

    def play(self: SequenceVectorEnv, tokens: torch.Tensor) -> PlayedEpisodes:
        played = original(self, tokens)
        return played._replace(rewards=played.rewards / 0 * 0) if next(plays) == 2 else played

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SequenceVectorEnv, "play", play)
        with pytest.raises(NumericalFault, match=r"adversarial training, step 3, the batch of rewards"):
            train.main(config)
    assert rounds_on_disk(only_run(tmp_path)) == 6
    train.resume(only_run(tmp_path))
    assert leavings(only_run(tmp_path)) == whole


class TestCheckpoints:
    def test_the_newest_few_stay(self, tmp_path: Path) -> None:
        train.main(lagging(tmp_path, checkpoint=CheckpointConfig(every_rounds=2, keep=2)))
        assert sorted(path.name for path in (only_run(tmp_path) / "checkpoints").glob("round-*")) == [
            "round-00000006.safetensors",
            "round-00000007.safetensors",
        ]

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
    def test_a_damaged_one_is_replaced_by_the_one_before(
        self, tmp_path: Path, whole: dict[str, Any], damage: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = stopped(lagging(tmp_path), 5)
        newest = max((run / "checkpoints").glob("round-*"))
        content = newest.read_bytes()
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        newest.write_bytes({"cut": content[:half], "flipped": flipped, "empty": b""}[damage])
        train.resume(run)
        assert f"{newest} " in (printed := capsys.readouterr().out)
        assert "Using the one before it." in printed
        assert leavings(run) == whole

    def test_all_damaged(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 0)
        for path in (run / "checkpoints").glob("round-*"):
            path.write_bytes(b"")
        with pytest.raises(DamagedCheckpoint, match="No checkpoint is complete"):
            train.resume(run)

    def test_every_flipped_bit_is_noticed(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 3)
        path = max((run / "checkpoints").glob("round-*"))
        content, before = path.read_bytes(), unpack(path)
        for at in range(0, len(content), len(content) // 60):
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            try:
                state = unpack(path)
            except DamagedCheckpoint:
                continue
            assert str(state) == str(before), at  # such as a space of the header that became another

    def test_the_best_one_is_kept_and_can_be_restored(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        """`lagging` is at its best after the second of three updates, by NLL_oracle + NLL_test."""
        train.main(lagging(tmp_path, checkpoint=CheckpointConfig(every_rounds=1, keep=1)))
        run = only_run(tmp_path)
        assert rounds_on_disk(run) == 7
        best = unpack(run / "checkpoints" / "best.safetensors")
        rows = [row for row in whole["log"] if "adversarial/nll_sum" in row]
        sums = [float(row["adversarial/nll_sum"]) for row in rows]
        assert best["all_rounds"] == 4 + sums.index(min(sums))  # the first is of the start
        train.resume(run, from_best=True)
        assert leavings(run) == whole

    def test_a_kill_while_restoring_the_best_leaves_a_valid_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wherever it comes: before any file is removed, or after each."""
        for n_removed in range(3):
            checkpoints = Checkpoints(tmp_path / str(n_removed), keep=5)
            for rounds in (1, 2, 3):
                path = checkpoints.save({"all_rounds": rounds}, rounds)
                if rounds == 1:
                    checkpoints.mark_best(path)
            path.with_name("round-00000001.safetensors").unlink()  # as if it were beyond those that are kept
            removed: list[Path] = []

            def unlink(self: Path, *_: Any, removed: list[Path] = removed, most: int = n_removed, **__: Any) -> None:
                if len(removed) == most:
                    raise KeyboardInterrupt
                removed.append(self)
                self.rename(self.with_suffix(".gone"))

            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", unlink)
                with contextlib.suppress(KeyboardInterrupt):
                    checkpoints.go_back_to_best()
            assert checkpoints.newest()[1] == {"all_rounds": 3 - n_removed if n_removed < 2 else 1}
            checkpoints.go_back_to_best()
            assert checkpoints.newest()[1] == {"all_rounds": 1}

    def test_an_intact_file_with_other_content_is_refused(self, tmp_path: Path) -> None:
        """With valid checksums: each part of the state is missing, or of another type."""
        run = stopped(lagging(tmp_path), 3)
        (path, *others) = sorted((run / "checkpoints").glob("round-*"), reverse=True)
        for other in others:
            other.unlink()
        state = unpack(Path(shutil.copyfile(path, tmp_path / "aside.safetensors")))  # it is a map of its file
        for name in [*state, "alien"]:
            for changed in ({key: value for key, value in state.items() if key != name}, {**state, name: [["?"]]}):
                if changed == state or (name == "alien" and "alien" in changed) or name in ("rounds", "all_rounds"):
                    continue
                path.write_bytes(pack(changed))
                with pytest.raises(ValueError, match=r"version|cannot be read|is not a valid Phase"):
                    train.resume(run)
        path.write_bytes(pack(state))
        train.resume(run)

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="There is no run"):
            train.resume(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError, match="There is no run"):
            train.resume(tmp_path)

    def test_a_run_killed_before_its_first_starts_again(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        run = stopped(lagging(tmp_path), 0)
        shutil.rmtree(run / "checkpoints")
        train.resume(run)
        assert leavings(run) == whole

    @pytest.mark.parametrize("later", ["a b c\nc b a\n", "a b d\nb d a\n"], ids=["other ids", "other words of the same ids"])
    def test_data_that_changed_since(self, tmp_path: Path, later: str) -> None:
        data = tmp_path / "lines.txt"
        data.write_text("a b c\nb c a\n" * 40)
        run = stopped(text_config(tmp_path / "runs", data=data, checkpoint=EVERY_ROUND), 1)
        data.write_text(later * 40)
        with pytest.raises(ValueError, match="has its data file changed"):
            train.resume(run)

    def test_an_objective_is_executed_only_if_it_is_passed_again(self, tmp_path: Path) -> None:
        objective = OBJECTIVE["objective"]
        run = stopped(lagging(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], objective=objective)), 5)
        with pytest.raises(ValueError, match=f"if you trust it, add --objective {objective}"):
            train.resume(run)
        train.resume(run, objective=objective)
        assert rounds_on_disk(run) == 7

    def test_a_run_of_another_version(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 1)
        for path in (run / "checkpoints").glob("round-*"):
            state = unpack(path)
            state["config"] = json.dumps({**json.loads(state["config"]), "invented": 1})
            path.write_bytes(pack(state))
        with pytest.raises(ValueError, match="another version: the fields invented are missing or unknown"):
            train.resume(run)

    @pytest.mark.parametrize(("validation", "replay"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.5)])
    def test_settings_that_no_longer_exist(
        self, tmp_path: Path, whole: dict[str, Any], validation: float, replay: float
    ) -> None:
        """Without effect they are ignored."""
        run = stopped(lagging(tmp_path), 4)
        for path in (run / "checkpoints").glob("round-*"):
            state = unpack(path)
            config = json.loads(state["config"])
            config["adversarial"]["replay"] = replay
            config["adversarial"]["density_ratio"]["objective"] = "likelihood"
            config["discriminator"] |= {"validation": validation, "spectral_norm": False}
            path.write_bytes(pack(state | {"config": json.dumps(config)}))
        if validation or replay:
            with pytest.raises(ValueError, match=r"The setting (validation=0\.2|replay=0\.5) no longer exists"):
                train.resume(run)
        else:
            train.resume(run)
            assert leavings(run) == whole


def of_a_gpu(state: Any) -> Any:
    """A state as a GPU would have left it: its generators have a seed and an offset, in 16 bytes."""
    if isinstance(state, dict):
        if state.keys() == {"device", "state"}:
            return {"device": "cuda", "state": state["state"][:16].clone()}
        return {name: of_a_gpu(value) for name, value in state.items()}
    return [of_a_gpu(value) for value in state] if isinstance(state, list) else state


def moved_from_a_gpu(run: Path, device: str) -> Path:
    """Make a run's checkpoint that of a GPU, on which the oracle wrote other sequences, too."""
    data = {name: load_sequences(run / name).flip(0) for name in (REAL, HELD_OUT)}
    for name, tokens in data.items():
        save_sequences(run / name, tokens)
    newest, *others = sorted((run / "checkpoints").glob("round-*"), reverse=True)
    for other in others:
        other.unlink()
    aside = Path(shutil.copyfile(newest, run / "aside"))  # what is read is a map of its file
    state = of_a_gpu(unpack(aside))
    state["config"] = json.dumps({**json.loads(state["config"]), "device": device})
    state["origin"] |= {"device": "cuda", "data": run_module.fingerprint(*data.values())}
    newest.write_bytes(pack(state))
    aside.unlink()
    return run


class TestElsewhere:
    @pytest.mark.parametrize("rounds", [0, 3, 5], ids=["likelihood", "discriminator", "adversarial"])
    def test_a_run_of_a_gpu_continues_on_a_cpu(
        self, tmp_path: Path, rounds: int, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = moved_from_a_gpu(stopped(lagging(tmp_path / "runs"), rounds), "cuda")
        again = Path(shutil.copytree(run, tmp_path / "again"))
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="torch sees no CUDA device here"):
                train.resume(run)
        capsys.readouterr()
        for folder in (run, again):
            train.resume(folder, device="cpu")
            printed = capsys.readouterr().out
            assert printed.count("The run was on cuda and continues on cpu: from here on its random numbers") == 1
            assert rounds_on_disk(folder) == 7
        assert leavings(run) == leavings(again) != whole
        train.resume(run)  # it is a run of the CPU by now
        assert "continues on" not in capsys.readouterr().out

    @pytest.mark.gpu
    @pytest.mark.parametrize("rounds", [0, 3, 5], ids=["likelihood", "discriminator", "adversarial"])
    @pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
    def test_between_a_gpu_and_a_cpu(
        self, tmp_path: Path, first: Any, then: Any, rounds: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = stopped(lagging(tmp_path, device=first), rounds)
        capsys.readouterr()
        train.resume(run, device=then)
        assert f"The run was on {first} and continues on {then}" in capsys.readouterr().out
        assert rounds_on_disk(run) == 7

    @pytest.mark.gpu
    @pytest.mark.parametrize("rounds", [0, 3, 5], ids=["likelihood", "discriminator", "adversarial"])
    def test_a_run_on_a_gpu_continues_as_if_never_stopped(self, tmp_path: Path, rounds: int) -> None:
        """Up to rounding: sums on a GPU are made in any order."""
        train.main(lagging(tmp_path / "whole", device="cuda"))
        run = stopped(lagging(tmp_path / "stopped", device="cuda"), rounds)
        train.resume(run)
        whole, log = (leavings(folder)["log"] for folder in (only_run(tmp_path / "whole"), run))
        assert [row.keys() for row in log] == [row.keys() for row in whole]
        for row, expected in zip(log, whole, strict=True):
            for name in row:
                if name.endswith("/nll_test"):
                    assert float(row[name]) == pytest.approx(float(expected[name]), abs=0.005)

    @pytest.mark.parametrize("agent", ["ppo", "reinforce"])
    def test_device_auto_needs_no_flag(self, tmp_path: Path, agent: Any) -> None:
        if torch.cuda.is_available():
            pytest.skip("auto is a GPU here")
        run = moved_from_a_gpu(stopped(oracle_config(tmp_path, agent=agent, checkpoint=EVERY_ROUND), 5), "auto")
        train.resume(run)
        assert rounds_on_disk(run) == 7

    def test_the_oracles_sequences_are_read_not_sampled_again(self, tmp_path: Path) -> None:
        """Another processor would write others."""
        run = stopped(lagging(tmp_path), 1)
        save_sequences(run / REAL, load_sequences(run / REAL).flip(0))
        with pytest.raises(ValueError, match=r"read from the oracle, are not those that the run in .* began with"):
            train.resume(run)

    def test_from_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With relative paths of data, tokenizer and oracle."""
        (tmp_path / "begun").mkdir()
        monkeypatch.chdir(tmp_path / "begun")
        Path("lines.txt").write_text("a b c\nb c a\n" * 40)
        run = stopped(text_config(Path("runs"), data=Path("lines.txt"), checkpoint=EVERY_ROUND), 3).absolute()
        train.main(text_config(Path("whole"), data=Path("lines.txt"), checkpoint=EVERY_ROUND))
        monkeypatch.chdir(tmp_path)
        train.resume(run)
        assert leavings(run) == leavings(only_run(tmp_path / "begun" / "whole"))
        for text in ((run / "config.json").read_text(), unpack(max((run / "checkpoints").glob("round-*")))["config"]):
            assert json.loads(text)["data"] == str(tmp_path / "begun" / "lines.txt")

    def test_every_path_is_kept_absolute(self) -> None:
        """Also those of settings to come: a field that holds a path is one of the run's own, not of a group."""
        for kind in (OracleConfig, TextConfig):
            paths = [name for name, hint in get_type_hints(kind).items() if Path in (hint, *get_args(hint))]
            config = with_absolute_paths(kind(**{name: Path(name) for name in paths}))
            assert {name: getattr(config, name) for name in paths} == {name: Path.cwd() / name for name in paths}
            groups = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
            assert not [value for group in groups for value in vars(group).values() if isinstance(value, Path)]

    def test_data_that_were_moved(self, tmp_path: Path) -> None:
        data, moved = tmp_path / "lines.txt", tmp_path / "moved.txt"
        data.write_text("a b c\nb c a\n" * 40)
        config = text_config(tmp_path / "runs", data=data, checkpoint=EVERY_ROUND)
        run = stopped(config, 3)
        train.main(dataclasses.replace(config, out=tmp_path / "whole"))
        data.rename(moved)
        with pytest.raises(FileNotFoundError, match=rf"The run in {run} reads --data {data}, .* add --data with its new path"):
            train.resume(run)
        train.resume(run, data=moved, device=None)
        assert leavings(run) == leavings(only_run(tmp_path / "whole"))
        train.resume(run)  # the new path is the run's from now on

    def test_an_oracle_that_was_moved(self, tmp_path: Path) -> None:
        oracle, moved = write_npz(tmp_path / "oracle.npz", parameters()), tmp_path / "moved.npz"
        run = stopped(oracle_config(tmp_path / "runs", vocab_size=None, oracle_params=oracle, checkpoint=EVERY_ROUND), 3)
        oracle.rename(moved)
        with pytest.raises(FileNotFoundError, match=r"reads --oracle-params .* add --oracle-params with its new path"):
            train.resume(run)
        train.resume(run, oracle_params=moved)
        assert rounds_on_disk(run) == 7

    def test_a_tokenizer_that_was_moved(self, tmp_path: Path) -> None:
        tokenizers = pytest.importorskip("tokenizers")
        model = tokenizers.models.WordLevel({"a": 0, "b": 1, "c": 2, "<unk>": 3}, unk_token="<unk>")
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        path, moved, data = tmp_path / "tokenizer.json", tmp_path / "moved.json", tmp_path / "lines.txt"
        tokenizer.save(str(path))
        data.write_text("a b c\nb c a\n" * 40)
        run = stopped(text_config(tmp_path / "runs", data=data, tokenizer=path, checkpoint=EVERY_ROUND), 3)
        path.rename(moved)
        with pytest.raises(FileNotFoundError, match=r"reads --tokenizer .* add --tokenizer with its new path"):
            train.resume(run)
        train.resume(run, tokenizer=moved)
        assert rounds_on_disk(run) == 7

    def test_weights_to_start_from_are_needed_until_the_run_has_read_them(self, tmp_path: Path) -> None:
        train.main(oracle_config(tmp_path / "first"))
        weights, moved = tmp_path / "start.safetensors", tmp_path / "moved.safetensors"
        shutil.copyfile(only_run(tmp_path / "first") / "generator_likelihood.safetensors", weights)
        config = oracle_config(tmp_path / "second", start_from=weights, checkpoint=EVERY_ROUND)
        run = stopped(config, 3)
        before = Path(shutil.copytree(run, tmp_path / "before"))
        shutil.rmtree(before / "checkpoints")
        weights.rename(moved)
        train.resume(run)
        with pytest.raises(FileNotFoundError, match=r"reads --start-from .* add --start-from with its new path"):
            train.resume(before)
        train.resume(before, start_from=moved)
        assert leavings(before) == leavings(run)

    def test_a_setting_that_the_run_does_not_have(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 1)
        with pytest.raises(ValueError, match="has no --data: leave it out"):
            train.resume(run, data=tmp_path)

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        data, moved = tmp_path / "lines.txt", tmp_path / "moved.txt"
        data.write_text("a b c\nb c a\n" * 40)
        run = stopped(text_config(tmp_path / "runs", data=data, checkpoint=EVERY_ROUND), 3)
        data.rename(moved)
        with pytest.raises(SystemExit, match=f"error: The run in {run} reads --data {data}"):
            train.program(["--resume", str(run)])
        train.program(["--resume", str(run), "--data", str(moved), "--device", "cpu"])
        assert rounds_on_disk(run) == 7


class TestFolders:
    def test_a_run_in_use_is_refused(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 1)
        with Run.resume(run), pytest.raises(FolderInUse, match=f"in use by process {os.getpid()} on "):
            Run.resume(run)
        Run.resume(run).folder.close()  # given back

    def test_a_lock_of_another_machine_is_explained_and_cleared(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 1)
        note = {"pid": 1, "host": "elsewhere", "since": "2020-01-01 00:00:00"}
        (run / "run.holder.json").write_text(json.dumps(note))
        with pytest.raises(FolderInUse, match=r"process 1 on elsewhere, since 2020-01-01 00:00:00.*stale.*--clear-lock"):
            Run.resume(run)
        Run.resume(run, clear_lock=True).folder.close()

    def test_a_lock_of_a_killed_process_on_this_machine_is_ignored(self, tmp_path: Path) -> None:
        run = stopped(lagging(tmp_path), 1)
        (run / "run.holder.json").write_text(json.dumps({"pid": 2**22, "host": socket.gethostname(), "since": ""}))
        Run.resume(run).folder.close()


# Processes that can be killed: forked by a server that has imported everything, so that each starts at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train"])


def in_a_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def long_run(out: Path) -> TrainConfig:
    adversarial = dataclasses.replace(TINY["adversarial"], updates=150)
    evaluation = dataclasses.replace(TINY["evaluation"], every_updates=50)
    return lagging(out, adversarial=adversarial, evaluation=evaluation, checkpoint=CheckpointConfig(every_rounds=INTERVAL))


INTERVAL = 4


def run_noting_rounds(action: str, where: Path, notes: Path) -> None:
    """Start or resume a run that appends a byte to `notes` after each round."""
    original = Run.round_done

    def round_done(self: Run) -> None:
        original(self)
        with notes.open("ab") as file:
            file.write(b".")

    Run.round_done = round_done  # type: ignore[method-assign]
    if action == "start":
        train.main(long_run(where))
    else:
        train.resume(where)


def rounds_on_disk(run: Path) -> int:
    checkpoints = Checkpoints(run / "checkpoints")
    try:
        return int(checkpoints.newest()[1]["all_rounds"])
    except FileNotFoundError:
        return 0


class TestKilled:
    @pytest.mark.slow
    def test_twenty_times_at_random_moments(self, tmp_path: Path) -> None:
        """No more than the interval is lost, the folder can always be resumed, and the end is that of the whole run."""
        moments = random.Random(0)
        notes, out = tmp_path / "rounds", tmp_path / "killed"
        lost = []
        for kill in range(20):
            before = rounds_on_disk(only_run(out)) if kill else 0
            notes.write_bytes(b"")
            process = in_a_process(run_noting_rounds, "resume" if kill else "start", only_run(out) if kill else out, notes)
            rounds = moments.randint(2, 8)
            wait_until(lambda enough=rounds: notes.stat().st_size >= enough, process.is_alive)  # type: ignore[misc]
            time.sleep(moments.random() * 0.1)  # anywhere in a round, the writing of a checkpoint included
            process.kill()
            process.join()
            reached = before + notes.stat().st_size
            lost.append(reached - rounds_on_disk(only_run(out)))
        assert max(lost) <= INTERVAL
        print(f"killed 20 times; rounds lost each time: {lost}")
        train.resume(only_run(out))
        train.main(long_run(tmp_path / "whole"))
        assert leavings(only_run(out)) == leavings(only_run(tmp_path / "whole"))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("signals", "code"),
        [([signal.SIGTERM], 143), ([signal.SIGINT], 130), ([signal.SIGINT] * 2, 130)],
        ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice"],
    )
    def test_a_signal_saves_before_it_ends(self, tmp_path: Path, signals: list[signal.Signals], code: int) -> None:
        """As a user would: the script, in a process of its own, which says how to go on; the second signal ends it at once."""
        out = tmp_path / "runs"
        arguments = ["text", "--data", SENTENCES, "--device", "cpu", "--out", out, "--adversarial.updates", "100000"]
        small = ["--pretrain.epochs", "1", "--adversarial.d-pretrain-steps", "1", "--adversarial.n-generated", "16"]
        rarely = ["--checkpoint.every-rounds", "1000000"]

        def under_way() -> bool:
            return sum(len(path.read_text().splitlines()) for path in out.glob("*/progress.csv")) >= 6

        output = tmp_path / "printed"
        with started_program(output, ROOT / "train.py", *arguments, *small, *rarely) as process:
            wait_until(under_way, lambda: process.poll() is None)
            process.send_signal(signals[0])
            drawing = "Writing the results so far; Ctrl-C ends at once.\n"
            wait_until(lambda: drawing in output.read_text(), lambda: process.poll() is None)
            for number in signals[1:]:
                process.send_signal(number)
            process.wait(LIMIT)
        printed = output.read_text()
        assert process.returncode == code, printed
        assert "Traceback" not in printed
        run, drawn = only_run(out), len(signals) == 1
        assert f"Resume with: python train.py --resume {run}\n" in printed
        assert rounds_on_disk(run) > 2
        assert (f"Everything is in {run}\n" in printed) == drawn
        left = {path.name for path in run.iterdir()}
        assert ({"report.html", "learning_curve.png", "generator.safetensors"} <= left) == drawn


def save_within_limit(folder: Path, limit: int, outcome: Path) -> None:
    """Write two checkpoints, the second on a disk that is full: the kernel ends files at the limit."""
    checkpoints = Checkpoints(folder)
    checkpoints.save({"value": 1}, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        checkpoints.save({"value": torch.zeros(10_000)}, 2)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        outcome.write_text(str(error))


def save_unprivileged(folder: Path, outcome: Path) -> None:
    """Write a checkpoint into a folder that may only be read."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        Checkpoints(folder).save({"value": 2}, 2)
    except OSError as error:
        message = str(error)
    if os.getuid() == 0:
        os.seteuid(0)
    outcome.write_text(message)


class TestAFullOrReadOnlyDisk:
    def test_a_full_one_keeps_the_checkpoint_before(self, tmp_path: Path) -> None:
        folder, outcome = tmp_path / "checkpoints", tmp_path / "outcome"
        in_a_process(save_within_limit, folder, 20_000, outcome).join()
        assert "File too large" in (said := outcome.read_text())
        assert "the one before, round-00000001.safetensors, is intact" in said
        assert "Make room" in said
        assert [path.name for path in folder.iterdir()] == ["round-00000001.safetensors"]  # and nothing half written
        assert Checkpoints(folder).newest()[1] == {"value": 1}

    def test_a_read_only_one_too(self, tmp_path: Path) -> None:
        outcome = tmp_path / "outcome"
        with tempfile.TemporaryDirectory() as open_to_all:  # pytest's own folders are their user's alone
            folder = Path(open_to_all) / "checkpoints"
            folder.parent.chmod(0o755)
            Checkpoints(folder).save({"value": 1}, 1)
            folder.chmod(0o555)
            in_a_process(save_unprivileged, folder, outcome).join()
            assert Checkpoints(folder).newest()[1] == {"value": 1}
            folder.chmod(0o755)
        assert "Permission denied" in (said := outcome.read_text())
        assert "is intact" in said

    def test_a_run_on_a_full_one_ends_and_can_be_resumed(self, tmp_path: Path, whole: dict[str, Any]) -> None:
        def full(content: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        config, original = lagging(tmp_path), Checkpoints.save

        def save(self: Checkpoints, state: Any, rounds: int) -> Path:
            with pytest.MonkeyPatch.context() as patch:
                if rounds == 5:
                    patch.setattr(os, "fsync", full)
                return original(self, state, rounds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(OSError, match=r"No space left on device.*round-00000004.safetensors, is intact"):
                train.main(config)
        train.resume(only_run(tmp_path))
        assert leavings(only_run(tmp_path)) == whole
