"""Rows to score: from arguments, standard input, or a file, one at a time, with the columns that the output repeats."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, cast

from gkiller.data.columns import comment_column, missing_column
from gkiller.data.labels import ID_NAMES, TEXT_NAMES, need_header, usual_columns
from gkiller.data.readers import RawBatch, Reader, pipes, place
from gkiller.data.readers.jsonl import WHOLE, JsonLinesReader, json_layout
from gkiller.data.readers.parquet import ParquetReader
from gkiller.data.readers.text import Replayable, TextReader, encoding_error
from gkiller.data.rows import SKIP, comment_fault, is_missing
from gkiller.errors import ColumnError, GkillerError, RowError
from gkiller.tokens.encoding import clean

InputFormat = Literal["auto", "txt", "csv", "tsv", "jsonl", "parquet"]
Keep = Sequence[str] | None
"""Names of columns to keep, each one or several with commas between them; None for all."""

_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class _Missing:
    """A key that a JSON object lacks, which is not the same as null."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()


class Row(NamedTuple):
    """One row: its number from 1, its comment, its id and its kept values, or what is wrong with it."""

    number: int
    text: str
    id: str | int | float | None
    fault: GkillerError | None = None
    kept: tuple[Any, ...] = ()


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


class _Named(NamedTuple):
    """The columns that the user named."""

    text: str | None
    id: str | None
    keep: Keep


def from_texts(texts: Sequence[str]) -> Source:
    """Return comments as a source."""
    return Source(
        "the arguments", False, lambda: (Row(n, text, None) for n, text in enumerate(texts, start=1)), total=len(texts)
    )


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
    pipe = pipes.is_pipe(path)
    found = (pipes.file_format(path) or "auto") if form == "auto" else form
    if pipe:
        owned = str(path) != "-"
        name = name if owned else pipes.STDIN
        columns = {"text_column": text_column, "id_column": id_column}
        return from_stream(pipes.open_pipe(path), found, name=name, owned=owned, keep=keep, **columns)
    if found == "auto":
        known = f"{', '.join(('.txt', '.text', *pipes.FORMATS))}, each also with .gz"
        raise pipes.unknown_format(path, name, f"{known}; else name the format with --input-format")
    return _source(pipes.open_reader(path, name, found), found, _Named(text_column, id_column, keep))


def from_stream(
    stream: BinaryIO,
    form: InputFormat = "auto",
    *,
    name: str = pipes.STDIN,
    owned: bool = False,
    text_column: str | None = None,
    id_column: str | None = None,
    keep: Keep = (),
) -> Source:
    """Return a stream of bytes, also packed with gzip, as a source; Parquet is copied to a temporary file.

    Args:
        form: its format; "auto" goes by the first line: see `gkiller.data.readers.pipes.sniff`.
        owned: whether it is closed when the source is not used any more.
        keep: other columns whose values are handed on; None means all.

    Raises:
        DataError: as for :func:`from_file`.
    """
    replay = Replayable(stream, owned=owned)
    path = cast(Path, replay)
    named = _Named(text_column, id_column, keep)
    notes = []
    if form == "auto":
        form = pipes.sniff(path, name)
        if form != "txt":
            where = "standard input" if name == pipes.STDIN else name
            title = "JSON" if form == "jsonl" and json_layout(path, name) != "lines" else pipes.TITLES[form]
            notes.append(f"{where} is read as {title} (--input-format txt reads it as text)")
    if form == "parquet":
        pipes.need_pyarrow(name)
        opened = replay.open()
        replay.release()
        copy = pipes.spool(opened, name)
        reader = pipes.open_reader(copy, name, form)
        pipes.keep_until_gone(reader, copy)
        source = _source(reader, form, named)
        notes.append(f"{name}: copied to a temporary file, as Parquet is not read in one pass")
    else:
        source = _source(pipes.open_reader(path, name, form), form, named)
        begin = source.rows

        def rows() -> Iterator[Row | None]:
            found = begin()
            first = next(found, None)  # the file is open now
            replay.release()
            if first is not None:
                yield first
                yield from found

        source.rows = rows
    source.notes[:0] = notes
    return source


