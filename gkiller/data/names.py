"""The usual names of columns, tried in this order and in any case where none is named, and their faults."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from gkiller.errors import ColumnError

TEXT_NAMES = ("text", "comment_text", "comment", "content", "tweet", "body", "message", "sentence", "post")
LABEL_NAMES = ("label", "toxicity", "toxic", "target", "is_toxic", "class", "labels")
ID_NAMES = ("id", "comment_id")

_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")
_VALUES = frozenset({"true", "false", "yes", "no", "non-toxic", "non_toxic", "nontoxic", "not toxic"})
_LONGEST_NAME = 60
_MOST_WORDS = 4


def refuse_repeated(names: Sequence[str], what: str, where: str) -> None:
    """Check that no column's name stands twice; columns without a name may.

    Args:
        names: the columns.
        what: what names them, for the message.
        where: for the message.

    Raises:
        ColumnError: one does.

    """
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        named = ", ".join(map(repr, twice[:20])) + (", ..." if len(twice) > 20 else "")
        raise ColumnError(
            f"{what} names {named} more than once", where=where, remedy="give every column its own name"
        )


def need_header(names: Sequence[str], asked: Collection[str | None], where: str) -> None:
    """Check that the first line of a delimited file is a header, not a row.

    It is one where a name is usual or asked for. Else it is a row where one field, but not all, is a number
    or a class name, or has the length of a sentence.

    Args:
        names: the fields of the first line.
        asked: columns that the user names.
        where: for the message.

    Raises:
        ColumnError: it is a row.

    """
    if any(name.lower() in (*TEXT_NAMES, *LABEL_NAMES, *ID_NAMES) or name in asked for name in names):
        return
    values = [bool(_NUMBER.fullmatch(name)) or name.lower() in _VALUES for name in names]
    sentence = any(len(name) > _LONGEST_NAME or len(name.split()) >= _MOST_WORDS for name in names)
    if sentence or (any(values) and not all(values)):
        raise ColumnError(
            "there is no header: the first line looks like a row",
            where=where,
            remedy="put a line of column names above it, such as text,label",
        )
