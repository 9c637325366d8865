"""The protocol of adversarial training: its arithmetic by hand, its rows, and that it runs only what is missing."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from agents.experiment.config import OracleConfig
from agents.experiment.presets import PRESETS
from benchmarks import learning
from benchmarks.finished_runs import FinishedRuns, with_needs
from benchmarks.learning import (
    AVERAGED,
    BOTH,
    CNN,
    CNN_LEVERS,
    CONTROLS,
    DENSITY,
    OURS,
    PUBLISHED,
    RATIO_LEVERS,
    REGULARISED,
    ROWS,
    UNIFORM,
    WITHOUT_TRAINING,
    Config,
    main,
    settings,
)
from benchmarks.learning_report import (
    Result,
    Sweep,
    against_controls,
    best_sum,
    curve,
    draw,
    draw_gains,
    gain_at_equal_coverage,
    interval,
    levers_table,
    nll_oracle_at,
    nll_test_at,
    tables,
)
from tests.tiny_runs import RATIO, SMALL_RATIO, TINY, oracle_config

ALPHAS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)


def parabola(better: float = 0.0, colder: float = 0.0) -> Sweep:
    """NLL_oracle 10 - 1.2 a, less `better`, and NLL_test 7 + (a - 1)^2, at a = alpha + `colder`."""
    return [(x, 10 - 1.2 * (x + colder) - better, 7 + (x + colder - 1) ** 2) for x in ALPHAS]


def result(row: str, seed: int, sweep: Sweep | None = None, **changes: Any) -> Result:
    return Result(
        **{"row": row, "seed": seed, "sweep": sweep or parabola(), "accuracy": 0.8, "loss": 0.4, "seconds": 90.0} | changes
    )


class TestArithmetic:
    def test_the_best_sum_lies_between_temperatures(self) -> None:
        """(a - 1)^2 - 1.2 a is least at a = 1.6: 7.36 + 8.08."""
        assert best_sum(parabola()) == pytest.approx(15.44, abs=1e-3)
        assert min(oracle + test for _, oracle, test in parabola()) > 15.449  # the temperatures alone do not reach it

    def test_quality_at_a_coverage_and_the_other_way_round(self) -> None:
        assert nll_oracle_at(parabola(), 7.04) == pytest.approx(8.56, abs=0.02)  # at a = 1.2
        assert nll_test_at(parabola(), 8.08) == pytest.approx(7.36, abs=0.02)  # at a = 1.6
        assert nll_test_at(parabola(), 9.9) == pytest.approx(7.0)  # the lowest of the whole curve, which is at a = 1
        assert math.isnan(nll_oracle_at(parabola(), 6.9))
        assert math.isnan(nll_test_at(parabola(), 6.0))

    def test_the_curve_runs_through_the_measured_points(self) -> None:
        points = curve(parabola(), points_between=10).tolist()
        assert len(points) == 10 * (len(ALPHAS) - 1) + 1
        assert [points[10 * k] for k in range(len(ALPHAS))] == [pytest.approx(list(point[1:])) for point in parabola()]

    def test_colder_is_no_gain_and_better_is(self) -> None:
        start = parabola()
        assert gain_at_equal_coverage(parabola(), start) == 0
        assert gain_at_equal_coverage(parabola(colder=0.2), start) == pytest.approx(0, abs=0.02)
        assert parabola(colder=0.2)[2][1] < start[2][1] - 0.2  # although its NLL_oracle is lower
        assert gain_at_equal_coverage(parabola(better=0.3, colder=0.2), start) == pytest.approx(-0.3, abs=0.02)
        assert gain_at_equal_coverage(parabola(better=0.3), start, parabola(better=0.2)) == pytest.approx(-0.1)
        unreachable = [(alpha, oracle, test + 5) for alpha, oracle, test in parabola(better=3)]
        assert gain_at_equal_coverage(parabola(better=0.3), start, unreachable) == pytest.approx(-0.3)

    def test_intervals_are_students(self) -> None:
        assert interval([1.0, 2.0, 3.0]) == "2.000 ± 2.484"  # 4.303 / sqrt(3)
        assert interval([0.5], signed=True) == "+0.500"
        assert interval([1.0, math.nan]) == interval([]) == "–"


class TestReport:
    def test_tables_by_hand(self) -> None:
        results = [result(REGULARISED, seed) for seed in (0, 1)]
        results += [result(OURS, seed, parabola(better=0.1 + 0.1 * seed)) for seed in (0, 1)]
        lines = tables(results, list(ROWS)).splitlines()
        assert lines[2].startswith(f"| {REGULARISED} | 8.800 ± 0.000 | 7.000 ± 0.000 | 15.440 ± 0.000 |")
        assert lines[3].startswith(f"| {OURS} | 8.650 ± 0.635 | 7.000 ± 0.000 | 15.290 ± 0.635 |")
        assert lines[-1] == f"| {OURS} | −0.150 ± 0.635 | −0.150 ± 0.635 | 0.800 ± 0.000 | 0.400 ± 0.000 | 1.5 ± 0.0 |"

    def test_levers_by_hand(self) -> None:
        lever, other = f"{REGULARISED}; CNN, rank", f"{PUBLISHED}; density ratio"
        results = [result(REGULARISED, 0), result(lever, 0, parabola(better=0.1)), result(other, 1), result(PUBLISHED, 1)]
        assert levers_table(results, [lever, other]).splitlines()[2:] == [
            "| CNN, rank | 8.700 | 7.000 | 15.340 | −0.100 | −0.100 | 0.800 | 0.400 | 1.5 | 1 |",
            f"| {other} | 8.800 | 7.000 | 15.440 | +0.000 | +0.000 | 0.800 | 0.400 | 1.5 | 1 |",
        ]

    def test_controls_by_hand(self) -> None:
        name, control = next(iter(CONTROLS.items()))
        results = [result(REGULARISED, 0), result(OURS, 0, parabola(better=0.4)), result(control, 0, parabola(better=0.1))]
        assert against_controls(results, OURS, CONTROLS).splitlines()[3:] == [f"| {name} | −0.300 | 1 |"]
        worse = [*results[:2], result(control, 0, parabola(better=-9))]  # then its start is the better control
        assert against_controls(worse, OURS, CONTROLS).splitlines()[3:] == [f"| {name} | −0.400 | 1 |"]
        assert against_controls(results[:2], OURS, CONTROLS).splitlines()[3:] == []

    def test_a_picture(self, tmp_path: Path) -> None:
        path = draw([result(OURS, 0), result(REGULARISED, 0)], [REGULARISED, OURS, DENSITY], tmp_path / "learning.png")
        assert path.stat().st_size > 10_000

    def test_a_picture_of_gains(self, tmp_path: Path) -> None:
        results = [result(OURS, 0, parabola(better=0.4)), result(REGULARISED, 0), result(BOTH, 0, parabola(better=-3))]
        path = draw_gains(results, [OURS, BOTH, AVERAGED], OURS, tmp_path / "levers.png")
        assert path.stat().st_size > 10_000


class TestRows:
    def test_our_row_is_the_preset(self) -> None:
        preset, ours = PRESETS["paper-cpu"][0], settings(OURS, 3, Config(data=Path("data"), out=Path("out")))
        assert isinstance(ours, OracleConfig)
        for group in ("generator", "pretrain", "discriminator", "adversarial", "collapse"):
            assert getattr(ours, group) == getattr(preset, group)
        assert (ours.seed, ours.oracle_params) == (3, Path("data/seqgan_paper_oracle.npz"))

    def test_controls_and_levers_differ_only_in_what_they_name(self) -> None:
        ours = settings(OURS, 0, Config()).adversarial
        for model, name in CONTROLS.items():
            assert settings(name, 0, Config()).adversarial == dataclasses.replace(ours, reward_model=model, reward="terminal")
        for name, (changes, parts) in RATIO_LEVERS.items():
            row = settings(f"{REGULARISED}; density ratio, {name}", 0, Config())
            ratio = dataclasses.replace(ours.density_ratio, **parts)
            assert row.adversarial == dataclasses.replace(ours, density_ratio=ratio, **changes)
        cnn = settings(f"{REGULARISED}; CNN", 0, Config())
        assert cnn.adversarial == dataclasses.replace(ours, **CNN)
        for name, (changes, discriminator) in CNN_LEVERS.items():
            row = settings(f"{REGULARISED}; CNN, {name}", 0, Config())
            assert row.adversarial == dataclasses.replace(cnn.adversarial, **changes)
            assert row.discriminator == dataclasses.replace(cnn.discriminator, **discriminator)
        small = Config(size="small")
        for name, (_, parts) in RATIO_LEVERS.items():  # levers of a size change what that size has
            ratio = settings(f"{REGULARISED}; density ratio, {name}", 0, small).adversarial.density_ratio
            assert ratio == dataclasses.replace(settings(OURS, 0, small).adversarial.density_ratio, **parts)
            assert ratio.model.hidden_dim == 64
        trained = [name for name in ROWS if name not in (UNIFORM, *WITHOUT_TRAINING)]
        assert len({str(settings(name, 0, Config())) for name in trained}) == len(trained)

    def test_the_published_start_is_the_papers(self) -> None:
        paper, row = PRESETS["paper"][0], settings(PUBLISHED, 0, Config())
        assert row.generator == paper.generator
        assert row.pretrain == dataclasses.replace(paper.pretrain, epochs=40, shuffle=True)

    def test_starts_run_first_and_once(self) -> None:
        order = with_needs([(OURS, 0), (CONTROLS["random"], 0), (OURS, 1), (DENSITY, 1)], learning._needs)
        assert order == [(REGULARISED, 0), (REGULARISED, 1), (OURS, 1), (OURS, 0), (CONTROLS["random"], 0), (DENSITY, 1)]

    def test_uniform_tokens_have_the_entropy_of_the_vocabulary(self) -> None:
        """At every temperature; and for the oracle they are unlikelier than its own sequences."""
        run = learning.run(UNIFORM, 0, Config(size="small", n_samples=200))
        assert {test for _, _, test in run.sweep} == {math.log(500)}
        assert len({oracle for _, oracle, _ in run.sweep}) == 1
        assert run.sweep[0][1] > math.log(500)


def test_runs_only_what_is_missing_each_run_after_those_it_needs(
    tmp_path: Path, runs_of_no_time: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    called = runs_of_no_time(learning, lambda name, seed, _: result(name, seed))
    list(FinishedRuns(tmp_path / "full" / "learning.jsonl", Result).append([result(REGULARISED, 0)]))
    config = Config(seeds=(0, 1), rows=(DENSITY,), out=tmp_path)
    main(config)
    order = [arguments[:2] for arguments in called]
    assert set(order) == {(OURS, 0), (DENSITY, 0), (REGULARISED, 1), (OURS, 1), (DENSITY, 1)}
    assert len(order) == 5
    assert order.index((REGULARISED, 1)) < order.index((OURS, 1)) < order.index((DENSITY, 1))
    assert order.index((OURS, 0)) < order.index((DENSITY, 0))
    printed = capsys.readouterr().out
    assert f"| {OURS} | 8.800 ± 0.000 |" in printed
    assert "levers.png" not in printed
    called.clear()
    main(config)
    main(dataclasses.replace(config, rows=(CONTROLS["random"],), report_only=True))
    assert f"| {DENSITY} |" not in capsys.readouterr().out.split("learning.png")[1]  # it was not asked for
    main(dataclasses.replace(config, levers=True, report_only=True))
    assert (tmp_path / "full" / "levers.png").exists()
    assert called == []
    main(dataclasses.replace(config, seeds=(0,), rows=(REGULARISED,), n_samples=100))  # what has other sizes is another run
    assert [arguments[:2] for arguments in called] == [(REGULARISED, 0)]


DELETED = {"density ratio, by classification"} | {
    f"CNN, {setting}" for setting in ("token dropout", "label smoothing", "spectral norm", "validation", "replay")
}
"""Rows of settings that no longer exist; the page keeps their figures and names the commit that can run them."""


def test_the_pages_rows_are_the_programs() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "learning.md").read_text(encoding="utf-8")
    names = [
        line.split(" | ")[0].removeprefix("| ")
        for line in page.splitlines()
        if line.startswith("| ") and line.count(" | ") >= 5
    ]
    rows = {name for name in names if name != "row"}
    assert rows >= DELETED
    rows -= DELETED
    short = {name.removeprefix(f"{REGULARISED}; ") for name in ROWS}
    assert rows <= {*ROWS} | short
    shown = {name for name in ROWS if name in rows or name.removeprefix(f"{REGULARISED}; ") in rows}
    assert shown == {*ROWS}


def test_an_unknown_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There are no rows \['guesses'\]; there are \['uniform', "):
        main(Config(rows=("guesses", UNIFORM), out=tmp_path))


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Config(out=tmp_path / "nothing", report_only=True))
    assert capsys.readouterr().out == f"No run is finished in {tmp_path / 'nothing' / 'full' / 'learning.jsonl'}.\n"


def test_runs_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start, an adversarial phase from it, and what its discriminator knows, one after the other, as processes do it."""

    def tiny(name: str, seed: int, config: Config) -> OracleConfig:
        changes = learning.NO_UPDATES if name == REGULARISED else RATIO | {"density_ratio": SMALL_RATIO}
        return oracle_config(tmp_path, seed=seed, adversarial=dataclasses.replace(TINY["adversarial"], **changes))

    monkeypatch.setattr(learning, "settings", tiny)
    config = Config(n_samples=40, out=tmp_path / "runs")
    start, ours, *others = (learning.run(name, 1, config) for name in (REGULARISED, OURS, *WITHOUT_TRAINING))
    assert [alpha for alpha, _, _ in start.sweep] == list(ALPHAS)
    assert math.isnan(start.accuracy)
    assert 0 <= ours.accuracy <= 1
    assert ours.loss > 0
    assert len({str(one.sweep) for one in (start, ours, *others)}) == 6
    (first,) = (tmp_path / "runs" / "full").glob("likelihood-regularised-seed1/*/generator_likelihood.safetensors")
    (second,) = (tmp_path / "runs" / "full").glob("*density-ratio-seed1/*/generator_likelihood.safetensors")
    assert load_file(first)["output.bias"].tolist() == load_file(second)["output.bias"].tolist()
