"""`python -m seqgan_env sample`, and sampling under a prefix and a mask."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from seqgan_env.__main__ import main
from seqgan_env.commands.sample import begin_with, encode_prefix, sample_with
from seqgan_env.data.corpus import read_corpus
from seqgan_env.game import SequenceGame
from seqgan_env.games import text_game
from seqgan_env.saved_game import LAST, LIKELIHOOD, load_game, load_generator, save_game
from tests.programs import run_program
from tests.run_folders import save_generators
from tests.small import T, V, no_repeats, seeded, small_policy


def sampled(run: Path, out: Path, *arguments: object) -> list[str]:
    main(["sample", "--run", str(run), "--out", str(out), *map(str, arguments)])
    return out.read_text(encoding="utf-8").split("\n")[:-1]


def test_as_a_program_it_writes_the_file(text_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.txt"
    result = run_program("-m", "seqgan_env", "sample", "--run", text_run, "-n", "7", "--prefix", "a man", "--out", out)
    assert result.returncode == 0, result.stderr
    assert f"7 sequences in {out}" in result.stdout
    lines = out.read_text().splitlines()
    assert len(lines) == 7
    assert all(line.split()[:2] == ["a", "man"] for line in lines)


LETTERS = ["the cat sat", "the dog", "there they are", "a cat", "then a dog"] * 4


def save_letters_run(folder: Path, tokenizer: str) -> SequenceGame:
    """An untrained generator of characters or subwords, which hardly ever writes what nothing forces it to write."""
    game = text_game(LETTERS, 14, tokenizer=tokenizer, vocab_size=None, reward_model="constant")
    save_game(game, folder)
    save_generators(game, folder)
    return game


@pytest.mark.parametrize("prefix", ["the ", "the", "th", " the", "a  ", "the cat "])
@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_a_prefix_is_kept_exactly(tmp_path: Path, tokenizer: str, prefix: str) -> None:
    save_letters_run(tmp_path, tokenizer)
    rows = sampled(tmp_path, tmp_path / "s.jsonl", "-n", 200, "--prefix", prefix)
    texts = [json.loads(row)["text"] for row in rows]
    assert sum(text.startswith(prefix) for text in texts) == 200
    assert len(set(texts)) > 100


def test_a_prefix_of_subwords_continues_as_texts_do(tmp_path: Path) -> None:
    """The tokens of "the c" are "the", " ", "c"; texts go on with " cat", which is one token."""
    game = save_letters_run(tmp_path, "bpe")
    vocabulary = game.vocabulary
    assert vocabulary is not None
    pieces = vocabulary.tokens
    assert [pieces[token] for token in vocabulary.encode("the c")] == ["the", " ", "c"]
    assert [pieces[token] for token in vocabulary.encode("the cat")] == ["the", " cat"]
    rows = [json.loads(row) for row in sampled(tmp_path, tmp_path / "s.jsonl", "-n", 300, "--prefix", "the c")]
    begun = [[pieces[token] for token in row["tokens"]] for row in rows]
    assert {start[0] for start in begun} == {"the"}
    assert {start[1] for start in begun} == {" cat", " "}
    assert {start[2] for start in begun if start[1] == " "} == {piece for piece in pieces if piece.startswith("c")} > {"c"}


def test_the_end_of_a_prefix_may_lie_inside_a_character(tmp_path: Path) -> None:
    game = text_game(["漢 é", "é 漢"] * 3, 14, tokenizer="bpe", vocab_size=258, reward_model="constant")
    save_game(game, tmp_path)
    save_generators(game, tmp_path)
    rows = sampled(tmp_path, tmp_path / "s.jsonl", "-n", 50, "--prefix", "é 漢")
    assert all(json.loads(row)["text"].startswith("é 漢") for row in rows)


def test_after_a_space_a_word_follows(text_run: Path, tmp_path: Path) -> None:
    bare = sampled(text_run, tmp_path / "s.txt", "-n", 300, "--prefix", "a man")
    assert all(line.split()[:2] == ["a", "man"] for line in bare)
    assert "a man" in bare  # it may end there
    spaced = sampled(text_run, tmp_path / "s.txt", "-n", 300, "--prefix", "a man ")
    assert all(line.startswith("a man ") and len(line.split()) > 2 for line in spaced)
    for prefix in (" a man", "a  man", "a man  "):
        with pytest.raises(
            SystemExit, match=rf"error: No sequence begins with '{prefix}': in the run's words it reads 'a man'"
        ):
            sampled(text_run, tmp_path / "s.txt", "--prefix", prefix)


def test_a_tokenizer_that_cannot_write_the_prefix_is_named(tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "cat": 1, "sat": 2, "?": 3}, unk_token="?"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    vocabulary = read_corpus(["the cat sat", "cat sat"], tokenizer=tmp_path / "t.json").vocabulary
    with pytest.raises(ValueError, match="No sequence begins with 'The cat': in the run's subwords it reads 'the cat'"):
        begin_with("The cat", vocabulary, 9)
    known, mask = begin_with("the cat ", vocabulary, 9)
    assert mask is not None
    assert (known, mask(np.array(known)).tolist()) == ([0, 1], [True, True, True, True, False])


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_prefix_that_does_not_fit_is_refused(kind: str) -> None:
    vocabulary = read_corpus(LETTERS, tokenizer=kind).vocabulary
    prefix = "the cat " if kind == "words" else "cccccc"  # of subwords, as many tokens
    needed = 3 if kind == "words" else 6
    assert begin_with(prefix, vocabulary, needed)[1] is not None
    with pytest.raises(ValueError, match=rf"takes {needed} tokens, more than the {needed - 1} of a sequence; shorten it"):
        begin_with(prefix, vocabulary, needed - 1)


def test_a_prefix_and_a_custom_mask_both_apply(tmp_path: Path) -> None:
    game = save_letters_run(tmp_path, "bpe")
    vocabulary = game.vocabulary
    assert vocabulary is not None
    short = np.array([len(piece) <= 2 for piece in vocabulary.tokens])
    known, mask = begin_with("the c", vocabulary, 9, lambda prefix: short)
    assert mask is not None
    the, space, letter = vocabulary.encode("the c")
    assert known == [the]
    assert np.flatnonzero(mask(np.array([the]))).tolist() == [space]
    assert np.flatnonzero(mask(np.array([the, space]))).tolist() == [letter]
    for begun in ([the, space, letter], [the, letter]):
        assert mask(np.array(begun)).tolist() == short.tolist()


def test_without_a_prefix_nothing_limits_the_tokens() -> None:
    vocabulary = read_corpus(LETTERS, tokenizer="bpe").vocabulary
    assert begin_with("", vocabulary, 9) == ([], None)
    assert begin_with("3 8", None, 9) == ([3, 8], None)
    ids = read_corpus(["1 2", "0"], tokenizer="integers").vocabulary
    assert begin_with(" 1  2 ", ids, 9) == ([1, 2], None)


POEMS = ["ab\nba", "b\n\na", "a\r\nb", "ba"] * 5


@pytest.fixture(scope="module")
def poem_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poems")
    game = text_game(POEMS, 8, tokenizer="characters", reward_model="constant")
    save_game(game, folder)
    save_generators(game, folder)
    return folder


def test_sequences_that_hold_line_ends_are_read_back_as_they_were(poem_run: Path, tmp_path: Path) -> None:
    game = load_game(poem_run)
    vocabulary = game.vocabulary
    assert vocabulary is not None
    generator = load_generator(poem_run / f"{LAST}.safetensors", game)
    tokens, _ = generator.sample(200, 8, seeded(6_000_003))
    expected = [vocabulary.decode(row) for row in tokens.tolist()]
    assert sum("\n" in text for text in expected) > 100
    lines = sampled(poem_run, tmp_path / "s.txt", "-n", 200)
    assert len(lines) == 200
    by_text = read_corpus(tmp_path / "s.txt", vocabulary=vocabulary, sequence_length=8)
    assert [vocabulary.decode(row) for row in by_text.tokens] == [text for text in expected if text]
    rows = [json.loads(line) for line in sampled(poem_run, tmp_path / "s.jsonl", "-n", 200)]
    assert [row["text"] for row in rows] == expected
    by_json = read_corpus(tmp_path / "s.jsonl", column="text", vocabulary=vocabulary, sequence_length=8)
    assert [vocabulary.decode(row) for row in by_json.tokens] == [text.strip() for text in expected if text.strip()]


def test_the_suffix_decides_the_format_as_in_reading(text_run: Path, tmp_path: Path) -> None:
    assert json.loads(sampled(text_run, tmp_path / "s.ndjson", "-n", 1)[0])["length"] >= 1
    as_text = sampled(text_run, tmp_path / "s.jsonl", "-n", 3, "--format", "text")
    assert as_text == sampled(text_run, tmp_path / "s.txt", "-n", 3)
    with pytest.raises(SystemExit, match=r"error: --out .*s\.csv: CSV cannot be written\. Use a name ending in"):
        sampled(text_run, tmp_path / "s.csv", "-n", 1)


@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_a_dash_is_standard_output(
    poem_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["sample", "--run", str(poem_run), "--out", "-", "-n", "9", "--format", format])
    printed = capfd.readouterr().out
    assert printed.count("\n") == 9
    assert list(tmp_path.iterdir()) == []
    main(["sample", "--run", str(poem_run), "--out", "file", "-n", "9", "--format", format])
    assert Path("file").read_text(encoding="utf-8") == printed


def test_standard_output_is_utf8_whatever_the_terminals_encoding(
    poem_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="cp1252", newline="\r\n"))
    main(["sample", "--run", str(poem_run), "--out", "-", "-n", "50"])
    print("after", end="")
    sys.stdout.flush()
    written = content.getvalue()
    assert "␤" in written.decode("utf-8")
    assert written.endswith(b"\nafter")
    assert b"\r" not in written


def test_a_reader_may_close_standard_output(
    poem_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            main(["sample", "--run", str(poem_run), "--out", "-", "-n", "50"])
        assert ended.value.code == 1
    assert capfd.readouterr() == ("", "")


def test_refused_calls_leave_the_file_unchanged(text_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.txt"
    out.write_text("precious")
    with pytest.raises(SystemExit, match="error: A prefix of 7 tokens"):
        sampled(text_run, out, "--prefix", "a man a man a man a")
    assert out.read_text() == "precious"


def test_the_same_seed_writes_the_same_and_options_have_an_effect(text_run: Path, tmp_path: Path) -> None:
    usual = sampled(text_run, tmp_path / "a.txt", "-n", 50)
    assert usual == sampled(text_run, tmp_path / "b.txt", "-n", 50)
    for change in (("--seed", 1), ("--temperature", 0.3), ("--prefix", "the"), ("--checkpoint", LIKELIHOOD)):
        assert sampled(text_run, tmp_path / "c.txt", "-n", 50, *change) != usual, change


def test_samples_are_the_generators_own(text_run: Path, tmp_path: Path) -> None:
    game = load_game(text_run)
    generator = load_generator(text_run / f"{LAST}.safetensors", game)
    tokens, _ = generator.sample(30, game.sequence_length, seeded(6_000_006), inverse_temperature=2.0)
    assert game.vocabulary is not None
    expected = [game.vocabulary.decode(row) for row in tokens.tolist()]
    assert sampled(text_run, tmp_path / "s.txt", "-n", 30, "--temperature", 0.5, "--seed", 3) == expected


def test_json_lines_describe_each_sequence(text_run: Path, tmp_path: Path) -> None:
    game = load_game(text_run)
    generator = load_generator(text_run / f"{LAST}.safetensors", game)
    rows = [json.loads(line) for line in sampled(text_run, tmp_path / "s.jsonl", "-n", 40, "--format", "jsonl")]
    assert len(rows) == 40
    assert game.vocabulary is not None
    for row in rows:
        assert list(row) == ["tokens", "text", "length", "nll"]
        assert row["length"] == len(row["tokens"])
        assert row["text"] == game.vocabulary.decode(row["tokens"])
        assert game.end_token not in row["tokens"][:-1]
        tokens = torch.tensor([row["tokens"]])
        assert row["nll"] == pytest.approx(generator.nll(tokens).item(), abs=1e-5)
    assert any(row["tokens"][-1] == game.end_token for row in rows)


def test_an_oracles_run_writes_ids(oracle_run: Path, tmp_path: Path) -> None:
    lines = sampled(oracle_run, tmp_path / "s.txt", "-n", 5, "--prefix", "3 8")
    assert [line.split()[:2] for line in lines] == [["3", "8"]] * 5
    assert {len(line.split()) for line in lines} == {5}
    (row, *_) = sampled(oracle_run, tmp_path / "s.jsonl", "-n", 1, "--format", "jsonl")
    assert json.loads(row)["text"] is None


def test_more_than_a_chunk_comes_in_parts() -> None:
    policy = small_policy()
    parts = list(sample_with(policy, 2500, T, seeded()))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert len({part.sum().item() for part in parts[:2]}) == 2


def test_mask_prefix_and_temperature_together() -> None:
    (tokens,) = sample_with(small_policy(), 100, T, seeded(), temperature=3.0, prefix=[4, 1], mask=no_repeats)
    assert tokens[:, :2].tolist() == [[4, 1]] * 100
    assert all(len(set(row)) == T for row in tokens.tolist())


def test_a_mask_is_found_by_its_name(oracle_run: Path, tmp_path: Path) -> None:
    def twice(lines: list[str]) -> bool:
        return any(len(set(line.split())) < len(line.split()) for line in lines)

    assert twice(sampled(oracle_run, tmp_path / "s.txt", "-n", 200))
    assert not twice(
        sampled(oracle_run, tmp_path / "s.txt", "-n", 200, "--mask", "tests.commands.test_sample:none_of_nine_twice")
    )
    with pytest.raises(SystemExit, match=r"error: A function.s name must be package\.module:function, .* got 'no_repeats'"):
        sampled(oracle_run, tmp_path / "s.txt", "--mask", "no_repeats")


def none_of_nine_twice(prefix: np.ndarray) -> np.ndarray:
    """A mask over nine tokens: none twice."""
    allowed = np.ones(9, dtype=np.bool_)
    allowed[prefix] = False
    return allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0"], "error: --temperature must be at least 1e-30, got 0.0"),
        (["--temperature", "1e-39"], "error: --temperature must be at least 1e-30, got 1e-39"),
        (["--temperature", "nan"], "error: --temperature must be at least 1e-30 and at most 1e.30, got nan"),
        (["-n", "0"], "error: --n must be at least 1, got 0"),
        (["--prefix", "a man a man a man a"], "error: A prefix of 7 tokens leaves no room in sequences of at most 6 tokens"),
        (["--prefix", "a dragon"], r"error: The prefix 'a dragon' cannot be continued: 'dragon' is not in the vocabulary"),
        (["--checkpoint", "none"], r"error: No checkpoint 'none' in .*; there is generator, generator_likelihood"),
        (["--out", "/dev/null/samples"], "error: .*samples"),
    ],
)
def test_impossible_requests_are_refused(text_run: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        sampled(text_run, tmp_path / "s.txt", *arguments)


def test_a_run_without_generators_is_refused(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "game.json").write_text((text_run / "game.json").read_text())
    (tmp_path / "real.safetensors").write_bytes((text_run / "real.safetensors").read_bytes())
    with pytest.raises(SystemExit, match=r"error: No checkpoint 'generator' in .*; there is none"):
        sampled(tmp_path, tmp_path / "s.txt")


def test_a_prefix_for_an_oracle_is_ids(oracle_run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: The run has no text, so a prefix is token ids .* got 'a man'"):
        sampled(oracle_run, tmp_path / "s.txt", "--prefix", "a man")
    with pytest.raises(SystemExit, match=r"error: The prefix \[9\] has ids outside the vocabulary's 0 \.\.\. 8"):
        sampled(oracle_run, tmp_path / "s.txt", "--prefix", "9")


def test_an_unknown_word_is_refused_as_a_prefix_even_if_it_has_a_token() -> None:
    vocabulary = read_corpus(["a b", "a b", "c a"], min_count=2).vocabulary
    assert encode_prefix("b a", vocabulary) == vocabulary.encode("b a")
    with pytest.raises(ValueError, match="'a c' has tokens that the run's vocabulary does not have; it reads 'a <unk>'"):
        encode_prefix("a c", vocabulary)


def test_no_global_generator_moves(global_generators_at_rest: None) -> None:
    assert sum(len(part) for part in sample_with(small_policy(end_token=2), 20, T, seeded(), prefix=[V - 1])) == 20


def test_a_mask_sees_only_what_is_written() -> None:
    def mask(prefix: np.ndarray) -> np.ndarray:
        assert (prefix < V).all()
        assert 2 not in prefix
        return np.ones(V, dtype=np.bool_)

    (tokens,) = sample_with(small_policy(end_token=2), 200, T, seeded(), mask=mask)
    (free,) = sample_with(small_policy(end_token=2), 200, T, seeded())
    assert torch.equal(tokens, free)
