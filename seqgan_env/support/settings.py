"""The valid range of each setting: declared with its field, checked in one place, and named in errors as the user wrote it."""

import dataclasses
import math
import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, get_args, get_type_hints

_LARGEST = 2**31 - 1
_LARGEST_FLOAT = 1e30  # products with the other numbers in training stay finite in float32


@dataclass(frozen=True)
class Range:
    """Annotation of a numeric field, or of the numbers in a tuple: the valid values. NaN is never valid.

    Args:
        least: the lowest value, inclusive.
        above: a lower bound, exclusive.
        most: the highest value, inclusive.
        below: an upper bound, exclusive.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def fault(self, value: Any) -> str | None:
        """What `value` would have to be, such as "at least 1"; None if it is valid."""
        if not isinstance(value, Real) or isinstance(value, bool):
            return "a number"
        wrong = [words for bound, words, holds in self._bounds() if not holds(value, bound)]
        return " and ".join(wrong) or ("a number" if math.isnan(value) else None)

    def _bounds(self) -> Iterator[tuple[float, str, Callable[[Any, Any], bool]]]:
        for bound, words, holds in (
            (self.least, "at least", operator.ge),
            (self.above, "above", operator.gt),
            (self.most, "at most", operator.le),
            (self.below, "below", operator.lt),
        ):
            if bound is not None:
                yield bound, f"{words} {bound}", holds


PositiveInt = Annotated[int, Range(least=1, most=_LARGEST)]
NonNegativeInt = Annotated[int, Range(least=0, most=_LARGEST)]
SampleCount = Annotated[int, Range(least=2, most=_LARGEST)]
"""For samples that are compared with each other."""
FewInt = Annotated[int, Range(least=1, most=1024)]
"""For things that each take memory, such as layers and threads."""
Width = Annotated[int, Range(least=1, most=1 << 20)]
"""The width of a layer."""
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]
"""The range that numpy and Stable-Baselines3 accept."""
PositiveFloat = Annotated[float, Range(above=0, most=_LARGEST_FLOAT)]
NonNegativeFloat = Annotated[float, Range(least=0, most=_LARGEST_FLOAT)]
FiniteFloat = Annotated[float, Range(least=-_LARGEST_FLOAT, most=_LARGEST_FLOAT)]
Share = Annotated[float, Range(least=0, below=1)]
UnitFloat = Annotated[float, Range(least=0, most=1)]
LargestNorm = Annotated[float, Range(above=0)]
"""With infinity, nothing is clipped."""
Temperature = Annotated[float, Range(least=1e-30, most=_LARGEST_FLOAT)]
"""A factor or divisor of logits that keeps them finite in float32."""


def without_deleted(settings: Mapping[str, Any], deleted: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a file, less those that no longer exist.

    Args:
        settings: values by name.
        deleted: the settings that were deleted, each with the value at which it had no effect.

    Raises:
        ValueError: a deleted setting has another value, so this version would do something else than the file says.
    """
    for name, without_effect in deleted.items():
        if settings.get(name, without_effect) != without_effect:
            raise ValueError(
                f"The setting {name}={settings[name]!r} no longer exists; only its value without effect, "
                f"{without_effect!r}, is accepted. Use the version that wrote the file."
            )
    return {name: value for name, value in settings.items() if name not in deleted}


def check_number(name: str, value: Any, kind: Any) -> None:
    """Refuse a number outside the range of an annotation, such as `Temperature`.

    Raises:
        ValueError: the number is out of range.
    """
    range = range_of(kind)
    fault = None if range is None else range.fault(value)
    if fault is not None:
        raise ValueError(f"{name} must be {fault}, got {value!r}.")


def check_settings(settings: Any, name_of: Callable[[str], str] = str) -> None:
    """Refuse a dataclass of settings, possibly nested, with numbers outside their fields' ranges.

    Args:
        settings: an instance; None is valid in any range.
        name_of: maps a field's path, such as `"adversarial.batch_size"`, to its name in the message.

    Raises:
        ValueError: names all such fields, their valid values, and the values they have.
    """
    checked = ((path, range.fault(value), value) for path, range, value in numbers_in(settings))
    faults = [f"{name_of(path)} must be {fault}, got {value!r}" for path, fault, value in checked if fault is not None]
    if faults:
        raise ValueError("; ".join(faults) + ".")


def numbers_in(settings: Any, group: str = "") -> Iterator[tuple[str, Range, Any]]:
    """Path, range and value of each number in a dataclass and its nested dataclasses that has a range and is not None."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), f"{group}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from numbers_in(value, f"{path}.")
            continue
        range = range_of(hints[field.name])
        if range is not None and value is not None:
            for number in value if isinstance(value, tuple) else (value,):
                yield path, range, number


def range_of(hint: Any) -> Range | None:
    """The range in a field's annotation, such as `PositiveInt`, `PositiveInt | None` or `tuple[PositiveInt, ...]`."""
    found = (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range))
    return next(found, None) or next(filter(None, map(range_of, get_args(hint))), None)


def flag(path: str) -> str:
    """The command-line flag of the field with this path."""
    return "--" + path.replace("_", "-")


def flags_of(kind: Any, group: str = "") -> dict[str, str]:
    """The flags of a settings class by field name; a name that several fields share is left out."""
    paths = list(_paths(kind, group))
    names = [path.rpartition(".")[2] for path in paths]
    return {name: flag(path) for name, path in zip(names, paths, strict=True) if names.count(name) == 1}


def _paths(kind: Any, group: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _paths(hints[field.name], f"{group}{field.name}.")
        else:
            yield f"{group}{field.name}"


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message with Python arguments, such as `too_long='skip'`, replaced by their flags.

    A one-word name must be followed by an equals sign, otherwise it is taken for English. Paths are left alone.
    """
    names = "|".join(map(re.escape, flags))
    name = re.compile(rf"(?<![\w./\\'\"-])({names})(?:=('[^']*'|\([^()]*\)|[\w.+-]*\w)?|\b(?![\w/\\'\"-]|\.\w))")

    def flagged(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if "=" not in found[0] and "_" not in name:
            return found[0]
        if value == "False":
            group, dot, own = flags[name].removeprefix("--").rpartition(".")
            return f"--{group}{dot}no-{own}"
        if value is None or value == "True":
            return flags[name]
        values = value[1:-1].replace(",", " ").split() if value.startswith("(") else [value.strip("'")]
        return " ".join([flags[name], *map(shlex.quote, values)])

    return name.sub(flagged, message) if flags else message


@contextmanager
def errors_in_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Replace arguments by flags in the messages of ValueErrors; see `in_flags`."""
    try:
        yield
    except ValueError as error:
        said = in_flags(str(error), flags)
        if said == str(error):
            raise
        raise ValueError(said) from error
