"""`train.py` as its users run it, at a size that takes a second."""

import csv
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any, get_origin

import pytest
import torch
from safetensors.torch import load_file

from agents.experiment.collapse import CollapseConfig
from agents.experiment.config import OracleConfig, TextConfig, TrainConfig
from agents.experiment.presets import PRESETS
from agents.experiment.run import Run
from agents.experiment.run_folder import RunFolder
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.rewards.custom import RewardError
from seqgan_env.rewards.density_ratio import DensityRatioConfig
from seqgan_env.rewards.ranking import RankConfig
from seqgan_env.saved_game import HELD_OUT, load_sequences
from seqgan_env.support.process_group import ALONE
from seqgan_env.support.settings import check_settings, flag, range_of
from tests.config_fields import numeric_fields, types_in
from tests.programs import LIMIT, ROOT, run_program
from tests.run_folders import blank_pictures
from tests.tiny_runs import (
    OBJECTIVE,
    RATIO,
    SENTENCES,
    SMALL_RATIO,
    TINY,
    only_run,
    oracle_config,
    text_config,
)
from train import command_line, main, program, train


def fingerprint(config: TrainConfig) -> dict[str, Any]:
    """All results of a run but its name and times."""
    with blank_pictures():
        metrics = main(config, "run")
    run = max(config.out.iterdir(), key=os.path.getmtime)
    weights = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    with (run / "progress.csv").open() as file:
        log = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in csv.DictReader(file)]
    files = sorted(path.name for path in run.iterdir() if "events" not in path.name)
    return {"metrics": metrics, "log": log, "files": files} | weights


class TestARun:
    def test_of_the_oracle_writes_all_promised_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = oracle_config(tmp_path, evaluation=dataclasses.replace(TINY["evaluation"], sweep=True))
        metrics = main(config, "quick")
        run = only_run(tmp_path)
        assert re.fullmatch(r"quick-reinforce-s0-\d{8}-\d{6}", run.name)
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

    def test_of_a_text_measures_lengths(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        metrics = main(text_config(tmp_path), "text")
        run = only_run(tmp_path)
        held_out = load_sequences(run / HELD_OUT)
        end, pad = held_out.max() - 1, held_out.max()
        real = ((held_out != end) & (held_out != pad)).sum(dim=1)
        written = [len(line.split()) for line in (run / "samples.txt").read_text().splitlines()]
        assert 4 < real.float().mean() < 12
        assert metrics["adversarial/length"] == pytest.approx(fmean(written) / real.float().mean().item())
        assert metrics["adversarial/full_length"] == pytest.approx(fmean(length == 12 for length in written))
        printed, page = capsys.readouterr().out, (run / "report.html").read_text()
        for label in ("mean length, generated / held-out", "share of samples of maximal length"):
            assert label in printed
            assert label in page

    def test_is_the_same_for_the_same_seed(self, tmp_path: Path) -> None:
        assert fingerprint(oracle_config(tmp_path / "a")) == fingerprint(oracle_config(tmp_path / "b"))

    @pytest.mark.parametrize("model", ["bleu", "constant", "random"])
    def test_with_another_reward_model_trains_no_discriminator(self, tmp_path: Path, model: Any) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], reward_model=model)
        main(oracle_config(tmp_path, adversarial=adversarial))
        assert not (only_run(tmp_path) / "discriminator.safetensors").exists()

    def test_can_be_without_likelihood(self, tmp_path: Path) -> None:
        """The untrained generator is measured first: tables, curves and sweeps have their start."""
        pretrain = dataclasses.replace(TINY["pretrain"], epochs=0, final_learning_rate=1e-3, batch_size=1000)
        evaluation = dataclasses.replace(TINY["evaluation"], sweep=True)
        metrics = main(oracle_config(tmp_path, pretrain=pretrain, evaluation=evaluation))
        run = only_run(tmp_path)
        assert {name.partition("/")[0] for name in metrics} == {"pretraining", "adversarial"}
        assert metrics["pretraining/nll_test"] == pytest.approx(math.log(20), abs=0.05)  # uniform, nearly
        assert {"learning_curve.png", "quality_coverage.png", "report.html"} <= {path.name for path in run.iterdir()}
        drawn, last = (load_file(run / f"{n}.safetensors")["output.weight"] for n in ("generator_likelihood", "generator"))
        assert not torch.equal(drawn, last)

    @pytest.mark.parametrize("agent", ["reinforce", "ppo"])
    def test_can_learn_nothing_at_all(self, tmp_path: Path, agent: Any) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], updates=0, d_pretrain_steps=0)
        pretrain = dataclasses.replace(TINY["pretrain"], epochs=0)
        metrics = main(oracle_config(tmp_path, agent=agent, adversarial=adversarial, pretrain=pretrain))
        assert metrics["pretraining/nll_test"] == pytest.approx(math.log(20), abs=0.05)
        first, last = (load_file(only_run(tmp_path) / f"{n}.safetensors") for n in ("generator_likelihood", "generator"))
        assert all(torch.equal(first[name], value) for name, value in last.items())
        assert (only_run(tmp_path) / "report.html").is_file()

    def test_of_a_text_can_be_without_likelihood(self, tmp_path: Path) -> None:
        metrics = main(text_config(tmp_path, pretrain=dataclasses.replace(TINY["pretrain"], epochs=0)))
        assert {"pretraining/bleu_2", "adversarial/nll_test"} <= set(metrics)

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
        "shuffle": False,
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
        "initial_parameters": "published",
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
        "loss_reduction": "sum",
        "max_grad_norm": 1e-3,
        "likelihood_steps": 1,
        "rollout_lag": 0.5,
        "d_pretrain_steps": 3,
        "g_steps": 2,
        "d_steps": 2,
        "n_generated": 24,
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


