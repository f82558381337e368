"""Label names and label values: the vocabulary, its aliases, and how a value becomes 0, 1 or unknown.

A value is read the same way wherever it comes from:

* ``0`` and ``1``, as a number or as text, and ``true``/``false``: themselves;
* a number between 0 and 1 (a score): 1 at or above the cutoff, else 0;
* the class names in ``CLASS_NAMES``, in any case: what the table says, and the use is reported;
* nothing, NaN, ``-1`` (how Jigsaw marks an unscored comment) or a spelling in ``UNKNOWN_NAMES``: unknown.

Anything else is an error: nothing is clipped or guessed.
"""

from __future__ import annotations

from typing import Any

CANONICAL_LABELS = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
"""The vocabulary that every room uses."""

ALIASES = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
"""Usual column names of canonical labels; renaming is always reported."""

RESERVED_NAMES = ("id", "text", "weight")
"""Columns of a prepared file that are not labels."""

CLASS_NAMES = {
    "true": 1,
    "yes": 1,
    "toxic": 1,
    "false": 0,
    "no": 0,
    "non-toxic": 0,
    "non_toxic": 0,
    "nontoxic": 0,
    "not toxic": 0,
    "not_toxic": 0,
}
"""Class names that stand for 0 and 1, in lower case."""

UNKNOWN_NAMES = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""Spellings of an unknown label, in lower case."""

UNKNOWN = -1
"""How an unknown label is coded in int8 arrays; Parquet files hold a null."""

_CACHE_LIMIT = 4096


def canonical_name(column: str) -> str:
    """Return the canonical label name of a column, or the column's own name when it has no alias."""
    return ALIASES.get(column.lower(), column)


class LabelReader:
    """Reads the values of one label and remembers what kinds it has seen.

    Args:
        cutoff: scores at or above it are positive.

    Attributes:
        scores: whether a value strictly between 0 and 1 was cut.
        class_names: the class names met, with what they stand for.

    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = cutoff
        self.scores = False
        self.class_names: dict[str, int] = {}
        self._known: dict[Any, int] = {}

    def read(self, value: Any) -> int:
        """Return 0, 1 or ``UNKNOWN``.

        Raises:
            ValueError: the value is none of those the module describes.

        """
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
        if word in UNKNOWN_NAMES:
            return UNKNOWN
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
        if number != number or number == -1.0:
            return UNKNOWN
        if not 0.0 <= number <= 1.0:
            raise ValueError(value)
        if 0.0 < number < 1.0:
            self.scores = True
        return int(number >= self.cutoff)

    @property
    def kind(self) -> str:
        """What the column holds: ``score``, ``class names`` or ``0/1``."""
        if self.scores:
            return "score"
        return "class names" if self.class_names else "0/1"
