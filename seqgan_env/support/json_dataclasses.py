"""Dataclasses from JSON, by pydantic: each value is checked against its annotation, and errors name the field."""

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AllowInfNan, TypeAdapter, ValidationError

T = TypeVar("T")

Finite = Annotated[float, AllowInfNan(False)]
"""A float that is no NaN and no infinity."""


def dataclass_from_json(kind: type[T], values: Any, *, complete: bool = False) -> T:
    """Make a dataclass from what `json.loads` makes of it, nested dataclasses, tuples, paths and literals included.

    Nothing is converted that JSON tells apart: `"5"`, `5.0` and `true` are no integers. An integer may stand for a float.

    Args:
        kind: the dataclass.
        values: its fields.
        complete: whether every field must be there; otherwise those that are not take their defaults.

    Raises:
        ValueError: fields are missing or unknown, values are of another kind, or a dataclass refuses them. The message lists
            all of them by their paths, such as `adversarial.updates`.
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
    """Paths of the fields of a dataclass that took their defaults."""
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
        if one["type"] == "value_error":  # a dataclass's own, whose message says it all
            return str(one["ctx"]["error"]).removesuffix(".")
        place, value = _find(one["loc"], values)
        if one["type"] in ("missing", "unexpected_keyword_argument"):
            names.append(".".join(map(str, one["loc"])))
        else:
            expected = one["msg"].removeprefix("Input should be ")
            wrong.setdefault(place, (value, []))[1].append(expected)
    said = [_not_as_expected(names)] if names else []
    for place, (value, expected_of_parts) in wrong.items():
        said.append(f"{place or 'the whole'} must be {' or '.join(expected_of_parts)}, got {str(value)[:60]!r}")
    return "; ".join(said)


def _find(location: tuple[int | str, ...], values: Any) -> tuple[str, Any]:
    """The path of a value that pydantic complains of, and the value; what names a union's part is left out."""
    path: list[str] = []
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(str(part))
    return ".".join(path), values
