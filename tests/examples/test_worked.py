"""The worked examples, each run for real at a tiny size, and the parts of them that can be checked by hand."""

import dataclasses
import importlib
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agents.experiment.config import AdversarialConfig, EvaluationConfig, TextConfig
from seqgan_env import GeneratorConfig, TextCNNConfig, TokenLSTM, read_corpus
from seqgan_env.evaluation.run_evaluation import EvaluationSettings
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.models.sampling import sample_sequences
from seqgan_env.saved_game import LIKELIHOOD
from tests.small import seeded

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SENTENCES = EXAMPLES / "sentences.txt"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports an example by name, as if its folder were the script's."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def folk_tunes(example: Any) -> ModuleType:
    pytest.importorskip("music21", reason="the tunes need music21: pip install -e '.[music]'")
    module: ModuleType = example("folk_tunes")
    return module


@pytest.fixture
def molecules(example: Any) -> ModuleType:
    pytest.importorskip("rdkit", reason="the molecules need RDKit: pip install -e '.[molecules]'")
    module: ModuleType = example("molecules")
    return module


def small(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example with a discriminator that learns less."""
    adversarial = dataclasses.replace(module.ADVERSARIAL, d_pretrain_steps=1, n_generated=64, batch_size=16, g_steps=1)
    monkeypatch.setattr(module, "ADVERSARIAL", adversarial)
    return module


def check_written(out: Path, comparison: Any, columns: list[str]) -> None:
    """All files that an example promises exist, and contain what it returned."""
    assert list(comparison.metrics) == columns
    assert json.loads((out / "results.json").read_text())["metrics"] == comparison.metrics
    table = (out / "table.md").read_text()
    assert all(name in table for name in columns)
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    for name in columns:
        lines = (out / f"samples_{name.replace(' ', '_')}.txt").read_text(encoding="utf-8").splitlines()
        assert lines == comparison.samples[name]
    for column in columns[1:]:
        assert all(math.isfinite(value) for values in comparison.metrics[column].values() for value in values)


class TestOverSeeds:
    def test_spread_by_hand(self, example: Any) -> None:
        spread = example("over_seeds").spread
        assert spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
        assert spread([-0.25], sign="+") == "-0.250"
        assert spread([0.25, 0.25], sign="+") == "+0.250 ± 0.000"

    def test_a_change_is_the_mean_of_each_seeds_own(self, example: Any) -> None:
        """Starts differ far more than changes do; the spread of the change must not include that."""
        module = example("over_seeds")
        metrics = {name: [1.0, 5.0] for name in module.METRICS}
        end = {name: [1.5, 5.5] for name in module.METRICS}
        comparison = module.Comparison((0, 1), {module.REAL: {}, module.START: metrics, "adversarial": end})
        row = comparison.table().splitlines()[2]
        assert row.endswith("| – | 3.000 ± 2.828 | 3.500 ± 2.828 | +0.500 ± 0.000 |")

    def test_arms_of_a_seed_share_its_start(self, example: Any, tmp_path: Path) -> None:
        """Without updates they end there, too; the start is measured once, and written under each arm."""
        module = example("over_seeds")
        still = AdversarialConfig(updates=0, d_pretrain_steps=0)
        config = TextConfig(
            data=SENTENCES,
            out=tmp_path,
            device="cpu",
            generator=GeneratorConfig(embedding_dim=4, hidden_dim=4),
            pretrain=PretrainConfig(epochs=1),
            discriminator=TextCNNConfig(widths=(1,), n_filters=(2,)),
            evaluation=EvaluationConfig(n_samples=10),
        )
        settings = EvaluationSettings(n=10, n_neighbours=5, inverse_temperatures=(1.0,))
        comparison = module.compare(config, {"one": still, "two": still}, (3,), settings)
        nll = {name: column.get("nll_test") for name, column in comparison.metrics.items()}
        assert list(nll) == ["real data", "likelihood", "one", "two"]
        assert nll["likelihood"] == nll["one"] == nll["two"]
        assert comparison.samples["likelihood"] == comparison.samples["two"]
        one, two = (next((tmp_path / f"{arm}-seed3").iterdir()) / f"{LIKELIHOOD}.safetensors" for arm in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


class TestQuatrains:
    def test_what_is_read(self, example: Any, tmp_path: Path) -> None:
        """Twenty characters beside punctuation, once; and of the most frequent characters alone."""
        common, rare, short = "天地人山水" * 4, "天地人山水" * 3 + "天地人山鶴", "天地人"
        spaced = " ".join(f"{common[:5]}，{common[5:10]}。{common[10:15]}，{common[15:]}。")
        path = tmp_path / "poems.txt"
        path.write_text("\n".join([spaced, common, rare, short]) + "\n", encoding="utf-8")
        read = example("quatrains").read_quatrains
        assert read(path, 5) == [common]
        assert read(path, 6) == [common, rare]

    def test_no_usable_text_is_an_error(self, example: Any, tmp_path: Path) -> None:
        path = tmp_path / "captions.txt"
        path.write_text("a man on a horse\n")
        with pytest.raises(ValueError, match=r"of 1 lines, 0 have 20 characters.*Expected quatrains"):
            example("quatrains").read_quatrains(path, 10)

    def test_runs(self, example: Any, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module = small(example("quatrains"), monkeypatch)
        config = module.Config(
            data_folder / "tang_poems.txt", tmp_path, (0,), n_characters=600, hidden_dim=8, epochs=1, updates=1, n_samples=50
        )
        comparison = module.main(config)
        check_written(tmp_path, comparison, ["real data", "likelihood", "adversarial"])
        assert all(len(poem) == 20 for poem in comparison.samples["real data"])
        assert comparison.metrics["adversarial"]["nll_test"] != comparison.metrics["likelihood"]["nll_test"]
        assert comparison.metrics["real data"]["novel"] == [1.0]  # no held-out poem is among the training poems


class TestFolkTunes:
    BAR = ("C4:1", "D4:1", "E4:1", "F4:1")

    def test_a_phrase_is_four_whole_bars(self, folk_tunes: ModuleType) -> None:
        bar, half = list(self.BAR), ["G4:1/2", "A4:3/2"]
        assert list(folk_tunes.phrases([bar] * 9)) == [bar * 4, bar * 4]
        assert list(folk_tunes.phrases([["C4:1"], *[bar] * 3, half])) == [bar * 3 + half]
        assert list(folk_tunes.phrases([bar, bar, half, *[bar] * 4])) == [bar * 4]

    @pytest.mark.parametrize(
        ("text", "right"),
        [
            (" ".join(BAR * 4), True),
            (" ".join(BAR * 3) + " C4:2", True),
            (" ".join(BAR * 3), False),
            (" ".join(BAR * 4) + " C4:1", False),
            ("C4:2 " * 8, True),
            ("C4:3/2 " * 10 + "C4:1", False),
            ("C4:1/3 " * 45, True),
            ("", False),
        ],
    )
    def test_what_fills_four_bars(self, folk_tunes: ModuleType, text: str, right: bool) -> None:
        assert folk_tunes.is_phrase(text) is right

    def test_a_tune_by_hand(self, folk_tunes: ModuleType, tmp_path: Path) -> None:
        """D major goes down two semitones, and a bar of two quarters is stretched to four; F and C are sharp in D."""
        path = tmp_path / "tune.abc"
        path.write_text("X:1\nT:Scale\nM:2/4\nL:1/8\nK:D\nDEFG | ABcd | z2 d2 | D4 |]\n")
        expected = "C4:1 D4:1 E4:1 F4:1 G4:1 A4:1 B4:1 C5:1 rest:2 C5:2 C4:4"
        assert folk_tunes.parse_tune(path) == [expected.split()]

    def test_another_metre_is_left_out(self, folk_tunes: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "jig.abc"
        path.write_text("X:1\nT:Jig\nM:6/8\nL:1/8\nK:C\n" + "CDEFGA | " * 4 + "\n")
        assert folk_tunes.parse_tune(path) == []

    def test_rare_notes_and_long_phrases_are_left_out(self, folk_tunes: ModuleType) -> None:
        lines = ["C4:1 D4:1", "D4:1 C4:1", "C4:1 G#9:1", "C4:1 D4:1 C4:1"]
        assert folk_tunes.usual(lines, max_notes=2, min_count=2) == lines[:2]

    def test_a_midi_file_holds_the_notes(self, folk_tunes: ModuleType, tmp_path: Path) -> None:
        phrase = "C5:1/4 B-4:3/4 A4:1/3 G4:1/3 F#4:1/3 rest:1/2 E4:3/2 C4:4"
        folk_tunes.write_midi(phrase, tmp_path / "phrase.mid")
        assert read_midi(folk_tunes, tmp_path / "phrase.mid") == [
            (72, Fraction(1, 4)),
            (70, Fraction(3, 4)),
            (69, Fraction(1, 3)),
            (67, Fraction(1, 3)),
            (66, Fraction(1, 3)),
            (None, Fraction(1, 2)),
            (64, Fraction(3, 2)),
            (60, Fraction(4)),
        ]

    @pytest.mark.slow
    def test_runs(self, folk_tunes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        small(folk_tunes, monkeypatch)
        cache = tmp_path / "cache"
        out = tmp_path / "out"
        config = folk_tunes.Config(
            out, cache, 30, (0,), min_count=2, hidden_dim=8, epochs=1, updates=1, n_samples=30, n_midi=2
        )
        comparison = folk_tunes.main(config)
        check_written(out, comparison, ["real data", "likelihood", "adversarial"])
        assert comparison.metrics["real data"]["valid"] == [1.0]
        phrase = comparison.samples["adversarial"][0]
        pitches = [p for p, _ in read_midi(folk_tunes, out / "phrase_1.mid") if p is not None]
        names = [token.rpartition(":")[0] for token in phrase.split()]
        assert pitches == [folk_tunes.pitch.Pitch(name).midi for name in names if name != "rest"]
        assert (out / "phrases.png").read_bytes().startswith(b"\x89PNG")
        (file,) = cache.iterdir()
        assert folk_tunes.read_phrases(cache, 30) == file.read_text().splitlines()


def read_midi(folk_tunes: ModuleType, path: Path) -> list[tuple[int | None, Fraction]]:
    """The notes of a MIDI file, as MIDI numbers and lengths in quarters; rests have no number."""
    score = folk_tunes.converter.parse(path, forceSource=True, quantizePost=False)
    merged = score.flatten().stripTies()
    return [
        (None if element.isRest else element.pitch.midi, Fraction(element.quarterLength).limit_denominator(48))
        for element in merged.notesAndRests
    ]


class TestMolecules:
    @pytest.mark.parametrize(
        ("text", "valid"),
        [
            ("c1ccccc1", 1),
            ("c 1 c c c c c 1", 1),
            ("CC(=O)O", 1),
            ("C[N+](=O)[O-]", 1),
            ("CC(", 0),
            ("C1CC", 0),
            ("C(C)(C)(C)(C)C", 0),  # a carbon of five bonds
            ("c1cccc1", 0),  # five aromatic carbons
            ("", 0),
        ],
    )
    def test_what_is_valid(self, molecules: ModuleType, text: str, valid: int) -> None:
        assert molecules.validity([text, "C"]) == [valid, 1]
        assert (molecules.canonical(text) is not None) == valid

    def test_one_spelling_for_a_molecule(self, molecules: ModuleType) -> None:
        assert molecules.canonical("O C C") == molecules.canonical("CCO") == "CCO"

    def test_what_is_read(self, molecules: ModuleType, tmp_path: Path) -> None:
        """No molecule twice, of two parts, too large, with a rare token, or wrong."""
        path = tmp_path / "molecules.smi"
        path.write_text("OCC\t1\nCCO\t2\nCC.O\t3\nCCCCCCC\t4\nCCBr 5\nCC(C\t6\nC[C@H](O)Cl\t7\nOCCCl\t8\n")
        assert molecules.read_molecules(path, 6, 2) == ["C C O", "O C C Cl"]
        assert molecules.read_molecules(path, 7, 1) == [
            "C C O",
            "C C C C C C C",
            "C C Br",
            "C C ( O ) Cl",
            "O C C Cl",
        ]

    @pytest.mark.parametrize(
        ("prefix", "next_token", "allowed"),
        [
            ("", "C", True),
            ("", "(", False),
            ("", "1", False),
            ("", "<end>", False),
            ("C", "<end>", True),
            ("C", ")", False),
            ("C (", ")", False),
            ("C ( O", ")", True),
            ("C ( O", "<end>", False),
            ("C =", "=", False),
            ("C =", "<end>", False),
            ("C 1", "<end>", False),
            ("C 1", "1", False),  # an atom in a ring with itself
            ("C 1 C", "1", False),  # two bonds between two atoms
            ("C 1 C C", "1", True),
            ("C 1 C -", "1", False),
            ("C 1 C C -", "1", True),
            ("C 1 2 C C 1", "2", False),  # both ends of two rings
            ("C 1 2 C C 1 C", "2", True),
            ("C 1 ( C ) C", "1", False),  # the atom before is that before the branch
            ("C C C C C C C C C", "C", True),
            ("C C C C C C C C C", "=", False),  # no room for another atom
            ("C C C C C C C", "(", True),
            ("C C C C C C C C", "(", False),
            ("C C C C C", "1", True),  # C, C, 1
            ("C C C C C C C", "1", False),
        ],
    )
    def test_the_mask_by_hand(self, molecules: ModuleType, prefix: str, next_token: str, allowed: bool) -> None:
        """Sequences of at most ten tokens."""
        vocabulary = read_corpus(["C O = ( ) 1 2 -", "C C"]).vocabulary
        mask = molecules.make_mask(vocabulary, 10)
        ids = np.array(vocabulary.encode(prefix) if prefix else [], dtype=np.int64)
        assert mask(ids)[vocabulary.tokens.index(next_token)] == allowed

    def test_the_mask_lets_through_what_is_real(self, molecules: ModuleType) -> None:
        corpus = read_corpus(molecules.read_molecules(molecules.MOLECULES, 25, 50)[::10])
        mask = molecules.make_mask(corpus.vocabulary, corpus.tokens.shape[1])
        for row, length in zip(corpus.tokens.numpy(), corpus.lengths.tolist(), strict=True):
            assert all(mask(row[:k])[row[k]] for k in range(length)), corpus.vocabulary.decode(row.tolist())

    def test_chance_under_the_mask_closes_all_rings_and_brackets(self, molecules: ModuleType) -> None:
        """An untrained generator: RDKit finds nothing wrong but the chemistry; without the mask nearly all is wrong."""
        vocabulary = read_corpus(["C O = ( ) 1 2 -", "C C"]).vocabulary
        generator = TokenLSTM(vocabulary.size, 4, 4, end_token=vocabulary.end_token, generator=seeded())
        mask = molecules.make_mask(vocabulary, 12)

        def readable(**how: Any) -> float:
            tokens, _ = sample_sequences(generator, 200, 12, vocabulary.size, seeded(1), end_token=vocabulary.end_token, **how)
            texts = [vocabulary.decode(row).replace(" ", "") for row in tokens.tolist()]
            with molecules.rdBase.BlockLogs():
                parsed = [molecules.Chem.MolFromSmiles(text, sanitize=False) for text in texts]
            return float(np.mean([molecule is not None and molecule.GetNumAtoms() > 0 for molecule in parsed]))

        assert readable(mask=mask) == 1
        assert readable() < 0.2

    @pytest.mark.slow
    def test_runs(self, molecules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        small(molecules, monkeypatch)
        config = molecules.Config(out=tmp_path, seeds=(0,), max_tokens=12, hidden_dim=8, epochs=1, updates=1, n_samples=40)
        comparison = molecules.main(config)
        check_written(tmp_path, comparison, ["real data", "likelihood", "discriminator", "discriminator and validity"])
        assert comparison.metrics["real data"]["valid"] == [1.0]
        assert (tmp_path / "molecules.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_names_existing_files() -> None:
    """Its commands are scripts of this folder, and its pictures exist and are small."""
    docs = EXAMPLES.parent / "docs"
    page = (docs / "examples.md").read_text(encoding="utf-8")
    scripts = re.findall(r"python examples/(\w+\.py)", page)
    assert sorted(scripts) == ["folk_tunes.py", "molecules.py", "quatrains.py"]
    assert all((EXAMPLES / script).is_file() for script in scripts)
    pictures = re.findall(r"\]\((images/\w+\.png)\)", page)
    assert len(pictures) == 3
    assert all((docs / picture).stat().st_size < 100_000 for picture in pictures)
