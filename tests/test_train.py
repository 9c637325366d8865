"""`train.py` as its users run it, at a size that takes a second."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.collapse import CollapseConfig
from agents.config import PRESETS, AdversarialConfig, EvaluationConfig, OracleConfig, TextConfig, TrainConfig
from agents.pretrain import PretrainConfig
from agents.run_folder import RunFolder
from agents.training import Training
from seqgan_env.density_ratio import DensityRatioConfig
from seqgan_env.discriminator import TextCNNConfig
from seqgan_env.generators import GeneratorConfig
from seqgan_env.ranking import RankConfig
from seqgan_env.reward_functions import RewardError
from seqgan_env.storage import load_sequences
from seqgan_env.workers import ALONE
from train import command_line, main, train

ROOT = Path(__file__).parent.parent
SENTENCES = ROOT / "examples" / "sentences.txt"

TINY: dict[str, Any] = {
    "device": "cpu",
    "generator": GeneratorConfig(embedding_dim=4, hidden_dim=4),
    "pretrain": PretrainConfig(epochs=2, batch_size=16),
    "discriminator": TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1),
    "adversarial": AdversarialConfig(updates=3, batch_size=8, n_rollouts=2, d_pretrain_steps=2, d_steps=1, n_generated=16),
    "evaluation": EvaluationConfig(n_samples=32, n_held_out=32, every_epochs=1, every_updates=1, sweep=False),
}


def oracle_config(tmp_path: Path, **changes: Any) -> OracleConfig:
    return OracleConfig(**{**TINY, "sequence_length": 6, "vocab_size": 20, "n_real": 64, "out": tmp_path, **changes})


def text_config(tmp_path: Path, **changes: Any) -> TextConfig:
    return TextConfig(**{**TINY, "data": SENTENCES, "out": tmp_path, **changes})


def only_run(folder: Path) -> Path:
    (run,) = folder.iterdir()
    return run


def fingerprint(config: TrainConfig) -> dict[str, Any]:
    """All that a run leaves but its name and its time."""
    metrics = main(config, "run")
    run = max(config.out.iterdir(), key=os.path.getmtime)
    weights = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    with (run / "progress.csv").open() as file:
        log = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in csv.DictReader(file)]
    files = sorted(path.name for path in run.iterdir() if "events" not in path.name)
    return {"metrics": metrics, "log": log, "files": files} | weights


class TestARun:
    def test_of_the_oracle_leaves_what_it_promises(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = oracle_config(tmp_path, evaluation=dataclasses.replace(TINY["evaluation"], sweep=True))
        metrics = main(config, "quick")
        run = only_run(tmp_path)
        assert run.name.startswith("quick-")
        names = {path.name for path in run.iterdir()}
        assert names >= {
            "config.json",
            "progress.csv",
            "generator.safetensors",
            "generator_likelihood.safetensors",
            "discriminator.safetensors",
            "samples.txt",
            "samples_likelihood.txt",
            "learning_curve.png",
            "quality_coverage.png",
        }
        assert any(name.startswith("events.out.tfevents") for name in names)
        assert json.loads((run / "config.json").read_text())["adversarial"]["n_rollouts"] == 2
        assert {len(line.split()) for line in (run / "samples.txt").read_text().splitlines()} == {6}
        judged = {"adversarial/discriminator_accuracy", "adversarial/discriminator_loss"}
        assert set(metrics) == judged | {f"{p}/{m}" for p in ("pretraining", "adversarial") for m in train_metrics()}
        header = (run / "progress.csv").read_text().splitlines()[0]
        for column in ("pretraining/nll_test", "adversarial/nll_oracle", "discriminator/accuracy", "train/grad_norm"):
            assert column in header
        printed = capsys.readouterr().out
        assert "NLL_oracle" in printed
        assert "floor: the oracle's entropy" in printed
        assert str(run) in printed.replace("\n", "")
        before, after = (load_file(run / f"{name}.safetensors") for name in ("generator_likelihood", "generator"))
        assert not torch.equal(before["output.weight"], after["output.weight"])

    def test_of_a_text_writes_sentences(self, tmp_path: Path) -> None:
        metrics = main(text_config(tmp_path), "text")
        samples = (only_run(tmp_path) / "samples.txt").read_text().splitlines()
        words = set(SENTENCES.read_text().split())
        assert len(samples) == 32
        assert all(set(line.split()) <= words and len(line.split()) <= 12 for line in samples)
        assert len({len(line.split()) for line in samples}) > 1  # the end token ends sentences early
        assert {"adversarial/bleu_2", "adversarial/self_bleu_4", "pretraining/nll_test"} <= set(metrics)

    def test_is_the_same_for_the_same_seed(self, tmp_path: Path) -> None:
        assert fingerprint(oracle_config(tmp_path / "a")) == fingerprint(oracle_config(tmp_path / "b"))

    @pytest.mark.parametrize("model", ["bleu", "constant", "random"])
    def test_with_another_reward_model_trains_no_discriminator(self, tmp_path: Path, model: Any) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], reward_model=model)
        main(oracle_config(tmp_path, adversarial=adversarial))
        assert not (only_run(tmp_path) / "discriminator.safetensors").exists()

    def test_can_be_likelihood_alone(self, tmp_path: Path) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], updates=0)
        metrics = main(oracle_config(tmp_path, adversarial=adversarial))
        assert all(name.startswith("pretraining/") for name in metrics)


def train_metrics() -> tuple[str, ...]:
    return ("nll_oracle", "nll_test", "nll_sum", "entropy", "unique")


CHANGES: dict[str, dict[str, Any]] = {
    "": {"seed": 1, "sequence_length": 7, "vocab_size": 21, "oracle_seed": 1, "n_real": 80, "agent": "a2c"},
    "generator": {
        "kind": "transformer",
        "embedding_dim": 5,
        "hidden_dim": 5,
        "n_layers": 2,
        "dropout": 0.5,
        "tied": True,
        "initial_std": 0.2,
    },
    "pretrain": {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.02,
        "final_learning_rate": 1e-3,
        "max_grad_norm": 0.01,
        "scheduled_sampling": True,
    },
    "discriminator": {
        "widths": (1, 3),
        "n_filters": (4, 5),
        "embedding_dim": 5,
        "dropout": 0.5,
        "l2": 0.5,
        "learning_rate": 1e-3,
        "weight_decay": 0.5,
        "token_dropout": 0.5,
        "label_smoothing": 0.5,
        "spectral_norm": True,
        "validation": 0.5,
        "batch_size": 8,
        "epochs": 2,
    },
    "adversarial": {
        "updates": 4,
        "batch_size": 9,
        "n_rollouts": 3,
        "reward": "terminal",
        "reward_model": "constant",
        "scaling": "centred",
        "learning_rate": 0.02,
        "final_learning_rate": 1e-3,
        "baseline": "leave-one-out",
        "entropy_coef": 0.1,
        "kl_coef": 1.0,
        "max_grad_norm": 1e-3,
        "likelihood_steps": 1,
        "rollout_lag": 0.5,
        "d_pretrain_steps": 3,
        "g_steps": 2,
        "d_steps": 2,
        "n_generated": 24,
        "replay": 0.5,
    },
    "evaluation": {"n_samples": 33, "n_held_out": 33, "every_epochs": 2, "every_updates": 2, "sweep": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fingerprint(oracle_config(tmp_path_factory.mktemp("base")))


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [(group, field, value) for group, fields in CHANGES.items() for field, value in fields.items()],
)
def test_every_field_has_an_effect(tmp_path: Path, base: dict[str, Any], group: str, field: str, value: Any) -> None:
    change = {group: dataclasses.replace(TINY[group], **{field: value})} if group else {field: value}
    assert fingerprint(oracle_config(tmp_path, **change)) != base


def share_of_different(sequence: list[int]) -> float:
    """An objective: the share of different tokens."""
    return len(set(sequence)) / len(sequence)


def shares_of_different(sequences: list[list[int]]) -> list[float]:
    return [share_of_different(sequence) for sequence in sequences]


OBJECTIVE = {"objective": "tests.test_train:share_of_different"}
RANK = {"reward_model": "rank"}
RATIO = {"reward_model": "density-ratio"}
SMALL_RATIO = DensityRatioConfig(model=GeneratorConfig(embedding_dim=3, hidden_dim=3), batch_size=8)
RATIO_CHANGES: dict[str, Any] = {
    "n_models": 2,
    "model": GeneratorConfig(embedding_dim=3, hidden_dim=4),
    "with_start": False,
    "objective": "classification",
    "batch_size": 9,
    "epochs": 2,
    "learning_rate": 0.1,
    "learning_rate_decay": 0.1,
    "max_grad_norm": 1e-4,
}
# Fields that have an effect beside others alone: the group, those others, and the field's change.
COMBINED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("generator", {"kind": "transformer"}, {"n_heads": 2}),
    ("adversarial", {}, OBJECTIVE),
    ("adversarial", OBJECTIVE, {"objective_weight": 0.9}),
    *[
        (
            "adversarial",
            RATIO | {"density_ratio": SMALL_RATIO},
            {"density_ratio": dataclasses.replace(SMALL_RATIO, **{name: value})},
        )
        for name, value in RATIO_CHANGES.items()
    ],
    ("adversarial", RANK, {"ranking": RankConfig(gamma=2.0)}),
    ("adversarial", RANK, {"ranking": RankConfig(n_references=3)}),
    ("adversarial", RANK, {"ranking": RankConfig(n_comparisons=3)}),
]


@pytest.mark.parametrize(("group", "others", "change"), COMBINED)
def test_every_field_has_an_effect_beside_others(
    tmp_path: Path, group: str, others: dict[str, Any], change: dict[str, Any]
) -> None:
    runs = [dataclasses.replace(TINY[group], **fields) for fields in (others, others | change)]
    one, other = (fingerprint(oracle_config(tmp_path / str(number), **{group: run})) for number, run in enumerate(runs))
    assert one != other


def test_an_objective_may_take_batches(tmp_path: Path) -> None:
    single = dataclasses.replace(TINY["adversarial"], **OBJECTIVE)
    batched = dataclasses.replace(single, objective="tests.test_train:shares_of_different", objective_batched=True)
    one, other = (main(oracle_config(tmp_path / str(n), adversarial=a)) for n, a in enumerate((single, batched)))
    assert one == other


@pytest.mark.parametrize("graphs", [True, False])
def test_training_asks_for_cuda_graphs_only_if_it_may(tmp_path: Path, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def can_record(device: torch.device) -> bool:
        asked.append(device)
        return False

    training = Training.start(oracle_config(tmp_path, cuda_graphs=graphs), "run", ALONE)
    monkeypatch.setattr("seqgan_env.cuda_graphs._can_record", can_record)
    train(training)
    assert bool(asked) is graphs


def test_standard_output_is_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--out - is standard output, but --out takes a folder"):
        main(oracle_config(Path("-")))
    assert list(tmp_path.iterdir()) == []


class TestStartFrom:
    def test_takes_the_place_of_likelihood(self, tmp_path: Path) -> None:
        first = main(oracle_config(tmp_path / "first"))
        weights = only_run(tmp_path / "first") / "generator_likelihood.safetensors"
        unlearned = dataclasses.replace(TINY["pretrain"], epochs=50)
        second = main(oracle_config(tmp_path / "second", start_from=weights, pretrain=unlearned))
        assert second["pretraining/nll_test"] == first["pretraining/nll_test"]
        start, after = (
            load_file(only_run(tmp_path / "second") / f"{n}.safetensors") for n in ("generator_likelihood", "generator")
        )
        assert all(torch.equal(start[name], value) for name, value in load_file(weights).items())
        assert any(not torch.equal(start[name], after[name]) for name in start)

    def test_of_another_generator_is_refused(self, tmp_path: Path) -> None:
        main(oracle_config(tmp_path / "first", generator=dataclasses.replace(TINY["generator"], hidden_dim=7)))
        weights = only_run(tmp_path / "first") / "generator.safetensors"
        with pytest.raises(ValueError, match="holds another generator than --generator describes"):
            main(oracle_config(tmp_path / "second", start_from=weights))

    def test_of_another_vocabulary_is_refused(self, tmp_path: Path) -> None:
        for name, lines in (("first", "a b a\na c\na b\n"), ("second", "b a b\nb c\nb a\n")):
            (tmp_path / f"{name}.txt").write_text(lines * 10)
        main(text_config(tmp_path / "first", data=tmp_path / "first.txt"))
        weights = only_run(tmp_path / "first") / "generator_likelihood.safetensors"
        message = r"--start-from: .* has learned another vocabulary: to it the id 0 is 'a', in this game it is 'b'"
        with pytest.raises(ValueError, match=message):
            main(text_config(tmp_path / "second", data=tmp_path / "second.txt", start_from=weights))

    def test_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="No file of weights at"):
            main(oracle_config(tmp_path / "second", start_from=tmp_path / "nothing.safetensors"))


class TestCollapse:
    def test_is_told_and_ends_the_phase_with_the_best_generator(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], updates=40, learning_rate=0.5, reward_model="constant")
        main(oracle_config(tmp_path, adversarial=adversarial, collapse=CollapseConfig(stop=True)))
        run, printed = only_run(tmp_path), capsys.readouterr().out
        assert "The generator is collapsing." in printed
        assert "when it was at its best" in printed
        with (run / "progress.csv").open() as file:
            assert max(int(row["train/n_updates"] or 0) for row in csv.DictReader(file)) < 40
        best, last = (load_file(run / f"{name}.safetensors") for name in ("generator_best", "generator"))
        assert all(torch.equal(best[name], last[name]) for name in best)

    def test_is_no_end_unless_asked_for(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], updates=12, learning_rate=0.5, reward_model="constant")
        main(oracle_config(tmp_path, adversarial=adversarial))
        run, printed = only_run(tmp_path), capsys.readouterr().out
        assert printed.count("The generator is collapsing.") >= 1
        with (run / "progress.csv").open() as file:
            assert max(int(row["train/n_updates"] or 0) for row in csv.DictReader(file)) == 12
        best, last = (load_file(run / f"{name}.safetensors") for name in ("generator_best", "generator"))
        assert any(not torch.equal(best[name], last[name]) for name in best)


class TestAnObjectiveThatFails:
    @pytest.mark.parametrize("fault", [LookupError, float("nan"), [1.0, 2.0]], ids=["raises", "is-no-number", "is-two"])
    def test_in_the_middle_ends_the_run_with_a_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Any
    ) -> None:
        calls = iter(range(1000))

        def fails(sequence: list[int]) -> Any:
            if next(calls) < 60:
                return 1.0
            if fault is LookupError:
                raise LookupError(sequence)
            return fault

        monkeypatch.setattr("tests.test_train.share_of_different", fails)
        with pytest.raises(RewardError):
            main(oracle_config(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], **OBJECTIVE)))
        assert "Ended by RewardError." in (printed := capsys.readouterr().out)
        assert "Go on with: python train.py --resume" in printed
        assert f"--objective {OBJECTIVE['objective']}" in printed
        assert list((only_run(tmp_path) / "checkpoints").glob("round-*"))

    def test_at_once_does_so_before_anything_is_learned(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.test_train.share_of_different", lambda sequence: None)
        with pytest.raises(RewardError):
            main(oracle_config(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], **OBJECTIVE)))
        assert list(tmp_path.iterdir()) == []


def test_no_field_is_forgotten() -> None:
    groups = {field.name: field.default_factory for field in dataclasses.fields(OracleConfig)}
    tested_elsewhere = {
        "actor_critic",
        "checkpoint",
        "collapse",
        "cuda_graphs",
        "device",
        "out",
        "oracle_params",
        "start_from",
    }
    assert {field.name for field in dataclasses.fields(DensityRatioConfig)} == set(RATIO_CHANGES) | {"precision"}
    assert set(groups) == set(CHANGES[""]) | (set(CHANGES) - {""}) | tested_elsewhere
    for group, changes in CHANGES.items():
        if group:
            combined = {field for other, _, change in COMBINED for field in change if other == group} - set(changes)
            fields = {field.name for field in dataclasses.fields(groups[group])}  # type: ignore[arg-type]
            unseen = {"objective_batched", "precision"}  # what the latter changes, if anything, depends on the processor
            assert fields - unseen == set(changes) | combined


class TestTextFields:
    def test_characters(self, tmp_path: Path) -> None:
        lines = tmp_path / "lines.txt"
        lines.write_text("abca\nbca\ncab\n" * 20)
        main(text_config(tmp_path / "runs", data=lines, tokenizer="characters", sequence_length=4))
        samples = (only_run(tmp_path / "runs") / "samples.txt").read_text().split()
        assert set("".join(samples)) <= set("abc")

    def test_min_count(self, tmp_path: Path) -> None:
        main(text_config(tmp_path, min_count=50))
        assert "<unk>" in (only_run(tmp_path) / "samples.txt").read_text()

    @pytest.mark.parametrize(("too_long", "report"), [("truncate", "truncated"), ("skip", "skipped")])
    def test_too_long(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], too_long: Any, report: str) -> None:
        main(text_config(tmp_path, too_long=too_long, sequence_length=6))
        assert report in capsys.readouterr().out.lower()

    def test_held_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(text_config(tmp_path, held_out=0.4))
        assert "600 real sequences" in capsys.readouterr().out

    def test_held_out_lines_are_not_trained_on(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = tmp_path / "lines.txt"
        lines.write_text("".join(f"a {number} b\n" * (1 + number % 3) for number in range(60)))
        main(text_config(tmp_path / "runs", data=lines))
        run = only_run(tmp_path / "runs")
        real, held_out = ({*map(tuple, load_sequences(run / f"{name}.safetensors").tolist())} for name in ("real", "held_out"))
        assert not real & held_out
        assert len(real) + len(held_out) == 60
        assert "Held out: 12 of 120 sequences, none of which is trained on." in capsys.readouterr().out

    def test_a_line_end_inside_a_sequence_does_not_part_its_sample(self, tmp_path: Path) -> None:
        table = tmp_path / "poems.csv"
        table.write_text('text\n"a\nb"\n"b\na"\n"a\n\nb"\n' * 20)
        main(text_config(tmp_path / "runs", data=table, column="text", tokenizer="characters"))
        samples = (only_run(tmp_path / "runs") / "samples.txt").read_text()
        assert samples.count("\n") == TINY["evaluation"].n_samples
        assert "␤" in samples


class TestCommandLine:
    def test_quick_is_the_default(self) -> None:
        config, name = command_line([])
        assert (config, name) == (PRESETS["quick"][0], "quick")
        config, name = command_line(["--seed", "3"])
        assert (config.seed, name) == (3, "quick")

    def test_fields_are_overridden_by_name(self) -> None:
        config, _ = command_line(
            ["paper", "--adversarial.n-rollouts", "2", "--discriminator.widths", "1", "2", "--pretrain.scheduled-sampling"]
        )
        assert config.adversarial.n_rollouts == 2
        assert config.discriminator.widths == (1, 2)
        assert config.pretrain.scheduled_sampling is True

    def test_paper_is_the_published_schedule(self) -> None:
        config, _ = command_line(["paper"])
        assert isinstance(config, OracleConfig)
        assert (config.pretrain.epochs, config.pretrain.batch_size, config.pretrain.learning_rate) == (120, 64, 0.01)
        adversarial = config.adversarial
        assert (adversarial.updates, adversarial.g_steps, adversarial.d_steps) == (200, 1, 5)
        assert (adversarial.d_pretrain_steps, config.discriminator.epochs, adversarial.n_generated) == (50, 3, 10_000)
        assert (adversarial.n_rollouts, adversarial.rollout_lag, adversarial.baseline) == (16, 0.8, "none")
        assert sum(config.discriminator.n_filters) == 1720

    @pytest.mark.parametrize("preset", list(PRESETS))
    def test_help_describes_every_field(self, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            command_line([preset, "--help"])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert "--adversarial.n-rollouts" in printed
        assert "Monte Carlo completions of each prefix." in " ".join(printed.replace("│", " ").split())

    def test_text_needs_data(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            command_line(["text"])
        assert stopped.value.code == 2
        assert "--data" in capsys.readouterr().err


class TestBadInput:
    """Each is refused before any long work starts, in words that say what to do."""

    def refused(self, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, ROOT / "train.py", *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        message = self.refused("text", "--data", str(tmp_path / "none.txt"), "--out", str(tmp_path))
        assert message.startswith("error: ")
        assert "none.txt" in message

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "no sequences"),
            (b"a\x00b\nb a\n", "NUL|binary"),
            (b"gr\xfcn\nb a\n", "UTF-8"),
            (b"a b c d e f g h\n" * 30, "Raise sequence_length to 8"),
            (b"a b\nb a\na a\nb b\n", "Only [0-9]+ sequences for batches of 16"),
        ],
        ids=["empty", "binary", "latin-1", "too long", "too few"],
    )
    def test_data(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "data.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            main(text_config(tmp_path / "runs", data=path, sequence_length=6, held_out=0.25))

    def test_device(self, tmp_path: Path) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here")
        with pytest.raises(ValueError, match="torch sees no CUDA device here"):
            main(oracle_config(tmp_path, device="cuda"))

    def test_no_rollouts(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="n_rollouts must be at least 1, got 0"):
            main(oracle_config(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], n_rollouts=0)))

    def test_out_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"cannot be made .* choose another with --out"):
            RunFolder.create(tmp_path / "file", "run")

    def test_oracle_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="No oracle file at"):
            main(oracle_config(tmp_path, oracle_params=tmp_path / "none.npz"))

    def test_two_runs_in_one_second_get_two_folders(self, tmp_path: Path) -> None:
        first, second = RunFolder.create(tmp_path, "run"), RunFolder.create(tmp_path, "run")
        first.close()
        second.close()
        assert first.path != second.path


def heed_interrupts() -> None:
    """What a process that was started in the background does not do, nor those that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_where(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", "quick", "--out", str(tmp_path), "--evaluation.every-epochs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("quick-*/progress.csv")):
        assert time.monotonic() < deadline, "no evaluation within two minutes"
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    run = only_run(tmp_path)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on with: python train.py --resume" in out
    assert f"Everything is in {run}" in out
    assert (run / "generator.safetensors").exists()
    assert (run / "learning_curve.png").exists()
