"""Label names and label values: the vocabulary, its aliases, and how a value becomes 0, 1 or unknown.

A value is read the same way wherever it comes from:

* ``0`` and ``1``, as a number or as text, and ``true``/``false``: themselves;
* a number between 0 and 1 (a score): 1 at or above the cutoff, else 0;
* the class names in ``CLASS_NAMES``, in any case: what the table says, and the use is reported;
* nothing, NaN, ``-1`` (how Jigsaw marks an unscored comment) or a spelling in ``UNKNOWN_NAMES``: unknown.

Anything else is an error: nothing is clipped or guessed.

Where the setting ``data.positive_values`` names classes, text is a class name instead: 1 when it is named
there, in any case, else 0. Unknown stays unknown, and numbers stay what they are, unless a number is among
the names: then numbers are class names too ("2" is also 2 and 2.0), and ``-1`` alone stays unknown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from gkiller.errors import ColumnError

FLAG_LABELS: Final = "flag_labels"


CANONICAL_LABELS = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
"""The vocabulary that every room uses."""

ALIASES = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
"""Usual column names of canonical labels; renaming is always reported."""

RESERVED_NAMES = ("id", "text", "weight")
"""Columns of a prepared file that are not labels."""

_NEGATIVE = ("false", "no", "non-toxic", "non_toxic", "nontoxic", "not toxic", "not_toxic")
CLASS_NAMES = dict.fromkeys(("true", "yes", "toxic"), 1) | dict.fromkeys(_NEGATIVE, 0)
"""Class names that stand for 0 and 1, in lower case."""

UNKNOWN_NAMES = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""Spellings of an unknown label, in lower case."""

UNKNOWN = -1
"""How an unknown label is coded in int8 arrays; Parquet files hold a null."""

MOST_CLASSES = 100
"""Class names of a label after which another negative one is refused: the column does not hold classes."""

MAX_LABELS = 1000
"""Most labels of a model."""

MAX_LABEL = 200
"""Most characters of a label's name."""

_CACHE_LIMIT = 4096
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]{1,18},[0-9]{1,18}")


def canonical_name(column: str) -> str:
    """Return the canonical label name of a column, or the column's own name when it has no alias."""
    return ALIASES.get(column.lower(), column)


def vocabulary_name(column: str) -> str:
    """Return the label of the vocabulary that a column is named after, in any case, or an empty string."""
    name = ALIASES.get(column.lower(), column.lower())
    return name if name in CANONICAL_LABELS else ""


def label_problem(label: object) -> str:
    """Return why a model cannot have a label of that name, or an empty string."""
    if not isinstance(label, str) or not label:
        return "it is empty or no text"
    if len(label) > MAX_LABEL:
        return f"it has over {MAX_LABEL} characters"
    return "" if label.isprintable() else "it holds characters that cannot be printed"


def as_number(value: Any) -> float:
    """Return a value as a number, or NaN where it is none: "1_0", which Python reads as ten, is none."""
    try:
        return math.nan if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def has_decimal_comma(value: Any) -> bool:
    """Whether a value is a number that is written with a comma, as many spreadsheets do."""
    return isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) is not None


