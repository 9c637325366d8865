"""Integers, lists of tokens and given vocabularies: round trips, and an error for each text that does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.data.corpus import Vocabulary, read_corpus
from seqgan_env.games import text_game
from tests.data.texts import LINES
from tests.programs import run_program

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
def test_invalid_ids_are_refused(lines: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(lines, tokenizer="integers", vocab_size=5)


def test_an_id_that_makes_a_huge_vocabulary_must_be_declared() -> None:
    with pytest.raises(ValueError, match=r"line 2: the id 4000000000 is beyond .* If it is intended, declare vocab_size"):
        read_corpus(["1 2", "4000000000"], tokenizer="integers")


@pytest.mark.parametrize("huge", ["9" * 5000, 10**5000, "1" + "0" * 5000], ids=["nines", "a number", "zeros"])
def test_a_number_too_long_for_python_is_an_id_beyond_the_vocabulary(huge: str | int) -> None:
    with pytest.raises(ValueError, match=r"line 2: the id of more than 20 digits is beyond the vocabulary of 5 tokens"):
        read_corpus([[0, 1], [huge]] if isinstance(huge, int) else ["0 1", huge], tokenizer="integers", vocab_size=5)
    if isinstance(huge, int):
        with pytest.raises(ValueError, match="line 2: the id of more than 20 digits is negative"):
            read_corpus([[0, 1], [-huge]], tokenizer="integers")
        with pytest.raises(TypeError, match=r"Line 1 of the given lines must be a str, or a list .*, got int"):
            read_corpus([huge], tokenizer="integers")


def test_leading_zeros_do_not_count() -> None:
    assert read_corpus(["0 1", "0" * 5000 + "1 " + "0" * 5000], tokenizer="integers").tokens.tolist() == [[0, 1], [1, 0]]


def test_more_ids_than_32_bits_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vocab_size must be at most 2,147,483,647, got a larger one"):
        read_corpus(["0 1"], tokenizer="integers", vocab_size=2**31)


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
def test_a_token_that_would_be_split_is_refused(token: str) -> None:
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


def test_unknown_tokens_are_replaced_refused_or_skipped() -> None:
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
def test_time_grows_in_proportion_to_lines_and_memory_stays_small(tokenizer: str, tmp_path: Path) -> None:
    """Comparing all pairs of lines would take a hundred times as long; a million lines must take at most 2 GiB."""
    arguments = ["-c", MANY_LINES, str(tmp_path / "lines.txt"), tokenizer]
    output = run_program(*arguments).stdout
    times_as_long, gibibytes = map(float, output.split())
    assert times_as_long < 30
    assert gibibytes < 2 / 10
