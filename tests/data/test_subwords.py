"""Subwords: what they write and store, and an error for each tokenizer that does not fit."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.data import subwords
from seqgan_env.data.corpus import Vocabulary, read_corpus
from seqgan_env.games import text_game
from seqgan_env.saved_game import load_game, save_game
from tests.data.texts import LINES

BPE = read_corpus(LINES, tokenizer="bpe", vocab_size=270)


def tokenizer_file(path: Path, model: Any, split: bool = True) -> Path:
    tokenizer = tokenizers.Tokenizer(model)
    if split:
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


@settings(max_examples=150, deadline=None)
@given(line=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("low new"), max_size=20))
def test_bpe_writes_every_text(line: str) -> None:
    ids = BPE.vocabulary.encode(line)
    assert BPE.vocabulary.decode(ids) == line
    assert all(0 <= index < BPE.vocabulary.size - 1 for index in ids)


def test_bpe_learns_parts_of_words_and_has_the_end_token_last() -> None:
    vocabulary = BPE.vocabulary
    assert (vocabulary.size, vocabulary.end_token, vocabulary.unknown_token, vocabulary.kind) == (270, 269, None, "subwords")
    assert vocabulary.tokens[-1] == "<end>"
    assert {"low", "new"} <= {token.strip() for token in vocabulary.tokens}
    assert [vocabulary.decode(row) for row in BPE.tokens] == LINES
    assert len(vocabulary.encode("low new")) == 2
    assert read_corpus(iter(LINES), tokenizer="bpe", vocab_size=270).vocabulary == vocabulary  # what can be read only once
    assert read_corpus(reversed(LINES), tokenizer="bpe", vocab_size=270).vocabulary == vocabulary
    assert read_corpus(LINES, tokenizer="bpe").vocabulary.size < 1000  # at most: there is no more to learn


def test_a_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    save_game(text_game(BPE, reward_model="constant"), tmp_path)
    loaded = load_game(tmp_path).vocabulary
    assert loaded == BPE.vocabulary
    assert loaded is not None
    assert loaded.decode(loaded.encode("lowest 漢")) == "lowest 漢"


def test_subwords_of_other_tokens_are_refused() -> None:
    fields = json.loads(BPE.vocabulary.to_json())
    fields["tokens"][0] = "other"
    with pytest.raises(ValueError, match="tokens must be the pieces of the subwords tokenizer"):
        Vocabulary.from_json(json.dumps(fields))
    with pytest.raises(ValueError, match="not a tokenizer in the format of the library tokenizers"):
        Vocabulary.from_json(json.dumps(fields | {"subwords": "{}"}))
    with pytest.raises(ValueError, match="its subwords are not a string"):
        Vocabulary.from_json(json.dumps(fields | {"subwords": 1}))


def test_a_tokenizer_file_decides_tokens_and_ids(tmp_path: Path) -> None:
    model = tokenizers.models.WordLevel({"[UNK]": 0, "b": 1, "a": 3}, unk_token="[UNK]")
    corpus = read_corpus(["a b", "b c a"], tokenizer=tokenizer_file(tmp_path / "t.json", model))
    assert corpus.vocabulary.tokens == ("[UNK]", "b", "<unused 2>", "a", "<end>")
    assert corpus.tokens.tolist() == [[3, 1, 4], [1, 0, 3]]
    assert (corpus.report.unknown, corpus.report.unknown_share) == (1, 0.2)
    assert read_corpus(["a b"], tokenizer=str(tmp_path / "t.json"), vocab_size=5).vocabulary == corpus.vocabulary


def test_a_tokenizer_that_cannot_cover_the_text_is_refused(tmp_path: Path) -> None:
    knows_little = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    with pytest.raises(
        ValueError, match=r"3 of 4 tokens \(75\.0%\) are unknown to the vocabulary of 3 subwords\. Does the text"
    ):
        read_corpus(["a x", "y z"], tokenizer=tokenizer_file(tmp_path / "a.json", knows_little))
    drops = tokenizers.models.BPE({"a": 0, "b": 1}, [])
    with pytest.raises(ValueError, match=r"no token for 2 of 5 characters, \['x', 'é'\] among them, and no unknown token"):
        read_corpus(["ab a", "a xé b"], tokenizer=tokenizer_file(tmp_path / "b.json", drops))
    fails = tokenizers.models.WordLevel({"a": 0, "b": 1})
    with pytest.raises(ValueError, match=r"line 3: the tokenizer fails: .*Missing \[UNK\]"):
        read_corpus(["a b", "b", "a x", "a"], tokenizer=tokenizer_file(tmp_path / "c.json", fails))


def test_invalid_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"No tokenizer file at 'bytes'\. tokenizer must be 'words', 'characters', 'int"
    ):
        read_corpus(LINES, tokenizer="bytes")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"t\.json: not a tokenizer in the format of the library tokenizers: "):
        read_corpus(LINES, tokenizer=tmp_path / "t.json")
    with pytest.raises(ValueError, match=r"needs a vocab_size of at least 258 .* got 257"):
        read_corpus(LINES, tokenizer="bpe", vocab_size=257)
    with pytest.raises(ValueError, match="min_count=2 is for 'words' and 'characters'"):
        read_corpus(LINES, tokenizer="bpe", min_count=2)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for read in (lambda: read_corpus(LINES, tokenizer="bpe"), lambda: subwords.SubwordTokenizer("{}")):
        with pytest.raises(ImportError, match=r"pip install -e '\.\[tokenizers\]'"):
            read()
    assert read_corpus(LINES).vocabulary.size == 9
