"""Corpus: counts, reports, and an error with its remedy for each bad input."""

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqgan_env.data.corpus import Vocabulary, read_corpus
from tests.data.texts import decoded

SENTENCES = Path(__file__).parent.parent.parent / "examples" / "sentences.txt"


def data_file(name: str) -> Path:
    folder = os.environ.get("SEQGAN_DATA")
    if folder is None:
        pytest.skip("SEQGAN_DATA does not name the folder of the paper's data")
    return Path(folder) / name


# Reading


def test_ids_follow_falling_count_then_spelling() -> None:
    corpus = read_corpus(["b c a c", "c b d"], sequence_length=5)
    assert corpus.vocabulary == Vocabulary(("c", "b", "a", "d", "<end>"), end_token=4)
    assert corpus.vocabulary.pad == corpus.vocabulary.size == 5
    assert corpus.tokens.tolist() == [[1, 0, 2, 0, 4], [0, 1, 3, 4, 5]]
    assert corpus.lengths.tolist() == [5, 4]
    assert corpus.tokens.dtype == corpus.lengths.dtype == torch.int64


def test_a_sequence_of_full_length_has_no_end_token() -> None:
    corpus = read_corpus(["a b c", "a b"], sequence_length=3)
    end, pad = corpus.vocabulary.end_token, corpus.vocabulary.pad
    assert corpus.tokens.tolist() == [[0, 1, 2], [0, 1, end]]
    assert corpus.lengths.tolist() == [3, 3]
    longer = read_corpus(["a b c", "a b"], sequence_length=4)
    assert longer.tokens.tolist() == [[0, 1, 2, end], [0, 1, end, pad]]
    assert longer.lengths.tolist() == [4, 3]


def test_too_long_lines_are_truncated_without_an_end_token() -> None:
    corpus = read_corpus(["a b c d", "a"], sequence_length=2, too_long="truncate")
    assert decoded(corpus) == ["a b", "a"]
    assert corpus.tokens[0].tolist() == [0, 1]
    assert corpus.vocabulary.tokens == ("a", "b", "<end>")  # nothing of what was cut off
    assert (corpus.report.truncated, corpus.report.skipped) == (1, 0)


def test_too_long_lines_are_skipped_and_counted() -> None:
    corpus = read_corpus(["z z z", "a b", "a"], sequence_length=2, too_long="skip")
    assert decoded(corpus) == ["a b", "a"]
    assert corpus.vocabulary.tokens == ("a", "b", "<end>")
    assert (corpus.report.truncated, corpus.report.skipped, corpus.report.lines) == (0, 1, 3)


def test_rare_tokens_become_unknown() -> None:
    corpus = read_corpus(["a b a", "b c d"], sequence_length=4, min_count=2)
    assert corpus.vocabulary == Vocabulary(("a", "b", "<end>", "<unk>"), end_token=2, unknown_token=3)
    assert corpus.tokens.tolist() == [[0, 1, 0, 2], [1, 3, 3, 2]]
    assert corpus.report.unknown == 2
    assert decoded(corpus) == ["a b a", "b <unk> <unk>"]


def test_there_is_no_unknown_token_that_never_occurs() -> None:
    corpus = read_corpus(["a b", "b a"], sequence_length=2, min_count=2)
    assert corpus.vocabulary.unknown_token is None
    assert corpus.vocabulary.tokens == ("a", "b", "<end>")


def test_characters_include_the_spaces_inside_a_line() -> None:
    corpus = read_corpus([" to be \n", "\n"], tokenizer="characters", sequence_length=6)
    assert corpus.vocabulary.tokens == (" ", "b", "e", "o", "t", "<end>")
    assert corpus.tokens.tolist() == [[4, 3, 0, 1, 2, 5]]
    assert decoded(corpus) == ["to be"]


def test_report_accounts_for_all_lines() -> None:
    corpus = read_corpus(["a b", "", "a b", "b a c d", "  ", "a e"], sequence_length=3, min_count=2, too_long="skip")
    assert str(corpus.report) == (
        "6 lines read, 3 sequences of 6 tokens kept, 2 to 2 long (median 2); vocabulary: 4. Left out: 2 empty lines, 1 too "
        "long ones, 0 with tokens outside the vocabulary. Truncated: 0 lines. Replaced by <unk>: 1 tokens (16.67%). Repeats "
        "of an earlier sequence: 1."
    )


