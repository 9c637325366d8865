"""The speed benchmark: its count of the work, what it times and writes, its targets, and the fitted exponents."""

import dataclasses
import json
import math
import runpy
import sys
from io import StringIO
from pathlib import Path
from statistics import mean, median
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from agents.experiment.presets import PRESETS
from benchmarks import flops, growth, memory, speed
from benchmarks.flops import Shape
from benchmarks.growth import Curve, Sizes, fitted_exponent
from benchmarks.speed import Config, Limit, Row, Target, Work, measure
from seqgan_env.rewards.text_cnn import TextCNNConfig

PAPER = Shape()
CNN = TextCNNConfig(widths=(1, 2), n_filters=(2, 1), embedding_dim=2, batch_size=4)
BY_HAND = Shape(3, 3, embedding_dim=1, hidden_dim=2, batch_size=2, n_rollouts=2, discriminator=CNN)
TINY = Shape(
    vocab_size=50,
    sequence_length=6,
    embedding_dim=4,
    hidden_dim=4,
    batch_size=8,
    n_rollouts=2,
    discriminator=TextCNNConfig(widths=(1, 3, 9), n_filters=(6, 5, 4), embedding_dim=4, batch_size=8),  # 9 does not fit
    n_samples=40,
    fit_steps=4,
)
TINY_GROWTH = Sizes(lengths=(3, 6), rollouts=(2, 4), batch_size=4, n_samples=20, repeats=1)
CPU = torch.device("cpu")


