"""What comes through a pipe: which format it holds, and a temporary copy where it is read more than once."""

from __future__ import annotations

import codecs
import io
import json
import re
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO, Literal, cast

from gkiller.data.labels import TEXT_NAMES
from gkiller.data.readers.text import open_bytes, readable
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


Found = Literal["txt", "csv", "tsv", "jsonl", "parquet"]
Layout = Literal["lines", "array", "values"]
_MOST = 1 << 16
_PARQUET = b"PAR1\x15"
_OPEN = tuple(",[{:")
_OBJECT = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')
_ARRAY = re.compile(r'\[\s*(?:\{\s*["}]|"(?:[^"\\]|\\.)*"\s*,)')
_PLAIN_NAME = re.compile(r"[^\W\d][\w.-]*")


def sniff(path: Path, name: str) -> Found:
    """Return the format of a stream: Parquet, JSON, CSV or TSV with a usual header, else text.

    No more is read than the first line that is not blank, and one more where that is a lone bracket.

    Args:
        path: the stream; see `gkiller.data.readers.text.Replayable`.

    Raises:
        DataError: it cannot be read.
    """
    with readable(name), open_bytes(path) as stream:
        head, whole = _first_lines(cast(io.BufferedReader, stream))
    if head.startswith(_PARQUET):
        return "parquet"
    lines = _lines(head)
    if not lines:
        return "txt"
    first = lines[0].strip()
    if first in ("[", "{"):
        second = lines[1].lstrip() if len(lines) > 1 else ""
        return "jsonl" if second.startswith(('"', "{", "]") if first == "[" else ('"', "}")) else "txt"
    if first.startswith(("[", "{")) and _is_json(first, whole):
        return "jsonl"
    return _delimited(first)


def json_layout(path: Path, name: str) -> Layout:
    """Return how a file of JSON is laid out: a value a line, one array, or values that span lines.

    Raises:
        DataError: it cannot be read.
    """
    with readable(name), open_bytes(path) as stream:
        head, whole = _first_lines(cast(io.BufferedReader, stream))
    first = (_lines(head) or [""])[0].strip()
    if first.startswith("["):
        return "array"
    begins = first == "{" or (whole and first[-1:] in _OPEN and bool(_OBJECT.match(first)))
    return "values" if begins and not _parses(first) else "lines"


def _lines(head: bytes) -> list[str]:
    return [line for line in head.decode("utf-8", "surrogateescape").split("\n") if line.strip()]


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _first_lines(stream: io.BufferedReader) -> tuple[bytes, bool]:
    """Return the beginning of a stream, and whether its first line is whole."""
    head = b""
    while len(head) < _MOST:
        piece = stream.read1(_MOST - len(head))
        if not piece:
            return head.removeprefix(codecs.BOM_UTF8), True
        head += piece
        found = [line for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n")[:-1] if line.strip()]
        if head.startswith(_PARQUET) or len(found) > 1 or (found and found[0].strip() not in (b"[", b"{")):
            break
    head = head.removeprefix(codecs.BOM_UTF8)
    return head, b"\n" in head.lstrip()


def _is_json(line: str, whole: bool) -> bool:
    """Whether a line is a JSON object, an array of objects or strings, or the beginning of one."""
    begins = bool((_OBJECT if line[0] == "{" else _ARRAY).match(line))
    if begins and (not whole or line[-1] in _OPEN):
        return True
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict | str) for item in value)
    return isinstance(value, dict)


def _delimited(line: str) -> Found:
    """Return "csv" or "tsv" for a header that names nothing but columns, a usual one of comments too."""
    for separator, form in (("\t", "tsv"), (",", "csv"), (";", "csv")):
        fields = [_unquoted(field) for field in line.split(separator)]
        usual = any(field.lower() in TEXT_NAMES for field in fields)
        alone = len(fields) == 1 and "_" not in fields[0]  # "text" may well be a comment
        if usual and not alone and all(not field or _PLAIN_NAME.fullmatch(field) for field in fields):
            return cast(Found, form) if len(fields) > 1 else "csv"
    return "txt"


def _unquoted(field: str) -> str:
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1] if quoted else field
