"""Dataclasses from JSON, with pydantic: each value is checked against its annotation, and errors name the field."""

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AllowInfNan, TypeAdapter, ValidationError

T = TypeVar("T")

Finite = Annotated[float, AllowInfNan(False)]
"""A float that is neither NaN nor infinite."""


def dataclass_from_json(kind: type[T], values: Any, *, complete: bool = False) -> T:
    """Make a dataclass from the result of `json.loads`, including nested dataclasses, tuples, paths and literals.

    Types that JSON distinguishes are not converted: `"5"`, `5.0` and `true` are not integers. An integer may be a float.

    Args:
        kind: the dataclass.
        values: its fields.
        complete: whether every field must be given; otherwise missing ones take their defaults.

    Raises:
        ValueError: fields are missing or unknown, values have another type, or a dataclass refuses them. The message lists all
            of them by their paths, such as `adversarial.updates`.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
        made = adapter.validate_json(json.dumps(values), strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(_complaint(error, values)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    missing = [*_missing(made, values, "")] if complete else []
    if missing:
        raise ValueError(_not_as_expected(missing))
    return made


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    return TypeAdapter(kind)


def _missing(made: Any, values: Any, group: str) -> Iterator[str]:
    """Paths of a dataclass's fields that took their defaults."""
    for field in dataclasses.fields(made):
        inner = getattr(made, field.name)
        if field.name not in values:
            yield f"{group}{field.name}"
        elif dataclasses.is_dataclass(inner):
            yield from _missing(inner, values[field.name], f"{group}{field.name}.")


def _not_as_expected(names: list[str]) -> str:
    return f"the fields {', '.join(names)} are missing or unknown"


def _complaint(error: ValidationError, values: Any) -> str:
    """What is wrong, in one sentence."""
    names: list[str] = []
    wrong: dict[str, tuple[Any, list[str]]] = {}
    for one in error.errors():
        if one["type"] == "value_error":  # a dataclass's own error, whose message says everything
            return str(one["ctx"]["error"]).removesuffix(".")
        place, value = _find(one["loc"], values)
        if one["type"] in ("missing", "unexpected_keyword_argument"):
            names.append(".".join(map(str, one["loc"])))
        else:
            expected = one["msg"].removeprefix("Input should be ")
            wrong.setdefault(place, (value, []))[1].append(expected)
    said = [_not_as_expected(names)] if names else []
    for place, (value, expected_of_parts) in wrong.items():
        said.append(f"{place or 'the top level'} must be {' or '.join(expected_of_parts)}, got {str(value)[:60]!r}")
    return "; ".join(said)


def _find(location: tuple[int | str, ...], values: Any) -> tuple[str, Any]:
    """The path of a value that pydantic refuses, and the value; the path leaves out names of a union's parts."""
    path: list[str] = []
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(str(part))
    return ".".join(path), values
