"""Read sequences from text, CSV, JSONL, tables, or Python lists of tokens or ids."""

import csv
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

Format = Literal["text", "csv", "jsonl"]
Record = str | list[str] | list[int]
"""One sequence before its tokens have ids: a line, or a list of tokens or of ids."""

_BYTE_ORDER_MARK = "\ufeff"
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_LARGEST_FIELD = 2**31 - 1  # characters of a CSV field; more does not fit a C long on every system
_FIELD_LIMIT = threading.Lock()
_MOST_DIGITS = 100  # digits to read of an integer in JSON that is too long for Python


def read_records(
    source: str | Path | Iterable[Any], format: Format | None, column: str | None
) -> Iterator[tuple[int, Record]]:
    """The sequences of a file or an iterable, one at a time, each with its line number (in an iterable: its position from 1).

    Args:
        source: the path of a UTF-8 file, or an iterable of strings, lists of tokens, or lists or arrays of ids. With `column`
            also an iterable of mappings that hold one of these, or a table: a mapping of columns, or a data frame.
        format: by default the file's suffix decides: `.csv`; `.jsonl` or `.ndjson`; anything else is text.
        column: the column of a CSV file or table, or the field of JSONL objects or mappings.

    Raises:
        FileNotFoundError: the file does not exist.
        IsADirectoryError: the path is a folder.
        TypeError: an item is not a sequence.
        ValueError: the source is not UTF-8, is binary or malformed, or lacks the column; or the format or column does not
            fit the source.
    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format must be 'text', 'csv' or 'jsonl', got {format!r}.")
    if not isinstance(source, (str, Path)):
        if format is not None:
            raise ValueError(f"format={format!r} is for files, but the data came as {type(source).__name__}; leave it out.")
        yield from _given(source, column)
        return
    if format is None:
        format = format_of(source)
    lines = _lines_of_file(source)
    if format == "text":
        if column is not None:
            raise ValueError(
                f"column={column!r}, but {source} is read as plain text, which has no columns. For a table pass format='csv' "
                "or format='jsonl'."
            )
        yield from lines
    elif format == "csv":
        yield from _csv_column(str(source), lines, column)
    else:
        yield from _jsonl_column(str(source), lines, column)


def format_of(path: str | Path) -> Format:
    """The format that a file's suffix stands for."""
    return _SUFFIXES.get(Path(path).suffix.lower(), "text")


def _given(source: Any, column: str | None) -> Iterator[tuple[int, Record]]:
    names = _columns(source)
    if names is not None:
        source, column = _column_of(source, names, column), None
    if hasattr(source, "to_pylist"):  # pyarrow: its items are not Python values
        source = source.to_pylist()
    for number, item in enumerate(source, start=1):
        where = f"Line {number} of the given lines"
        if column is not None and not isinstance(item, Mapping):
            raise TypeError(f"{where} must be a mapping with {column!r} in it, got {_show(item)}.")
        if isinstance(item, Mapping):
            item = _field(where, item, column)
        if isinstance(item, str):
            item = item.removeprefix(_BYTE_ORDER_MARK) if number == 1 else item
        elif hasattr(item, "tolist"):  # arrays and tensors
            item = item.tolist()
        yield number, _checked(where, list(item) if isinstance(item, tuple) else item)


def _columns(source: Any) -> list[Any] | None:
    """A table's column names; None for an iterable of sequences or rows.

    Tables are mappings, pandas and polars data frames, pyarrow tables and numpy structured arrays: iterating over one gives
    column names or columns, not rows. A Hugging Face dataset iterates over rows and needs no special treatment.
    """
    if isinstance(source, Mapping):
        return list(source)
    fields = getattr(getattr(source, "dtype", None), "names", None)
    if fields is not None:
        return list(fields)
    return list(getattr(source, "column_names", source.columns)) if hasattr(source, "columns") else None


