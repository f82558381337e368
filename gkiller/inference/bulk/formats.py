"""What is written for each row: JSON Lines, CSV or Parquet.

Scores have six digits after the point. Each writer turns a chunk into bytes that follow those of the chunks
before, so that a file can be cut off after any chunk and gone on with. The limits of chunks depend on the rows
alone, so that a resumed job meets the same ones, unless rows are answered as they come.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gkiller.data.labels import FLAG_LABELS
from gkiller.inference.bulk.reading import MISSING, Row, extent, json_of, plain, safe_cell, text_of
from gkiller.inference.results import Contribution, reached
from gkiller.inference.session import Scored, Scores
from gkiller.tokens.batches import CHUNK_CHARACTERS
from gkiller.tokens.encoding import clean
from gkiller.wording import visible, visible_json

OnError = Literal["fail", "skip"]


@dataclass
class Chunk:
    """Rows that are scored and written together."""

    first: int
    last: int = 0
    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[str | int | float | None] = field(default_factory=list)
    kept: list[tuple[Any, ...]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""
    due: bool = False  # whether its answers, and all before, are due now, as the next row has not come yet


def chunked(rows: Iterator[Row | None], size: int, on_error: OnError, *, live: bool = False) -> Iterator[Chunk]:
    """Divide rows into chunks of ``size``, or less when their comments are long.

    Args:
        rows: in order, numbered from 1 without gaps; None says that the next one has not come yet.
        on_error: "fail" raises a bad row's error (earlier chunks are handed on by then), "skip" leaves the row out.
        live: whether a chunk, be it without a row, ends where the next row has not come yet.
    """
    seen = hashlib.sha256()
    chunk: Chunk | None = None
    characters, last = 0, 0
    for row in rows:
        if row is None:
            if live and last:
                chunk = chunk or Chunk(last + 1, last)
                chunk.due = True
                yield _closed(chunk, seen)
                chunk = None
            continue
        if row.fault is not None and on_error == "fail":
            raise row.fault
        if chunk is None:
            chunk, characters = Chunk(row.number), 0
        chunk.last = last = row.number
        if row.fault is not None:
            chunk.skipped.append(f"{row.fault.where}: {row.fault.what}")
        else:
            chunk.rows.append(row.number)
            chunk.texts.append(row.text)
            chunk.ids.append(row.id)
            chunk.kept.append(row.kept)
            characters += len(row.text) + sum(map(extent, row.kept))
        if chunk.last - chunk.first + 1 >= size or characters >= CHUNK_CHARACTERS:
            yield _closed(chunk, seen)
            chunk = None
    if chunk is not None:
        yield _closed(chunk, seen)


def _closed(chunk: Chunk, seen: hashlib._Hash) -> Chunk:
    seen.update(repr((chunk.rows, chunk.ids)).encode())
    if any(chunk.kept):
        seen.update(repr(chunk.kept).encode("utf-8", "surrogatepass"))
    seen.update("\0".join(chunk.texts).encode("utf-8", "surrogatepass"))
    chunk.digest = seen.copy().hexdigest()
    return chunk


OutputFormat = Literal["jsonl", "csv", "parquet"]
DIGITS = 6
_OWN = ("row", "id", "text", "flagged", "flags", FLAG_LABELS, "windows", "truncated")


@dataclass(frozen=True)
class Shape:
    """What is written."""

    labels: tuple[str, ...]
    thresholds: Mapping[str, float]
    ids: bool = False  # whether rows have ids of their own
    text: bool = False  # whether the comments are written, too
    only_flagged: bool = False  # whether rows without a flag are left out
    # the labels that decide whether a row is flagged, in their order; None for all
    flag_labels: tuple[str, ...] | None = None
    kept: tuple[str, ...] = ()
    types: tuple[Any, ...] = ()
    # whether text that a spreadsheet takes for a formula is written with an apostrophe before it
    csv_safe: bool = False

    @property
    def deciding(self) -> tuple[str, ...]:
        """The labels that decide whether a row is flagged."""
        return self.labels if self.flag_labels is None else self.flag_labels

    @property
    def some_decide(self) -> bool:
        """Whether some labels do not decide: the output then says in each row which ones do."""
        return self.deciding != self.labels

    def reached(self, scores: Scores) -> npt.NDArray[np.bool_]:
        """Return where a deciding label's score reaches its threshold, (n, L)."""
        return reached(scores, self.labels, self.thresholds, self.deciding)


@dataclass(frozen=True)
class Answer:
    """One row of the output."""

    row: int
    id: str | int | float | None
    text: str
    flags: tuple[str, ...]
    scores: list[float]  # of each label, in order
    windows: int
    truncated: bool  # whether its end was left unread
    explanation: Sequence[Contribution] | None = None
    kept: tuple[Any, ...] = ()


