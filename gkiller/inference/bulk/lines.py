"""Text files with a comment a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gkiller.data.rows import BATCH_BYTES, BATCH_ROWS, MAX_FIELD_CHARACTERS, BadRowError, RawBatch, place
from gkiller.data.textfile import text_lines
from gkiller.errors import RowError


class LinesReader:
    """Reads a text file with a comment a line; a blank line is an empty comment.

    Args:
        path: the file, plain or ``.gz``.
        name: how messages name it.
    """

    total: int | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.notes: list[str] = []

    def columns(self) -> list[str]:
        """Return the one column."""
        return ["text"]

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield all lines, in order.

        Raises:
            DataError: the file cannot be read.
        """
        batch, size = RawBatch(columns={"text": []}), 0
        for number, line in enumerate(text_lines(self.path, self.name, "\n"), start=1):
            text = line.removesuffix("\n").removesuffix("\r")
            if len(text) > MAX_FIELD_CHARACTERS:
                error = RowError(
                    f"the line has over {MAX_FIELD_CHARACTERS:,} characters",
                    where=place(self.name, number),
                    remedy="shorten it, or skip such rows with --on-error skip",
                )
                batch.bad[len(batch)] = BadRowError("oversized", error)
                text = ""
            batch.columns["text"].append(text)
            batch.rows.append(number)
            size += len(text)
            if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield batch
                batch, size = RawBatch(columns={"text": []}), 0
        if len(batch):
            yield batch
