"""What a stream without a name holds, judged by its first line."""

from __future__ import annotations

import codecs
import io
import json
import re
from pathlib import Path
from typing import Literal, cast

from gkiller.data.names import TEXT_NAMES
from gkiller.data.textfile import open_bytes, readable

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
        path: the stream; see `gkiller.data.replay.Replayable`.
        name: how messages name it.

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
