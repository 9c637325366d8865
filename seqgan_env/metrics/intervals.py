"""Mean and confidence interval of a few values, such as the figures of runs with several seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Interval:
    """A mean, and the range in which its 95% confidence interval lies around it."""

    mean: float
    half_width: float | None
    """Of the interval; None for a single value, which says nothing about its spread."""
    n: int
    """The number of values."""

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, form: str) -> str:
        """Both numbers, the mean in the given format: `2.100 ± 0.310`; only the mean of a single value."""
        width = "" if self.half_width is None else f" ± {self.half_width:{form.lstrip('+')}}"
        return f"{self.mean:{form}}{width}"


def interval_of(values: Sequence[float]) -> Interval:
    """The mean of independent values, with its 95% interval by Student's t (Student 1908).

    The interval assumes that the values come from a normal distribution, and that is all it knows of three of them.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("An interval needs at least one value, got none.")
    n = len(values)
    half_width = None if n == 1 else t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(fmean(values), half_width, n)


def t_quantile(degrees: int) -> float:
    """How far from 0 Student's t lies with a probability of 5%: 12.706 for 1 degree of freedom, 4.303 for 2, nearing 1.960.

    Raises:
        ValueError: there is no degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"Student's t has at least one degree of freedom, got {degrees}.")
    low, high = 1.9, 13.0
    for _ in range(60):  # then they differ by less than a rounding error
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, degrees) < 0.95 else (low, middle)
    return high


def _probability_within(t: float, degrees: int) -> float:
    """The probability that Student's t lies between -t and t: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    term = math.cos(angle) if degrees % 2 else 1.0
    total = 0.0
    for k in range(1 + degrees % 2, degrees, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    if degrees % 2:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