def test_a_file_reads_like_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffé 漢\r\n\r\n🙂 é".encode())  # a byte order mark, two kinds of line end, none at the end
    for source in (path, str(path), ["\ufeffé 漢", "", "🙂 é"], iter(["é 漢", "", "🙂 é"])):
        corpus = read_corpus(source, sequence_length=3)
        assert corpus.vocabulary.tokens == ("é", "漢", "🙂", "<end>")
        assert decoded(corpus) == ["é 漢", "🙂 é"]
        assert corpus.report.lines == 3


def test_spellings_that_look_alike_stay_apart() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert read_corpus([f"{composed} {decomposed}"], sequence_length=2).vocabulary.size == 3
    assert decoded(read_corpus([f"{composed} {decomposed}"], sequence_length=2)) == [f"{composed} {decomposed}"]


def test_the_words_end_and_unk_of_a_text_are_ordinary_words() -> None:
    corpus = read_corpus(["the <end> is <unk>", "the <end> <unk> x"], sequence_length=5, min_count=2)
    vocabulary = corpus.vocabulary
    assert vocabulary.tokens == ("<end>", "<unk>", "the", "<end>", "<unk>")
    assert decoded(corpus) == ["the <end> <unk> <unk>", "the <end> <unk> <unk>"]
    assert corpus.tokens[0].tolist() == [2, 0, 4, 1, 3]
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


# Doubts about the tokenizer


DNA = ["".join(random.Random(seed).choices("ACGT", k=30)) for seed in range(40)]


def test_a_text_without_white_space_warns_as_words_but_not_as_characters() -> None:
    message = r"The given lines: 40 of 40 sequences are a single token.*use tokenizer='characters' or 'bpe' \(--tokenizer ch"
    with pytest.warns(UserWarning, match=message) as caught:
        read_corpus(DNA)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="40 of 44 sequences are a single token"):
        read_corpus([*DNA, "A C", "G T", "A G", "C T"])
    read_corpus([*DNA, *["A C", "G T"] * 3])  # 40 of 46: fewer than nine of ten
    read_corpus(DNA, tokenizer="characters")
    read_corpus(DNA, tokenizer="bpe", vocab_size=270)
    read_corpus(DNA[:9])  # too few to tell
    read_corpus(DNA, sequence_length=1)  # what was asked for


def test_single_tokens_of_other_tokenizers_have_other_remedies() -> None:
    with pytest.warns(UserWarning, match="40 of 40 sequences are a single token.*Put all tokens of a sequence on one line"):
        read_corpus([[number] for number in range(40)], tokenizer="integers", sequence_length=2)
    with pytest.warns(UserWarning, match="120 of 120 sequences are a single token.*Use a smaller vocab_size"):
        read_corpus(["bird", "cat", "dog"] * 40, tokenizer="bpe", sequence_length=2)


def test_words_that_hardly_repeat_warn() -> None:
    lines = [f"{2 * number} {2 * number + 1} and" for number in range(500)]
    with pytest.warns(UserWarning, match=r"1,001 of 1,500 words are distinct: each occurs less than twice.*--min-count 2"):
        read_corpus(lines)
    read_corpus([*lines, *lines])  # each occurs twice
    read_corpus(lines[:300])  # too few to tell
    read_corpus([*lines, *["and so on"] * 2], min_count=2)


def test_characters_are_a_choice_for_a_text_of_words() -> None:
    read_corpus(SENTENCES, tokenizer="characters")


# Splitting


def test_split_divides_the_sequences_by_seed() -> None:
    corpus = read_corpus([f"a {number}" for number in range(50)], sequence_length=2)
    train, held_out = corpus.split(0.2, seed=0)
    assert (train.tokens.shape, held_out.tokens.shape) == ((40, 2), (10, 2))
    assert sorted(torch.cat([train.tokens, held_out.tokens]).tolist()) == sorted(corpus.tokens.tolist())
    assert torch.equal(held_out.lengths, (held_out.tokens < corpus.vocabulary.pad).sum(dim=1))
    assert torch.equal(corpus.split(0.2, seed=0)[1].tokens, held_out.tokens)
    assert not torch.equal(corpus.split(0.2, seed=1)[1].tokens, held_out.tokens)
    assert not torch.equal(corpus.tokens[:10], held_out.tokens)  # a file's order may be that of its making


