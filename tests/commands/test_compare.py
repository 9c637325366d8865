"""`python -m seqgan_env compare` on runs of train.py, and on folders written by hand."""

import dataclasses
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from matplotlib.figure import Figure

import train
from seqgan_env.__main__ import main
from seqgan_env.commands.compare import Compare
from tests.evaluation.run_logs import write_evaluation, write_run
from tests.tiny_runs import TINY, oracle_config, text_config

T1, T2 = 12.706204736432095, 4.302652729911275
"""Student's t for two and three seeds."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, runs_without_pictures: None) -> dict[str, list[dict[str, float]]]:
    """What train.py measured, by reward model and for a text, with seeds 0 and 1; and its folder under `folder`."""
    folder = tmp_path_factory.mktemp("trained")
    measured: dict[str, Any] = {"folder": folder, "text": []}
    for model in ("discriminator", "random"):
        adversarial = dataclasses.replace(TINY["adversarial"], reward_model=model)
        configs = [oracle_config(folder / "oracle", seed=seed, adversarial=adversarial) for seed in range(2)]
        measured[model] = [train.main(config, "quick") for config in configs]
    measured["text"] = [train.main(text_config(folder / "text", seed=seed), "text") for seed in range(2)]
    return measured


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, with what is drawn in them."""
    saved: list[Figure] = []
    save = Figure.savefig

    def saving(figure: Figure, *arguments: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saving)
    return saved


