"""Pipes copied to a temporary file, for what has to be read more than once."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from gkiller.data.textfile import readable
from gkiller.errors import FormatError, SourceNotFoundError

STDIN = "(standard input)"
MOST_BYTES = 4 << 30
"""What is unpacked, or comes through a pipe, is copied to a temporary file up to this size."""

_DEVICES = ("/dev/stdin", "/dev/fd/", "/proc/")


def is_pipe(source: str | Path) -> bool:
    """Whether a name is ``-`` for standard input, or that of a pipe or device rather than a file."""
    if str(source) == "-":
        return True
    path = Path(source).expanduser()
    if path.is_dir() or not path.exists():
        return False
    return not path.is_file() or str(path.absolute()).startswith(_DEVICES)


def open_pipe(source: str | Path) -> BinaryIO:
    """Open what `is_pipe` tells of for reading.

    Raises:
        SourceNotFoundError: it cannot be opened, or standard input is closed or a terminal.
    """
    if str(source) != "-":
        with readable(str(source)):
            return Path(source).expanduser().open("rb")
    if sys.stdin is None or sys.stdin.isatty():
        raise SourceNotFoundError(
            "nothing is piped into standard input", where="-", remedy="pipe something into the command"
        )
    return sys.stdin.buffer


def copy_bounded(source: BinaryIO, target: Path, name: str) -> None:
    """Copy a stream to a file of at most `MOST_BYTES`, and of half the space that is free.

    Args:
        source: read to its end.
        target: written anew.
        name: how messages name the stream.

    Raises:
        FormatError: there are more.
    """
    most, size = min(MOST_BYTES, shutil.disk_usage(target.parent).free // 2), 0
    with target.open("wb") as file:
        while piece := source.read(1 << 20):
            size += len(piece)
            if size > most:
                raise FormatError(
                    f"it holds over {most:,} bytes, too many for a temporary file",
                    where=name,
                    remedy="write it to a file first, unpacked and in parts",
                )
            file.write(piece)


def spool(source: BinaryIO, name: str, suffix: str = "") -> Path:
    """Copy a stream to a temporary file and return its path; `keep_until_gone` removes it.

    Raises:
        FormatError: the stream is too long, or there is no space for it.
    """
    folder = Path(tempfile.mkdtemp(prefix="gkiller-"))
    path = folder / f"input{suffix}"
    try:
        with readable(name):
            copy_bounded(source, path, name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def keep_until_gone(owner: object, path: Path) -> None:
    """Remove a spooled file when its owner is gone, or the program ends."""
    weakref.finalize(owner, shutil.rmtree, path.parent, ignore_errors=True)
