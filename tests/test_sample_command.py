"""`python -m seqgan_env sample`, and sampling on conditions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seqgan_env.__main__ import main
from seqgan_env.corpus import read_corpus
from seqgan_env.sample_command import encode_prefix, sample_with
from seqgan_env.storage import LAST, LIKELIHOOD, load_game, load_generator
from tests.run_folders import save_oracle_run, save_text_run
from tests.small import T, V, no_repeats, seeded, small_policy

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    save_text_run(folder)
    return folder


@pytest.fixture(scope="module")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    save_oracle_run(folder)
    return folder


def sampled(run: Path, out: Path, *arguments: object) -> list[str]:
    main(["sample", "--run", str(run), "--out", str(out), *map(str, arguments)])
    return out.read_text(encoding="utf-8").split("\n")[:-1]


def test_as_a_program_it_writes_the_file(text_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.txt"
    command = [sys.executable, "-m", "seqgan_env", "sample", "--run", text_run, "-n", "7", "--prefix", "a man", "--out", out]
    result = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert f"7 sequences in {out}" in result.stdout
    lines = out.read_text().splitlines()
    assert len(lines) == 7
    assert all(line.split()[:2] == ["a", "man"] for line in lines)


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


def test_json_lines_say_what_each_sequence_is(text_run: Path, tmp_path: Path) -> None:
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
        sampled(oracle_run, tmp_path / "s.txt", "-n", 200, "--mask", "tests.test_sample_command:none_of_nine_twice")
    )
    with pytest.raises(SystemExit, match=r"error: A function is named as package\.module:function, .* got 'no_repeats'"):
        sampled(oracle_run, tmp_path / "s.txt", "--mask", "no_repeats")


def none_of_nine_twice(prefix: np.ndarray) -> np.ndarray:
    """A mask over nine tokens: none twice."""
    allowed = np.ones(9, dtype=np.bool_)
    allowed[prefix] = False
    return allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0"], "error: The temperature must be positive and finite, got 0.0"),
        (["--temperature", "nan"], "error: The temperature must be positive and finite, got nan"),
        (["-n", "0"], "error: The number of sequences must be at least 1, got 0"),
        (["--prefix", "a man a man a man a"], "error: A prefix of 7 tokens leaves nothing to write in sequences of at most 6"),
        (["--prefix", "a dragon"], r"error: The prefix 'a dragon' cannot be gone on with: 'dragon' is not in the vocabulary"),
        (["--checkpoint", "none"], r"error: No checkpoint 'none' in .*; there is generator, generator_likelihood"),
        (["--out", "/dev/null/samples"], "error: .*samples"),
    ],
)
def test_what_cannot_be_done_is_said(text_run: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
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
    with pytest.raises(SystemExit, match=r"error: The prefix \[9\] has ids beyond the vocabulary's 0 \.\.\. 8"):
        sampled(oracle_run, tmp_path / "s.txt", "--prefix", "9")


def test_an_unknown_word_is_no_prefix_even_where_it_has_a_token() -> None:
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