def test_runs_of_train_are_compared_with_their_own_figures(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    main(["compare", str(trained["folder"] / "oracle"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.json", "comparison.png"}
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert report["compared_with"] == "reward-model discriminator"
    for group, model in zip(report["groups"], ("discriminator", "random"), strict=True):
        assert group["settings"] == {"adversarial.reward_model": model}
        assert [(run["seed"], run["updates"]) for run in group["runs"]] == [(0, 3), (1, 3)]
        assert all(Path(run["folder"]).name.startswith(f"quick-reinforce-s{run['seed']}-") for run in group["runs"])
        for name in ("nll_oracle", "nll_test", "nll_sum", "entropy", "unique"):
            values = [metrics[f"adversarial/{name}"] for metrics in trained[model]]
            expected = {"mean": fmean(values), "half_width": T1 * stdev(values) / 2**0.5, "n": 2}
            assert group["metrics"][name]["value"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert f"{fmean(values):.3f}" in printed
            assert list(group["metrics"][name]["curve"]) == ["0", "1", "2", "3"]
    second = report["groups"][1]
    assert second["paired_seeds"] == [0, 1]
    differences = [
        one["adversarial/nll_test"] - other["adversarial/nll_test"]
        for one, other in zip(trained["random"], trained["discriminator"], strict=True)
    ]
    expected = {"mean": fmean(differences), "half_width": T1 * stdev(differences) / 2**0.5, "n": 2}
    assert second["metrics"]["nll_test"]["paired_difference"] == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert "discriminator_accuracy" in report["groups"][0]["metrics"]
    assert second["metrics"]["discriminator_accuracy"]["value"] is None
    for said in ("--adversarial.reward-model", "minus the first, same seeds", "No temperature curves: "):
        assert said in printed


def test_nll_oracle_is_never_told_without_nll_test(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: list[Figure]
) -> None:
    report = Compare((trained["folder"] / "oracle",), out=tmp_path)()
    printed = capsys.readouterr().out
    assert printed.count("NLL_oracle") == printed.count("NLL_test") == 3
    for group in report["groups"]:
        assert {"nll_oracle", "nll_test"} <= group["metrics"].keys()
    titles = [axis.get_title().partition("\n")[0] for axis in figures[0].axes]
    assert titles == ["NLL_oracle", "NLL_test", *(f"{name}: difference from the first" for name in ("NLL_oracle", "NLL_test"))]


def test_runs_of_a_text_are_compared(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: list[Figure]
) -> None:
    report = Compare((trained["folder"] / "text",), out=tmp_path)()
    (group,) = report["groups"]
    values = [metrics["adversarial/bleu_4"] for metrics in trained["text"]]
    assert group["metrics"]["bleu_4"]["value"]["mean"] == pytest.approx(fmean(values), rel=1e-6)
    assert "nll_oracle" not in group["metrics"]
    assert [axis.get_title().partition("\n")[0] for axis in figures[0].axes] == ["NLL_test", "BLEU-4", "Self-BLEU-4"]
    assert "The runs differ in nothing but their seeds." in capsys.readouterr().out


def test_the_picture_shows_what_the_table_says(tmp_path: Path, figures: list[Figure]) -> None:
    for seed in range(3):
        first = write_run(tmp_path / f"a{seed}", seed, {0: (9, 7), 10: (8 + seed, 7)})
        second = write_run(tmp_path / f"b{seed}", seed, {0: (9, 7), 10: (8, 7 + seed)}, adversarial={"reward_model": "random"})
        write_evaluation(first, [(0.5, 6 + seed, 9), (1, 7, 8 + seed)])
        write_evaluation(second, [(0.5, 6, 9), (1, 7 + seed, 8)])
    Compare((tmp_path,), out=tmp_path / "out")()
    (figure,) = figures
    nll_oracle, nll_test, sweep, difference, _, empty = figure.axes
    assert [line.get_label() for line in nll_oracle.lines] == [
        "reward-model discriminator (3 seeds)",
        "reward-model random (3 seeds)",
    ]
    assert [list(line.get_ydata()) for line in nll_oracle.lines] == [[9, 9], [9, 8]]
    assert [list(line.get_ydata()) for line in nll_test.lines] == [[7, 7], [7, 8]]
    band = nll_oracle.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((9 - T2 / 3**0.5, 9 + T2 / 3**0.5))
    assert [list(line.get_ydata()) for line in difference.lines[1:]] == [[0, -1]]
    curves = [(list(line.get_xdata()), list(line.get_ydata())) for line in sweep.lines if line.get_marker() == "."]
    assert curves == [([7, 7], [9, 9]), ([6, 8], [9, 8])]
    assert not empty.axison


def test_one_seed_is_told_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, figures: list[Figure]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    write_run(tmp_path / "a", 0, {0: (9, 7), 10: (8, 7)})
    write_run(tmp_path / "b", 1, {0: (9, 7), 10: (8, 7)}, adversarial={"reward_model": "$random$"})
    Compare((tmp_path,), out=tmp_path / "out")()
    printed = capsys.readouterr().out
    assert "±" not in printed.partition("\n")[2]
    assert (
        "One seed has no interval, and its figure may be chance: reward-model discriminator; reward-model $random$." in printed
    )
    assert "No seed in common with reward-model discriminator, so no paired differences: reward-model $random$." in printed
    assert not figures[0].axes[0].collections


def test_many_groups_have_a_curve_each(tmp_path: Path, figures: list[Figure]) -> None:
    for number in range(8):
        write_run(tmp_path / f"{number}", 0, {0: (9, 7), 10: (8, 7)}, adversarial={"n_rollouts": number})
    Compare((tmp_path,), out=tmp_path / "out")()
    assert len(figures[0].axes[0].lines) == 8


def test_an_earlier_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", seed, {0: (9, 7), 5: (8.25, 7)})
    main(["compare", str(tmp_path), "--at", "5", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "after 5 updates" in printed
    assert "8.250 ± 0.000" in printed


def test_an_error_is_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, {0: (9, 7), 5: (8, 7)})
    write_run(tmp_path / "b", 1, {0: (9, 7), 10: (8, 7)})
    with pytest.raises(SystemExit, match=r"error: .*a was last measured after 5 of 10 updates: .* with --at 0"):
        main(["compare", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"error: There is no folder .*none"):
        main(["compare", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"error: --out - means standard output"):
        main(["compare", str(tmp_path), "--out", "-"])
    assert not (tmp_path / "out").exists()
