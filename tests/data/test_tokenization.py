"""Integers, subwords and given vocabularies: round trips, what is stored, and an error for each text that does not fit."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.data import subwords
from seqgan_env.data.corpus import Vocabulary, read_corpus
from seqgan_env.games import text_game
from seqgan_env.saved_game import load_game, save_game
from tests.programs import run_program

LINES = ["low lower lowest", "new newer newest 漢", "low new é"] * 3
BPE = read_corpus(LINES, tokenizer="bpe", vocab_size=270)

MANY_LINES = """
import random, sys, time
from pathlib import Path
from seqgan_env import read_corpus
rng = random.Random(0)
names = [str(number) if sys.argv[2] == "integers" else f"w{number}" for number in range(5000)]

def peak():
    # The kernel's own figure of this program; getrusage hands down that of the process which started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20

def seconds(n):
    with open(sys.argv[1], "w") as file:
        file.writelines(" ".join(rng.choices(names, k=20)) + "\\n" for _ in range(n))
    start = time.process_time()
    corpus = read_corpus(sys.argv[1], tokenizer=sys.argv[2])
    assert corpus.tokens.shape == (n, 20)
    return time.process_time() - start

few, before = seconds(10_000), peak()
print(seconds(100_000) / few, peak() - before)
"""


def tokenizer_file(path: Path, model: Any, split: bool = True) -> Path:
    tokenizer = tokenizers.Tokenizer(model)
    if split:
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


# Integers


def test_integers_of_one_length_are_their_own_ids_without_an_end_token() -> None:
    corpus = read_corpus(["3 0 1", "007 1\t1"], tokenizer="integers")
    assert corpus.tokens.tolist() == [[3, 0, 1], [7, 1, 1]]
    assert (corpus.vocabulary.size, corpus.vocabulary.end_token, corpus.vocabulary.kind) == (8, None, "integers")
    assert [corpus.vocabulary.decode(row) for row in corpus.tokens] == ["3 0 1", "7 1 1"]
    assert read_corpus(["3 0 1"], tokenizer="integers", vocab_size=5000).vocabulary.size == 5000
    assert text_game(["3 0 1"], vocab_size=50, tokenizer="integers", reward_model="constant").vocab_size == 50


def test_integers_of_unequal_lengths_get_an_end_token_as_the_last() -> None:
    for size in (None, 5):
        corpus = read_corpus(["3 0 1", "2"], tokenizer="integers", vocab_size=size)
        assert corpus.tokens.tolist() == [[3, 0, 1], [2, 4, 5]]
        assert (corpus.vocabulary.size, corpus.vocabulary.end_token) == (5, 4)
    assert read_corpus(["3 0 1"], tokenizer="integers", sequence_length=4).tokens.tolist() == [[3, 0, 1, 4]]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=6).map(lambda rows: [*rows, [0, 1]]))
def test_ids_survive_the_round_trip(rows: list[list[int]]) -> None:
    corpus = read_corpus(rows, tokenizer="integers")
    vocabulary = corpus.vocabulary
    rows = [row for row in rows if row]
    assert [vocabulary.decode(row) for row in corpus.tokens] == [" ".join(map(str, row)) for row in rows]
    assert [vocabulary.encode(" ".join(map(str, row))) for row in rows] == rows
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["1 2", "1 5"],
            r"line 2: the id 5 is beyond the vocabulary of 5 tokens, whose ids are 0 \.\.\. 4\. Raise vocab_size",
        ),
        (["1 2", "", "1 -2"], r"line 3: '-2' is not a token id\. Ids are whole numbers from 0, separated by white space"),
        ([[1, 2], [1, -2]], r"line 2: the id -2 is negative"),
        (["1 2", "1 2.0"], r"line 2: '2\.0' is not a token id"),
        (["1 2", "1 a"], r"line 2: 'a' is not a token id"),
        (["1,2"], r"line 1: '1,2' is not a token id"),
        (["1 ٣"], r"line 1: '٣' is not a token id"),
        (["4 2 1", "1"], r"the id 4 is the end token.*Declare vocab_size=6 or more"),
        (["1 1"], r"1 distinct token among 2, but a choice needs at least 2"),
    ],
)
def test_what_is_no_id_is_refused(lines: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(lines, tokenizer="integers", vocab_size=5)


def test_an_id_that_makes_a_huge_vocabulary_must_be_declared() -> None:
    with pytest.raises(ValueError, match=r"line 2: the id 4000000000 is beyond .* If it is intended, declare vocab_size"):
        read_corpus(["1 2", "4000000000"], tokenizer="integers")


@pytest.mark.parametrize("huge", ["9" * 5000, 10**5000, "1" + "0" * 5000], ids=["nines", "a number", "zeros"])
def test_a_number_that_python_does_not_read_or_write_is_an_id_beyond_the_vocabulary(huge: str | int) -> None:
    with pytest.raises(ValueError, match=r"line 2: the id of more than 20 digits is beyond the vocabulary of 5 tokens"):
        read_corpus([[0, 1], [huge]] if isinstance(huge, int) else ["0 1", huge], tokenizer="integers", vocab_size=5)
    if isinstance(huge, int):
        with pytest.raises(ValueError, match="line 2: the id of more than 20 digits is negative"):
            read_corpus([[0, 1], [-huge]], tokenizer="integers")
        with pytest.raises(TypeError, match=r"Line 1 of the given lines must be a str, or a list .*, got int"):
            read_corpus([huge], tokenizer="integers")


def test_zeros_in_front_do_not_count() -> None:
    assert read_corpus(["0 1", "0" * 5000 + "1 " + "0" * 5000], tokenizer="integers").tokens.tolist() == [[0, 1], [1, 0]]


def test_more_ids_than_32_bits_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vocab_size must be at most 2,147,483,647, got a larger one"):
        read_corpus(["0 1"], tokenizer="integers", vocab_size=2**31)


# Subwords


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


def test_tokenizers_that_are_none_are_refused(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("items", "tokenizer", "message"),
    [
        ([[1, 2]], "words", r"Line 1 is a list of ids, which tokenizer='words' does not read; use tokenizer='integers'"),
        ([["a", "b"]], "characters", r"list of tokens, which tokenizer='characters' does not read; use tokenizer='words'"),
        ([[1, 2]], "bpe", r"Line 1 is a list, but a subword tokenizer reads strings"),
    ],
)
def test_lists_of_another_kind_are_refused(items: Any, tokenizer: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_corpus(items, tokenizer=tokenizer)


@pytest.mark.parametrize("token", ["New York", "", " "])
def test_a_token_that_would_fall_apart_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=rf"line 2: the token '{token}' is empty or contains white space"):
        read_corpus([["a", "b"], ["c", token]])


# A given vocabulary


@pytest.mark.parametrize("tokenizer", ["words", "characters", "integers", "bpe"])
def test_a_held_out_text_is_read_with_the_vocabulary_of_the_first(tokenizer: Any) -> None:
    lines = ["1 2 3 4", "4 3", "0 2 2"]
    first = read_corpus(lines, tokenizer=tokenizer)
    second = read_corpus(lines[1:], vocabulary=first.vocabulary, sequence_length=first.tokens.shape[1])
    assert second.vocabulary == first.vocabulary
    assert torch.equal(second.tokens, first.tokens[1:])
    assert torch.equal(second.lengths, first.lengths[1:])


def test_what_the_vocabulary_does_not_have_is_unknown_an_error_or_skipped() -> None:
    with_unknown = read_corpus(["a b a b c"], min_count=2).vocabulary
    corpus = read_corpus(["a b", "b z"], vocabulary=with_unknown)
    assert corpus.tokens.tolist() == [[0, 1], [1, with_unknown.unknown_token]]
    assert (corpus.report.unknown, corpus.report.unknown_share) == (1, 0.25)
    without = read_corpus(["a b"]).vocabulary
    with pytest.raises(
        ValueError, match=r"2 words \(33\.3%\) in 1 of 3 lines are not .* the first is 'z' in line 2\. Leave these"
    ):
        read_corpus(["a b", "z z", "b a"], vocabulary=without)
    skipped = read_corpus(["a b", "z z", "b a"], vocabulary=without, unknown="skip")
    assert skipped.tokens.tolist() == [[0, 1], [1, 0]]
    assert (skipped.report.outside, skipped.report.lines) == (1, 3)


def test_a_reference_in_another_tokenization_is_refused() -> None:
    words = read_corpus(["das ist gut", "das ist es"]).vocabulary
    for unknown in ("error", "skip"):
        with pytest.raises(ValueError, match=r"5 words \(83\.3%\) in 2 of 2 lines .* Does the text.s tokenization"):
            read_corpus(["d a s", "das i s"], vocabulary=words, unknown=unknown)  # type: ignore[arg-type]
    replacing = read_corpus(["a b a b c"], min_count=2).vocabulary
    with pytest.raises(ValueError, match=r"2 of 3 tokens \(66\.7%\) are unknown to the vocabulary of 4 words"):
        read_corpus(["a x y"], vocabulary=replacing)
    integers = read_corpus(["1 2 3"], tokenizer="integers").vocabulary
    with pytest.raises(ValueError, match="line 1: 'das' is not a token id"):
        read_corpus(["das ist gut"], vocabulary=integers)
    with pytest.raises(ValueError, match="line 2: the id 4 is beyond the vocabulary of 4 tokens"):
        read_corpus(["1 2 3", "4 1 1"], vocabulary=integers)
    with pytest.raises(ValueError, match="the given vocabulary has no end token"):
        read_corpus(["1 2 3", "1"], vocabulary=integers)
    with pytest.raises(
        ValueError, match=r"A vocabulary \(of integers\) was given, which fixes tokenizer, min_count and vocab_"
    ):
        read_corpus(["1 2 3"], vocabulary=integers, tokenizer="bpe")


# Order and size


def test_the_vocabulary_does_not_depend_on_hash_seeds() -> None:
    kinds = ("words", "characters", "bpe")
    code = f"from seqgan_env import read_corpus\nfor kind in {kinds}: print(read_corpus({LINES!r}, tokenizer=kind).vocabulary)"
    other = run_program("-c", code, PYTHONHASHSEED="5", PYTHONIOENCODING="utf-8")
    assert other.stdout.splitlines() == [str(read_corpus(LINES, tokenizer=kind).vocabulary) for kind in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["words", "integers"])
def test_ten_times_the_lines_take_ten_times_as_long_and_little_memory(tokenizer: str, tmp_path: Path) -> None:
    """What compares each line with all others takes a hundred times as long; a million lines are to take 2 GiB at most."""
    arguments = ["-c", MANY_LINES, str(tmp_path / "lines.txt"), tokenizer]
    output = run_program(*arguments).stdout
    times_as_long, gibibytes = map(float, output.split())
    assert times_as_long < 30
    assert gibibytes < 2 / 10