# --- the count of the work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flop", "stated"),
    [
        (flops.token_row(PAPER), "0.336 M"),
        (TextCNNConfig().operations(20), "27 M"),
        (flops.sampling(PAPER, 10_000), "67 G"),
        (flops.likelihood(PAPER, 10_000), "200 G"),
        (flops.completion_rows(PAPER) * flops.token_row(PAPER), "65 G"),
        (flops.scored_sequences(PAPER) * TextCNNConfig().operations(20), "527 G"),
        (flops.discriminator_steps(20, TextCNNConfig(), 1000), "5.2 T"),
    ],
)
def test_the_paper_shape_costs_what_the_design_says(flop: int, stated: str) -> None:
    number, prefix = stated.split()
    digits = 3 if number in ("0.336", "527") else 2  # as many as are given; 200 stands for 2.0e2
    expected = float(number) * {"M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(f"{flop:.{digits}g}") == pytest.approx(expected, rel=1e-12)


def test_the_paper_shape_has_as_many_rows_as_the_design_says() -> None:
    assert (flops.completion_rows(PAPER), flops.scored_sequences(PAPER)) == (194_560, 19_520)
    judged = 19_520 * TextCNNConfig().operations(20)
    assert flops.rewards(PAPER) == 194_560 * flops.token_row(PAPER) + judged
    assert flops.generator_step(PAPER) - flops.rewards(PAPER) == 4 * 64 * 20 * flops.token_row(PAPER)


def test_a_tiny_case_by_hand() -> None:
    assert flops.token_row(BY_HAND) == 60  # gates 2·4·2·(1 + 2) = 48, logits 2·2·3 = 12
    assert flops.sampling(BY_HAND, 5) == 5 * 3 * 60
    assert flops.likelihood(BY_HAND, 5) == 3 * 5 * 3 * 60
    # Width 1: 3 windows of 2 numbers for 2 filters, 24; width 2: 2 windows of 4 numbers for 1 filter, 16; 4·3² = 36; 2·3·2.
    assert CNN.operations(3) == 24 + 16 + 36 + 12 == 88
    assert flops.discriminator_steps(3, CNN, 5) == 5 * 4 * 3 * 88
    assert flops.completion_rows(BY_HAND) == 2 * 2 * (2 + 1)  # after one token two are missing, after two one
    assert flops.scored_sequences(BY_HAND) == 2 * (2 * 2 + 1)
    assert flops.rewards(BY_HAND) == 12 * 60 + 10 * 88 == 1600
    assert flops.generator_step(BY_HAND) == 6 * 60 + 1600 + 3 * 6 * 60


def test_plain_networks_cost_what_torch_counts() -> None:
    config, dim, n_features = TextCNNConfig(), 64, 1720
    with FlopCounterMode(display=False) as one_row:
        torch.zeros(1, 32) @ torch.zeros(32, 128), torch.zeros(1, 32) @ torch.zeros(32, 128)  # gates
        torch.zeros(1, 32) @ torch.zeros(32, 5000)  # logits
    with FlopCounterMode(display=False) as one_pass:
        for width, n in zip(config.widths, config.n_filters, strict=True):
            F.conv1d(torch.zeros(1, dim, 20), torch.zeros(n, dim, width))
        for width in (n_features, n_features, 2):  # gate, transform, output
            torch.zeros(1, n_features) @ torch.zeros(n_features, width)
    assert one_row.get_total_flops() == flops.token_row(PAPER)
    assert one_pass.get_total_flops() == config.operations(20)


def test_windows_that_do_not_fit_cost_nothing() -> None:
    assert TINY.cnn.widths == (1, 3)
    narrow = dataclasses.replace(TINY, discriminator=TINY.cnn)
    assert flops.rewards(TINY) == flops.rewards(narrow)


# --- how it is timed -----------------------------------------------------------------------------------------------------


class MadeUpLimit:
    """Rates that rise by one from 1 FLOP/s."""

    def __init__(self) -> None:
        self.last = 0.0

    def rate(self) -> float:
        self.last += 1
        return self.last


def made_up_row(monkeypatch: pytest.MonkeyPatch, work: Work, seconds: list[float]) -> tuple[Row, list[str]]:
    """The row for repeats of these durations, and the events in their order."""
    order: list[str] = []
    left = iter(seconds)

    def clock(action: Any, _: torch.device) -> float:
        action()
        return next(left)

    def prepare() -> int:
        order.append("prepare")
        return 7

    monkeypatch.setattr(speed, "clock", clock)
    work = dataclasses.replace(work, run=lambda thing: order.append(f"run {thing}"), prepare=prepare)
    limit: Any = MadeUpLimit()
    row = measure("sampling", lambda: work, CPU, len(seconds) - 1, limit, lambda: order.append("tick"))
    return row, order


def test_a_piece_is_warmed_up_prepared_untimed_and_set_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    row, order = made_up_row(monkeypatch, Work(print, 12.0, scale=10.0), [99.0, 2.0, 1.0, 4.0])
    assert order == ["prepare", "run 7", "tick"] * 4
    assert row.values == [20.0, 10.0, 40.0]
    assert row.limits == [(1, 2), (3, 4), (5, 6)]
    assert row.shares == [12 / 2 / 1.5, 12 / 1 / 3.5, 12 / 4 / 5.5]
    assert (row.median, row.share, row.flop) == (20.0, 12 / 3.5, 120.0)


def test_environment_steps_have_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    row, _ = made_up_row(monkeypatch, Work(print, steps=100), [99.0, 2.0, 4.0])
    assert (row.unit, row.values) == ("steps/s", [50.0, 25.0])
    assert (row.flop, row.limits, row.share) == (None, None, None)


def test_the_limit_is_of_float32_and_leaves_the_precision_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    seen: list[str] = []
    monkeypatch.setattr(speed, "clock", lambda *_: seen.append(torch.get_float32_matmul_precision()) or 1.0)
    try:
        assert Limit(32, CPU).rate() > 0
        assert set(seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


# --- targets -------------------------------------------------------------------------------------------------------------


def with_share(share: float, target: float | None) -> Row:
    bound = None if target is None else Target("share of the limit", target)
    return Row("sampling", "sampling", "s", [2.0], "", 200 * share, [(90.0, 110.0)], target=bound)


def measured(unit: Any, value: float, bound: float) -> Row:
    return Row("", "", unit, [value], target=Target(unit, bound))


@pytest.mark.parametrize(
    ("row", "met", "cell"),
    [
        (with_share(0.41, 0.40), True, "≥ 40% met"),
        (with_share(0.39, 0.40), False, "≥ 40% missed"),
        (with_share(1.7, 1.0), True, "≥ 100% met"),
        (with_share(1.7, None), None, ""),
        (measured("steps/s", 2.1e6, 2e6), True, "≥ 2 Msteps/s met"),
        (measured("steps/s", 1.9e6, 2e6), False, "≥ 2 Msteps/s missed"),
        (measured("MiB", 2048.0, 2048), True, "≤ 2,048 MiB met"),
        (measured("MiB", 2049.0, 2048), False, "≤ 2,048 MiB missed"),
        (measured("s", 2.0e-4, 2e-4), True, "≤ 200 µs met"),
        (measured("s", 2.1e-4, 2e-4), False, "≤ 200 µs missed"),
    ],
)
def test_targets(row: Row, met: bool | None, cell: str) -> None:
    assert row.met is met
    assert row.as_json()["met"] is met
    console = Console(file=StringIO(), width=200)
    console.print(speed.target_cell(row))
    assert console.file.getvalue().strip() == cell  # type: ignore[attr-defined]


@pytest.mark.parametrize(("device", "headers"), [("cpu", ["target"]), ("cuda", ["prepared in", "target (NVIDIA H100)"])])
def test_targets_stand_in_the_table_if_there_are_any(device: str, headers: list[str]) -> None:
    rows = [with_share(0.41, 0.40), Row("env", "steps", "steps/s", [1.0])]
    without = [dataclasses.replace(row, target=None) for row in rows]
    shown, bare = ([str(column.header) for column in speed.speed_table(some, device).columns] for some in (rows, without))
    start = ["", "median", "lowest – highest", "work", "share", "measured over"]
    assert (shown, bare) == ([*start, *headers], [*start, *headers[:-1]])


def test_every_target_is_of_a_piece() -> None:
    for device, targets in speed.TARGETS.items():
        assert targets.keys() - {"paper"} <= {*speed.SUITABLE[device]} <= {*speed.PIECES, "memory"}
    assert {*get_args(speed.PieceName)} == {*speed.PIECES, "memory"}


@pytest.mark.parametrize(("reached", "met"), [(501.0, True), (499.0, False)])
def test_one_environment_is_measured_by_gymnasiums_taxi(reached: float, met: bool) -> None:
    rows = [Row("env", "steps", "steps/s", [reached]), Row("taxi", "steps", "steps/s", [900.0, 1000.0, 1100.0])]
    assert [row.met for row in speed.with_targets(rows, "cpu")] == [met, None]
    assert [row.met for row in speed.with_targets(rows[:1], "cpu")] == [None]


def test_on_a_gpu_a_target_is_a_time_and_the_whole_run_is_worked_out() -> None:
    parts = {"sampling": 5e-3, "likelihood": 0.1, "generator": 20e-3, "discriminator": 200e-6}
    rows = speed.with_targets([Row(name, name, "s", [seconds]) for name, seconds in parts.items()], "cuda")
    assert {row.name: row.met for row in rows} == {
        "sampling": True,
        "likelihood": False,
        "generator": False,
        "discriminator": True,
        "paper": True,
    }
    config: Any = PRESETS["paper"][0]
    adversarial, fits = config.adversarial, config.discriminator
    n_fits = adversarial.d_pretrain_steps + adversarial.updates * adversarial.d_steps
    steps = n_fits * fits.epochs * math.ceil((config.n_real + adversarial.n_generated) / fits.batch_size)
    written_and_fitted = n_fits * 5e-3 + steps * 200e-6
    updates = adversarial.updates * adversarial.g_steps * 20e-3
    assert rows[-1].median == pytest.approx(config.pretrain.epochs * 0.1 + updates + written_and_fitted)
    assert [row.name for row in speed.with_targets(rows[1:-1], "cuda")] == ["likelihood", "generator", "discriminator"]


@pytest.mark.parametrize(
    ("batch_size", "device", "plan"),
    [
        *((64, "cpu", (1, 40)), (128, "cpu", (1, 20)), (1024, "cpu", (1, 4))),
        *((64, "cuda", (1, 320)), (256, "cuda", (4, 80)), (1024, "cuda", (16, 20)), (100_000, "cuda", (80, 4))),
    ],
)
def test_as_many_fit_steps_of_every_size_are_timed_on_a_gpu(batch_size: int, device: str, plan: tuple[int, int]) -> None:
    assert speed.fit_plan(PAPER, batch_size, device) == plan


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ([67.3e9], "FLOP", "67.3 GFLOP"),
        ([5.19e12], "FLOP", "5.19 TFLOP"),
        ([0.0123, 0.5], "s", "12.3 – 500 ms"),
        ([0.5, 2], "s", "0.5 – 2 s"),
        ([1234], "MiB", "1,234 MiB"),
        ([999.9], "s", "1,000 s"),
        ([12_345], "s", "12,345 s"),
    ],
)
def test_quantities(values: list[float], unit: str, text: str) -> None:
    assert speed.quantity(values, unit) == text


