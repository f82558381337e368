"""Parquet as an output: the one module of the room that imports pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gkiller.data.labels import FLAG_LABELS
from gkiller.inference.bulk.columns import text_of
from gkiller.inference.bulk.formats import DIGITS, Answer, Shape, column_names
from gkiller.tokens.encoding import clean


class Parquet:
    """Row groups of 65,536 rows; until the file is finished its rows are an Arrow stream."""

    _GROUP = 1 << 16

    def __init__(self, shape: Shape) -> None:
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
        if not answers:
            return b""
        columns: dict[str, list[Any]] = {
            "row": [answer.row for answer in answers],
            "id": [None if answer.id is None else clean(str(answer.id)) for answer in answers],
            "text": [clean(answer.text) for answer in answers],
            "flagged": [bool(answer.flags) for answer in answers],
            "flags": [list(answer.flags) for answer in answers],
            FLAG_LABELS: [list(self._shape.deciding)] * len(answers),
            "windows": [answer.windows for answer in answers],
            "truncated": [answer.truncated for answer in answers],
        }
        scores = zip(*(answer.scores for answer in answers), strict=True)
        rounded = [[round(value, DIGITS) for value in column] for column in scores]
        kept: list[list[Any]] = [list(values) for values in zip(*(one.kept for one in answers), strict=True)]
        if not self._shape.types:
            kept = [[text_of(value) for value in values] for values in kept]
        own = [columns[name] for name in self._schema.names[: -len(rounded) - len(kept)]]
        arrays = [
            pa.array(values, field.type) for values, field in zip([*own, *rounded, *kept], self._schema, strict=True)
        ]
        return bytes(pa.RecordBatch.from_arrays(arrays, schema=self._schema).serialize().to_pybytes())

    def finish(self, partial: Path, target: Path) -> None:
        """Write the Parquet file beside the target, row group by row group, and move it there."""
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
