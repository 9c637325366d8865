"""Sequences as they lie in a file or come from Python: lines of text, a column of CSV or JSONL, lists of tokens or of ids."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

Format = Literal["text", "csv", "jsonl"]
Record = str | list[str] | list[int]
"""One sequence before its tokens have ids: a line, or a list of tokens or of ids."""

_BYTE_ORDER_MARK = "\ufeff"
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def read_records(
    source: str | Path | Iterable[Any], format: Format | None, column: str | None
) -> Iterator[tuple[int, Record]]:
    """The sequences of a file or of an iterable, one at a time, each with its line number (of an iterable: its place).

    Args:
        source: the path of a UTF-8 file, or an iterable of strings, of lists of tokens or ids (or arrays of ids), or, with
            `column`, of mappings that hold one of these.
        format: by default what the file's name ends with: `.csv`; `.jsonl` or `.ndjson`; anything else is text.
        column: which column of CSV, or which field of JSONL and of mappings.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: a folder.
        TypeError: what is no sequence.
        ValueError: no UTF-8, binary, malformed, or without the column; or a format or column that does not fit the source.
    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format must be 'text', 'csv' or 'jsonl', got {format!r}.")
    if not isinstance(source, (str, Path)):
        if format is not None:
            raise ValueError(f"format={format!r} is of files, but the data came as {type(source).__name__}; leave it out.")
        yield from _given(source, column)
        return
    if format is None:
        format = _SUFFIXES.get(Path(source).suffix.lower(), "text")
    lines = _lines_of_file(source)
    if format == "text":
        if column is not None:
            raise ValueError(
                f"column={column!r}, but {source} is read as plain text, which has none. For a table pass format='csv' or "
                "format='jsonl'."
            )
        yield from lines
    elif format == "csv":
        yield from _csv_column(str(source), lines, column)
    else:
        yield from _jsonl_column(str(source), lines, column)


def _given(source: Iterable[Any], column: str | None) -> Iterator[tuple[int, Record]]:
    for number, item in enumerate(source, start=1):
        where = f"Line {number} of the given lines"
        if column is not None:
            if not isinstance(item, Mapping):
                raise TypeError(f"{where} must be a mapping with {column!r} in it, got {_show(item)}.")
            item = _field(where, item, column)
        if isinstance(item, str):
            item = item.removeprefix(_BYTE_ORDER_MARK) if number == 1 else item
        elif hasattr(item, "tolist"):  # arrays and tensors
            item = item.tolist()
        yield number, _checked(where, list(item) if isinstance(item, tuple) else item)


def _lines_of_file(path: str | Path) -> Iterator[tuple[int, str]]:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder. Expected a text file with one sequence a line.")
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"No file at {str(path)[:200]!r}. Expected a text file with one sequence a line; to pass the lines themselves, "
            "put them in a list."
        )
    with open(path, "rb") as file:
        start = 0
        for number, line in enumerate(file, start=1):
            if b"\0" in line:
                raise ValueError(
                    f"{path} is binary, or text in UTF-16: line {number} has a NUL at byte {start + line.index(0)} of the "
                    "file. Expected UTF-8, one sequence a line."
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8: line {number} has 0x{line[error.start]:02x} at byte {start + error.start} of the "
                    "file. Convert it, for instance with iconv -f latin1 -t utf-8."
                ) from error
            yield number, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
            start += len(line)


def _csv_column(name: str, lines: Iterator[tuple[int, str]], column: str | None) -> Iterator[tuple[int, str]]:
    """A column of a table with a header; a field in quotes may span lines, and the row is where it begins."""
    rows = csv.reader((line for _, line in lines), strict=True)
    number = 1
    try:
        header = next(rows, None)
        if header is None:
            raise ValueError(f"{name} is empty. Expected CSV with a header.")
        place = _place(f"{name}, line 1", header, column)
        number = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(
                    f"{name}, line {number}: {len(row)} fields, but the header has {len(header)}. Put a field that holds "
                    "commas in double quotes."
                )
            yield number, row[place] if row else ""
            number = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, line {number}: not CSV: {error}.") from error


def _jsonl_column(name: str, lines: Iterator[tuple[int, str]], column: str | None) -> Iterator[tuple[int, Record]]:
    for number, line in lines:
        where = f"{name}, line {number}"
        if not line.strip():
            yield number, ""
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON: {error}. Expected an object a line.") from error
        if not isinstance(row, dict):
            raise ValueError(f'{where}: expected an object such as {{"text": "a line"}}, got {_show(row)}.')
        yield number, _checked(where, _field(where, row, column))


def _field(where: str, row: Mapping[str, Any], column: str | None) -> Any:
    names = [str(name) for name in row]
    _place(where, names, column)
    return row[column]  # type: ignore[index]


def _place(where: str, names: list[str], column: str | None) -> int:
    """Where a column stands, or an error that lists those there."""
    there = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    if column is None:
        raise ValueError(f"{where}: name the column that holds the sequences: column=. There are {there}.")
    if names.count(column) != 1:
        fault = "no column" if column not in names else "more than one column"
        raise ValueError(f"{where}: {fault} {column!r}. There are {there}.")
    return names.index(column)


def _checked(where: str, item: Any) -> Record:
    """A string that UTF-8 can write, or a list all of strings or all of integers."""
    if isinstance(item, str):
        if not item.isascii():
            _check_surrogates(where, item)
        return item
    if isinstance(item, list):
        if all(isinstance(value, str) for value in item):
            _check_surrogates(where, "".join(item))
            return item
        odd = [value for value in item if not isinstance(value, Integral) or isinstance(value, bool)]
        if not odd:
            return [int(value) for value in item]
        raise TypeError(f"{where}: a list must be all tokens (strings) or all ids (integers), but it holds {_show(odd[0])}.")
    raise TypeError(f"{where} must be a str, or a list of tokens or of ids, got {_show(item)}.")


def _check_surrogates(where: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: U+{ord(text[error.start]):04X} is half of a surrogate pair, which no text holds alone. Decode the data "
            "anew, for instance with errors='replace'."
        ) from error


def _show(value: Any) -> str:
    return f"{type(value).__name__}: {str(value)[:60]}"