# --- how cost grows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 2.5])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    sizes = [10, 20, 40, 80]
    assert fitted_exponent(sizes, [3e-4 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_other_laws_have_exponents_in_between() -> None:
    """The control: a fixed cost beside a quadratic one pulls the exponent down, and one slow repeat does not count."""
    sizes = [10, 20, 40, 80]
    assert 1.2 < fitted_exponent(sizes, [200 + size**2 for size in sizes]) < 1.8
    curve = Curve("rewards", "sequence_length", sizes, [[size**2, 50.0 * size**2, size**2] for size in sizes])
    assert curve.exponent == pytest.approx(2)
    assert curve.law == "rewards ~ T^2.00"


def test_each_size_is_what_is_changed() -> None:
    seen: list[tuple[str, int, int, int]] = []

    def time_of(name: str, shape: Shape) -> list[float]:
        seen.append((name, shape.sequence_length, shape.n_rollouts, shape.batch_size))
        return [float(len(seen))]

    curves = growth.grow(TINY, TINY_GROWTH, time_of)
    assert seen[:2] == [("sampling", 3, 2, 4), ("sampling", 6, 2, 4)]
    assert seen[-2:] == [("rewards", 6, 2, 4), ("rewards", 6, 4, 4)]
    assert len(seen) == speed.n_growth_repeats(TINY_GROWTH) == 8
    assert [curve.along for curve in curves] == ["sequence_length"] * 3 + ["n_rollouts"]


def test_one_size_is_too_few() -> None:
    with pytest.raises(ValueError, match=r"two different lengths, got \(5, 5\)"):
        growth.plan(Sizes(lengths=(5, 5)))


# --- the command ---------------------------------------------------------------------------------------------------------


def config(folder: Path, **changes: Any) -> Config:
    arguments: dict[str, Any] = {"growth_sizes": TINY_GROWTH, "shape": TINY, "limit_size": 64, "out": folder} | changes
    return Config(device="cpu", repeats=2, **arguments)


@pytest.mark.slow
def test_everything_at_a_tiny_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], global_generators_at_rest: None
) -> None:
    report = speed.main(config(tmp_path, pieces=get_args(speed.PieceName)))
    assert json.loads((tmp_path / "speed-cpu.json").read_text()) == json.loads(json.dumps(report))
    assert (tmp_path / "growth-cpu.png").read_bytes().startswith(b"\x89PNG")

    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [*get_args(speed.PieceName)]
    for name, row in rows.items():
        assert 0 < row["lowest"] <= row["median"] <= row["highest"]
        assert row["target"] is None  # they are for the paper's sizes
        assert (row["flop"] is None) == (row["unit"] != "s")
        assert len(row["values"]) == (1 if name == "memory" else 2)
        if row["flop"] is not None:
            rates = [mean(pair) for pair in row["limits"]]
            shares = [row["flop"] / value / rate for value, rate in zip(row["values"], rates, strict=True)]
            assert row["share"] == pytest.approx(median(shares))
    assert rows["rewards"]["flop"] == flops.rewards(TINY)
    assert rows["discriminator"]["flop"] == pytest.approx(flops.discriminator_steps(6, TINY.cnn, 1))
    larger = dataclasses.replace(TINY.cnn, batch_size=256)
    assert rows["discriminator-256"]["flop"] == pytest.approx(flops.discriminator_steps(6, larger, 1))
    assert rows["discriminator-256"]["measured_over"] == "4 steps of 256"
    assert 0.5 < rows["likelihood-text"]["flop"] / rows["likelihood"]["flop"] < 1

    assert {(curve["piece"], curve["along"]) for curve in report["growth"]} == {
        *((piece, "sequence_length") for piece in ("sampling", "rewards", "generator")),
        ("rewards", "n_rollouts"),
    }
    shown = capsys.readouterr().out
    assert all(row["label"] in shown for row in report["rows"])
    assert "rewards ~ N^" in shown


