"""Text files with a comment a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.textfile import TextReader, check_text
from gkiller.errors import RowError


class LinesReader(TextReader):
    """Reads a text file with a comment a line; a blank line is an empty comment."""

    def columns(self) -> list[str]:
        """Return the one column.

        Raises:
            DataError: the file cannot be read, or is plainly no text.
        """
        check_text(self.path, self.name, empty=True)
        return ["text"]

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield all lines, in order.

        Raises:
            DataError: the file cannot be read.
        """
        yield from in_batches(wanted, self._parsed(), self.watched())

    def _parsed(self) -> Iterator[RawRow]:
        for number, line in enumerate(self.lines("\n"), start=1):
            text = line.removesuffix("\n").removesuffix("\r")
            if len(text) <= MAX_FIELD_CHARACTERS:
                yield RawRow(number, None, [text], len(text))
                continue
            error = RowError(
                f"the line has over {MAX_FIELD_CHARACTERS:,} characters",
                where=place(self.name, number),
                remedy="shorten it, or skip such rows with --on-error skip",
            )
            yield RawRow(number, None, [None], 0, BadRowError("oversized", error))
