"""JSON values out of text that comes in blocks: Python's json wants a whole document at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gkiller.data.rows import MAX_LINE_CHARACTERS

_WHITE = " \t\r\n"
_SPACE = re.compile(f"[{_WHITE}]*")
_OBJECT = re.compile(r'\{\s*"')
_TAIL = 200  # characters: longer than a line that holds a bracket alone
_CUT = 12  # a block can end inside of "\ud83d\ude00" or "false": an error so near the end may be no error


class BrokenJsonError(ValueError):
    """Text that is no JSON.

    Args:
        what: what is wrong.
        line: the line on which the value starts, from 1.
    """

    def __init__(self, what: str, line: int = 1) -> None:
        self.line = line
        super().__init__(what)


class RepeatedKeyError(ValueError):
    """An object has a key twice: which value counts would be a guess."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(key)


class JsonValue(NamedTuple):
    """A value, the line it starts on, its text, and a key that one of its objects has twice."""

    value: Any
    line: int
    text: str
    repeated: str | None


def unique_keys(text: str) -> Any:
    """Return a JSON value.

    Raises:
        RepeatedKeyError: an object has a key twice.
        BrokenJsonError: the text is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RepeatedKeyError:
        raise
    except json.JSONDecodeError as error:
        raise BrokenJsonError(f"not valid JSON: {error.msg} at character {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
        raise BrokenJsonError("not usable JSON") from error


def spans_lines(line: str) -> bool:
    """Whether the first line of a file that is not blank begins an array, or an object over several lines."""
    start = line.strip()
    if start.startswith("{"):
        return start == "{" or (
            _OBJECT.match(start) is not None and start[-1] in ",[{" and not is_object(start)
        )
    if not start.startswith("["):
        return False
    inner = start[1:].lstrip()
    if not inner or inner[0] == "{":
        return True
    # "[deleted]" is a comment. Values of an array are objects or strings, and commas are between them.
    try:
        value, end = json.JSONDecoder().raw_decode(inner)
    except (ValueError, RecursionError):
        return False
    rest = inner[end:].lstrip()
    return isinstance(value, str | list) and (rest in ("", "]") or rest[0] == ",")


def is_object(text: str) -> bool:
    """Whether a text is a whole JSON object."""
    try:
        return text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def json_values(blocks: Iterator[str | None]) -> Iterator[JsonValue | None]:
    """Yield the values of a JSON array, or values one after the other; a None in the blocks is handed on.

    Args:
        blocks: the text, cut anywhere.

    Raises:
        BrokenJsonError: the text is no JSON; nothing after that place can be read.
    """
    return _Values(blocks).found()


class _Values:
    def __init__(self, blocks: Iterator[str | None]) -> None:
        self.blocks = blocks
        self.text = ""
        self.place = 0
        self.line = 1
        self.decoder = json.JSONDecoder(object_pairs_hook=self._pairs)
        self.repeated: str | None = None

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return _unique(pairs)
        except RepeatedKeyError as error:
            self.repeated = error.key
            return dict(pairs)

    def found(self) -> Iterator[JsonValue | None]:
        array = False
        ready = True  # for a value: in an array not before a comma
        first = True
        while True:
            yield from self._next_text()
            mark = self.text[self.place : self.place + 1]
            if not mark:
                if array:
                    raise BrokenJsonError("the array has no end", self.line)
                return
            if first and mark == "[":
                array = True
            elif array and mark == "]":
                array = False
                ready = False  # nothing comes after the array
            elif array and mark == "," and not ready:
                ready = True
                self.place += 1
                continue
            elif ready:
                yield from self._value()
                ready = not array
                first = False
                continue
            else:
                raise BrokenJsonError(f"{mark!r} where none should be", self.line)
            first = False
            self.place += 1

    def _next_text(self) -> Iterator[None]:
        """Go on to what is not white space."""
        while True:
            space = _SPACE.match(self.text, self.place)
            self._pass(space.end() - self.place if space else 0)
            if self.place < len(self.text):
                return
            self.text, self.place = "", 0
            block = next(self.blocks, "")
            if block is None:
                yield None
            elif not block:
                return
            else:
                self.text = block

    def _pass(self, size: int) -> None:
        self.line += self.text.count("\n", self.place, self.place + size)
        self.place += size

    def _value(self) -> Iterator[JsonValue | None]:
        """Yield the value here, after as many blocks as it takes."""
        tried = 0
        while True:
            if len(self.text) - self.place >= 2 * tried or self._may_end():
                self.repeated = None
                try:
                    value, end = self.decoder.raw_decode(self.text, self.place)
                except (ValueError, RecursionError) as error:
                    tried = len(self.text) - self.place
                    self._check_cut(error)
                else:
                    found = JsonValue(value, self.line, self.text[self.place : end], self.repeated)
                    self._pass(end - self.place)
                    yield found
                    return
            block = next(self.blocks, "")
            if block is None:
                yield None
            elif not block:
                raise BrokenJsonError("the file ends inside of a value", self.line)
            else:
                self.text, self.place = self.text[self.place :] + block, 0
                if len(self.text) >= MAX_LINE_CHARACTERS:
                    raise BrokenJsonError(f"a value has over {MAX_LINE_CHARACTERS:,} characters", self.line)

    def _may_end(self) -> bool:
        """Whether the text ends as a value does that is printed over several lines."""
        line = self.text[-_TAIL:].rstrip(_WHITE + ",").rpartition("\n")[2]
        return line.strip() in ("}", "]")

    def _check_cut(self, error: Exception) -> None:
        """Raise what no more text can mend."""
        if not isinstance(error, json.JSONDecodeError):
            raise BrokenJsonError("not usable JSON", self.line) from error
        near = error.pos >= len(self.text) - _CUT
        if not near and not error.msg.startswith("Unterminated string"):
            raise BrokenJsonError(error.msg, self.line) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(key)
            seen.add(key)
    return value
