"""Text files as lines: plain or gzip, UTF-8 with or without BOM, in bounded memory.

Bytes that are not UTF-8 come through as lone surrogates (Python's ``surrogateescape``), so that the row
they stand in can be named or skipped instead of the whole file being lost.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from gkiller.data.rows import MAX_LINE_CHARACTERS
from gkiller.errors import DataError, EmptyDataError, EncodingError, FormatError, SourceNotFoundError

_PEEK = 4096
_NUL_SHARE = 0.2
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAGIC = {
    b"\x1f\x8b": ("gzip data", "add .gz to its name, or unpack it"),
    b"PAR1\x15": ("a Parquet file", "name it .parquet"),
    b"PK\x03\x04": ("a zip or Excel file", "unpack it, or export it as CSV in UTF-8"),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", "export it as CSV in UTF-8"),
}


class TextReader:
    """Reads one text file; what every `Reader` of text has.

    Args:
        path: the file, plain or ``.gz``.
        name: how messages name it.

    """

    total: int | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.notes: list[str] = []


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn failures of the operating system and of gzip into errors that name the file.

    Raises:
        SourceNotFoundError: the file is not there or may not be read.
        FormatError: it is broken gzip data, or the disk fails.

    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            f"this is not a whole gzip file: {error}",
            where=name,
            remedy="fetch or compress the file again; if it is plain text, drop .gz from its name",
        ) from error
    except FileNotFoundError as error:
        raise SourceNotFoundError("no such file", where=name, remedy="check the path") from error
    except IsADirectoryError as error:
        raise SourceNotFoundError(
            "a folder is there, not a file", where=name, remedy="name a file in it"
        ) from error
    except PermissionError as error:
        raise SourceNotFoundError(
            "the file may not be read", where=name, remedy="check its permissions"
        ) from error
    except OSError as error:
        raise FormatError(
            f"the file cannot be read: {error.strerror or error}", where=name, remedy="check the disk"
        ) from error


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip when its name ends in ``.gz``."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def check_text(path: Path, name: str, *, empty: bool = False) -> None:
    """Refuse what is plainly not UTF-8 text.

    Args:
        path: the file.
        name: how messages name it.
        empty: whether it may have no rows.

    Raises:
        EmptyDataError: the file has no bytes, or white space alone.
        EncodingError: it is UTF-16 or UTF-32.
        FormatError: it is another kind of file, or broken gzip data.
        SourceNotFoundError: it cannot be opened.

    """
    with readable(name), open_bytes(path) as stream:
        head = stream.read(_PEEK)
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        if len(head) < _PEEK and not empty:
            raise EmptyDataError("the file is empty", where=name, remedy="give a file with a header and rows")
        return
    for magic, (kind, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise FormatError(f"this is {kind}, not text", where=name, remedy=remedy)
    if head.startswith(_UTF16_MARKS) or (len(head) >= 8 and head.count(0) > _NUL_SHARE * len(head)):
        raise EncodingError(
            "the file looks like UTF-16 or UTF-32, not UTF-8",
            where=name,
            remedy="convert it, for example: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )


def text_lines(path: Path, name: str, newline: str) -> Iterator[str]:
    r"""Yield the lines of a text file, with their line ends.

    Args:
        path: the file.
        name: how messages name it.
        newline: ``""`` to end lines at ``\n``, ``\r`` and ``\r\n``, or ``"\n"`` for that alone.

    Raises:
        DataError: the file cannot be read, or a line has no end.

    """
    with readable(name), open_bytes(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
        for line in iter(partial(text.readline, MAX_LINE_CHARACTERS), ""):
            if len(line) >= MAX_LINE_CHARACTERS:
                raise FormatError(
                    f"a line has over {MAX_LINE_CHARACTERS:,} characters",
                    where=name,
                    remedy="check that this is a text file with a row per line",
                )
            yield line


def encoding_problem(text: str) -> str:
    """Return what is wrong with a string that has lone surrogates or NULs, or an empty string."""
    nul = text.find("\0")
    if nul >= 0:
        return f"a NUL byte stands at character {nul + 1:,}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        position = f"{error.start + 1:,}"
        if 0xDC80 <= code <= 0xDCFF:
            return f"byte 0x{code - 0xDC00:02X} at character {position} is not valid UTF-8"
        return f"a lone surrogate U+{code:04X} stands at character {position}"
    return ""


def encoding_error(text: str, where: str) -> DataError | None:
    """Return the error for a string that is not clean text, or None."""
    problem = encoding_problem(text)
    if not problem:
        return None
    remedy = (
        "remove the NUL bytes, or skip such rows with --on-error skip"
        if "NUL" in problem
        else "convert the file to UTF-8, or skip such rows with --on-error skip"
    )
    return EncodingError(problem, where=where, remedy=remedy)
