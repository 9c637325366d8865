"""Write files completely or not at all, or write to standard output instead."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

STANDARD_OUTPUT = Path("-")
"""The path that stands for standard output."""


@contextmanager
def text_output(path: Path) -> Iterator[TextIO]:
    """Open a file for writing, or standard output for `-`; UTF-8 with Unix line ends in both, whatever the terminal uses.

    Raises:
        OSError: the file cannot be written.
    """
    if path != STANDARD_OUTPUT:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    sys.stdout.flush()
    output = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n")
    try:
        yield output
        output.flush()
    finally:
        output.detach()  # without closing it


def check_folder(path: Path, option: str) -> None:
    """Refuse standard output where an option takes a folder.

    Raises:
        ValueError: the path is `-`; the message names the option.
    """
    if path == STANDARD_OUTPUT:
        raise ValueError(f"{option} - means standard output, but {option} needs a folder: name one.")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a restart after a crash, finds the old content or the new, never a part.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the old content stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the new name must reach the disk, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
