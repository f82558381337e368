"""The one rule for the value of a comment, whoever reads it: text, missing, too long or badly encoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gkiller.data.readers import MAX_FIELD_CHARACTERS, BadRowError
from gkiller.data.readers.text import encoding_error
from gkiller.errors import RowError

SKIP = "or skip such rows with --on-error skip"


def is_missing(value: Any) -> bool:
    """Whether a value is null, or the NaN that tables of numbers have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def comment_fault(
    value: Any, where: Callable[[], str], *, empty: bool = False, escaped: bool = False
) -> BadRowError | None:
    """Return what is wrong with a comment, or None.

    Text is what is written: "nan", "NA" and "null" are comments.

    Args:
        empty: whether a comment may be empty or white space. One to score may; one to learn from may not.
        escaped: whether a NUL or half a surrogate pair can be meant, as JSON can escape both.
    """
    if is_missing(value):
        what = "the comment is missing" if empty else "the comment is empty or missing"
        return _bad("missing_text", what, where)
    if not isinstance(value, str):
        return _bad("not_text", f"the comment is of type {type(value).__name__}, not text", where)
    if not empty and not value.strip():
        return _bad("missing_text", "the comment is empty or missing", where)
    if len(value) > MAX_FIELD_CHARACTERS:
        return _bad("oversized", f"the comment has over {MAX_FIELD_CHARACTERS:,} characters", where)
    if escaped or (value.isascii() and "\0" not in value):
        return None
    error = encoding_error(value, where())
    return None if error is None else BadRowError("encoding", error)


def _bad(kind: str, what: str, where: Callable[[], str]) -> BadRowError:
    mend = "shorten it" if kind == "oversized" else "mend the row"
    return BadRowError(kind, RowError(what, where=where(), remedy=f"{mend}, {SKIP}"))