def test_some_pieces_alone(tmp_path: Path) -> None:
    report = speed.main(config(tmp_path, pieces=("play-64", "sampling"), growth=False))
    assert [row["name"] for row in report["rows"]] == ["sampling", "play-64"]
    assert report["growth"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["speed-cpu.json"]


def test_the_paper_shape_on_a_cpu_has_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda name, *_: Row(name, name, "steps/s", [3e6]))
    report = speed.main(config(tmp_path, shape=Shape(), pieces=("env-64", "env-1024"), growth=False))
    stated = {"kind": "steps/s", "bound": 2e6}
    assert [(row["target"], row["met"]) for row in report["rows"]] == [(stated, True), (None, None)]


def test_pieces_for_the_device_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda name, *_: Row(name, name, "s", [3.0]))
    monkeypatch.setattr(speed, "measure_memory", lambda *_: Row("memory", "", "MiB", [3.0]))
    report = speed.main(config(tmp_path, growth=False))
    assert [row["name"] for row in report["rows"]] == [*speed.SUITABLE["cpu"]]


def test_on_a_gpu_the_repeats_that_compile_and_record_are_not_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [speed.n_uncounted(torch.device(name)) for name in ("cpu", "cuda")] == [1, 3]
    monkeypatch.setattr(speed, "n_uncounted", lambda device: 3)
    report = speed.main(config(tmp_path, pieces=("sampling",), growth=False))
    (row,) = report["rows"]
    assert len(row["values"]) == 2
    assert row["prepared"] > 0


