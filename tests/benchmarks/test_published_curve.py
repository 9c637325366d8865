"""Runs beside the log that the authors released: what is read, the table by hand, and the picture."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import train
from agents.experiment.presets import PRESETS
from benchmarks.published_curve import (
    MEASURES,
    RELEASED,
    RELEASED_START,
    RELEASED_UPDATES,
    Config,
    Run,
    main,
    name_of,
    read_run,
    released_at,
    table,
)
from tests.tiny_runs import TINY, only_run, oracle_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A run of five updates, measured after each second and the last, and what it measured at the end."""
    out = tmp_path_factory.mktemp("runs")
    adversarial = dataclasses.replace(TINY["adversarial"], updates=5)
    evaluation = dataclasses.replace(TINY["evaluation"], every_updates=2)
    metrics = train.main(oracle_config(out, adversarial=adversarial, evaluation=evaluation))
    return only_run(out), metrics


@pytest.fixture
def folder(finished: tuple[Path, dict[str, float]]) -> Path:
    """That run's."""
    return finished[0]


def test_released_log_is_the_published_one() -> None:
    assert len(RELEASED) == len(RELEASED_UPDATES) == 31
    assert (RELEASED_UPDATES[0], RELEASED_UPDATES[-1]) == (1, 151)
    assert sum(RELEASED) == pytest.approx(272.76293)
    assert (min(RELEASED), RELEASED[-1]) == (8.68066, 8.6832)


def test_released_log_between_its_measurements() -> None:
    assert released_at(0) == RELEASED_START
    assert released_at(1) == RELEASED[0]
    assert released_at(3.5) == pytest.approx((9.08457 + 9.04511) / 2)
    assert released_at(151) == RELEASED[-1]
    assert math.isnan(released_at(152))


def test_run_is_read_as_it_was_measured(finished: tuple[Path, dict[str, float]]) -> None:
    folder, metrics = finished
    run = read_run(folder)
    assert list(run.points) == [0, 2, 4, 5]
    for updates, phase in ((0, "pretraining"), (5, "adversarial")):
        end = {name: metrics[f"{phase}/{name}"] for name in ("nll_oracle", "nll_test")}
        assert {name: run.points[updates][name] for name in end} == pytest.approx(end, rel=1e-12)
    judged = ("discriminator_accuracy", "discriminator_loss")
    assert all(point.keys() >= set(judged) for point in run.points.values())  # before the first update, too
    assert {name: run.points[5][name] for name in judged} == {name: metrics[f"adversarial/{name}"] for name in judged}


def test_run_of_before_has_no_figures_of_its_first_discriminator(folder: Path, tmp_path: Path) -> None:
    """Its adversarial phase began without an evaluation."""
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    log = "pretraining/nll_oracle,pretraining/nll_test,adversarial/nll_oracle,adversarial/nll_test,train/n_updates\n"
    (tmp_path / "progress.csv").write_text(log + "9,8,,,\n,,8.9,8.1,5\n")
    assert read_run(tmp_path).points == {0: {"nll_oracle": 9, "nll_test": 8}, 5: {"nll_oracle": 8.9, "nll_test": 8.1}}


@pytest.mark.parametrize(
    ("adversarial", "discriminator", "name"),
    [
        ({}, {}, "SeqGAN"),
        ({"loss_reduction": "mean"}, {"initial_parameters": "closed-gates"}, "SeqGAN, loss mean, start closed-gates"),
        ({"d_steps": 1, "d_pretrain_steps": 10}, {"epochs": 1}, "SeqGAN, passes after an update 1, passes before 10"),
        ({"reward_model": "constant", "d_steps": 1}, {"epochs": 1}, "constant reward"),
        ({"reward_model": "random", "batch_size": 9}, {}, "random reward, batches of 9"),
    ],
)
def test_a_run_is_named_by_its_reward_and_by_what_is_not_published(
    adversarial: dict[str, Any], discriminator: dict[str, Any], name: str
) -> None:
    paper = PRESETS["paper"][0]
    config = dataclasses.replace(
        paper,
        seed=3,
        adversarial=dataclasses.replace(paper.adversarial, **adversarial),
        discriminator=dataclasses.replace(paper.discriminator, **discriminator),
    )
    assert name_of(config) == name


def judged(*point: float) -> dict[str, float]:
    return dict(zip(MEASURES, point, strict=False))


def test_table_by_hand() -> None:
    ours = {0: judged(9.0, 8.5), 2: judged(8.9, 8.6), 3: judged(8.8, 8.7), 4: judged(8.7, 8.8)}
    longer = {0: judged(9.5, 8.0, 0.5, 0.7), 152: judged(8.6, 9.1234, 0.55, 0.69)}
    assert table([Run("ours", ours), Run("longer", longer)], every=2).splitlines() == [
        "| updates | released log: NLL_oracle | ours: NLL_oracle | NLL_test "
        "| longer: NLL_oracle | NLL_test | accuracy | cross-entropy |",
        "|---|---|---|---|---|---|---|---|",
        "| 0 | 9.071 | 9.000 | 8.500 | 9.500 | 8.000 | 0.500 | 0.700 |",
        f"| 2 | {9.08457 - 0.2 * (9.08457 - 9.04511):.3f} | 8.900 | 8.600 | – | – | – | – |",
        "| 4 | 9.061 | 8.700 | 8.800 | – | – | – | – |",
        "| 152 | – | – | – | 8.600 | 9.123 | 0.550 | 0.690 |",
    ]


def test_seeds_are_one_curve_where_all_of_them_were_measured() -> None:
    seeds = [Run("ours", {0: judged(9.0, 8.5), 2: judged(8.9, 8.6)}), Run("ours", {0: judged(9.2, 8.5)})]
    lines = table(seeds, every=2).splitlines()
    assert lines[2:] == ["| 0 | 9.071 | 9.100 ± 0.141 | 8.500 ± 0.000 |"]


def test_program_draws_and_prints(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    path = tmp_path / "new" / "curve.png"
    main(Config((folder, folder), every=5, out=path))
    assert path.read_bytes().startswith(b"\x89PNG")
    run = read_run(folder)
    printed = capsys.readouterr().out
    last = [f"{run.points[5][measure]:.3f} ± 0.000" for measure in MEASURES]
    assert f"| 5 | {released_at(5):.3f} | {' | '.join(last)} |" in printed
    for axis, measure in zip(drawn[0].axes, MEASURES, strict=True):
        *others, line = axis.lines
        assert str(line.get_label()).replace("\n", " ") == f"{run.name} (2 seeds)"
        assert list(line.get_xdata()) == list(run.points)
        assert list(line.get_ydata()) == [point[measure] for point in run.points.values()]
        labels = {"nll_oracle": ["the authors' released log"], "nll_test": []}
        assert [other.get_label() for other in others] == labels.get(measure, ["it tells nothing apart"])
        assert len(axis.collections) == 1  # the band


@pytest.mark.parametrize("log", ["pretraining/loss\n7.5\n", "pretraining/nll_test\n7.5\n"])
def test_run_without_an_oracles_measurement_is_refused(folder: Path, tmp_path: Path, log: str) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "progress.csv").write_text(log)
    with pytest.raises(ValueError, match=r"has no measurement of a likelihood start, or not yet|has no NLL_oracle: use a run"):
        read_run(tmp_path)