def answers(chunk: Chunk, scored: Scored, shape: Shape) -> Iterator[Answer]:
    """Yield a chunk's rows of output."""
    flagged = shape.reached(scored.scores)
    kept = np.flatnonzero(flagged.any(1)) if shape.only_flagged else np.arange(len(chunk.rows))
    names: dict[bytes, tuple[str, ...]] = {}
    windows, truncated = scored.windows.tolist(), scored.truncated.tolist()
    for i in kept.tolist():
        key = flagged[i].tobytes()
        if (flags := names.get(key)) is None:
            flags = names[key] = tuple(label for label, one in zip(shape.labels, flagged[i], strict=True) if one)
        scores = scored.scores[i].tolist()
        own = (chunk.rows[i], chunk.ids[i], chunk.texts[i])
        yield Answer(*own, flags, scores, windows[i], truncated[i], kept=chunk.kept[i])


class Writer(Protocol):
    """Turns answers into the bytes of a file."""

    def header(self) -> bytes:
        """Return what the file starts with."""
        return b""

    def rows(self, answers: Sequence[Answer]) -> bytes:
        """Return the bytes of a chunk, which may be none."""

    def finish(self, partial: Path, target: Path) -> None:
        """Make the finished file of the bytes in ``partial``; it may be moved."""
        partial.replace(target)


class JsonLines(Writer):
    """An object per row: row, id, text, flagged, flags, scores; windows and truncated where they matter.

    Where some labels do not decide, also flag_labels: those that do.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        scores = ", ".join(f"{_plain(label).replace('%', '%%')}: %.{DIGITS}f" for label in shape.labels)
        deciding = f'"{FLAG_LABELS}": {_plain(list(shape.deciding))}, '.replace("%", "%%")
        middle = deciding if shape.some_decide else ""
        self._template = '"flagged": %s, "flags": %s, ' + middle + '"scores": {' + scores + "}"
        self._flags: dict[tuple[str, ...], str] = {}
        self._kept = [_plain(name) for name in kept_names(shape)]

    def rows(self, answers: Sequence[Answer]) -> bytes:
        """Return a line per answer."""
        return "".join(map(self.line, answers)).encode()

    def line(self, answer: Answer) -> str:
        """Return an answer's line."""
        if (flags := self._flags.get(answer.flags)) is None:
            flags = self._flags[answer.flags] = _plain(list(answer.flags))
        parts = [f'{{"row": {answer.row}']
        parts += [f'"id": {_plain(answer.id)}'] if self._shape.ids else []
        parts += [f'"text": {_plain(answer.text)}'] if self._shape.text else []
        parts.append(self._template % ("true" if answer.flags else "false", flags, *answer.scores))
        if answer.windows > 1:
            parts.append(f'"windows": {answer.windows}')
        if answer.truncated:
            parts.append('"truncated": true')
        if answer.explanation is not None:
            parts.append(f'"explanation": {_plain([explained(word) for word in answer.explanation])}')
        kept = zip(self._kept, answer.kept, strict=True)
        parts += [f"{name}: {json_of(value)}" for name, value in kept if value is not MISSING]
        return ", ".join(parts) + "}\n"


def explained(word: Contribution) -> dict[str, Any]:
    """Return a contribution as plain values."""
    return {
        "text": clean(word.text),
        "start": word.start,
        "end": word.end,
        "contributions": {label: round(value, DIGITS) for label, value in word.contributions.items()},
    }


def _plain(value: Any) -> str:
    return json.dumps(clean(value) if isinstance(value, str) else value, ensure_ascii=False)


class Csv(Writer):
    """A line per row; flags are joined by ``|``, each label's score has a column."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._text = safe_cell if shape.csv_safe else clean

    def header(self) -> bytes:
        """Return the line of names."""
        return self._lines([list(map(self._text, column_names(self._shape)))])

    def rows(self, answers: Sequence[Answer]) -> bytes:
        """Return a record per answer."""
        return self._lines([self._record(answer) for answer in answers])

    def _record(self, answer: Answer) -> list[object]:
        own: list[object] = [answer.row]
        if self._shape.ids:
            own.append(answer.id if isinstance(answer.id, int | float) else self._text(answer.id or ""))
        own += [self._text(answer.text)] if self._shape.text else []
        own += ["true" if answer.flags else "false", self._text("|".join(answer.flags))]
        if self._shape.some_decide:
            own.append(self._text("|".join(self._shape.deciding)))
        own += [answer.windows, "true" if answer.truncated else "false"]
        own += [f"{score:.{DIGITS}f}" for score in answer.scores]
        return own + list(map(self._kept, answer.kept))

    def _kept(self, value: Any) -> str:
        text = text_of(value) or ""
        return self._text(text) if isinstance(plain(value), str) else text

    def _lines(self, records: list[Any]) -> bytes:
        lines: list[str] = []
        # A cell with a carriage return is quoted only where the end of a line has one.
        stream = SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n"))
        csv.writer(stream, lineterminator="\r\n").writerows(records)
        return "".join(lines).encode()


class _Changed(Writer):
    """Another writer's bytes, changed."""

    def __init__(self, writer: Writer, change: Callable[[bytes], bytes]) -> None:
        self._writer, self._change = writer, change

    def header(self) -> bytes:
        return self._change(self._writer.header())

    def rows(self, answers: Sequence[Answer]) -> bytes:
        return self._change(self._writer.rows(answers))