@pytest.mark.parametrize("graphs", [True, False])
def test_the_pieces_run_with_graphs_or_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graphs: bool) -> None:
    seen = set()

    def look(device: torch.device) -> bool:
        seen.add(device.type)
        return False

    monkeypatch.setattr("seqgan_env.support.cuda_graphs.can_record", look)
    report = speed.main(config(tmp_path, pieces=("sampling",), growth=False, graphs=graphs))
    assert seen == ({"cpu"} if graphs else set())
    assert report["graphs"] is False  # there are none on a CPU


def test_no_repeats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        speed.main(dataclasses.replace(config(tmp_path), repeats=0))


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Config] = []
    monkeypatch.setattr(speed, "main", called.append)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--no-growth", "--pieces", "rewards", "env", "--shape.n-rollouts", "4"])
    runpy.run_module("benchmarks", run_name="__main__")
    assert called == [Config(growth=False, pieces=("rewards", "env"), shape=Shape(n_rollouts=4))]


def test_a_fresh_process_is_told_the_same_settings() -> None:
    given = memory.Config(TINY, "cpu", 1)
    assert tyro.cli(memory.Config, args=list(memory.as_arguments(dataclasses.asdict(given)))) == given
    assert tyro.cli(memory.Config, args=list(memory.as_arguments(dataclasses.asdict(memory.Config())))) == memory.Config()


def test_the_peak_of_memory_is_read_with_and_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = memory.peak()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert 0 < own < memory.peak() * 1.05  # getrusage may count the parent's, too
