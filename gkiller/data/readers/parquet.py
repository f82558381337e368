"""Parquet files and Arrow tables as batches of rows."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from gkiller.data.labels import refuse_repeated
from gkiller.data.readers import BATCH_BYTES, BATCH_ROWS, RawBatch
from gkiller.data.readers.text import copy_bounded, readable
from gkiller.errors import ColumnError, EmptyDataError, FormatError

_DECODED_BYTES = 256 << 20
_MOST_RATIO = 100


def arrow_values(column: Any) -> list[Any]:
    """Return an Arrow column's values; binary and badly encoded text come as text with lone surrogates."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _shared(column, arrow_values)
    if _is_binary(kind):
        return [_decode(value) for value in column.to_pylist()]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        binary = column.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary())
        return [_decode(value) for value in binary.to_pylist()]
    return values


def _shared(column: Any, values_of: Callable[[Any], list[Any]]) -> list[Any]:
    """Return the values of a dictionary column: equal ones are one object, however many rows have them."""
    found: list[Any] = []
    for chunk in getattr(column, "chunks", [column]):
        known = [*values_of(chunk.dictionary), None]
        found += [known[-1 if place is None else place] for place in chunk.indices.to_pylist()]
    return found


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", errors="surrogateescape")


def arrow_scalars(column: Any, kind: Any) -> list[Any]:
    """Return a column's values as pyarrow scalars of a type; None where there is no value."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return _shared(column, lambda known: arrow_scalars(known, kind))
    column = column if column.type == kind else column.cast(kind)
    return [scalar if scalar.is_valid else None for scalar in column]


def kept_type(kind: Any) -> Any:
    """Return the type in which a column's values are kept: a dictionary's is that of its values."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def arrow_batches(
    table: Any, wanted: Sequence[str], first_row: int, scalars: Mapping[str, Any] | None = None
) -> Iterator[RawBatch]:
    """Yield a pyarrow table or record batch as raw rows, in batches of bounded size.

    Args:
        wanted: ``a.b`` names the field ``b`` of the column ``a`` of structs.
        scalars: those of them whose values are wanted as :func:`arrow_scalars`, with their types.
    """
    columns = {}
    for name in wanted:
        kind, column = (scalars or {}).get(name), _picked(table, name)
        columns[name] = arrow_values(column) if kind is None else arrow_scalars(column, kind)
    start = size = 0
    for row in range(table.num_rows):
        size += sum(len(values[row]) for values in columns.values() if isinstance(values[row], str))
        if size >= BATCH_BYTES or row == table.num_rows - 1:
            rows = list(range(first_row + start, first_row + row + 1))
            yield RawBatch(rows, columns={name: values[start : row + 1] for name, values in columns.items()})
            start, size = row + 1, 0


def _picked(table: Any, name: str) -> Any:
    """Return a column, or a field of a column of structs."""
    import pyarrow.compute as pc

    if name in table.schema.names:
        return table.column(name)
    head, _, rest = name.partition(".")
    column = table.column(head)
    while rest:
        names = [field.name for field in column.type]
        head, _, after = (rest, "", "") if rest in names else rest.partition(".")
        column, rest = pc.struct_field(column, head), after
    return column


def _paths(fields: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and types of columns; in the place of one of structs, the paths to its fields."""
    import pyarrow as pa

    for field in fields:
        if pa.types.is_struct(field.type) and field.type.num_fields:
            yield from _paths(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


class ParquetReader:
    """Reads one Parquet file, plain or ``.gz`` (which is unpacked beside the system's temporary files).

    Attributes:
        scalars: columns whose values are wanted as :func:`arrow_scalars`.
        whole: columns, those of structs undivided, once :meth:`columns` was called.
        types: the Arrow type of each column and field, once :meth:`columns` was called.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.total: int | None = None
        self.notes: list[str] = []
        self.scalars: frozenset[str] = frozenset()
        self.types: dict[str, Any] = {}
        self._columns: list[str] = []
        self.whole: list[str] = []
        self._texts: set[str] = set()
        self._batch_rows = BATCH_ROWS

    def columns(self) -> list[str]:
        """Return the column names, and learn the number of rows; a file without rows is refused."""
        if self._columns:
            return self._columns
        with self._file() as file:
            self.whole = list(file.schema_arrow.names)
            found = list(_paths(file.schema_arrow))
            names = [name for name, _ in found]
            found += zip(self.whole, file.schema_arrow.types, strict=True)
            self.total = file.metadata.num_rows
            self.types = {name: kept_type(kind) for name, kind in found}
            self._texts = {name for name, kind in found if _is_binary(kind) or str(kind) in ("string", "large_string")}
            self._batch_rows = _batch_rows(file.metadata)
            _check_ratio(file.metadata, self.name)
        if not self.total:
            raise EmptyDataError("the file has no rows", where=self.name, remedy="give a file with rows")
        refuse_repeated(names, "the file", self.name)
        self._columns = names
        return names

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order."""
        self.columns()
        row = 1
        with self._file([name for name in wanted if name in self._texts]) as file:
            for table in file.iter_batches(batch_size=self._batch_rows, columns=list(wanted)):
                yield from arrow_batches(table, wanted, row, {name: self.types[name] for name in self.scalars})
                row += table.num_rows

    def refuse_lists(self, column: str) -> None:
        """Refuse a column whose values are lists or maps, before they are decoded."""
        import pyarrow as pa

        kind = self.types[column]
        if pa.types.is_nested(kind) and not pa.types.is_struct(kind):
            remedy = "name a column of text with --text-column"
            raise ColumnError(f"the column {column!r} holds {kind}, not text", where=self.name, remedy=remedy)

    @contextmanager
    def _file(self, texts: list[str] | None = None) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with readable(self.name), _unpacked(self.path, self.name) as path:
            if path.stat().st_size == 0:
                raise EmptyDataError("the file is empty", where=self.name, remedy="give a file with rows")
            try:
                with pq.ParquetFile(path, read_dictionary=texts) as file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                what = f"this is not a whole Parquet file: {_first_line(error)}"
                raise FormatError(what, where=self.name, remedy="write or fetch the file again") from error


def _batch_rows(metadata: Any) -> int:
    """Return how many rows to decode at once so that a batch of any row group stays near ``BATCH_BYTES``.

    Text that a file holds once for many rows is decoded once: see `arrow_values`.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    per_row = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=1)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, per_row))))


def _check_ratio(metadata: Any, name: str) -> None:
    """Refuse a column that is packed far more tightly than text can be: a page is unpacked as a whole."""
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            plain, packed = column.total_uncompressed_size, column.total_compressed_size
            if plain > _DECODED_BYTES and plain > _MOST_RATIO * max(1, packed):
                what = f"{packed:,} bytes of column {column.path_in_schema!r} unpack to {plain:,} bytes"
                remedy = "check where the file is from, or write it again with smaller row groups"
                raise FormatError(what, where=f"{name}, row group {i + 1:,}", remedy=remedy)


@contextmanager
def _unpacked(path: Path, name: str) -> Iterator[Path]:
    """Yield a path whose content is not compressed as a whole."""
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            packed_inside = stream.read(2) == b"\x1f\x8b"
        if not packed_inside:
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="gkiller-") as folder:
        plain = Path(folder) / "unpacked.parquet"
        with gzip.open(path, "rb") as packed:
            copy_bounded(cast(BinaryIO, packed), plain, name)
        yield plain


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