def _column_of(table: Any, names: list[Any], column: str | None) -> Iterable[Any]:
    values: Iterable[Any] = table[names[_place("The given lines are a table", [str(name) for name in names], column)]]
    if isinstance(values, str):
        raise TypeError(f"The given table's column {column!r} is one string, {_show(values)}. Wrap a single row in a list.")
    return values


def _lines_of_file(path: str | Path) -> Iterator[tuple[int, str]]:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder. Expected a text file with one sequence per line.")
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"No file at {str(path)[:200]!r}. Expected a text file with one sequence per line; to pass the lines themselves, "
            "put them in a list."
        )
    with open(path, "rb") as file:
        start = 0
        for number, line in enumerate(file, start=1):
            if b"\0" in line:
                raise ValueError(
                    f"{path} is binary, or text in UTF-16: line {number} has a NUL at byte {start + line.index(0)} of the "
                    "file. Expected UTF-8, one sequence per line."
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8: line {number} has 0x{line[error.start]:02x} at byte {start + error.start} of the "
                    "file. Convert it, for example with iconv -f latin1 -t utf-8."
                ) from error
            yield number, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
            start += len(line)


def _csv_column(name: str, lines: Iterator[tuple[int, str]], column: str | None) -> Iterator[tuple[int, str]]:
    """One column of CSV with a header. A quoted field may span lines; a row's number is that of its first line."""
    rows = csv.reader((line for _, line in lines), strict=True)
    number = 1
    try:
        header = _next_row(rows)
        if header is None:
            raise ValueError(f"{name} is empty. Expected CSV with a header.")
        place = _place(f"{name}, line 1", header, column)
        number = rows.line_num + 1
        while (row := _next_row(rows)) is not None:
            if row and len(row) != len(header):
                raise ValueError(
                    f"{name}, line {number}: {len(row)} fields, but the header has {len(header)}. Put a field that holds "
                    "commas in double quotes."
                )
            yield number, row[place] if row else ""
            number = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, line {number}: not CSV: {error}.") from error


def _next_row(rows: Any) -> list[str] | None:
    """The next row of a `csv.reader`, however long its fields; restores the process-wide field limit."""
    with _FIELD_LIMIT:
        limit = csv.field_size_limit(_LARGEST_FIELD)
        try:
            return next(rows, None)
        finally:
            csv.field_size_limit(limit)


def _jsonl_column(name: str, lines: Iterator[tuple[int, str]], column: str | None) -> Iterator[tuple[int, Record]]:
    for number, line in lines:
        where = f"{name}, line {number}"
        if not line.strip():
            yield number, ""
            continue
        try:
            row = _loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}. Expected one object per line.") from error
        except RecursionError as error:
            raise ValueError(f"{where}: nested too deeply to read. Expected an object with the sequence in it.") from error
        if not isinstance(row, dict):
            raise ValueError(f'{where}: expected an object such as {{"text": "a line"}}, got {_show(row)}.')
        yield number, _checked(where, _field(where, row, column))


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python refuses integers of thousands of digits; enough of them shows that it is not an id
        return json.loads(line, parse_int=lambda digits: int(digits[:_MOST_DIGITS]))


def _field(where: str, row: Mapping[Any, Any], column: str | None) -> Any:
    return row[list(row)[_place(where, [str(name) for name in row], column)]]


def _place(where: str, names: list[str], column: str | None) -> int:
    """The index of a column, or an error that lists the columns."""
    there = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    if column is None:
        raise ValueError(f"{where}: name the column that holds the sequences with column=. There are {there}.")
    if names.count(column) != 1:
        fault = "no column" if column not in names else "more than one column"
        raise ValueError(f"{where}: {fault} {column!r}. There are {there}.")
    return names.index(column)


def _checked(where: str, item: Any) -> Record:
    """The item, if it is a string that UTF-8 can encode, or a list of only strings or only integers."""
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
            f"{where}: U+{ord(text[error.start]):04X} is half of a surrogate pair, which cannot stand alone in text. Decode "
            "the data again, for example with errors='replace'."
        ) from error


def _show(value: Any) -> str:
    try:
        return f"{type(value).__name__}: {str(value)[:60]}"
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__