def _source(reader: Reader, form: str, named: _Named) -> Source:
    kept, notes = Kept(reader.name, form), list[str]()
    identifier: str | None = None
    if form == "txt":
        refuse_keep(named.keep, reader.name, "a text file")
        if (column := named.text or named.id) is not None:
            what = f"a text file has no columns, so none is called {column!r}"
            remedy = "leave --text-column and --id-column out, or name the format with --input-format"
            raise ColumnError(what, where=reader.name, remedy=remedy)
        [text] = reader.columns()
    else:
        text, identifier = _columns(reader, form, named, notes)
        if named.keep is None and isinstance(reader, JsonLinesReader) and reader.watched() is not None:
            reader.look_further()
        kept = kept_columns(reader, form, text, identifier, named.keep)
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

    notes += reader.notes
    source = Source(reader.name, identifier is not None, rows, reader.total, notes, kept.names, kept.types)
    return source


def _columns(reader: Reader, form: str, named: _Named, notes: list[str]) -> tuple[str, str | None]:
    """Return the columns of comment and id."""
    names = reader.columns()
    if form in ("csv", "tsv"):
        need_header(names, named[:2], f"{reader.name}, line 1")
    if isinstance(reader, JsonLinesReader) and not _enough(names, named):
        names = reader.more_columns()
    if named.id is not None and named.id not in names and (named.text is None or named.text in names):
        raise missing_column(named.id, "--id-column", reader.name, names)
    text = comment_column(reader, names, named.text, notes, scoring=True)
    found = next(iter(usual_columns(names, ID_NAMES)), None) if named.id is None else named.id
    return text, None if named.id is None and found == text else found


def _enough(names: Sequence[str], named: _Named) -> bool:
    """Whether the columns that are named, or a usual one, are among those of the first rows."""
    text = named.text in names if named.text is not None else bool(usual_columns(names, TEXT_NAMES))
    kept = all(one in names or set(one.split(",")).issubset(names) for one in named.keep or ())
    return text and kept and (named.id is None or named.id in names)


def _row(batch: RawBatch, position: int, name: str, form: str, text: str, identifier: str | None) -> Row:
    number, line = batch.rows[position], batch.lines[position] if batch.lines else None
    if (bad := batch.bad.get(position)) is not None:
        return Row(number, "", None, bad.error)
    value, key, fault = batch.columns[text][position], None, None
    column = text if form != "txt" else None
    found = comment_fault(value, lambda: place(name, number, line, column), empty=True, escaped=form == "jsonl")
    if found is not None:
        return Row(number, "", None, found.error)
    if identifier is not None and not is_missing(key := batch.columns[identifier][position]):
        key = str(key) if isinstance(key, Decimal | date | time) else key  # of Parquet
        fault = _id_fault(key, lambda: place(name, number, line, identifier))
    else:
        key = None
    return Row(number, value, key) if fault is None else Row(number, "", None, fault)


def _id_fault(value: Any, where: Callable[[], str]) -> GkillerError | None:
    if isinstance(value, str):
        return None if value.isascii() else encoding_error(value, where())
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return None
    what = "infinite" if isinstance(value, float) else f"of type {type(value).__name__}, not text or a number"
    return RowError(
        f"the id is {what}", where=where(), remedy=f"mend the row, {SKIP}; --id-column names another column"
    )


