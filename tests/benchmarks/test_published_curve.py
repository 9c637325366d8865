"""Runs beside the log that the authors released: what is read, the table by hand, and the picture."""

import dataclasses
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import train
from benchmarks.published_curve import (
    RELEASED,
    RELEASED_START,
    RELEASED_UPDATES,
    Config,
    Run,
    main,
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
    assert run.name == "SeqGAN (passes: 1, batches: 16), seed 0"
    assert run.updates == [0, 2, 4, 5]
    ends = [[metrics[f"{phase}/{name}"] for name in ("nll_oracle", "nll_test")] for phase in ("pretraining", "adversarial")]
    assert run.curve[0] == pytest.approx(ends[0], rel=1e-12)
    assert run.curve[-1] == pytest.approx(ends[1], rel=1e-12)


def test_table_by_hand() -> None:
    ours = Run("ours", [0, 2, 3, 4], [(9.0, 8.5), (8.9, 8.6), (8.8, 8.7), (8.7, 8.8)])
    longer = Run("longer", [0, 152], [(9.5, 8.0), (8.6, 9.1234)])
    assert table([ours, longer], every=2).splitlines() == [
        "| updates | released log: NLL_oracle | ours: NLL_oracle | NLL_test | longer: NLL_oracle | NLL_test |",
        "|---|---|---|---|---|---|",
        "| 0 | 9.071 | 9.000 | 8.500 | 9.500 | 8.000 |",
        f"| 2 | {9.08457 - 0.2 * (9.08457 - 9.04511):.3f} | 8.900 | 8.600 | – | – |",
        "| 4 | 9.061 | 8.700 | 8.800 | – | – |",
        "| 152 | – | – | – | 8.600 | 9.123 |",
    ]


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
    main(Config((folder,), every=5, out=path))
    assert path.read_bytes().startswith(b"\x89PNG")
    run = read_run(folder)
    printed = capsys.readouterr().out
    assert f"| 5 | {released_at(5):.3f} | {run.curve[-1][0]:.3f} | {run.curve[-1][1]:.3f} |" in printed
    quality, coverage = drawn[0].axes
    assert [line.get_label() for line in quality.lines] == ["the authors' released log", run.name]
    assert [[list(line.get_xdata()), list(line.get_ydata())] for line in (quality.lines[1], coverage.lines[0])] == [
        [run.updates, [point[measure] for point in run.curve]] for measure in (0, 1)
    ]


@pytest.mark.parametrize("log", ["pretraining/loss\n7.5\n", "pretraining/nll_test\n7.5\n"])
def test_run_without_an_oracles_measurement_is_refused(folder: Path, tmp_path: Path, log: str) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "progress.csv").write_text(log)
    with pytest.raises(ValueError, match="has no NLL_oracle of a likelihood start, or not yet"):
        read_run(tmp_path)
