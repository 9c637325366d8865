"""Ranges of settings, and messages that call settings by their flags."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from seqgan_env.support.settings import (
    FiniteFloat,
    LargestNorm,
    PositiveFloat,
    PositiveInt,
    Range,
    Share,
    check_number,
    check_settings,
    errors_in_flags,
    flag,
    flags_of,
    in_flags,
    range_of,
)


@dataclass(frozen=True)
class Inner:
    batch_size: PositiveInt = 1
    learning_rate: PositiveFloat | None = None
    widths: tuple[PositiveInt, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    too_long: str = "error"
    column: str | None = None
    batch_size: PositiveInt = 1
    tied: bool = False
    dropout: Share = 0.0
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        (PositiveInt, 1, None),
        (PositiveInt, 0, "at least 1"),
        (PositiveInt, 10**30, "at most 2147483647"),
        (PositiveFloat, 1e-300, None),
        (PositiveFloat, 0.0, "above 0"),
        (PositiveFloat, 1e300, "at most 1e+30"),
        (PositiveFloat, math.nan, "above 0 and at most 1e+30"),
        (FiniteFloat, -5.0, None),
        (FiniteFloat, -math.inf, "at least -1e+30"),
        (LargestNorm, math.inf, None),
        (LargestNorm, math.nan, "above 0"),
        (Share, 0, None),
        (Share, 1.0, "below 1"),
        (Annotated[float, Range()], math.nan, "a number"),
        (Share, "0.5", "a number"),
        (Share, True, "a number"),
    ],
)
def test_a_range_describes_valid_values(kind: Any, value: Any, fault: str | None) -> None:
    found = range_of(kind)
    assert found is not None
    assert found.fault(value) == fault


def test_a_range_is_found_anywhere_in_an_annotation() -> None:
    for kind in (PositiveInt, PositiveInt | None, tuple[PositiveInt, ...], Annotated[PositiveInt, "more"]):
        assert range_of(kind) == Range(least=1, most=2**31 - 1)
    assert range_of(int | None) is None


def test_all_wrong_values_of_all_groups_are_named() -> None:
    check_settings(Outer())
    bad = Outer(batch_size=0, dropout=1.5, inner=Inner(learning_rate=-1.0, widths=(3, 0)))
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0; dropout must be below 1, got 1.5; inner.l"):
        check_settings(bad)
    with pytest.raises(
        ValueError, match=r"--inner.learning-rate must be above 0, got -1.0; --inner.widths must be at least 1, "
    ):
        check_settings(bad, flag)


def test_one_number() -> None:
    check_number("share", 0.5, Share)
    with pytest.raises(ValueError, match=r"share must be below 1, got 1\."):
        check_number("share", 1.0, Share)


def test_only_unique_names_have_flags() -> None:
    assert flags_of(Outer) == {
        "too_long": "--too-long",
        "column": "--column",
        "tied": "--tied",
        "dropout": "--dropout",
        "learning_rate": "--inner.learning-rate",
        "widths": "--inner.widths",
    }
    assert flags_of(Inner, "a.")["batch_size"] == "--a.batch-size"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("choose too_long='truncate' or too_long='skip'.", "choose --too-long truncate or --too-long skip."),
        ("name it: column=. There are 2.", "name it: --column. There are 2."),
        ("column='my text', but", "--column 'my text', but"),
        ("the column is not there, nor is a column", "the column is not there, nor is a column"),
        ("Lower learning_rate to 1, or more.", "Lower --inner.learning-rate to 1, or more."),
        ("got learning_rate=1e-5.", "got --inner.learning-rate 1e-5."),
        ("but widths=(1, 2) are two, widths=(7,) one.", "but --inner.widths 1 2 are two, --inner.widths 7 one."),
        ("pass tied=False, or tied=True", "pass --no-tied, or --tied"),
        ("batch_size is of two fields", "batch_size is of two fields"),
        ("No file at '/data/too_long=1/too_long.txt'", "No file at '/data/too_long=1/too_long.txt'"),
        ("No file at too_long.txt or too_long/x", "No file at too_long.txt or too_long/x"),
        ("not_too_long", "not_too_long"),
    ],
)
def test_messages_show_arguments_as_flags(message: str, said: str) -> None:
    assert in_flags(message, flags_of(Outer)) == said


def test_errors_show_arguments_as_flags() -> None:
    with pytest.raises(ValueError, match=r"a smaller --inner\.batch-size"), errors_in_flags(flags_of(Inner, "inner.")):
        raise ValueError("take a smaller batch_size")
    error = ValueError("nothing to say")
    with pytest.raises(ValueError, match="nothing to say") as raised, errors_in_flags({}):
        raise error
    assert raised.value is error
