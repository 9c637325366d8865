"""The table of the preset `text`: its sequences, its settings, and that its program runs only what is missing."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.experiment.presets import PRESETS
from benchmarks import text_kinds
from benchmarks.finished_runs import FinishedRuns
from benchmarks.text_kinds import Config, Kind, Result, Setting, main, sequences, settings_of, table
from tests.tiny_runs import text_config

START = (1.0, 0.98, 0.2, 0.9, 0.8)
KINDS = Config().kinds


def result(kind: Kind, seed: int, setting: Setting = "preset", middle: float = 0.99, end: float = 0.95) -> Result:
    curve = [START, (middle, 1.02, 0.1, 0.9, 0.8), (end, 0.98, 0.2, 0.7, 0.85)]
    return Result(kind, setting, 2, seed, curve, (-0.9, -0.8), 30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_are_the_same_each_time_and_have_lengths_and_structure(kind: Kind) -> None:
    lines, tokenizer = sequences(kind, Path("nowhere"))
    assert sequences(kind, Path("nowhere")) == (lines, tokenizer)
    assert len(lines) >= 1000
    assert len({len(line) for line in lines}) > 5
    assert len(set(lines)) > 0.25 * len(lines)


def test_dna_begins_with_its_motif_and_has_four_letters() -> None:
    lines, _ = sequences("dna", Path())
    assert {line[:6] for line in lines} == {"TATAAT", "TATGAT"}
    assert set("".join(lines)) == set("ACGT")
    at_most = Counter(len(line) == 30 for line in lines)[True] / len(lines)
    assert 0.1 < at_most < 0.3


def test_molecules_are_valid() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    lines, _ = sequences("smiles", Path())
    assert all(chem.MolFromSmiles(line) is not None for line in lines)


def test_poems_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / text_kinds.POEMS).write_text("春 眠\n不 觉\n", encoding="utf-8")
    assert sequences("poems", tmp_path) == (["春 眠", "不 觉"], "words")


def test_settings_differ_from_the_preset_only_as_named(tmp_path: Path) -> None:
    preset = PRESETS["text"][0]
    for setting, changes in text_kinds.SETTINGS.items():
        settings = settings_of("events", setting, 3, 1, Config(out=tmp_path))
        assert settings.adversarial == dataclasses.replace(preset.adversarial, **changes)
        assert settings.pretrain == dataclasses.replace(preset.pretrain, epochs=3)
        assert (settings.generator, settings.discriminator) == (preset.generator, preset.discriminator)
        assert (settings.seed, settings.tokenizer) == (1, "integers")
        assert settings.data.read_text().splitlines() == sequences("events", Path())[0]


def test_worst_values_are_of_any_evaluation() -> None:
    one = result("dna", 0, middle=1.25)
    assert one.worst_rise() == 0.25
    assert one.worst_length() == pytest.approx(1.02 / 0.98 - 1)


def test_table_by_hand() -> None:
    lines = table([result("dna", 0), result("dna", 1, end=0.93), result("dna", 0, "not held", middle=1.5)]).splitlines()
    assert lines[2] == (
        "| preset | 2 | dna | 1.000 → 0.940 | -0.060 ± 0.014 | -0.010 | 0.980 ± 0.000 → 0.980 ± 0.000 | 4.1% "
        "| 0.900 ± 0.000 → 0.700 ± 0.000 | 0.800 ± 0.000 → 0.850 ± 0.000 | -0.900 ± 0.000 → -0.800 ± 0.000 | 30 | 2 |"
    )
    assert lines[3].startswith("| not held | 2 | dna | 1.000 → 0.950 | -0.050 ± 0.000 | +0.500 |")
    assert len(lines) == 4


def test_runs_only_what_is_missing(tmp_path: Path, runs_of_no_time: Any, capsys: pytest.CaptureFixture[str]) -> None:
    called = runs_of_no_time(text_kinds, lambda kind, setting, epochs, seed, _: result(kind, seed, setting))
    list(FinishedRuns(tmp_path / "text_kinds.jsonl", Result).append([result("dna", 0), result("dna", 7)]))
    config = Config(kinds=("dna", "events"), settings=("preset",), epochs=(2,), seeds=2, out=tmp_path)
    main(config)
    assert called == [("events", "preset", 2, 0, config), ("dna", "preset", 2, 1, config), ("events", "preset", 2, 1, config)]
    assert capsys.readouterr().out.count("\n| preset |") == 2
    main(config)
    main(dataclasses.replace(config, seeds=5, table_only=True))
    assert len(called) == 3


def test_a_run_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_kinds, "settings_of", lambda *_: text_config(tmp_path))
    small = text_kinds.run("sentences", "preset", 2, 0, Config(out=tmp_path))
    assert (small.kind, small.setting, small.epochs, small.seed) == ("sentences", "preset", 2, 0)
    assert len(small.curve) > 1
    assert {len(point) for point in small.curve} == {len(text_kinds.METRICS)}
    assert small.cpu_seconds > 0