RANK = {"reward_model": "rank"}
RATIO_CHANGES: dict[str, Any] = {
    "n_models": 2,
    "model": GeneratorConfig(embedding_dim=3, hidden_dim=4),
    "with_start": False,
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
    ("discriminator", {"epochs": 2}, {"reshuffle": False}),
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
    batched = dataclasses.replace(single, objective="tests.tiny_runs:shares_of_different", objective_batched=True)
    one, other = (main(oracle_config(tmp_path / str(n), adversarial=a)) for n, a in enumerate((single, batched)))
    assert one == other


@pytest.mark.parametrize("graphs", [True, False])
def test_training_asks_for_cuda_graphs_only_if_it_may(tmp_path: Path, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def can_record(device: torch.device) -> bool:
        asked.append(device)
        return False

    training = Run.start(oracle_config(tmp_path, cuda_graphs=graphs), "run", ALONE)
    monkeypatch.setattr("seqgan_env.support.cuda_graphs.can_record", can_record)
    train(training)
    assert bool(asked) is graphs


@pytest.mark.gpu
@pytest.mark.parametrize("make", [oracle_config, text_config])
def test_a_run_on_a_gpu_learns_what_it_does_without_graphs(tmp_path: Path, make: Any) -> None:
    with_graphs, without, untrained = (
        main(make(tmp_path / name, device="cuda", **changes))["adversarial/nll_test"]
        for name, changes in {
            "with": {},
            "without": {"cuda_graphs": False},
            "untrained": {"pretrain": dataclasses.replace(TINY["pretrain"], epochs=0)},
        }.items()
    )
    assert with_graphs == pytest.approx(without, abs=0.01)
    assert abs(with_graphs - untrained) > 0.05


KINDS: dict[str, dict[str, Any]] = {
    **{name: {"agent": name} for name in ("a2c", "ppo", "maskable-ppo", "recurrent-ppo")},
    "transformer": {"generator": {"kind": "transformer", "n_layers": 2}},
    "deep": {"generator": {"n_layers": 2, "dropout": 0.3, "tied": True}, "pretrain": {"final_learning_rate": 1e-3}},
    "scheduled sampling": {"pretrain": {"scheduled_sampling": True}},
    "as published": {
        "pretrain": {"shuffle": False},
        "discriminator": {"reshuffle": False, "initial_parameters": "published", "precision": "medium", "epochs": 3},
        "adversarial": {"loss_reduction": "sum", "rollout_lag": 0.0, "n_generated": 64, "d_steps": 2},
    },
    "terminal": {"adversarial": {"reward": "terminal", "baseline": "leave-one-out", "entropy_coef": 0.1}},
    "shaped": {"adversarial": {"reward": "shaped", "scaling": "log", "kl_coef": 1.0, "likelihood_steps": 2}},
    "objective": {"adversarial": OBJECTIVE},
    "density ratio": {"adversarial": RATIO | {"density_ratio": dataclasses.replace(SMALL_RATIO, n_models=2)}},
    "rank": {"adversarial": RANK},
}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [oracle_config, text_config])
def test_every_kind_of_run_ends_on_a_gpu(tmp_path: Path, make: Any, kind: str) -> None:
    groups = {
        name: dataclasses.replace(TINY[name], **change) if isinstance(change, dict) else change
        for name, change in KINDS[kind].items()
    }
    with blank_pictures():
        metrics = main(make(tmp_path, device="cuda", **groups))
    assert all(map(math.isfinite, metrics.values()))
    assert {name.partition("/")[0] for name in metrics} == {"pretraining", "adversarial"}


def test_standard_output_is_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--out - means standard output, but --out needs a folder"):
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
        with pytest.raises(ValueError, match="does not fit the generator that --generator describes"):
            main(oracle_config(tmp_path / "second", start_from=weights))

    def test_of_another_vocabulary_is_refused(self, tmp_path: Path) -> None:
        for name, lines in (("first", "a b a\na c\na b\n"), ("second", "b a b\nb c\nb a\n")):
            (tmp_path / f"{name}.txt").write_text(lines * 10)
        main(text_config(tmp_path / "first", data=tmp_path / "first.txt"))
        weights = only_run(tmp_path / "first") / "generator_likelihood.safetensors"
        message = r"--start-from: .* was trained on another vocabulary: its id 0 is 'a', but in this game it is 'b'"
        with pytest.raises(ValueError, match=message):
            main(text_config(tmp_path / "second", data=tmp_path / "second.txt", start_from=weights))

    def test_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="No safetensors file at"):
            main(oracle_config(tmp_path / "second", start_from=tmp_path / "nothing.safetensors"))


