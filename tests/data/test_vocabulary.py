"""Vocabulary: round trips, files, and an error for each inconsistent one."""

import json
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqgan_env.data.corpus import Vocabulary, read_corpus
from seqgan_env.data.vocabulary import one_line
from tests.data.texts import decoded

# Every character that UTF-8 can write, but those that part lines; few of them, so that they repeat.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff\0")
lines = st.lists(st.text(characters | st.sampled_from("ab é漢"), max_size=12), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(lines=lines)
@pytest.mark.parametrize("tokenizer", ["words", "characters"])
def test_lines_survive_the_round_trip(tokenizer: Any, lines: list[str]) -> None:
    expected = [line.strip() if tokenizer == "characters" else " ".join(line.split()) for line in lines]
    expected = [line for line in expected if line]
    assume(len({token for line in expected for token in (line if tokenizer == "characters" else line.split())}) > 1)
    corpus = read_corpus(lines, tokenizer=tokenizer, sequence_length=12)
    vocabulary = corpus.vocabulary
    assert decoded(corpus) == expected
    assert [vocabulary.decode(vocabulary.encode(line)) for line in expected] == expected
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    for row, length, line in zip(corpus.tokens.tolist(), corpus.lengths.tolist(), expected, strict=True):
        ids = vocabulary.encode(line)
        assert row[:length] == [*ids, vocabulary.end_token][:12]
        assert row[length:] == [vocabulary.pad] * (12 - length)


def test_decode_stops_at_the_end_token_and_at_padding() -> None:
    vocabulary = Vocabulary(("a", "b", "<end>"), end_token=2)
    assert vocabulary.decode([0, 1, 2, 0]) == "a b"
    assert vocabulary.decode(torch.tensor([1, 3, 0])) == "b"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize("index", [-1, 4, 100])
def test_decode_refuses_invalid_ids(index: int) -> None:
    with pytest.raises(ValueError, match=rf"No token has the id {index}; tokens are 0 \.\.\. 2, and 3 pads"):
        Vocabulary(("a", "b", "<end>"), end_token=2).decode([0, index])


def test_encode_replaces_or_refuses_unknown_tokens() -> None:
    with pytest.raises(ValueError, match="'c' is not in the vocabulary of 3 tokens"):
        Vocabulary(("a", "b", "<end>"), end_token=2).encode("a c")
    with pytest.raises(ValueError, match="'<end>' is not in the vocabulary"):
        Vocabulary(("a", "b", "<end>"), end_token=2).encode("a <end>")
    vocabulary = Vocabulary(("a", "<end>", "<unk>"), end_token=1, unknown_token=2)
    assert vocabulary.encode("a c <end> <unk>") == [0, 2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a", "b"), 2), r"two ids of 0 \.\.\. 1, got 2 and None"),
        ((("a", "b"), 1, 1), r"got 1 and 1"),
        ((("a", "b"), 1, -1), r"got 1 and -1"),
        ((("a", "a", "<end>"), 2), "have the same spelling"),
        ((("a", "b", "<end>"), 2, None, "letters"), "kind must be one of 'words', .*, 'subwords', got 'letters'"),
        ((("a", "b", "<end>"), 2, None, "integers"), "must spell each token, except the end token, as its own id"),
        ((("a", "b", "<end>"), 2, None, "subwords"), "subwords must be given if kind='subwords'.* got kind='subwords'"),
        ((("a", "b", "<end>"), 2, None, "words", "{}"), "subwords must be given if kind='subwords'.* got kind='words'"),
    ],
)
def test_an_inconsistent_vocabulary_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(*arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"tokens": "ab", "end_token": 1, "unknown_token": null, "joiner": " "}',
        '{"tokens": ["a", 1], "end_token": 1, "unknown_token": null, "joiner": " "}',
        '{"tokens": ["a", "b"], "end_token": 2, "unknown_token": null, "joiner": " "}',
    ],
)
def test_json_other_than_a_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Not a vocabulary as written by Vocabulary\.to_json: "):
        Vocabulary.from_json(text)


def test_the_tokenizer_is_kept_where_tokens_look_like_ids() -> None:
    digits = read_corpus(["0010", "0100"], tokenizer="characters").vocabulary
    assert digits.tokens == ("0", "1", "<end>")
    stored = Vocabulary.from_json(digits.to_json())
    assert (stored, stored.kind) == (digits, "characters")
    second = read_corpus(["0001", "01"], vocabulary=stored)
    assert second.tokens.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    words = read_corpus(["0 1 0", "0 1 2"]).vocabulary
    assert (words.tokens[:3], words.kind) == (("0", "1", "2"), "words")
    assert read_corpus(["0 1", "1 2"], tokenizer="integers").vocabulary.kind == "integers"


@pytest.mark.parametrize(
    ("tokens", "joiner", "kind"),
    [
        (["0", "1", "<end>"], "", "integers"),
        (["0", "1", "<end>"], " ", "integers"),
        (["1", "0", "<end>"], "", "characters"),
        (["a", "b", "<end>"], " ", "words"),
    ],
)
def test_an_older_file_is_read_by_a_guess(tokens: list[str], joiner: str, kind: str) -> None:
    fields = {"tokens": tokens, "end_token": 2, "unknown_token": None, "joiner": joiner}
    assert Vocabulary.from_json(json.dumps(fields)).kind == kind
    with pytest.raises(ValueError, match=r"Not a vocabulary .*: its joiner is neither ' ' \(words\) nor '' \(ch.*, but '-'"):
        Vocabulary.from_json(json.dumps(fields | {"joiner": "-"}))


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_encode_keeps_white_space(tokenizer: Any) -> None:
    vocabulary = read_corpus(["the cat  sat", "the dog"], tokenizer=tokenizer).vocabulary
    for text in ("the ", " the", "  ", "the  cat "):
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_a_line_end_inside_a_sequence_becomes_one_character() -> None:
    vocabulary = read_corpus(["a\nb", "b\r\nc", "c\0a"], tokenizer="characters").vocabulary
    texts = ["a\nb\na", "\r\nc", "a\0"]
    lines = [one_line(text) for text in texts]
    assert lines == ["a␤b␤a", "␍␤c", "a␀"]
    assert decoded(read_corpus(lines, vocabulary=vocabulary)) == texts
    of_signs = read_corpus(["a␤b", "b\na"], tokenizer="characters").vocabulary  # a text with the signs in it
    assert decoded(read_corpus(["a␤b", "b\na"], vocabulary=of_signs)) == ["a␤b", "b\na"]
    with pytest.raises(ValueError, match="the first is '␤'"):
        read_corpus(["a␤b"], vocabulary=read_corpus(["ab", "ba"], tokenizer="characters").vocabulary)
