"""Text files as lines: plain or gzip, UTF-8 with or without BOM, in bounded memory.

Bytes that are not UTF-8 come through as lone surrogates (Python's ``surrogateescape``), so that the row
they stand in can be named or skipped instead of the whole file being lost.
"""

from __future__ import annotations

import codecs
import gzip
import io
import select
import shutil
import time
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from gkiller.data.readers import (
    MAX_FIELD_CHARACTERS,
    MAX_LINE_CHARACTERS,
    BadRowError,
    RawBatch,
    RawRow,
    in_batches,
    place,
)
from gkiller.errors import DataError, EmptyDataError, EncodingError, FormatError, RowError, SourceNotFoundError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


MOST_BYTES = 4 << 30
"""What is unpacked, or comes through a pipe, is copied to a temporary file up to this size."""

_GRACE = 0.02
"""Seconds for which a busy writer is waited for, so that a bulk job is not cut into small chunks."""


class Replayable:
    """Stands for the path of a stream that can be read only once; its beginning may be read again.

    Args:
        owned: whether the stream is closed when nothing reads from it any more.
    """

    suffix = ""

    def __init__(self, stream: BinaryIO, *, owned: bool = False) -> None:
        self._stream = stream
        if owned:
            weakref.finalize(self, stream.close)
        self._head = bytearray()
        self._keep = True
        self._handle = _pollable(stream)
        self._asked = self._until = 0.0

    def blocked(self) -> bool:
        """Whether reading on would wait; never so without a file descriptor, or on Windows, which cannot tell."""
        if self._handle is None:
            return False
        now = time.monotonic()
        if now - self._asked > 2 * _GRACE:
            self._until = now + _GRACE
        blocked = not select.select([self._handle], [], [], max(0.0, self._until - now))[0]
        self._asked = 0.0 if blocked else time.monotonic()
        return blocked

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return a stream from the beginning."""
        if not self._keep:
            raise ValueError("the stream's beginning is not kept any more")
        return cast(BinaryIO, io.BufferedReader(_Replay(self)))

    def release(self) -> None:
        """Keep nothing any more: the streams that are open go on, and no other can be opened."""
        self._keep = False

    def take(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``position`` on, fresh ones when it is past what is kept."""
        if position < len(self._head):
            return bytes(self._head[position : position + size])
        data = cast(io.BufferedReader, self._stream).read1(size)
        if self._keep:
            self._head += data
        elif self._head:
            self._head.clear()
        return data


def replayable(path: object) -> Replayable | None:
    """Return what stands for a path if it is a pipe, else None."""
    return path if isinstance(path, Replayable) else None


def _pollable(stream: BinaryIO) -> int | None:
    try:
        handle = stream.fileno()
        select.select([handle], [], [], 0)
    except (OSError, ValueError):  # no file descriptor, one too large for select, or Windows
        return None
    return handle


