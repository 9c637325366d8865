"""`python -m seqgan_env evaluate`, and what it measures."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgan_env.__main__ import main
from seqgan_env.commands.evaluate import Evaluate
from seqgan_env.evaluation.reference_sequences import reference_of
from seqgan_env.evaluation.run_evaluation import LABELS, EvaluationSettings
from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.shares import without_end_token
from seqgan_env.metrics.temperature import mean_nll
from seqgan_env.saved_game import (
    HELD_OUT,
    LAST,
    LIKELIHOOD,
    load_game,
    load_generator,
    load_sequences,
    save_generator,
)
from tests.run_folders import HELD_OUT_LINES, LINES
from tests.small import seeded

QUICK: dict[str, Any] = {"n": 60, "n_neighbours": 20, "inverse_temperatures": (1.0, 2.0)}
BOTH = [LIKELIHOOD, LAST]
STARTS_WITH_A = "tests.run_folders:starts_with_a"


@pytest.fixture(scope="module")
def text_report(text_run: Path) -> dict[str, Any]:
    return Evaluate(text_run, valid=STARTS_WITH_A, **QUICK)()


@pytest.fixture(scope="module")
def oracle_report(oracle_run: Path) -> dict[str, Any]:
    return Evaluate(oracle_run, **QUICK)()


def test_the_command_writes_table_json_and_pictures(
    text_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["-n", "40", "--n-neighbours", "10", "--inverse-temperatures", "1", "2", "--seed", "3"]
    main(["evaluate", "--run", str(text_run), "--out", str(tmp_path / "new" / "out"), *arguments])
    printed = capsys.readouterr().out
    for text in (
        "real data",
        "after likelihood",
        "at the end of the run",
        "BLEU-5",
        "Self-BLEU-2",
        "perplexity",
        "distinct-2",
    ):
        assert text in printed
    assert "NLL_oracle" not in printed
    assert f"3 sequences, {HELD_OUT}" in printed
    files = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert files == {"evaluation.json", "sweep.png", "lengths.png", "neighbours.png"}
    assert all((tmp_path / "new" / "out" / name).read_bytes()[:4] == b"\x89PNG" for name in files if name.endswith("png"))
    report = json.loads((tmp_path / "new" / "out" / "evaluation.json").read_text())
    assert report["settings"]["seed"] == 3
    assert report["settings"]["n"] == 40
    assert report["settings"]["inverse_temperatures"] == [1.0, 2.0]
    assert report["data"]["reference"] == HELD_OUT


def test_the_same_seed_finds_the_same(text_run: Path, text_report: dict[str, Any]) -> None:
    def again(**changes: Any) -> dict[str, Any]:
        return Evaluate(text_run, valid=STARTS_WITH_A, **{**QUICK, **changes})()

    assert again() == text_report
    assert again(seed=1)["generators"] != text_report["generators"]


def test_likelihood_is_always_beside_the_last(text_report: dict[str, Any], oracle_report: dict[str, Any]) -> None:
    for report in (text_report, oracle_report):
        assert list(report["generators"]) == BOTH
        first, last = (report["generators"][name] for name in BOTH)
        assert first["metrics"].keys() == last["metrics"].keys()
        assert first["metrics"]["nll_test"] != last["metrics"]["nll_test"]
        assert len(first["sweep"]) == len(last["sweep"]) == 2


def test_metrics_of_a_text_are_those_of_the_samples(text_run: Path, text_report: dict[str, Any]) -> None:
    game = load_game(text_run)
    generator = load_generator(text_run / f"{LAST}.safetensors", game)
    tokens, _ = generator.sample(60, game.sequence_length, seeded(4_000_003))
    held_out = load_sequences(text_run / HELD_OUT)
    words, references = (without_end_token(t.numpy(), game.end_token, game.vocab_size) for t in (tokens, held_out))
    metrics = text_report["generators"][LAST]["metrics"]
    bleu = BleuScorer(references, game.vocab_size).score(words).mean(axis=0)
    own = self_bleu(words, game.vocab_size)
    assert [metrics[f"bleu_{k}"] for k in (2, 3, 4, 5)] == pytest.approx(bleu[1:].tolist(), abs=1e-12)
    assert [metrics[f"self_bleu_{k}"] for k in (2, 3, 4, 5)] == pytest.approx(own[1:].tolist(), abs=1e-12)
    assert metrics["nll_test"] == pytest.approx(mean_nll(generator, held_out), abs=1e-9)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["nll_test"]), rel=1e-9)
    lengths = (words < game.vocab_size).sum(axis=1)
    assert metrics["mean_length"] == pytest.approx(lengths.mean())
    texts = [] if game.vocabulary is None else [game.vocabulary.decode(row) for row in words]
    assert metrics["unique"] == len(set(texts)) / 60
    assert metrics["novel"] == sum(text not in LINES for text in texts) / 60
    assert metrics["valid"] == sum(text.startswith("a") for text in texts) / 60
    with_end = BleuScorer(held_out.numpy(), game.vocab_size).score(tokens.numpy()).mean(axis=0)
    assert metrics["bleu_2"] != pytest.approx(with_end[1], abs=1e-3)  # the end token would lift it
    at_one = text_report["generators"][LAST]["sweep"][0]
    assert at_one["inverse_temperature"] == 1
    assert at_one["bleu_3"] == metrics["bleu_3"]
    assert at_one["self_bleu_3"] == metrics["self_bleu_3"]


def test_real_data_are_measured_like_a_generator(text_report: dict[str, Any]) -> None:
    real = text_report["real"]["metrics"]
    assert real["unique"] == 5 / 15  # five training lines, thrice each
    assert real["novel"] == 1  # no held-out line was trained on
    assert real["valid"] == 9 / 15
    assert real["neighbour_copies"] == 0
    assert real["mean_length"] == pytest.approx(sum(len(line.split()) for line in HELD_OUT_LINES) / 3)
    assert "nll_test" not in real


def test_nll_oracle_is_never_without_nll_test(oracle_report: dict[str, Any], text_report: dict[str, Any]) -> None:
    for name in BOTH:
        metrics = oracle_report["generators"][name]["metrics"]
        assert metrics["nll_sum"] == pytest.approx(metrics["nll_oracle"] + metrics["nll_test"])
        for point in oracle_report["generators"][name]["sweep"]:
            assert set(point) == {"inverse_temperature", "nll_oracle", "nll_test"}
        assert oracle_report["generators"][name]["sweep"][0]["nll_oracle"] == pytest.approx(metrics["nll_oracle"], abs=1e-9)
        assert "nll_oracle" not in text_report["generators"][name]["metrics"]
    names = list(LABELS)
    assert names.index("nll_test") == names.index("nll_oracle") + 1


def test_an_oracles_run_has_no_bleu_and_no_lengths(oracle_run: Path, oracle_report: dict[str, Any]) -> None:
    metrics = oracle_report["generators"][LAST]["metrics"]
    assert not {"bleu_2", "self_bleu_2", "mean_length", "valid"} & set(metrics)
    assert {"distinct_1", "unique", "novel", "neighbour_share", "perplexity"} <= set(metrics)
    assert not (oracle_run / "evaluation" / "lengths.png").exists()
    assert (oracle_run / "evaluation" / "sweep.png").exists()
    game = load_game(oracle_run)
    assert game.oracle is not None
    reference = reference_of(oracle_run, game, None, 60, 0)
    assert oracle_report["real"]["metrics"]["nll_oracle"] == pytest.approx(mean_nll(game.oracle, reference.sequences))
    assert not torch.equal(reference.sequences[:40], game.real_sequences)


def test_memorised_lines_are_detected(text_run: Path, tmp_path: Path) -> None:
    """The generator learns one line; its samples are copies, which BLEU alone would favour."""
    shutil.copytree(text_run, tmp_path / "run")
    game = load_game(tmp_path / "run")
    generator = load_generator(tmp_path / "run" / f"{LAST}.safetensors", game)
    line = game.real_sequences[:1]
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (-generator.log_prob(line).sum()).backward()
        optimizer.step()
    save_generator(generator, tmp_path / "run" / f"{LAST}.safetensors", game)
    report = Evaluate(tmp_path / "run", **QUICK)()
    before, after = (report["generators"][name] for name in BOTH)
    assert after["metrics"]["bleu_2"] > before["metrics"]["bleu_2"]
    assert after["metrics"]["neighbour_copies"] > 0.7 > before["metrics"]["neighbour_copies"]
    assert after["metrics"]["novel"] < 0.3 < before["metrics"]["novel"]
    assert after["metrics"]["nll_test"] > before["metrics"]["nll_test"]
    pair = after["closest_pairs"][0]
    assert pair == {"sample": LINES[0], "nearest": LINES[0], "edits": 0, "share": 0.0}


def test_an_invalid_checker_is_refused(text_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"error: The module 'tests\.run_folders' has no 'is_rhymed'\. It has .*starts_with_a"
    ):
        main(["evaluate", "--run", str(text_run), "--valid", "tests.run_folders:is_rhymed"])
    with pytest.raises(SystemExit, match=r"error: valid\(text\) must return True or False, got"):
        main(["evaluate", "--run", str(text_run), "-n", "20", "--out", str(tmp_path / "new"), "--valid", "builtins:len"])
    assert not (tmp_path / "new").exists()  # nothing is left by what is refused


def test_standard_output_is_no_folder(text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: --out - means standard output, but --out needs a folder"):
        main(["evaluate", "--run", str(text_run), "--out", "-"])
    assert list(tmp_path.iterdir()) == []


def test_refused_calls_leave_no_folder(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(SystemExit, match=r"error: .*empty\.txt: no sequences"):
        main(["evaluate", "--run", str(text_run), "--reference", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_without_the_likelihood_checkpoint_nothing_is_compared(text_run: Path, tmp_path: Path) -> None:
    shutil.copytree(text_run, tmp_path / "run")
    (tmp_path / "run" / f"{LIKELIHOOD}.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"error: No checkpoint generator_likelihood in .* with its start after likelihood"):
        main(["evaluate", "--run", str(tmp_path / "run")])


def test_all_bad_numbers_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"n must be at least 2, got 1; n_neighbours must be at least 1, got 0; inverse_temp"):
        EvaluationSettings(n=1, n_neighbours=0, inverse_temperatures=(1.0, -1.0))


def test_no_global_generator_moves(text_run: Path, tmp_path: Path, global_generators_at_rest: None) -> None:
    Evaluate(text_run, out=tmp_path, **QUICK)()
