"""Means and 95% intervals, beside the printed table of Student's t and figures computed by hand."""

import pytest
import torch

from seqgan_env.metrics.intervals import Interval, interval_of, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (120, 1.980)],
)
def test_quantiles_are_those_of_the_printed_table(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-4)


def test_interval_by_hand() -> None:
    """Of 1, 2 and 6: the mean 3, the standard deviation √7, so 4.3027 √(7/3) to each side."""
    interval = interval_of([1, 2, 6])
    assert (interval.mean, interval.n) == (3, 3)
    assert interval.half_width == pytest.approx(4.302653 * (7 / 3) ** 0.5, rel=1e-6)
    assert f"{interval:.3f}" == str(interval) == "3.000 ± 6.572"
    assert f"{interval:+.1f}" == "+3.0 ± 6.6"


def test_a_single_value_has_no_interval() -> None:
    assert interval_of([2.5]) == Interval(2.5, None, 1)
    assert f"{interval_of([2.5]):.3f}" == "2.500"


def test_no_values_and_no_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one value, got none"):
        interval_of([])
    with pytest.raises(ValueError, match="at least one degree of freedom, got 0"):
        t_quantile(0)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_holds_the_true_mean_in_95_of_100_cases(n: int) -> None:
    """The negative control: 1.96 in place of Student's t, which a few seeds would make too narrow, fails."""
    draws = torch.randn(4000, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    errors, deviations = draws.mean(1).abs(), draws.std(1) / n**0.5
    assert (errors <= t_quantile(n - 1) * deviations).double().mean().item() == pytest.approx(0.95, abs=0.015)
    assert (errors <= 1.96 * deviations).double().mean().item() < 0.9
