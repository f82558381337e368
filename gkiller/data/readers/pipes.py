"""Files and pipes to their readers: which format it is, and a copy of a pipe that is read more than once."""

from __future__ import annotations

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
from gkiller.data.readers import Reader
from gkiller.data.readers.delimited import DelimitedReader
from gkiller.data.readers.jsonl import OBJECT, OPEN, JsonLinesReader, first_lines, lines_of
from gkiller.data.readers.parquet import ParquetReader
from gkiller.data.readers.text import PARQUET, LinesReader, copy_bounded, open_bytes, readable
from gkiller.errors import FormatError, SourceNotFoundError

STDIN = "(standard input)"
Form = Literal["txt", "csv", "tsv", "jsonl", "parquet"]
_JSON: dict[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
FORMATS: dict[str, Form] = {".csv": "csv", ".tsv": "tsv", **_JSON, ".parquet": "parquet"}
"""The formats of tables, by suffix."""

TITLES = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines", "parquet": "Parquet"}
_DEVICES = ("/dev/stdin", "/dev/fd/", "/proc/")


def file_format(path: Path) -> Form | None:
    """Return the format that a file's name tells, with or without ``.gz``; None when unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return "txt" if suffix in (".txt", ".text") else FORMATS.get(suffix)


def unknown_format(path: Path, name: str, known: str) -> FormatError:
    """Return the error for a file whose name tells no format that can be read."""
    suffix = "".join(path.suffixes[-2:]) or "(no suffix)"
    return FormatError(f"unknown file format {suffix}", where=name, remedy=f"gkiller reads {known}")


def open_reader(path: Path, name: str, form: Form) -> Reader:
    """Return the reader of a format; nothing is read yet."""
    match form:
        case "txt":
            return LinesReader(path, name)
        case "jsonl":
            return JsonLinesReader(path, name)
        case "parquet":
            need_pyarrow(name)
            return ParquetReader(path, name)
    return DelimitedReader(path, name, f".{form}")


def need_pyarrow(name: str) -> None:
    """Refuse Parquet where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        what, remedy = "Parquet needs pyarrow, which is not installed", "pip install pyarrow, or use CSV or JSON Lines"
        raise FormatError(what, where=name, remedy=remedy) from error


def is_pipe(source: str | Path) -> bool:
    """Whether a name is ``-`` for standard input, or that of a pipe or device rather than a file."""
    if str(source) == "-":
        return True
    path = Path(source).expanduser()
    if path.is_dir() or not path.exists():
        return False
    return not path.is_file() or str(path.absolute()).startswith(_DEVICES)


def open_pipe(source: str | Path) -> BinaryIO:
    """Open what `is_pipe` tells of for reading; standard input must be neither closed nor a terminal."""
    if str(source) != "-":
        with readable(str(source)):
            return Path(source).expanduser().open("rb")
    if sys.stdin is None or sys.stdin.isatty():
        what, remedy = "nothing is piped into standard input", "pipe something into the command"
        raise SourceNotFoundError(what, where="-", remedy=remedy)
    return sys.stdin.buffer


def spool(source: BinaryIO, name: str) -> Path:
    """Copy a stream to a temporary file of bounded size and return its path; `keep_until_gone` removes it."""
    folder = Path(tempfile.mkdtemp(prefix="gkiller-"))
    path = folder / "input"
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


_ARRAY = re.compile(r'\[\s*(?:\{\s*["}]|"(?:[^"\\]|\\.)*"\s*,)')
_PLAIN_NAME = re.compile(r"[^\W\d][\w.-]*")


def sniff(path: Path, name: str) -> Form:
    """Return the format of a stream: Parquet, JSON, CSV or TSV with a usual header, else text.

    No more is read than the first line that is not blank, and one more where that is a lone bracket.
    """
    with readable(name), open_bytes(path) as stream:
        head, whole = first_lines(cast(io.BufferedReader, stream))
    if head.startswith(PARQUET):
        return "parquet"
    lines = lines_of(head)
    if not lines:
        return "txt"
    first = lines[0].strip()
    if first in ("[", "{"):
        second = lines[1].lstrip() if len(lines) > 1 else ""
        return "jsonl" if second.startswith(('"', "{", "]") if first == "[" else ('"', "}")) else "txt"
    if first.startswith(("[", "{")) and _is_json(first, whole):
        return "jsonl"
    return _delimited(first)


def _is_json(line: str, whole: bool) -> bool:
    """Whether a line is a JSON object, an array of objects or strings, or the beginning of one."""
    begins = bool((OBJECT if line[0] == "{" else _ARRAY).match(line))
    if begins and (not whole or line[-1] in OPEN):
        return True
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict | str) for item in value)
    return isinstance(value, dict)


def _delimited(line: str) -> Form:
    """Return "csv" or "tsv" for a header that names nothing but columns, a usual one of comments too."""
    separators: tuple[tuple[str, Form], ...] = (("\t", "tsv"), (",", "csv"), (";", "csv"))
    for separator, form in separators:
        fields = [_unquoted(field) for field in line.split(separator)]
        usual = any(field.lower() in TEXT_NAMES for field in fields)
        alone = len(fields) == 1 and "_" not in fields[0]  # "text" may well be a comment
        if usual and not alone and all(not field or _PLAIN_NAME.fullmatch(field) for field in fields):
            return form if len(fields) > 1 else "csv"
    return "txt"


def _unquoted(field: str) -> str:
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1] if quoted else field