class _Replay(io.RawIOBase):
    def __init__(self, source: Replayable) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._source.take(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


_PEEK = 4096
_PIECE = 1 << 16
_MOST_LINES = 64
_GZIP = b"\x1f\x8b"
PARQUET = b"PAR1\x15"
_NUL_SHARE = 0.2
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_MAGIC = {
    _GZIP: ("gzip data within gzip data", "unpack it once"),
    PARQUET: ("a Parquet file", "name it .parquet"),
    b"PK\x03\x04": ("a zip or Excel file", "unpack it, or export it as CSV in UTF-8"),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", "export it as CSV in UTF-8"),
}


class TextReader:
    """Reads one text file, plain or ``.gz``; what every `Reader` of text has."""

    total: int | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.notes: list[str] = []
        self._open: Lines | None = None

    def lines(self, newline: str) -> Lines:
        """Begin to read the lines."""
        self._open = Lines(self.path, self.name, newline)
        return self._open

    def waiting(self) -> bool:
        """Whether the next row has not come yet, and reading it would block; never so for a file."""
        return self._open is not None and self._open.waiting()

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order."""
        yield from in_batches(wanted, self.parsed(wanted), self.watched())

    def parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        """Yield all rows."""
        raise NotImplementedError

    def watched(self) -> Callable[[], bool] | None:
        """Return `waiting` where it may ever be so."""
        return self.waiting if replayable(self.path) is not None else None


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn failures of the operating system and of gzip into errors that name the file."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        remedy = "fetch or compress the file again; if it is plain text, drop .gz from its name"
        raise FormatError(f"this is not a whole gzip file: {error}", where=name, remedy=remedy) from error
    except FileNotFoundError as error:
        raise SourceNotFoundError("no such file", where=name, remedy="check the path") from error
    except IsADirectoryError as error:
        raise SourceNotFoundError("a folder is there, not a file", where=name, remedy="name a file in it") from error
    except PermissionError as error:
        raise SourceNotFoundError("the file may not be read", where=name, remedy="check its permissions") from error
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise FormatError(what, where=name, remedy="check the disk") from error


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip when its name ends in ``.gz`` or its first bytes say so."""
    stream = path.open("rb")
    if path.suffix.lower() != ".gz" and not stream.peek(2).startswith(_GZIP):
        return stream
    if replayable(path) is not None:
        return cast(BinaryIO, gzip.open(stream, "rb"))
    stream.close()
    return cast(BinaryIO, gzip.open(path, "rb"))


def copy_bounded(source: BinaryIO, target: Path, name: str) -> None:
    """Copy a stream to a file, or refuse one of over `MOST_BYTES`, or half the space that is free."""
    most, size = min(MOST_BYTES, shutil.disk_usage(target.parent).free // 2), 0
    with target.open("wb") as file:
        while piece := source.read(1 << 20):
            size += len(piece)
            if size > most:
                what = f"it holds over {most:,} bytes, too many for a temporary file"
                raise FormatError(what, where=name, remedy="write it to a file first, unpacked and in parts")
            file.write(piece)


def read_head(stream: BinaryIO) -> bytes:
    """Return the first bytes of a stream: what one read gives, or more while it is white space alone."""
    head = b""
    while len(head) < _PEEK and not head.removeprefix(codecs.BOM_UTF8).strip():
        if not (piece := cast(io.BufferedReader, stream).read1(_PEEK - len(head))):
            break
        head += piece
    return head


def check_text(path: Path, name: str, *, empty: bool = False) -> None:
    """Refuse what is plainly not UTF-8 text: another kind of file, UTF-16, or nothing unless it may be ``empty``."""
    with readable(name), open_bytes(path) as stream:
        head = read_head(stream)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        if len(head) < _PEEK and not empty:
            raise EmptyDataError("the file is empty", where=name, remedy="give a file with a header and rows")
        return
    for magic, (kind, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise FormatError(f"this is {kind}, not text", where=name, remedy=remedy)
    if head.startswith(_UTF16_MARKS) or (len(head) >= 8 and head.count(0) > _NUL_SHARE * len(head)):
        what = "the file looks like UTF-16 or UTF-32, not UTF-8"
        raise EncodingError(what, where=name, remedy="convert it, for example: iconv -f UTF-16 -t UTF-8 FILE > NEW")


class Lines:
    r"""The lines of a text file, with their line ends.

    Args:
        newline: ``""`` to end lines at ``\n``, ``\r`` and ``\r\n``, or ``"\n"`` for that alone.
    """

    def __init__(self, path: Path, name: str, newline: str) -> None:
        self._path = path
        self._name = name
        self._newline = newline
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()
        self._pieces = byte_pieces(path, name)
        self._ended = False

    def __iter__(self) -> Iterator[str]:
        """Yield the lines; a line without end is refused."""
        lines = self._lines
        while lines or self._fill():
            while lines:
                yield lines.popleft().decode("utf-8", "surrogateescape")

    def waiting(self) -> bool:
        """Whether the next line has not come yet, and reading it would block; never so for a file."""
        pipe = replayable(self._path)
        if pipe is None:
            return False
        while not self._whole():
            if self._ended:
                return False
            if pipe.blocked():
                return True
            self._fill()
        return False

    def _whole(self) -> bool:
        """Whether a line has come; where quoted fields may hold line ends, a line with its quotes closed."""
        if self._newline == "\n" or len(self._lines) > _MOST_LINES:
            return bool(self._lines)
        quotes = 0
        for line in self._lines:
            quotes += line.count(b'"')
            if quotes % 2 == 0:
                return True
        return False

    def _fill(self) -> bool:
        """Read until another line has come; return False at the end."""
        if self._ended:
            return False
        piece = next(self._pieces, b"")
        if not piece:
            self._ended = True
            self._lines.extend(self._split(bytes(self._rest)))
            return bool(self._lines)
        held = len(self._rest)
        self._rest += piece
        end = self._rest.rfind(b"\n", held) + 1
        if self._newline == "" and not end:  # a \r at the end may be half of a \r\n
            end = self._rest.rfind(b"\r", max(0, held - 1), len(self._rest) - 1) + 1
        if end:
            self._lines.extend(self._split(bytes(self._rest[:end])))
            del self._rest[:end]
        if len(self._rest) >= MAX_LINE_CHARACTERS:
            what = f"a line has over {MAX_LINE_CHARACTERS:,} bytes"
            raise FormatError(what, where=self._name, remedy="check that this is a text file with a row per line")
        return True

    def _split(self, data: bytes) -> list[bytes]:
        if self._newline == "":
            return data.splitlines(keepends=True)
        return io.BytesIO(data).readlines()


def byte_pieces(path: Path, name: str) -> Iterator[bytes]:
    """Yield a file's bytes as they come, unpacked and without a BOM."""
    with readable(name), open_bytes(path) as stream:
        read1 = cast(io.BufferedReader, stream).read1
        head = read1(_PIECE)
        while head and head != codecs.BOM_UTF8 and codecs.BOM_UTF8.startswith(head):
            more = read1(_PIECE)
            head += more
            if not more:
                break
        if head := head.removeprefix(codecs.BOM_UTF8):
            yield head
        yield from iter(partial(read1, _PIECE), b"")


def text_lines(path: Path, name: str, newline: str) -> Iterator[str]:
    """Yield the lines of a text file; see `Lines`."""
    yield from Lines(path, name, newline)


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
    if not (problem := encoding_problem(text)):
        return None
    mend = "remove the NUL bytes" if "NUL" in problem else "convert the file to UTF-8"
    return EncodingError(problem, where=where, remedy=f"{mend}, or skip such rows with --on-error skip")


class LinesReader(TextReader):
    """Reads a text file with a comment a line; a blank line is an empty comment."""

    def columns(self) -> list[str]:
        """Return the one column."""
        check_text(self.path, self.name, empty=True)
        return ["text"]

    def parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        """Yield the lines."""
        what, remedy = f"the line has over {MAX_FIELD_CHARACTERS:,} characters", "shorten it, or skip such rows with "
        for number, line in enumerate(self.lines("\n"), start=1):
            text = line.removesuffix("\n").removesuffix("\r")
            if len(text) <= MAX_FIELD_CHARACTERS:
                yield RawRow(number, None, [text], len(text))
                continue
            error = RowError(what, where=place(self.name, number), remedy=f"{remedy}--on-error skip")
            yield RawRow(number, None, [None], 0, BadRowError("oversized", error))
