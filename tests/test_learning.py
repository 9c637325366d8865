"""The adversarial phase does real work, and its controls do not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import train
from benchmarks import learning
from benchmarks.controls import lowest_at, table
from benchmarks.learning_report import best_sum, gain_at_equal_coverage
from benchmarks.run_folders import Curve, read_curve


def curve_of(tmp_path: Path, **adversarial: Any) -> Curve:
    """A third of the preset `quick`: from the same likelihood start, under some reward."""
    config, _ = train.command_line(["quick", "--device", "cpu", "--n-real", "20000", "--evaluation.no-sweep"])
    changes = {"updates": 60, "d_pretrain_steps": 30, **adversarial}
    config = dataclasses.replace(config, adversarial=dataclasses.replace(config.adversarial, **changes), out=tmp_path)
    train.main(config)
    (run,) = tmp_path.iterdir()
    return read_curve(run / "progress.csv")


@pytest.mark.slow
def test_the_discriminator_beats_both_controls_at_equal_coverage(tmp_path: Path) -> None:
    """With the discriminator NLL_oracle falls by 0.1 nats per token or more, and the sum with NLL_test falls too."""
    judged = curve_of(tmp_path / "discriminator")
    (oracle_before, test_before), (oracle_after, test_after) = judged[0], judged[-1]
    assert oracle_after < oracle_before - 0.08
    assert oracle_after + test_after < oracle_before + test_before - 0.07

    for name in ("constant", "random"):
        control = curve_of(tmp_path / name, reward_model=name)
        assert control[0] == judged[0]  # the same start
        assert oracle_after < lowest_at(control, test_after) - 0.07, name


@pytest.mark.slow
def test_the_density_ratio_moves_the_curve_over_temperatures_and_its_controls_do_not(tmp_path: Path) -> None:
    """On the small oracle of the protocol. A sharper generator gains nothing here: temperatures are free on both sides."""
    config = learning.Config(size="small", seeds=(0,), n_samples=3000, out=tmp_path)
    start, ours = (learning.run(name, 0, config) for name in (learning.REGULARISED, learning.OURS))
    assert best_sum(ours.sweep) < best_sum(start.sweep) - 0.05
    assert ours.accuracy > 0.6  # on real sequences that it has not seen
    for name in learning.CONTROLS.values():
        control = learning.run(name, 0, config)
        assert best_sum(control.sweep) > best_sum(start.sweep) - 0.02, name
        assert gain_at_equal_coverage(ours.sweep, start.sweep, control.sweep) < -0.1, name


def test_a_constant_reward_moves_nothing_once_centred_and_something_without(tmp_path: Path) -> None:
    small: dict[str, Any] = {"reward_model": "constant", "updates": 20}
    centred = curve_of(tmp_path / "centred", **small)
    uncentred = curve_of(tmp_path / "uncentred", **small, baseline="none")
    assert centred[-1] == centred[0]
    assert uncentred[-1] != uncentred[0]


class TestComparison:
    CONTROL: Curve = [(4.0, 3.0), (3.8, 3.2), (3.5, 3.4)]  # noqa: RUF012 - read only

    @pytest.mark.parametrize(("nll_test", "expected"), [(3.1, 4.0), (3.2, 3.8), (3.3, 3.8), (3.5, 3.5), (2.9, 4.0)])
    def test_only_points_of_no_worse_coverage_count(self, nll_test: float, expected: float) -> None:
        assert lowest_at(self.CONTROL, nll_test) == expected

    def test_table_by_hand(self) -> None:
        lines = table({"discriminator": [[(4.0, 3.0), (3.6, 3.2)]], "random": [self.CONTROL]}).splitlines()
        assert (
            lines[2]
            == "| discriminator | 4.000 → 3.600 | -0.400 ± 0.000 | 3.000 → 3.200 | +0.200 ± 0.000 | -0.200 ± 0.000 | – |"
        )
        assert lines[3].endswith("| -0.100 ± 0.000 | +0.200 ± 0.000 |")
