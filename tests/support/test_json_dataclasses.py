"""Dataclasses from JSON: valid values, and what errors name."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from seqgan_env.support.json_dataclasses import Finite, dataclass_from_json


@dataclass(frozen=True)
class Inner:
    count: int = 3
    rate: float = 0.5
    share: Finite | None = None
    widths: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count must be at least 0, got {self.count}.")


@dataclass(frozen=True)
class Outer:
    data: Path
    tokenizer: Literal["words", "characters"] | Path = "words"
    inner: Inner = field(default_factory=Inner)
    names: dict[int, str] = field(default_factory=dict)
    pairs: tuple[tuple[int, float], ...] = ()


WHOLE = Outer(Path("a/b"), Path("tokenizer.json"), Inner(share=0.25, kind="b"), {3: "x"}, ((1, 0.5), (2, 1.5)))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def test_written_values_are_read_back() -> None:
    assert dataclass_from_json(Outer, as_json(WHOLE), complete=True) == WHOLE
    assert dataclass_from_json(Outer, {"data": "a"}) == Outer(Path("a"))
    rate = dataclass_from_json(Inner, {"rate": 1}).rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("inner.count", "5", r"^inner\.count must be a valid integer, got '5'$"),
        ("inner.count", True, r"^inner\.count must be a valid integer, got 'True'$"),
        ("inner.count", 5.0, r"^inner\.count must be a valid integer, got '5\.0'$"),
        ("inner.count", -1, r"^count must be at least 0, got -1$"),
        ("inner.share", math.inf, r"^inner\.share must be a finite number, got 'inf'$"),
        ("inner.widths", [1, "x"], r"^inner\.widths\.1 must be a valid integer, got 'x'$"),
        ("inner.kind", "c", r"^inner\.kind must be 'a' or 'b', got 'c'$"),
        ("inner", 3, r"^inner must be an object, got '3'$"),
        ("inner.new", 3, r"^the fields inner\.new are missing or unknown$"),
        ("tokenizer", 3, r"^tokenizer must be 'words' or 'characters' or a valid string, got '3'$"),
        ("names", {"x": "y"}, r"^names\.x must be a valid integer"),
        ("pairs", [[1]], r"^the fields pairs\.0\.1 are missing or unknown$"),
    ],
)
def test_wrong_values_are_named(place: str, value: Any, message: str) -> None:
    fields = as_json(WHOLE)
    *groups, name = place.split(".")
    inner = fields
    for group in groups:
        inner = inner[group]
    inner[name] = value
    with pytest.raises(ValueError, match=message):
        dataclass_from_json(Outer, fields)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^the fields data, more are missing or unknown; inner\.rate must be a valid number"):
        dataclass_from_json(Outer, {"inner": {"rate": "x"}, "more": 1})


def test_every_field_can_be_required() -> None:
    fields = as_json(WHOLE)
    del fields["pairs"], fields["inner"]["rate"]
    with pytest.raises(ValueError, match=r"^the fields inner\.rate, pairs are missing or unknown$"):
        dataclass_from_json(Outer, fields, complete=True)
    assert dataclass_from_json(Outer, fields).pairs == ()


@pytest.mark.parametrize("values", [None, [], 3, "text"])
def test_json_other_than_an_object_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^the top level must be an object"):
        dataclass_from_json(Outer, values)
