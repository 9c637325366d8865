"""Files that are either whole or not there, and standard output in their place."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

STANDARD_OUTPUT = Path("-")
"""What stands for standard output where a file is to be written."""


@contextmanager
def text_output(path: Path) -> Iterator[TextIO]:
    """A file to write, or standard output for `-`: UTF-8 with plain line ends in both, whatever the terminal's encoding.

    Raises:
        OSError: it cannot be written.
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
    """Refuse standard output where a folder is to be written.

    Raises:
        ValueError: names the option.
    """
    if path == STANDARD_OUTPUT:
        raise ValueError(f"{option} - is standard output, but {option} takes a folder. Name one.")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks, and whenever the machine stops, finds the old content or the new, never a part.

    Raises:
        OSError: it cannot be written, as on a full disk; the file is as it was before.
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
    folder = os.open(path.parent, os.O_RDONLY)  # the new name has to reach the disk, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