class TestCollapse:
    @pytest.mark.rounding
    def test_warns_and_ends_the_phase_with_the_best_generator(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        adversarial = dataclasses.replace(TINY["adversarial"], updates=40, learning_rate=0.5, reward_model="constant")
        main(oracle_config(tmp_path, adversarial=adversarial, collapse=CollapseConfig(stop=True)))
        run, printed = only_run(tmp_path), capsys.readouterr().out
        assert "The generator is collapsing." in printed
        assert "The generator was at its best after" in printed
        with (run / "progress.csv").open() as file:
            assert max(int(row["train/n_updates"] or 0) for row in csv.DictReader(file)) < 40
        best, last = (load_file(run / f"{name}.safetensors") for name in ("generator_best", "generator"))
        assert all(torch.equal(best[name], last[name]) for name in best)

    @pytest.mark.rounding
    def test_does_not_end_the_phase_unless_asked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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

        monkeypatch.setattr("tests.tiny_runs.share_of_different", fails)
        with pytest.raises(RewardError):
            main(oracle_config(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], **OBJECTIVE)))
        assert "Ended by RewardError." in (printed := capsys.readouterr().out)
        assert "Resume with: python train.py --resume" in printed
        assert f"--objective {OBJECTIVE['objective']}" in printed
        assert list((only_run(tmp_path) / "checkpoints").glob("round-*"))

    def test_at_once_ends_the_run_before_it_learns(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.tiny_runs.share_of_different", lambda sequence: None)
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
        "name",
        "out",
        "oracle_params",
        "start_from",
        "threads",
    }
    assert {field.name for field in dataclasses.fields(DensityRatioConfig)} == set(RATIO_CHANGES) | {"precision"}
    assert set(groups) == set(CHANGES[""]) | (set(CHANGES) - {""}) | tested_elsewhere
    for group, changes in CHANGES.items():
        if group:
            combined = {field for other, _, change in COMBINED for field in change if other == group} - set(changes)
            fields = {field.name for field in dataclasses.fields(groups[group])}  # type: ignore[arg-type]
            # What the precision changes, if anything, depends on the processor; compiling changes nothing on a CPU.
            unseen = {"objective_batched", "precision", "compile"}
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

    def test_a_line_end_inside_a_sequence_does_not_split_its_sample(self, tmp_path: Path) -> None:
        table = tmp_path / "poems.csv"
        table.write_text('text\n"a\nb"\n"b\na"\n"a\n\nb"\n' * 20)
        main(text_config(tmp_path / "runs", data=table, column="text", tokenizer="characters"))
        samples = (only_run(tmp_path / "runs") / "samples.txt").read_text()
        assert samples.count("\n") == TINY["evaluation"].n_samples
        assert "␤" in samples


