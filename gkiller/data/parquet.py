"""Parquet files and Arrow tables as batches of rows."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gkiller.data.names import refuse_repeated
from gkiller.data.rows import BATCH_BYTES, BATCH_ROWS, RawBatch
from gkiller.data.textfile import readable
from gkiller.errors import EmptyDataError, FormatError


def arrow_values(column: Any) -> list[Any]:
    """Return a column's values; binary and badly encoded text come as text with lone surrogates.

    Args:
        column: a pyarrow ``Array`` or ``ChunkedArray``.

    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
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


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", errors="surrogateescape")


def arrow_scalars(column: Any) -> list[Any]:
    """Return a column's values as pyarrow scalars, which know their type; None where there is no value."""
    kind = kept_type(column.type)
    column = column if kind == column.type else column.cast(kind)
    return [scalar if scalar.is_valid else None for scalar in column]


def kept_type(kind: Any) -> Any:
    """Return the type in which a column's values are kept: a dictionary's is that of its values."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def arrow_batch(table: Any, wanted: Sequence[str], first_row: int, scalars: Collection[str] = ()) -> RawBatch:
    """Return a pyarrow table or record batch as raw rows numbered from ``first_row``.

    Args:
        table: the rows.
        wanted: names of columns.
        first_row: number of the first row.
        scalars: those of the columns whose values are wanted as :func:`arrow_scalars`.

    """
    columns = {
        name: (arrow_scalars if name in scalars else arrow_values)(table.column(name)) for name in wanted
    }
    return RawBatch(rows=list(range(first_row, first_row + table.num_rows)), columns=columns)


class ParquetReader:
    """Reads one Parquet file, plain or ``.gz`` (which is unpacked beside the system's temporary files).

    Args:
        path: the file.
        name: how messages name it.

    Attributes:
        scalars: columns whose values are wanted as :func:`arrow_scalars`.
        types: the Arrow type of each column, once :meth:`columns` was called.

    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.total: int | None = None
        self.notes: list[str] = []
        self.scalars: frozenset[str] = frozenset()
        self.types: dict[str, Any] = {}
        self._columns: list[str] = []
        self._batch_rows = BATCH_ROWS

    def columns(self) -> list[str]:
        """Return the column names, and learn the number of rows.

        Raises:
            DataError: the file cannot be read, is not Parquet, or has no rows.

        """
        if self._columns:
            return self._columns
        with self._file() as file:
            names = list(file.schema_arrow.names)
            self.total = file.metadata.num_rows
            self.types = dict(zip(names, map(kept_type, file.schema_arrow.types), strict=True))
            self._batch_rows = _batch_rows(file.metadata)
        if not self.total:
            raise EmptyDataError("the file has no rows", where=self.name, remedy="give a file with rows")
        refuse_repeated(names, "the file", self.name)
        self._columns = names
        return names

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order.

        Raises:
            DataError: the file cannot be read or is broken.

        """
        self.columns()
        row = 1
        with self._file() as file:
            for table in file.iter_batches(batch_size=self._batch_rows, columns=list(wanted)):
                yield arrow_batch(table, wanted, row, self.scalars)
                row += table.num_rows

    @contextmanager
    def _file(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with readable(self.name), _unpacked(self.path) as path:
            if path.stat().st_size == 0:
                raise EmptyDataError("the file is empty", where=self.name, remedy="give a file with rows")
            try:
                with pq.ParquetFile(path) as file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                raise FormatError(
                    f"this is not a whole Parquet file: {_first_line(error)}",
                    where=self.name,
                    remedy="write or fetch the file again",
                ) from error


def _batch_rows(metadata: Any) -> int:
    """Return how many rows to decode at once so that a batch stays near ``BATCH_BYTES``."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    per_row = max(1, size // max(1, metadata.num_rows))
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // per_row)))


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