def test_without_repeats_the_split_is_the_permutation_of_its_seed() -> None:
    corpus = read_corpus([f"a {number}" for number in range(50)], sequence_length=2)
    order = np.random.default_rng(3).permutation(50)
    train, held_out = corpus.split(0.2, seed=3)
    assert torch.equal(held_out.tokens, corpus.tokens[order[:10]])
    assert torch.equal(train.tokens, corpus.tokens[order[10:]])


@pytest.mark.parametrize("seed", range(5))
def test_no_sequence_is_on_both_sides(seed: int) -> None:
    lines = [f"a {number}" for number in range(60) for _ in range(1 + number % 4)]
    corpus = read_corpus(lines, sequence_length=2)
    train, held_out = corpus.split(0.2, seed)
    sides = [Counter(decoded(side)) for side in (train, held_out)]
    assert not sides[0].keys() & sides[1].keys()
    assert sides[0] + sides[1] == Counter(lines)
    assert len(held_out.tokens) == round(0.2 * len(lines))  # repeats of 1 to 4 fill any room
    assert decoded(train) != sorted(decoded(train))


def test_a_distinct_sequence_is_held_out_with_the_probability_of_the_share() -> None:
    """However often it occurs; of 1,000 seeds, one standard deviation is 0.013."""
    corpus = read_corpus([*["a a"] * 3, *(f"a {number}" for number in range(197))], sequence_length=2)
    held_out = [corpus.split(0.2, seed)[1].tokens[:, 1] for seed in range(1000)]
    for word in ("a", "5"):
        index = corpus.vocabulary.ids[word]
        assert sum(bool((words == index).any()) for words in held_out) / 1000 == pytest.approx(0.2, abs=0.04)


def test_sequences_too_frequent_to_hold_out_are_trained_on() -> None:
    corpus = read_corpus([*["a b"] * 60, *(f"a {number}" for number in range(40))], sequence_length=2)
    for seed in range(20):
        assert "a b" not in decoded(corpus.split(0.3, seed)[1])
    few = read_corpus([*["a b"] * 30, *["b a"] * 20, *["b b"] * 25], sequence_length=2)
    for seed in range(20):
        assert decoded(few.split(0.1, seed)[1]) == ["b a"] * 20  # the rarest, where none has room
    with pytest.raises(ValueError, match="All 30 sequences are the same, so any held-out sequence"):
        read_corpus(["a b"] * 30, sequence_length=2).split(0.1, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, 0.01, 0.99, float("nan")])
def test_a_split_with_nothing_on_one_side_is_refused(share: float) -> None:
    corpus = read_corpus(["a b", "b a", "a a"], sequence_length=2)
    with pytest.raises(ValueError, match=f"held_out={share} of 3 sequences leaves one side empty"):
        corpus.split(share, seed=0)


# Bad input


def test_a_too_long_line_is_named_with_its_remedies(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("a b\n\na b c\na b c d e\na b c\n")
    message = (
        r"lines\.txt: line 3 has 3 words, more than sequence_length=2\. 3 lines are too long; the longest is line 4 with 5\. "
        r"Raise sequence_length to 5, or choose too_long='truncate' or too_long='skip'"
    )
    with pytest.raises(ValueError, match=message):
        read_corpus(path, sequence_length=2)
    with pytest.raises(ValueError, match=r"line 1 has 3 characters, more than sequence_length=2\. .* line 4 with 9\."):
        read_corpus(path, tokenizer="characters", sequence_length=2)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file at '.*absent\.txt'\. Expected a text file"):
        read_corpus(tmp_path / "absent.txt", sequence_length=2)
    with pytest.raises(FileNotFoundError, match="to pass the lines themselves, put them in a list"):
        read_corpus("a text\nof two lines " * 1000, sequence_length=2)
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Expected a text file"):
        read_corpus(tmp_path, sequence_length=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no sequences in 0 lines, of which 0 are blank"),
        (b"\n  \n\t\n", r"no sequences in 3 lines, of which 3 are blank"),
        (b"a b c\n\n", r"no sequences in 2 lines, of which 1 are blank and 1 too long \(more than 2 words\)"),
        (b"a a\na\n", r"1 distinct token among 3, but a choice needs at least 2 .*min_count=1"),
        (b"ab\ncaf\xe9 x\n", r"is not UTF-8: line 2 has 0xe9 at byte 6 of the file\. Convert it"),
        (b"ab\n\x89PNG\0\0\n", r"is binary, or text in UTF-16: line 2 has a NUL at byte 7 of the file\. Expected UTF-8"),
        ("a b\n".encode("utf-16"), r"is binary, or text in UTF-16: line 1 has a NUL at byte 3"),
    ],
)
def test_files_without_usable_text_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.txt.*" + message):
        read_corpus(path, sequence_length=2, too_long="skip")


