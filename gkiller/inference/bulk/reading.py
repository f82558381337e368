"""Rows to score: from arguments, standard input, or a file, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from gkiller.data.comments import comment_fault, is_missing
from gkiller.data.labels import ID_NAMES, TEXT_NAMES, need_header
from gkiller.data.readers import RawBatch, Reader, place
from gkiller.data.readers.jsonl import JsonLinesReader
from gkiller.data.readers.parquet import ParquetReader
from gkiller.data.readers.pipes import STDIN, is_pipe, json_layout, keep_until_gone, open_pipe, sniff, spool
from gkiller.data.readers.text import LinesReader, Replayable, TextReader, encoding_error
from gkiller.errors import ColumnError, FormatError, GkillerError, RowError
from gkiller.inference.bulk.columns import Keep, Kept, Row, kept_columns, refuse_keep
from gkiller.wording import did_you_mean

InputFormat = Literal["auto", "txt", "csv", "tsv", "jsonl", "parquet"]
_SUFFIXES: dict[str, InputFormat] = {
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_TITLES = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines", "parquet": "Parquet"}
_SKIP = "mend the row, or skip such rows with --on-error skip"


@dataclass
class Source:
    """Where rows come from."""

    name: str
    has_ids: bool  # whether rows have ids of their own
    # begins to read; a source is read once. None among them says that the next one has not come yet.
    rows: Callable[[], Iterator[Row | None]]
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    kept: tuple[str, ...] = ()
    types: tuple[Any, ...] = ()


def from_texts(texts: Sequence[str]) -> Source:
    """Return comments as a source."""

    def rows() -> Iterator[Row | None]:
        for number, text in enumerate(texts, start=1):
            yield Row(number, text, None)

    return Source("the arguments", False, rows, total=len(texts))


def from_file(
    path: Path,
    name: str,
    form: InputFormat = "auto",
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    keep: Keep = (),
) -> Source:
    """Return a file as a source: text with a comment a line, CSV, TSV, JSON or Parquet, also ``.gz``.

    A pipe, a device and ``-`` for standard input are read in one pass; see `from_stream`.

    Args:
        form: its format; "auto" goes by its name.
        keep: other columns whose values are handed on; None means all.

    Raises:
        DataError: it cannot be read, is empty or of an unknown format, or has no such column.
    """
    pipe = is_pipe(path)
    if form == "auto":
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        if suffixes and suffixes[-1] == ".gz":
            suffixes.pop()
        known = _SUFFIXES.get(suffixes[-1]) if suffixes else None
        if known is None and not pipe:
            raise FormatError(
                f"unknown file format {''.join(path.suffixes[-2:]) or '(no suffix)'}",
                where=name,
                remedy=f"gkiller reads {', '.join(_SUFFIXES)}, each also with .gz; else name the format with "
                "--input-format",
            )
        form = known or "auto"
    if pipe:
        owned = str(path) != "-"
        return from_stream(
            open_pipe(path),
            form,
            name=name if owned else STDIN,
            owned=owned,
            text_column=text_column,
            id_column=id_column,
            keep=keep,
        )
    return _source(_reader(path, name, form), form, text_column, id_column, keep)


def from_stream(
    stream: BinaryIO,
    form: InputFormat = "auto",
    *,
    name: str = STDIN,
    owned: bool = False,
    text_column: str | None = None,
    id_column: str | None = None,
    keep: Keep = (),
) -> Source:
    """Return a stream as a source.

    Args:
        stream: bytes that can be read once, also packed with gzip.
        form: its format; "auto" goes by the first line: see `gkiller.data.readers.pipes.sniff`.
        owned: whether it is closed when the source is not used any more.
        keep: other columns whose values are handed on; None means all.

    Raises:
        DataError: as for :func:`from_file`.
    """
    replay = Replayable(stream, owned=owned)
    path = cast(Path, replay)
    notes = []
    if form == "auto":
        form = sniff(path, name)
        if form != "txt":
            where = "standard input" if name == STDIN else name
            title = "JSON" if form == "jsonl" and json_layout(path, name) != "lines" else _TITLES[form]
            notes.append(f"{where} is read as {title} (--input-format txt reads it as text)")
    if form == "parquet":
        return _spooled(replay, name, text_column, id_column, keep, notes)
    source = _source(_reader(path, name, form), form, text_column, id_column, keep)
    source.notes[:0] = notes
    begin = source.rows

    def rows() -> Iterator[Row | None]:
        found = begin()
        first = next(found, None)  # the file is open now
        replay.release()
        if first is not None:
            yield first
            yield from found

    source.rows = rows
    return source


def _spooled(
    replay: Replayable, name: str, text_column: str | None, id_column: str | None, keep: Keep, notes: list[str]
) -> Source:
    """Return Parquet from a stream, copied to a temporary file, as its end has to be read first."""
    _need_pyarrow(name)
    stream = replay.open()
    replay.release()
    path = spool(stream, name)
    reader = _reader(path, name, "parquet")
    keep_until_gone(reader, path)
    source = _source(reader, "parquet", text_column, id_column, keep)
    source.notes[:0] = [*notes, f"{name}: copied to a temporary file, as Parquet is not read in one pass"]
    return source


def _reader(path: Path, name: str, form: str) -> Reader:
    if form == "txt":
        return LinesReader(path, name)
    if form == "jsonl":
        return JsonLinesReader(path, name)
    if form == "parquet":
        _need_pyarrow(name)
        return ParquetReader(path, name)
    from gkiller.data.readers.delimited import DelimitedReader

    return DelimitedReader(path, name, f".{form}")


def _need_pyarrow(name: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise FormatError(
            "Parquet needs pyarrow, which is not installed",
            where=name,
            remedy="pip install pyarrow, or use CSV or JSON Lines",
        ) from error


def _source(reader: Reader, form: str, text_column: str | None, id_column: str | None, keep: Keep) -> Source:
    kept = Kept(reader.name, form)
    if form == "txt":
        refuse_keep(keep, reader.name, "a text file")
        named = text_column or id_column
        if named is not None:
            raise ColumnError(
                f"a text file has no columns, so none is called {named!r}",
                where=reader.name,
                remedy="leave --text-column and --id-column out, or name the format with --input-format",
            )
        [text], identifier = reader.columns(), None
        notes: list[str] = []
    else:
        text, identifier, notes = _columns(reader, form, text_column, id_column, keep)
        if keep is None and isinstance(reader, JsonLinesReader) and reader.watched() is not None:
            reader.look_further()
        kept = kept_columns(reader, form, text, identifier, keep)

    told = len(reader.notes)

    waiting = reader.watched() if isinstance(reader, TextReader) else None

    def rows() -> Iterator[Row | None]:
        wanted = list(dict.fromkeys([text, *filter(None, [identifier]), *kept.wanted]))
        for batch in reader.batches(wanted):
            for position in range(len(batch)):
                row = _row(batch, position, reader.name, form, text, identifier)
                yield kept.add(row, batch, position) if kept.wanted else row
            if waiting is not None and waiting():
                yield None
        source.notes += reader.notes[told:]

    notes = [*notes, *reader.notes]
    source = Source(reader.name, identifier is not None, rows, reader.total, notes, kept.names, kept.types)
    return source


def _columns(
    reader: Reader, form: str, text_column: str | None, id_column: str | None, keep: Keep
) -> tuple[str, str | None, list[str]]:
    """Return the columns of comment and id, and what was guessed."""
    names = reader.columns()
    if form in ("csv", "tsv"):
        need_header(names, (text_column, id_column), f"{reader.name}, line 1")
    if isinstance(reader, JsonLinesReader) and not _enough(names, text_column, id_column, keep):
        names = reader.more_columns()
    for column, flag in ((text_column, "--text-column"), (id_column, "--id-column")):
        if column is not None and column not in names:
            raise ColumnError(
                f"there is no column {column!r} ({flag})", where=reader.name, remedy=did_you_mean(column, names)
            )
    notes = []
    lower = {name.lower(): name for name in reversed(names)}
    if text_column is None:
        text_column = next((lower[usual] for usual in TEXT_NAMES if usual in lower), None)
        if text_column is None and len(names) == 1:
            text_column = names[0]
        if text_column is None:
            there = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ColumnError(
                f"no column has a usual name ({', '.join(TEXT_NAMES)})",
                where=reader.name,
                remedy=f"name one with --text-column; there are: {there}",
            )
        notes.append(f"{reader.name}: {text_column!r} is taken as the comment column")
    if isinstance(reader, ParquetReader):
        reader.refuse_lists(text_column)
    if id_column is None:
        id_column = next((lower[usual] for usual in ID_NAMES if usual in lower), None)
        id_column = None if id_column == text_column else id_column
    return text_column, id_column, notes


def _enough(names: Sequence[str], text_column: str | None, id_column: str | None, keep: Keep) -> bool:
    """Whether the columns that are named, or a usual one, are among those of the first rows."""
    known = {name.lower() for name in names}
    text = text_column in names if text_column is not None else not known.isdisjoint(TEXT_NAMES)
    kept = all(one in names or set(one.split(",")).issubset(names) for one in keep or ())
    return text and kept and (id_column is None or id_column in names)


def _row(batch: RawBatch, position: int, name: str, form: str, text: str, identifier: str | None) -> Row:
    number = batch.rows[position]
    line = batch.lines[position] if batch.lines else None
    bad = batch.bad.get(position)
    if bad is not None:
        return Row(number, "", None, bad.error)
    value = batch.columns[text][position]
    found = comment_fault(
        value, lambda: place(name, number, line, text if form != "txt" else None), empty=True, escaped=form == "jsonl"
    )
    fault: GkillerError | None = None if found is None else found.error
    key = _id(batch.columns[identifier][position]) if identifier is not None else None
    if fault is None and key is not None:
        fault = _id_fault(key, lambda: place(name, number, line, identifier))
    return Row(number, "", None, fault) if fault is not None else Row(number, value, key)


def _id(value: Any) -> Any:
    """Return an id as it is written: Parquet's decimals and times as text, None where it is missing."""
    if is_missing(value):
        return None
    return str(value) if isinstance(value, Decimal | date | time) else value


def _id_fault(value: Any, where: Callable[[], str]) -> GkillerError | None:
    if isinstance(value, str):
        return None if value.isascii() else encoding_error(value, where())
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return None
    what = "infinite" if isinstance(value, float) else f"of type {type(value).__name__}, not text or a number"
    return RowError(f"the id is {what}", where=where(), remedy=f"{_SKIP}; --id-column names another column")
