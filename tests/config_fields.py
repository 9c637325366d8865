"""The fields of configs, as tests go through them."""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints


def numeric_fields(kind: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """Path and annotation of each field of a config, and of the groups in it, that holds numbers."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from numeric_fields(hint, f"{group}{name}.")
        elif {int, float} & set(types_in(hint)):
            yield f"{group}{name}", hint


def types_in(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from types_in(part)