def with_value(config: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


NUMERIC = dict(numeric_fields(OracleConfig)) | dict(numeric_fields(TextConfig))


class TestRanges:
    def test_all_numeric_fields_are_found(self) -> None:
        assert len(NUMERIC) > 70
        assert {"seed", "held_out", "discriminator.widths", "adversarial.density_ratio.model.dropout"} <= NUMERIC.keys()

    @pytest.mark.parametrize("path", NUMERIC)
    def test_values_out_of_range_are_refused_by_flag(self, path: str) -> None:
        kinds, allowed = set(types_in(NUMERIC[path])), range_of(NUMERIC[path])
        assert allowed is not None, f"{path} needs a range, such as PositiveInt: see seqgan_env/support/settings.py"
        config = text_config(Path("runs")) if path in ("held_out", "min_count") else oracle_config(Path("runs"))
        bad = [math.nan] if float in kinds else [-(10**30), 10**30]
        bad += [-math.inf] if float in kinds else [-1]
        for value in bad:
            several = any(get_origin(kind) is tuple for kind in kinds)
            with pytest.raises(ValueError, match=rf"{flag(path)} must be .*, got {value}\b"):
                with_value(config, path, (1, value) if several else value)

    def test_the_presets_are_within(self) -> None:
        for config, _ in PRESETS.values():
            check_settings(config)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--seed", "-1"], "--seed must be at least 0, got -1."),
            (["--adversarial.batch-size", "0"], "--adversarial.batch-size must be at least 1, got 0."),
            (
                ["--discriminator.widths", "1", "2", "3"],
                "widths 1 2 3 are 3 and --discriminator.n-filters 64 64 are 2.",
            ),
            (
                ["--generator.tied", "--generator.hidden-dim", "7"],
                "--generator.embedding-dim must equal --generator.hidden-dim",
            ),
            (["--generator.tied", "--generator.hidden-dim", "7"], "or pass --generator.no-tied"),
            (["--generator.kind", "transformer", "--generator.n-heads", "3"], "--generator.n-heads must divide it"),
            (["--adversarial.learning-rate", "1e300"], "--adversarial.learning-rate must be at most 1e+30, got 1e+300."),
            (
                ["--adversarial.learning-rate", "nan"],
                "--adversarial.learning-rate must be above 0 and at most 1e+30, got nan.",
            ),
        ],
    )
    def test_the_terminal_shows_errors_before_any_work(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as stopped:
            program(["quick", *arguments])
        said = f"{capsys.readouterr().err}{stopped.value.code}"  # the box of tyro, whose older versions leave it to us
        assert message in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--sequence-length", "3"], r"more than --sequence-length 3\. .* choose --too-long truncate or --too-long skip"),
            (["--format", "csv"], r"name the column that holds the sequences with --column\. There are 'where"),
            (["--column", "text"], r"--column text, but .* pass --format csv or --format jsonl"),
            (["--vocab-size", "7"], r"but --vocab-size 7 was given"),
            (["--min-count", "1000000"], r"1 distinct token .*--min-count 1000000"),
            (["--pretrain.batch-size", "1000"], r"Only 900 sequences for batches of 1000: .* smaller --pretrain\.batch-size"),
            (["--discriminator.widths", "99", "--discriminator.n-filters", "2"], r"No window of --discriminator\.widths"),
            (["--agent", "ppo", "--adversarial.kl-coef", "1"], r"--adversarial\.kl-coef 1\.0"),
            (["--agent", "ppo", "--actor-critic.minibatches", "100000"], r"--actor-critic\.minibatches 100000"),
            (["--start-from", "nothing.safetensors"], r"No safetensors file at .*nothing\.safetensors"),
        ],
    )
    def test_errors_found_in_the_data_name_flags_and_leave_nothing(
        self, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        with pytest.raises(SystemExit, match=rf"error: .*{message}"):
            program(["text", "--data", str(SENTENCES), "--device", "cpu", "--out", str(tmp_path), *arguments])
        assert list(tmp_path.iterdir()) == []


def test_a_run_too_large_for_memory_names_what_is_large(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--n-real", "64", "--generator.hidden-dim", "1048576"]
    message = r"error: There is not enough memory for the run\. Lower its sizes, such as --generator\.hidden-dim 1048576, "
    with pytest.raises(SystemExit, match=message):
        program(["quick", *arguments])
    assert list(tmp_path.iterdir()) == []


class TestNothingIsLeft:
    """By a run that is refused, or ends before it learned anything."""

    def test_too_few_lines(self, tmp_path: Path) -> None:
        data = tmp_path / "lines.txt"
        data.write_text("a b c\nb c a\n" * 6)
        with pytest.raises(ValueError, match=r"Only \d+ sequences for batches of 16: .* a smaller --pretrain\.batch-size"):
            main(text_config(tmp_path / "runs", data=data))
        assert list((tmp_path / "runs").iterdir()) == []

    def test_an_evaluation_that_fails_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fails(*_: Any) -> None:
            raise ValueError("no samples today")

        monkeypatch.setattr("agents.experiment.results.samples_of", fails)
        with pytest.raises(ValueError, match="no samples today"):
            main(oracle_config(tmp_path))
        assert list(tmp_path.iterdir()) == []
        assert "Nothing was learned, so" in (printed := capsys.readouterr().out)
        assert "--resume" not in printed

    def test_but_the_folder_stays_where_it_was_stopped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stops(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("train.evaluate", stops)
        with pytest.raises(KeyboardInterrupt):
            main(oracle_config(tmp_path))
        assert (only_run(tmp_path) / "config.json").is_file()


IN_EVERY_COMMAND = """
import sys
from pathlib import Path
from seqgan_env.__main__ import main
from train import program
data, out = sys.argv[1:]
program(["text", "--data", data, "--tokenizer", "characters", "--out", out, "--device", "cpu", "--pretrain.epochs", "1",
         "--adversarial.updates", "1", "--adversarial.d-pretrain-steps", "1", "--adversarial.n-generated", "16",
         "--evaluation.n-samples", "20"])
(run,) = map(str, Path(out).iterdir())
main(["inspect", "--run", run, "--plain", "--batch", "4"])
main(["evaluate", "--run", run, "-n", "20", "--inverse-temperatures", "1"])
main(["sample", "--run", run, "-n", "20", "--out", run + "/more.txt"])
for arguments in (["--help"], ["text", "--help"], ["--resume", "x", "--help"]):
    try:
        program(arguments)
    except SystemExit as stopped:
        assert stopped.code == 0, arguments
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_with_few_characters_ends_no_run(tmp_path: Path, encoding: str) -> None:
    """Nor does a locale with such an encoding of files."""
    data, out = tmp_path / "lines.txt", tmp_path / "runs"
    letters = "\u4f60\u597d\u4e16\u754c\u03b3"
    data.write_text("".join(f"{''.join(order)}\n" for order in permutations(letters)), encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", IN_EVERY_COMMAND, data, out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **plain}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert b"\\u4f60" in result.stdout
    for name in ("samples.txt", "more.txt"):
        assert set((only_run(out) / name).read_text(encoding="utf-8")) <= {*letters, "\n"}
    assert "\u4f60" in (only_run(out) / "report.html").read_text(encoding="utf-8")


class TestCommandLine:
    def test_quick_is_the_default(self) -> None:
        config, name = command_line([])
        assert (config, name) == (PRESETS["quick"][0], "quick")
        config, name = command_line(["--seed", "3"])
        assert (config.seed, name) == (3, "quick")

    def test_fields_are_overridden_by_name(self) -> None:
        config, _ = command_line(
            [
                "paper",
                *("--adversarial.n-rollouts", "2", "--pretrain.scheduled-sampling"),
                *("--discriminator.widths", "1", "2", "--discriminator.n-filters", "3", "4"),
            ]
        )
        assert config.adversarial.n_rollouts == 2
        assert (config.discriminator.widths, config.discriminator.n_filters) == ((1, 2), (3, 4))
        assert config.pretrain.scheduled_sampling is True

    def test_paper_is_the_published_schedule(self) -> None:
        config, _ = command_line(["paper"])
        assert isinstance(config, OracleConfig)
        assert (config.pretrain.epochs, config.pretrain.batch_size, config.pretrain.learning_rate) == (120, 64, 0.01)
        adversarial = config.adversarial
        assert (adversarial.updates, adversarial.g_steps, adversarial.d_steps) == (200, 1, 5)
        assert (adversarial.d_pretrain_steps, config.discriminator.epochs) == (50, 3)
        assert (adversarial.n_rollouts, adversarial.rollout_lag, adversarial.baseline) == (16, 0.0, "none")
        assert (adversarial.loss_reduction, adversarial.max_grad_norm, adversarial.learning_rate) == ("sum", 5, 0.01)
        assert {config.n_real, adversarial.n_generated, config.evaluation.n_samples} == {9984}
        assert (config.pretrain.shuffle, config.discriminator.reshuffle) == (False, False)
        assert config.discriminator.initial_parameters == "published"
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


class _OneSecond(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> "_OneSecond":
        return cls(2026, 11, 27, 12, 0, 0)


class TestBadInput:
    """Each is refused before any long work starts, with a message that says what to do."""

    def refused(self, *arguments: str) -> str:
        result = run_program(ROOT / "train.py", *arguments)
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
        with pytest.raises(ValueError, match=r"--adversarial\.n-rollouts must be at least 1, got 0"):
            main(oracle_config(tmp_path, adversarial=dataclasses.replace(TINY["adversarial"], n_rollouts=0)))

    def test_out_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"cannot be created .* choose another with --out"):
            RunFolder.create(tmp_path / "file", "run")

    def test_oracle_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="No oracle file at"):
            main(oracle_config(tmp_path, oracle_params=tmp_path / "none.npz"))

    def test_runs_in_one_second_get_folders_of_their_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agents.experiment.run_folder.datetime", _OneSecond)
        runs = [RunFolder.create(tmp_path, "run") for _ in range(3)]
        for run in runs:
            run.close()
        assert [run.path.name for run in runs] == [f"run-20261127-120000{number}" for number in ("", "-2", "-3")]
