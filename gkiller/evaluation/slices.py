"""Parts of the rows: by length, by what is true of a label, and by any column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.errors import ColumnError, did_you_mean
from gkiller.evaluation.scorefiles import join, read_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gkiller.data.labelled import Labelled
    from gkiller.evaluation.checks import FloatArray, IntArray

LENGTH = "length"
MISSING = "(missing)"
MOST = 20
"""A column of more different values is cut at its quartiles when they are numbers, else refused."""


@dataclass(frozen=True)
class Slice:
    """Some of the rows.

    Attributes:
        column: what they are parted by.
        value: what they have in common.
        rows: their positions in the data, from 0.
    """

    column: str
    value: str
    rows: IntArray


def length_slices(texts: Sequence[str]) -> list[Slice]:
    """Return four slices by the comments' length in characters: it does not depend on a side's tokenizer."""
    return _quartiles(LENGTH, np.array([len(text) for text in texts], dtype=np.float64))


def truth_slices(label: str, truth: Any) -> list[Slice]:
    """Return the positives and the negatives of a label, truth (n,); unknown rows are in neither."""
    values = np.asarray(truth, dtype=np.float64)
    slices = [Slice(label, name, np.flatnonzero(values == code)) for code, name in ((1, "1"), (0, "0"))]
    return [one for one in slices if len(one.rows)]


def column_slices(column: str, values: Sequence[Any]) -> list[Slice]:
    """Return a slice for each value of a column, or for each quarter of its numbers.

    Args:
        column: its name.
        values: (n,) of any kind; None, NaN and empty texts are missing.

    Raises:
        ColumnError: it has over MOST different values that are no numbers.
    """
    names = [_name(value) for value in values]
    different = dict.fromkeys(names)
    if len(different) > MOST:
        numbers = _numbers(values)
        if numbers is None:
            raise ColumnError(
                f"the column {column!r} has {len(different):,} different values",
                where="--slice",
                remedy=f"name one with at most {MOST}, or one of numbers",
            )
        missing = np.flatnonzero(np.isnan(numbers))
        return _quartiles(column, numbers) + ([Slice(column, MISSING, missing)] if len(missing) else [])
    table = np.array(names)
    return [Slice(column, value, np.flatnonzero(table == value)) for value in sorted(different)]


def named_slices(
    columns: Sequence[str],
    found: Labelled,
    file: str | None,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
) -> tuple[list[Slice], list[str]]:
    """Return the slices of columns that were asked for, and how the file was joined.

    Args:
        columns: labels of the data, or columns of ``file``: data in memory keep no other column.
        found: the rows.
        file: the file that the data are from, or another one with the same comments; None when there is none.
        text_column: its column of the comment; else one with a usual name.
        id_column: its column of the id; else one with a usual name.

    Raises:
        ColumnError: no such column, or too many different values.
        RowError: the file's comments are not those of the data.
    """
    slices: list[Slice] = []
    notes: list[str] = []
    for column in dict.fromkeys(columns):
        if column in found.dataset.labels:
            slices += truth_slices(column, found.rows.labels[:, found.dataset.labels.index(column)])
            continue
        if file is None:
            raise ColumnError(
                f"there is no label {column!r}, and prepared data keep no other columns",
                where="--slice",
                remedy="name a file of the same comments that has the column with --slice-data; "
                + did_you_mean(column, found.dataset.labels),
            )
        records, values = read_column(file, column, text_column=text_column, id_column=id_column)
        places, how = join(records, found.rows)
        slices += column_slices(column, [values[place] for place in places.tolist()])
        notes.append(how)
    return slices, list(dict.fromkeys(notes))


def _name(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return str(value)[:60]


def _numbers(values: Sequence[Any]) -> FloatArray | None:
    """Return values (n,) as numbers, NaN where missing, or None when one is neither."""
    try:
        return np.array([np.nan if _name(value) == MISSING else float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        return None


def _quartiles(column: str, values: FloatArray) -> list[Slice]:
    """Cut at the quartiles; a value that fills several quarters leaves fewer slices."""
    known = values[~np.isnan(values)]
    place = np.searchsorted(np.unique(np.quantile(known, (0.25, 0.5, 0.75))), values, side="left")
    slices = []
    for quarter in range(4):
        rows = np.flatnonzero((place == quarter) & ~np.isnan(values))
        if len(rows):
            low, high = values[rows].min(), values[rows].max()
            slices.append(Slice(column, f"{low:g} to {high:g}", rows))
    return slices