class Shown(_Changed):
    """Another writer's lines for a terminal: control characters are escaped."""

    def __init__(self, writer: Writer, form: OutputFormat) -> None:
        safe = visible_json if form == "jsonl" else visible
        super().__init__(writer, lambda data: safe(data.decode()).encode())


class Gzip(_Changed):
    """Packs another writer's bytes: each chunk is a gzip member of its own, which tools read as one file."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer, lambda data: gzip.compress(data, mtime=0) if data else b"")


def column_names(shape: Shape) -> list[str]:
    """Return the names of columns; a label with the name of another column gets a prefix."""
    optional = {"id": shape.ids, "text": shape.text, FLAG_LABELS: shape.some_decide}
    own = [name for name in _OWN if optional.get(name, True)]
    return [*own, *_label_names(shape), *kept_names(shape)]


def _label_names(shape: Shape) -> list[str]:
    return [f"score_{label}" if label in _OWN else label for label in shape.labels]


def kept_names(shape: Shape) -> list[str]:
    """Return the names of kept columns; one with the name of another column or of a label gets a prefix."""
    ours = {*_OWN, "scores", "explanation", *_label_names(shape)}
    taken = ours | set(shape.kept)
    names = []
    for name in shape.kept:
        if name in ours:
            while name in taken:
                name = f"input_{name}"
            taken.add(name)
        names.append(name)
    return names


class Parquet(Writer):
    """Row groups of 65,536 rows; until the file is finished its rows are an Arrow stream."""

    _GROUP = 1 << 16

    def __init__(self, shape: Shape) -> None:
        import pyarrow as pa

        self._shape = shape
        optional = [("id", pa.string(), shape.ids), ("text", pa.string(), shape.text)]
        own = [("row", pa.int64()), *((name, kind) for name, kind, wanted in optional if wanted)]
        own += [("flagged", pa.bool_()), ("flags", pa.list_(pa.string()))]
        own += [(FLAG_LABELS, pa.list_(pa.string()))] if shape.some_decide else []
        own += [("windows", pa.int32()), ("truncated", pa.bool_())]
        names = column_names(shape)[len(own) :]
        kinds = [pa.float64()] * len(shape.labels) + list(shape.types or [pa.string()] * len(shape.kept))
        self._schema = pa.schema([*own, *zip(names, kinds, strict=True)])

    def header(self) -> bytes:
        """Return the stream's schema."""
        return bytes(self._schema.serialize().to_pybytes())

    def rows(self, answers: Sequence[Answer]) -> bytes:
        """Return the answers as one record batch."""
        import pyarrow as pa

        if not answers:
            return b""
        columns: dict[str, list[Any]] = {
            "id": [None if answer.id is None else clean(str(answer.id)) for answer in answers],
            "text": [clean(answer.text) for answer in answers],
            "flagged": [bool(answer.flags) for answer in answers],
            "flags": [list(answer.flags) for answer in answers],
            FLAG_LABELS: [list(self._shape.deciding)] * len(answers),
        }
        columns |= {name: [getattr(answer, name) for answer in answers] for name in ("row", "windows", "truncated")}
        scores = zip(*(answer.scores for answer in answers), strict=True)
        rounded = [[round(value, DIGITS) for value in column] for column in scores]
        kept: list[list[Any]] = [list(values) for values in zip(*(one.kept for one in answers), strict=True)]
        if not self._shape.types:
            kept = [[text_of(value) for value in values] for values in kept]
        own = [columns[name] for name in self._schema.names[: -len(rounded) - len(kept)]]
        pairs = zip([*own, *rounded, *kept], self._schema, strict=True)
        arrays = [pa.array(values, field.type) for values, field in pairs]
        return bytes(pa.RecordBatch.from_arrays(arrays, schema=self._schema).serialize().to_pybytes())

    def finish(self, partial: Path, target: Path) -> None:
        """Write the Parquet file next to the target, row group by row group, and move it there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        temporary = target.with_name(f".{target.name}.new")
        try:
            with (
                partial.open("rb") as stream,
                pa.ipc.open_stream(stream) as batches,
                pq.ParquetWriter(temporary, self._schema) as writer,
            ):
                for table in _groups(batches, self._schema, self._GROUP):
                    writer.write_table(table, row_group_size=self._GROUP)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        partial.unlink()


def _groups(batches: Any, schema: Any, size: int) -> Iterator[Any]:
    """Yield tables of ``size`` rows, and the rest."""
    import pyarrow as pa

    held: list[Any] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, size)
            held, count = table.slice(size).to_batches(), count - size
    if held:
        yield pa.Table.from_batches(held, schema)
