"""Reference sequences for a run's samples: the user's file, or those that the run held out."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from seqgan_env.__main__ import main
from seqgan_env.commands.evaluate import Evaluate
from seqgan_env.data.corpus import Vocabulary
from seqgan_env.evaluation.reference_sequences import read_reference
from seqgan_env.games import text_game
from seqgan_env.metrics.bleu import BleuScorer
from seqgan_env.saved_game import (
    HELD_OUT,
    load_game,
    save_sequences,
)
from tests.run_folders import LINES


class TestReference:
    def test_text_is_read_with_the_runs_vocabulary(self, text_run: Path, tmp_path: Path) -> None:
        path = tmp_path / "test.txt"
        path.write_text("\ufeffa cat sits\n\n  a dragon sits\r\nthe man rides the man a cat sits\n", encoding="utf-8")
        game = load_game(text_run)
        assert game.vocabulary is not None
        reference = read_reference(path, game, game.vocabulary)
        assert (reference.left_out, reference.truncated, reference.pad) == (1, 1, game.vocab_size + 1)
        expected = [*game.vocabulary.encode("a cat sits"), game.end_token, game.vocab_size, game.vocab_size]
        assert reference.sequences.tolist() == [expected, game.vocabulary.encode("the man rides the man a")]
        dragon = game.vocab_size
        encoded = [game.vocabulary.encode("a")[0], dragon, game.vocabulary.encode("sits")[0]]
        assert reference.words[1].tolist() == [*encoded, *[reference.pad] * 3]

    def test_bleu_sees_new_words_as_words(self, text_run: Path, tmp_path: Path) -> None:
        path = tmp_path / "test.txt"
        game = load_game(text_run)
        vocabulary: Vocabulary | None = game.vocabulary
        assert vocabulary is not None
        path.write_text("a dragon\na cat\n")
        reference = read_reference(path, game, vocabulary)
        words = np.full((1, 6), game.vocab_size)
        words[0, :2] = vocabulary.encode("a horse")
        scores = BleuScorer(reference.words, reference.pad, 1).score(reference.spelled_alike(words, game.vocab_size))
        assert scores[0, 0] == pytest.approx(1 / 2)

    def test_takes_precedence_over_held_out_sequences(self, text_run: Path, tmp_path: Path) -> None:
        path = tmp_path / "test.txt"
        path.write_text("\n".join(LINES[:2]))
        report = Evaluate(text_run, reference=path, out=tmp_path, n=60, n_neighbours=20, inverse_temperatures=(1.0, 2.0))()
        assert report["data"]["reference"] == str(path)
        assert report["data"]["reference_sequences"] == 2
        assert report["real"]["metrics"]["novel"] == 0

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                b"dragons fly\nunicorns too\n",
                r"every one of its 2 lines has words that the run's vocabulary does not have, such as "
                "'dragons'. Does its tokenization differ",
            ),
            (
                b"a\nb dragons fly high\nunicorns\n",
                r"5 of its 6 tokens are not in .* Does its tokenization differ",
            ),
            (b"\n \n", r"test\.txt: no sequences"),
            (b"caf\xe9 a", "is not UTF-8: line 1 has 0xe9 at byte 3"),
        ],
    )
    def test_that_is_unusable_is_refused(self, text_run: Path, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "test.txt"
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            main(["evaluate", "--run", str(text_run), "--reference", str(path)])

    def test_is_needed_if_nothing_was_held_out(self, text_run: Path, tmp_path: Path) -> None:
        shutil.copytree(text_run, tmp_path / "run")
        (tmp_path / "run" / HELD_OUT).unlink()
        with pytest.raises(SystemExit, match=r"error: .* has no held_out\.safetensors, .* Pass --reference FILE"):
            main(["evaluate", "--run", str(tmp_path / "run")])

    def test_of_a_table_is_its_column(self, text_run: Path, tmp_path: Path) -> None:
        path, same = tmp_path / "test.csv", tmp_path / "same.txt"
        path.write_text('id,text\n1,a cat sits\n2,"a dragon, a cat"\n')
        same.write_text("a cat sits\na dragon, a cat\n")
        game = load_game(text_run)
        assert game.vocabulary is not None
        table = read_reference(path, game, game.vocabulary, column="text")
        text = read_reference(same, game, game.vocabulary)
        assert torch.equal(table.sequences, text.sequences)
        assert np.array_equal(table.words, text.words)
        with pytest.raises(SystemExit, match=r"error: .*test\.csv, line 1: no column 'texts'\. There are 'id', 'text'"):
            main(["evaluate", "--run", str(text_run), "--reference", str(path), "--column", "texts"])
        with pytest.raises(SystemExit, match="error: --format and --column describe the --reference, but there is none"):
            main(["evaluate", "--run", str(text_run), "--column", "text"])

    def test_of_ids_keeps_to_the_vocabulary(self, tmp_path: Path) -> None:
        path = tmp_path / "test.txt"
        game = text_game(["0 1 2 0", "2 1"], tokenizer="integers", reward_model="constant")  # 3 is the end token
        assert game.vocabulary is not None
        path.write_text("2 0\n0 1 2 0\n")
        reference = read_reference(path, game, game.vocabulary)
        assert reference.sequences.tolist() == [[2, 0, 3, 4], [0, 1, 2, 0]]
        assert reference.words.tolist() == [[2, 0, 4, 4], [0, 1, 2, 0]]
        for line, message in (
            ("2 9", r"test\.txt: line 1: the id 9 is beyond the vocabulary of 4 tokens, whose ids are 0 \.\.\. 3"),
            ("2 3", r"test\.txt: .*the id 3 is the end token"),
            ("a 1", r"test\.txt: line 1: 'a' is not a token id"),
        ):
            path.write_text(line)
            with pytest.raises(ValueError, match=message):
                read_reference(path, game, game.vocabulary)

    def test_of_subwords_is_cut_by_the_runs_tokenizer(self, tmp_path: Path) -> None:
        pytest.importorskip("tokenizers")
        path = tmp_path / "test.txt"
        path.write_text("a cat\nna\u00efve \u6f22\n", encoding="utf-8")
        game = text_game(["a cat sits", "the cat"], 20, tokenizer="bpe", vocab_size=260, reward_model="constant")
        assert game.vocabulary is not None
        reference = read_reference(path, game, game.vocabulary)
        assert [game.vocabulary.decode(row) for row in reference.sequences.tolist()] == ["a cat", "na\u00efve \u6f22"]
        assert reference.left_out == 0

    def test_for_an_oracle_is_refused(self, oracle_run: Path) -> None:
        with pytest.raises(SystemExit, match=r"error: --reference nothing\.txt: this run has an oracle instead of a text"):
            main(["evaluate", "--run", str(oracle_run), "--reference", "nothing.txt"])

    def test_held_out_sequences_of_another_game_are_refused(self, text_run: Path, tmp_path: Path) -> None:
        shutil.copytree(text_run, tmp_path / "run")
        save_sequences(tmp_path / "run" / HELD_OUT, torch.zeros(2, 99))
        with pytest.raises(SystemExit, match=r"held-out sequences .* have shape \(2, 99\), but the run.s game expects"):
            main(["evaluate", "--run", str(tmp_path / "run")])
        (tmp_path / "run" / HELD_OUT).write_bytes(b"nothing")
        with pytest.raises(SystemExit, match=r"held_out\.safetensors is damaged"):
            main(["evaluate", "--run", str(tmp_path / "run")])
