"""Files that are either whole or not there."""

import os
from pathlib import Path


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
