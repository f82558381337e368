"""What readers hand on: batches of raw rows, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gkiller.errors import DataError

BATCH_ROWS = 4096
"""Most rows in a batch."""

BATCH_BYTES = 8 << 20
"""A batch ends once its text has about this many characters."""

MAX_FIELD_CHARACTERS = 1_000_000
"""A longer field makes its row a bad one."""

MAX_LINE_CHARACTERS = 1 << 26
"""A longer line means that the file is not what its name says."""


class BadRowError(Exception):
    """A row that cannot be used: refused, or counted under a short name such as ``ragged``."""

    def __init__(self, kind: str, error: DataError) -> None:
        self.kind = kind
        self.error = error
        super().__init__(kind)


@dataclass
class RawBatch:
    """Rows as read, column by column."""

    rows: list[int] = field(default_factory=list)
    # the physical line each row starts on, or empty where lines mean nothing
    lines: list[int] = field(default_factory=list)
    # for each wanted column its values; None where the row has none
    columns: dict[str, list[Any]] = field(default_factory=dict)
    bad: dict[int, BadRowError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


class RawRow(NamedTuple):
    """One row as read."""

    number: int
    line: int | None  # the physical line it starts on; None where that is the number
    values: Sequence[Any]
    size: int
    fault: BadRowError | None = None


def in_batches(
    wanted: Sequence[str], rows: Iterable[RawRow], waiting: Callable[[], bool] | None = None
) -> Iterator[RawBatch]:
    """Put rows together to batches of bounded size.

    Args:
        waiting: whether the next row has not come yet; the rows so far are handed on then.
    """
    batch, size = RawBatch(columns={name: [] for name in wanted}), 0
    for row in rows:
        if row.fault is not None:
            batch.bad[len(batch)] = row.fault
        for name, value in zip(wanted, row.values, strict=True):
            batch.columns[name].append(value)
        batch.rows.append(row.number)
        if row.line is not None:
            batch.lines.append(row.line)
        size += row.size
        full = len(batch) >= BATCH_ROWS or size >= BATCH_BYTES
        if full or (waiting is not None and waiting()):
            yield batch
            batch, size = RawBatch(columns={name: [] for name in wanted}), 0
    if len(batch):
        yield batch


class Reader(Protocol):
    """Rows of one split of one source, read in one pass and in bounded memory."""

    name: str
    """For messages: the path or data set as the user wrote it."""
    total: int | None
    """Number of rows, where it is known before reading."""
    notes: list[str]
    """What the reader decided and the user should know."""

    def columns(self) -> list[str]:
        """Return the column names."""

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order."""


def place(name: str, row: int, line: int | None = None, column: str | None = None) -> str:
    """Return a place as messages name it: file, row, line and column."""
    parts = [name, f"row {row:,}" + (f" (line {line:,})" if line is not None else "")]
    if column is not None:
        parts.append(f"column {column!r}")
    return ", ".join(parts)
