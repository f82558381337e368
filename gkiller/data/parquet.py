"""Parquet files and Arrow tables as batches of rows."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gkiller.data.rows import BATCH_BYTES, BATCH_ROWS, RawBatch
from gkiller.data.textfile import readable
from gkiller.errors import ColumnError, EmptyDataError, FormatError


def arrow_values(column: Any) -> list[Any]:
    """Return a column's values; binary and badly encoded text come as text with lone surrogates.

    Values of a dictionary are one object wherever they stand, so that a file of a few kilobytes cannot fill
    the memory with copies.

    Args:
        column: a pyarrow ``Array`` or ``ChunkedArray``.

    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        found: list[Any] = []
        for chunk in chunks:
            known = [*arrow_values(chunk.dictionary), None]
            found += [known[-1 if place is None else place] for place in chunk.indices.to_pylist()]
        return found
    kind = column.type
    if _is_binary(kind):
        return [_decode(value) for value in column.to_pylist()]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        binary = column.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary())
        return [_decode(value) for value in binary.to_pylist()]
    return values


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is of text or bytes."""
    import pyarrow as pa

    return bool(_is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", errors="surrogateescape")


def arrow_batches(table: Any, wanted: Sequence[str], first_row: int) -> Iterator[RawBatch]:
    """Yield a pyarrow table or record batch as raw rows numbered from ``first_row``, in bounded batches."""
    columns = {name: arrow_values(table.column(name)) for name in wanted}
    start = size = 0
    for row in range(table.num_rows):
        size += sum(len(values[row]) for values in columns.values() if isinstance(values[row], str | list))
        if size >= BATCH_BYTES or row == table.num_rows - 1:
            rows = list(range(first_row + start, first_row + row + 1))
            yield RawBatch(rows, columns={name: values[start : row + 1] for name, values in columns.items()})
            start, size = row + 1, 0


class ParquetReader:
    """Reads one Parquet file, plain or ``.gz`` (which is unpacked beside the system's temporary files).

    Args:
        path: the file.
        name: how messages name it.

    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.total: int | None = None
        self.notes: list[str] = []
        self._columns: list[str] = []
        self._texts: list[str] = []
        self._batch_rows = BATCH_ROWS

    def columns(self) -> list[str]:
        """Return the column names, and learn the number of rows.

        Raises:
            DataError: the file cannot be read, is not Parquet, or has no rows.

        """
        if self._columns:
            return self._columns
        with self._file() as file:
            names = [*file.schema_arrow.names, *_inner_names(file.schema_arrow)]
            self._texts = [one.name for one in file.schema_arrow if is_text(one.type)]
            self.total = file.metadata.num_rows
            self._batch_rows = _batch_rows(file.metadata)
        if not self.total:
            raise EmptyDataError("the file has no rows", where=self.name, remedy="give a file with rows")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ColumnError(
                f"the file names {', '.join(map(repr, twice))} more than once",
                where=self.name,
                remedy="give every column its own name",
            )
        self._columns = names
        return names

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order.

        Raises:
            DataError: the file cannot be read or is broken.

        """
        self.columns()
        row = 1
        texts = [name for name in wanted if name in self._texts]
        with self._file(texts) as file:
            for table in file.iter_batches(batch_size=self._batch_rows, columns=list(wanted)):
                yield from arrow_batches(_flat(table, wanted), wanted, row)
                row += table.num_rows

    @contextmanager
    def _file(self, texts: list[str] | None = None) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with readable(self.name), _unpacked(self.path) as path:
            if path.stat().st_size == 0:
                raise EmptyDataError("the file is empty", where=self.name, remedy="give a file with rows")
            try:
                with pq.ParquetFile(path, read_dictionary=texts) as file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                raise FormatError(
                    f"this is not a whole Parquet file: {_first_line(error)}",
                    where=self.name,
                    remedy="write or fetch the file again",
                ) from error


def _batch_rows(metadata: Any) -> int:
    """Return how many rows to decode at once so that a batch of any row group stays near ``BATCH_BYTES``."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    per_row = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=1)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, per_row))))


def _inner_names(schema: Any) -> list[str]:
    """Return the ways to the fields inside of struct columns, such as ``comment.text``."""
    import pyarrow as pa

    names, fields = [], list(schema)
    while fields:
        inner = [one for column in fields if pa.types.is_struct(column.type) for one in column.flatten()]
        names += [one.name for one in inner if not pa.types.is_struct(one.type)]
        fields = inner
    return [name for name in names if name not in schema.names]


def _flat(table: Any, wanted: Sequence[str]) -> Any:
    """Return a record batch with the fields inside of structs as columns, where they are wanted."""
    import pyarrow as pa

    found = pa.Table.from_batches([table])
    while not set(wanted) <= set(found.column_names):
        found = found.flatten()
    return found


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield a path whose content is not compressed as a whole."""
    if path.suffix.lower() != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gkiller-") as folder:
        plain = Path(folder) / "unpacked.parquet"
        with gzip.open(path, "rb") as packed, plain.open("wb") as target:
            shutil.copyfileobj(packed, target, 1 << 20)
        yield plain


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