class LabelReader:
    """Reads the values of one label and remembers what kinds it has seen.

    Args:
        positive: names of the positive classes; all others are negative. Empty for the usual names.
    """

    def __init__(self, cutoff: float, positive: Iterable[str] = ()) -> None:
        self.cutoff = cutoff
        self._positive = {_class_key(name) for name in positive}
        self.numbered = any(isinstance(key, float) for key in self._positive)  # a number names a positive class
        self.scores = False  # whether a value strictly between 0 and 1 was cut
        self.class_names: dict[str, int] = {}
        self._known: dict[Any, int] = {}

    def read(self, value: Any) -> int:
        """Return 0, 1 or ``UNKNOWN``; a ValueError says that it is no label, or one class name too many."""
        if value is None:
            return UNKNOWN
        try:
            return self._known[value]
        except (KeyError, TypeError):
            pass
        code = self._read_text(value) if isinstance(value, str) else self._read_number(value)
        if len(self._known) < _CACHE_LIMIT:
            self._known[value] = code
        return code

    def _read_text(self, value: str) -> int:
        word = value.strip().lower()
        if word in UNKNOWN_NAMES and word not in self._positive:
            return UNKNOWN
        if self._positive and not _NUMBER.fullmatch(word):
            return self._read_class(word)
        if word in CLASS_NAMES:
            self.class_names[word] = CLASS_NAMES[word]
            return CLASS_NAMES[word]
        if "_" in word:  # float() would read "1_0" as ten
            raise ValueError(value)
        return self._read_number(word)

    def _read_number(self, value: Any) -> int:
        try:
            number = float(value)
        except (TypeError, OverflowError) as error:
            raise ValueError(value) from error
        if number != number or (number == -1.0 and number not in self._positive):
            return UNKNOWN
        if self.numbered and abs(number) < 1e15:
            return self._read_class(str(int(number)) if number.is_integer() else str(number))
        if not 0.0 <= number <= 1.0:
            raise ValueError(value)
        if 0.0 < number < 1.0:
            self.scores = True
        return int(number >= self.cutoff)

    def _read_class(self, word: str) -> int:
        """Return 1 for a positive class and 0 for another one, and remember its name."""
        code = int(_class_key(word) in self._positive)
        if not code and word not in self.class_names and len(self.class_names) >= MOST_CLASSES:
            raise ValueError(word)
        self.class_names[word] = code
        return code

    def met(self, name: str) -> bool:
        """Tell whether a class of that name was read."""
        return _class_key(name) in {_class_key(word) for word in self.class_names}

    @property
    def kind(self) -> str:
        """What the column holds: ``score``, ``class names`` or ``0/1``."""
        if self.scores:
            return "score"
        return "class names" if self.class_names else "0/1"


def _class_key(name: str) -> str | float:
    """Return what the spellings of a class name share: its lower case, or the number that it is."""
    word = name.strip().lower()
    return float(word) if _NUMBER.fullmatch(word) else word


TEXT_NAMES = ("text", "comment_text", "comment", "content", "tweet", "body", "message", "sentence", "post")
LABEL_NAMES = ("label", "toxicity", "toxic", "target", "is_toxic", "class", "labels")
ID_NAMES = ("id", "comment_id")
_DECIMAL = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")
_VALUES = frozenset({"true", "false", "yes", "no", "non-toxic", "non_toxic", "nontoxic", "not toxic"})
_LONGEST_NAME = 60
_MOST_WORDS = 4


def usual_columns(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Return the columns, in any case, that have the first usual name there is."""
    hits = ([name for name in names if name.lower() == word.lower()] for word in usual)
    return next(filter(None, hits), [])


def refuse_repeated(names: Sequence[str], what: str, where: str) -> None:
    """Check that no column's name stands twice; columns without a name may."""
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        named = ", ".join(map(repr, twice[:20])) + (", ..." if len(twice) > 20 else "")
        raise ColumnError(f"{what} names {named} more than once", where=where, remedy="give every column its own name")


def need_header(names: Sequence[str], asked: Collection[str | None], where: str) -> None:
    """Check that the first line of a delimited file is a header, not a row.

    It is one where a name is usual or asked for. Else it is a row where one field, but not all, is a number
    or a class name, or has the length of a sentence.
    """
    if any(name.lower() in (*TEXT_NAMES, *LABEL_NAMES, *ID_NAMES) or name in asked for name in names):
        return
    values = [bool(_DECIMAL.fullmatch(name)) or name.lower() in _VALUES for name in names]
    sentence = any(len(name) > _LONGEST_NAME or len(name.split()) >= _MOST_WORDS for name in names)
    if sentence or (any(values) and not all(values)):
        remedy = "put a line of column names above it, such as text,label"
        raise ColumnError("there is no header: the first line looks like a row", where=where, remedy=remedy)