@dataclass(frozen=True)
class Kept:
    """Which columns are kept, and how a row's values are found."""

    source: str
    form: str
    names: tuple[str, ...] = ()
    types: tuple[Any, ...] = ()
    wanted: tuple[str, ...] = ()
    # keys of JSON objects that may be there; empty where others do no harm
    known: frozenset[str] = frozenset()

    def add(self, row: Row, batch: RawBatch, position: int) -> Row:
        """Return a row with its kept values, or with what is wrong with them."""
        if row.fault is not None:
            return row
        fault: GkillerError | None = None
        if self.wanted == (WHOLE,):
            found = batch.columns[WHOLE][position]
            values = tuple(found.get(name, MISSING) for name in self.names)
            if (late := next((key for key in found if key not in self.known), None)) is not None:
                fault = ColumnError(
                    f"the key {late!r} is in none of the first objects, from which the columns are known",
                    where=place(self.source, row.number),
                    remedy="name the columns to keep with --keep, or put an object with every key first",
                )
        else:
            values = tuple(batch.columns[name][position] for name in self.names)
            if self.form in ("csv", "tsv"):
                odd = (pair for pair in zip(self.names, values, strict=True) if pair[1] and not pair[1].isascii())
                faults = (encoding_error(value, place(self.source, row.number, None, name)) for name, value in odd)
                fault = next(filter(None, faults), None)
        return row._replace(kept=values) if fault is None else row._replace(text="", id=None, fault=fault)


def refuse_keep(keep: Keep, source: str, what: str) -> None:
    """Refuse to keep columns of an input without columns."""
    if keep is None or keep:
        remedy = "leave --keep and --keep-columns out, or name the format with --input-format"
        raise ColumnError(f"{what} has no columns to keep", where=source, remedy=remedy)


def kept_columns(reader: Reader, form: str, text: str, identifier: str | None, keep: Keep) -> Kept:
    """Return what is kept of an input: the comment and the id are not, they have columns of their own.

    Raises:
        ColumnError: a named column is not there, or is the comment.
    """
    columns = reader.columns()
    whole: list[str] = getattr(reader, "whole", columns)
    columns = list(dict.fromkeys([*columns, *whole]))
    if keep is None:
        names = tuple(name for name in whole if name not in (text, identifier))
        if form == "jsonl":
            return Kept(reader.name, form, names, wanted=(WHOLE,), known=frozenset(whole))
    else:
        named = dict.fromkeys(one for given in keep for one in ([given] if given in columns else given.split(",")))
        for name in named:
            if name not in columns:
                raise missing_column(name, "--keep", reader.name, columns)
            if name == text:
                what = f"{name!r} is the comment column (--keep)"
                raise ColumnError(what, where=reader.name, remedy="--with-text repeats the comment as 'text'")
        names = tuple(name for name in named if name != identifier)
    if not isinstance(reader, ParquetReader):
        return Kept(reader.name, form, names, wanted=names)
    reader.scalars = frozenset(names)
    return Kept(reader.name, form, names, tuple(reader.types[name] for name in names), names)


def extent(value: Any) -> int:
    """Return about how many characters a kept value has."""
    return len(value) if isinstance(value, str) else len(str(value))


def plain(value: Any) -> Any:
    """Return a kept value as JSON can hold it.

    Times are in ISO 8601, decimals text with all digits, binary data in Base64; NaN is null, infinities are text.
    """
    if value is None or value is MISSING or isinstance(value, bool | int | str):
        return None if value is MISSING else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "as_py"):
        # Python's own times have no nanoseconds.
        stamp = str(value.type).startswith(("timestamp", "time"))
        return value.cast("string").as_py().replace(" ", "T") if stamp else plain(value.as_py())
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def json_of(value: Any) -> str:
    """Return a kept value as JSON; a lone surrogate stays escaped."""
    text = json.dumps(found := plain(value), ensure_ascii=False)
    return text if text.isascii() or text == clean(text) else json.dumps(found)


def text_of(value: Any) -> str | None:
    """Return a kept value as text: text as it is, other values as JSON, None where there is none."""
    if (found := plain(value)) is None:
        return None
    return clean(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))


def safe_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe goes first, as OWASP advises."""
    found = clean(text)
    return f"'{found}" if found.startswith(_FORMULA) else found
