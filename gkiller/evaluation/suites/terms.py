"""Which comments name which group of people: by terms in the text, or by a column of the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.augment.identity import identity_groups
from gkiller.errors import ColumnError, EmptyDataError, SettingsError, counted

if TYPE_CHECKING:
    from gkiller.evaluation.checks import IntArray

MOST: Final = 500
"""A column of more different values holds something else than identity terms."""

_GAP = re.compile(r"[\s-]+")
_REMEDY = "name the terms of these comments with --term, or a column that holds them with --term-column"


def named_groups(terms: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the terms asked for, each once and by itself; the default groups when there is none.

    Raises:
        SettingsError: a term without a letter or digit.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for term in terms:
        name = _key(term)
        if not re.search(r"\w", name):
            raise SettingsError(f"{term!r} is no term", where="--term", remedy="give a word, or several")
        groups[name] = (name,)
    return groups or identity_groups()


def find_terms(texts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, IntArray]:
    """Return the rows of the comments in which a group is named, by group; those of no row are left out.

    A term counts where it stands between word boundaries, in any case; white space and hyphens are alike. Of
    terms that begin at the same place the longest counts alone: "african american" is neither of its words.

    Args:
        texts: n comments.
        groups: the forms of each group's term.

    Raises:
        EmptyDataError: no comment names a group.
    """
    owners = {_key(form): name for name, forms in groups.items() for form in forms}
    longest = sorted(owners, key=lambda form: (-len(form), form))
    choices = "|".join(r"[\s-]+".join(map(re.escape, form.split(" "))) for form in longest)
    pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
    found: dict[str, list[int]] = {name: [] for name in groups}
    for row, text in enumerate(texts):
        hits = {owners.get(_key(match[0])) for match in pattern.finditer(text)}
        for name in hits - {None}:  # without regard to case "ı" is an "i" too, but no key
            found[str(name)].append(row)
    members = {name: np.array(rows, dtype=np.intp) for name, rows in found.items() if rows}
    if not members:
        number = counted(len(groups), "identity term")
        raise EmptyDataError(
            f"none of {number} stands in any of {counted(len(texts), 'comment')}",
            where="identity terms",
            remedy=_REMEDY,
        )
    return members


def column_terms(column: str, values: Sequence[Any]) -> dict[str, IntArray]:
    """Return the rows of each value of a column: the identity term that the comment is about.

    Args:
        column: its name.
        values: (n,) texts, or lists of them; None and empty ones name no group.

    Raises:
        EmptyDataError: no value names a group.
        ColumnError: a value is no text, or there are over MOST different ones.
    """
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        each = value if isinstance(value, list) else [value]
        for term in dict.fromkeys(each):
            if term is None or term == "":
                continue
            if not isinstance(term, str):
                raise ColumnError(
                    f"the value {term!r:.40} is no identity term",
                    where=f"row {row + 1}, column {column!r}",
                    remedy="name a column of texts with --term-column",
                )
            found.setdefault(term, []).append(row)
    if not found:
        raise EmptyDataError(
            f"no comment has an identity term in the column {column!r}",
            where="--term-column",
            remedy="name another column, or leave it out to look for terms in the comments",
        )
    if len(found) > MOST:
        raise ColumnError(
            f"the column {column!r} has {len(found):,} different values",
            where="--term-column",
            remedy=f"name one with at most {MOST}",
        )
    return {name: np.array(rows, dtype=np.intp) for name, rows in found.items()}


def _key(term: str) -> str:
    return _GAP.sub(" ", term.casefold()).strip()