def test_a_corpus_of_rare_tokens_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 distinct token among 4, .*min_count=2"):
        read_corpus(["a b", "c d"], sequence_length=2, min_count=2)


def test_lines_that_are_not_strings_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Line 2 of the given lines must be a str, or a list of tokens or of ids, got bytes: b'b c'"
    ):
        read_corpus(["a b", b"b c"], sequence_length=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unknown": "drop"}, "unknown must be 'error' or 'skip', got 'drop'"),
        ({"format": "xml"}, "format must be 'text', 'csv' or 'jsonl', got 'xml'"),
        ({"format": "text"}, "format='text' is for files, but the data came as list; leave it out"),
        ({"vocab_size": 7}, "The text has a vocabulary of 3, but vocab_size=7 was given"),
        ({"too_long": "drop"}, "too_long must be 'error', 'truncate' or 'skip', got 'drop'"),
        ({"sequence_length": 0}, "must be at least 1, got 0 and 1"),
        ({"min_count": 0}, "must be at least 1, got 2 and 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(["a b"], **({"sequence_length": 2} | arguments))


# Files


def test_the_example_matches_its_description() -> None:
    corpus = read_corpus(SENTENCES, sequence_length=12)
    text = SENTENCES.read_text(encoding="ascii").splitlines()
    assert decoded(corpus) == text
    assert len(text) == 1000
    assert all(4 <= len(line.split()) <= 12 for line in text)
    assert all(word.isalpha() and word.islower() for word in corpus.vocabulary.tokens[:-1])
    assert corpus.vocabulary.tokens[0] == "the"
    assert corpus.report.duplicates == 0


def test_by_default_the_longest_line_fits_exactly() -> None:
    corpus = read_corpus(["a b", "a b c", "b"])
    assert corpus.tokens.shape == (3, 3)
    assert corpus.lengths.tolist() == [3, 3, 2]
    assert decoded(corpus) == ["a b", "a b c", "b"]


def test_captions_are_read_in_full() -> None:
    path = data_file("coco_train.txt")
    corpus = read_corpus(path, sequence_length=35)
    text = path.read_text(encoding="utf-8")
    words = text.split()
    counts = Counter(words)
    assert corpus.tokens.shape == (10_000, 35)
    assert len(corpus.vocabulary.tokens) == len(counts) + 1
    assert [counts[token] for token in corpus.vocabulary.tokens[:-1]] == sorted(counts.values(), reverse=True)
    assert " ".join(decoded(corpus)).split() == words
    with pytest.raises(ValueError, match=r"more than sequence_length=34\. 1 lines are too long; .* with 35"):
        read_corpus(path, sequence_length=34)
    skipped = read_corpus(path, sequence_length=20, too_long="skip").report.skipped
    assert skipped == sum(len(line.split()) > 20 for line in text.splitlines())


@pytest.mark.parametrize(("tokenizer", "length"), [("words", 24), ("characters", 47)])
def test_poems_are_read_at_both_levels(tokenizer: Any, length: int) -> None:
    path = data_file("tang_poems.txt")
    corpus = read_corpus(path, tokenizer=tokenizer, sequence_length=length)
    assert corpus.tokens.shape == (16_394, length)
    assert (corpus.lengths == length).all()
    assert not (corpus.tokens == corpus.vocabulary.end_token).any()
    assert (corpus.tokens < corpus.vocabulary.size).all()
    assert decoded(corpus) == [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
