"""JSON values one after the other: an array's elements, or objects that span lines, in bounded memory."""

from __future__ import annotations

import codecs
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gkiller.data.replay import replayable
from gkiller.data.rows import MAX_LINE_CHARACTERS, place
from gkiller.data.textfile import byte_pieces
from gkiller.errors import DataError, FormatError

_SPACE = " \t\r\n"
_CUT = 16
"""Characters before the end of what was read in which an error may be due to the rest missing."""


class JsonValue(NamedTuple):
    """A value: its number from 1, the line it starts on, its source text, and a key that stands twice."""

    row: int
    line: int
    value: Any
    source: str
    repeated: str | None


class JsonValues:
    """The elements of one JSON array, or JSON values with white space between them.

    Args:
        path: the file.
        name: how messages name it.
        array: whether it is one array.
    """

    def __init__(self, path: Path, name: str, *, array: bool) -> None:
        self._path = path
        self._name = name
        self._array = array
        self._pieces = byte_pieces(path, name)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._buffer = ""
        self._tried = 0
        self._line = 1
        self._row = 0
        self._state = "[" if array else "value"
        self._ended = False
        self._found: deque[JsonValue] = deque()
        self._error: DataError | None = None
        self._repeated: str | None = None
        self._parse = json.JSONDecoder(object_pairs_hook=self._object).raw_decode

    def __iter__(self) -> Iterator[JsonValue]:
        """Yield the values.

        Raises:
            DataError: the file cannot be read, or is broken from some value on.
        """
        while True:
            while self._found:
                yield self._found.popleft()
            if self._error is not None:
                raise self._error
            if self._state == "end":
                return
            self._advance()

    def waiting(self) -> bool:
        """Whether the next value has not come yet, and reading it would block; never so for a file."""
        if replayable(self._path) is None:
            return False
        while not self._found and self._error is None and self._state != "end":
            if not self._ended and self._idle():
                return True
            self._advance()
        return False

    def _advance(self) -> None:
        """Find the values in what was read, and read on."""
        try:
            position = 0
            while (following := self._step(position)) is not None:
                position = following
            self._line += self._buffer.count("\n", 0, position)
            self._buffer = self._buffer[position:]
            if self._state != "end" and not self._found:
                self._read()
        except DataError as error:
            self._error = error

    def _read(self) -> None:
        if self._ended:
            raise self._broken(
                "the file ends within the array" if self._array else "the file ends within a value"
            )
        if len(self._buffer) >= MAX_LINE_CHARACTERS:
            raise self._broken(f"a value has over {MAX_LINE_CHARACTERS:,} characters")
        piece = next(self._pieces, b"")
        self._ended = not piece
        self._buffer += self._decode(piece, self._ended)

    def _step(self, position: int) -> int | None:
        """Take a value or a mark from the buffer; return where it ends, or None when more has to be read."""
        text = self._buffer
        while position < len(text) and text[position] in _SPACE:
            position += 1
        if position == len(text):
            if (
                self._ended
                and self._state in ("value", "closed")
                and not (self._array and self._state == "value")
            ):
                self._state = "end"
            return None
        mark = text[position]
        if self._state == "closed":
            raise self._broken("text follows the end of the array", position)
        if self._state == "[":
            self._state = "first"
            return position + 1
        if mark == "]" and self._array and self._state in ("first", "comma"):
            self._state = "closed"
            return position + 1
        if self._state == "comma":
            if mark != ",":
                raise self._broken(f"{mark!r} stands where a comma should", position)
            self._state = "value"
            return position + 1
        if mark in ",]}":
            raise self._broken(f"{mark!r} stands where a value should", position)
        return self._value(position)

    def _value(self, position: int) -> int | None:
        text = self._buffer
        if self._tried and not self._ended and len(text) - position < 2 * self._tried and not self._idle():
            return None  # trying again for every piece would make a long value's time quadratic
        self._repeated = None
        try:
            value, end = self._parse(text, position)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text) - _CUT or error.msg.startswith("Unterminated string")
            if not cut or self._ended:
                raise self._broken(f"not valid JSON: {error.msg}", error.pos) from error
            self._tried = len(text) - position
            return None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
            raise self._broken("not usable JSON", position) from error
        self._tried = 0
        self._row += 1
        line = self._line + text.count("\n", 0, position)
        self._found.append(JsonValue(self._row, line, value, text[position:end], self._repeated))
        self._state = "comma" if self._array else "value"
        return end

    def _idle(self) -> bool:
        pipe = replayable(self._path)
        return pipe is not None and pipe.blocked()

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs) and self._repeated is None:
            seen: set[str] = set()
            self._repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return value

    def _broken(self, what: str, position: int = 0) -> DataError:
        line = self._line + self._buffer.count("\n", 0, position)
        remedy = "mend the file there; rows after it cannot be told apart, so they cannot be skipped"
        return FormatError(what, where=place(self._name, self._row + 1, line), remedy=remedy)
