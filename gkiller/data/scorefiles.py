"""Files of scores, as ``gkiller predict`` writes them, and other tables of the same comments.

Rows are joined by id where every row of the file has one, else by their order; also by order where no id is
one of the data and the texts can show that it is right. Texts in the file must be those of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gkiller.data.columns import missing_column
from gkiller.data.labels import FLAG_LABELS, ID_NAMES, TEXT_NAMES, as_number, has_decimal_comma, usual_columns
from gkiller.data.readers import place
from gkiller.data.readers.pipes import is_pipe
from gkiller.data.rows import fold_text
from gkiller.data.sources import is_table, resolve_sources
from gkiller.errors import ColumnError, LabelMismatchError, RowError, ScoreRangeError, SourceNotFoundError
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gkiller.data.dataset import FloatArray, IntArray, Split
    from gkiller.data.hub import Part
    from gkiller.data.readers import RawBatch


ROUNDING = 1e-6  # scores are written with six digits
_MEND = "mend the row, or score the comments again"
_SAME_ROWS = "score the rows that are compared, all of them and in their order, or with their ids"


@dataclass
class Records:
    """What tells m rows apart; each list is empty unless every row has its value."""

    name: str
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # row numbers of the input that was scored
    count: int = 0


@dataclass(frozen=True)
class ScoreFile:
    """The scores of a file."""

    records: Records
    labels: tuple[str, ...]
    scores: FloatArray  # shape (m, L)
    flags: NDArray[np.bool_] | None  # shape (m, L), or None where the file has no flags
    decided: tuple[str, ...] = ()  # the labels that decided whether a row was flagged
    # how comments were read, "window" or "truncate"; None where the file does not say
    long_text: str | None = None

    def threshold(self, column: int) -> float:
        """Return where the flags part the scores of the label in a column; see `flag_threshold`."""
        assert self.flags is not None, self.records.name
        where = f"{self.records.name}, label {self.labels[column]!r}"
        return flag_threshold(self.scores[:, column], self.flags[:, column], where)


def is_score_file(name: str) -> bool:
    """Whether a name is that of a file of scores, there or not, rather than of a model."""
    path = Path(name).expanduser()
    return path.is_file() or is_pipe(name) or (is_table(path) and not path.is_dir())


def read_scores(name: str, labels: Sequence[str]) -> ScoreFile:
    """Read a file of scores: JSON Lines, CSV, TSV or Parquet, also ``.gz``.

    A label's score is in the column of its name, or ``score_NAME`` or ``scores.NAME``; in JSON Lines
    also in the object ``scores``.

    Raises:
        DataError: it cannot be read, has none of the labels, or a row is broken or without a score in 0..1.
    """
    part = _part(name, "score file")
    columns = part.reader.columns()
    nested = part.info.get("format") == "JSON Lines" and any(c.split(".")[0] == "scores" for c in columns)
    spelt = ((label, column) for label in labels for column in (label, f"scores.{label}", f"score_{label}"))
    named = {label: column for label, column in spelt if column in columns}  # the last one there counts
    has_flags = "flags" in columns
    deciding = has_flags and FLAG_LABELS in columns
    stated = [name for name in ("flags", "long_text", *[FLAG_LABELS] * deciding) if name in columns]
    extra = [*stated, *(["scores"] if nested else list(named.values()))]
    records = Records(name)
    table: list[list[float]] = []
    flags: list[list[bool]] = []
    decided: set[frozenset[str]] = set()
    ways: set[str] = set()
    chosen: tuple[str, ...] = () if nested else tuple(named)
    for batch in _batches(part, records, columns, extra, ID_NAMES, TEXT_NAMES[:1]):
        ways.update(map(str, batch.columns.get("long_text", ())))
        for row in (_Row(name, batch, i) for i in range(len(batch))):
            if nested:
                values = row.value("scores")
                if not isinstance(values, dict):
                    raise row.broken("scores", "there are no scores")
                chosen = chosen or tuple(label for label in labels if label in values)
            else:
                values = {label: row.value(column) for label, column in named.items()}
            table.append([row.score(label, values.get(label)) for label in chosen])
            if has_flags:
                raised = row.names("flags")
                flags.append([label in raised for label in chosen])
            if deciding:
                decided.add(row.names(FLAG_LABELS))
    if not chosen:
        remedy = f"it holds: {', '.join(columns[:20])}; name the data's labels with --label-columns"
        raise LabelMismatchError(f"the score file has no score of {', '.join(labels)}", where=name, remedy=remedy)
    return ScoreFile(
        records,
        chosen,
        scores=np.array(table, dtype=np.float64),
        flags=np.array(flags, dtype=bool) if has_flags else None,
        # A label that does not decide in some rows has no flags there.
        decided=tuple(label for label in chosen if has_flags and all(label in some for some in decided)),
        long_text=ways.pop() if ways in ({"window"}, {"truncate"}) else None,
    )


class _Row(NamedTuple):
    """Row ``i`` of a batch."""

    name: str
    batch: RawBatch
    i: int

    def value(self, column: str) -> Any:
        return self.batch.columns[column][self.i]

    def score(self, label: str, value: Any) -> float:
        score = math.nan if isinstance(value, bool) else as_number(value)
        if not 0 <= score <= 1:
            fault = "is written with a decimal comma" if has_decimal_comma(value) else "is not in 0..1"
            what = "the score is missing" if value in (None, "") else f"the score {value!r:.40} {fault}"
            raise ScoreRangeError(what, where=self._where(label), remedy=_MEND)
        return score

    def names(self, column: str) -> frozenset[str]:
        """Return a list of labels; in a table they are joined with ``|``."""
        value = self.value(column)
        if value is None or value == "":
            return frozenset()
        if isinstance(value, str):
            return frozenset(value.split("|"))
        if isinstance(value, list) and all(isinstance(label, str) for label in value):
            return frozenset(value)
        raise self.broken(column, f"the {column} are no list of labels")

    def broken(self, column: str, what: str) -> RowError:
        return RowError(what, where=self._where(column), remedy="give a file as gkiller predict writes it")

    def _where(self, column: str) -> str:
        line = self.batch.lines[self.i] if self.batch.lines else None
        return place(self.name, self.batch.rows[self.i], line, column)


def flag_threshold(scores: FloatArray, flags: NDArray[np.bool_], where: str) -> float:
    """Return a threshold that separates m scores of one label as its m flags do, up to rounding."""
    low = float(scores[~flags].max()) if (~flags).any() else 0.0
    high = float(scores[flags].min()) if flags.any() else 1.0
    if low > high + ROUNDING or (low == 1.0 and not flags.any()):
        what = f"no threshold explains the flags: {low:g} is not flagged, {high:g} would be"
        raise ScoreRangeError(what, where=where, remedy="name the threshold with --threshold-a or --threshold-b")
    middle = low + (high - low) / 2
    return middle if low < middle else high


def read_column(
    name: str, column: str, *, text_column: str | None = None, id_column: str | None = None, flag: str = "--slice"
) -> tuple[Records, list[Any]]:
    """Read one column of a file of comments, and what tells its rows apart: comment and id of usual names, or as named.

    A row without an id gets the one that ``gkiller data prepare`` gives it: name of the file, row number.

    Raises:
        DataError: it cannot be read, lacks a column, or a row is broken.
    """
    part = _part(name, "file")
    columns = part.reader.columns()
    if column not in columns:
        raise missing_column(column, flag, name, columns)
    ids = [id_column, *ID_NAMES] if id_column is not None else ID_NAMES
    texts = [text_column, *TEXT_NAMES] if text_column is not None else TEXT_NAMES
    records = Records(name)
    values: list[Any] = []
    for batch in _batches(part, records, columns, [column], ids, texts, part.stem):
        values += batch.columns[column]
    if not records.texts:
        what = "no column holds the comment, so the rows cannot be checked against the data"
        raise ColumnError(what, where=name, remedy="name it with --text-column")
    return records, values


def join(records: Records, split: Split) -> tuple[IntArray, str]:
    """Find each of n rows of the data in a file; return its position there, and how it was found in words."""
    same = records.ids == split.ids
    usable = not records.texts or not set(records.ids).isdisjoint(split.ids)
    if records.ids and not same and usable:
        places = _by_id(records, split)
        unused = records.count - len(set(places.tolist()))
        how = f"{records.name}: joined by id" + (f"; {counted(unused, 'row')} not used" if unused else "")
    else:
        _check_order(records, len(split))
        places = np.arange(len(split), dtype=np.intp)
        how = f"{records.name}: joined by {'id' if same else 'order'}"
    if records.texts:
        _check_texts(records, split, places)
    elif not records.ids:
        how += ", and nothing but the number of rows shows that it belongs to these comments"
    return places, how


def _part(name: str, what: str) -> Part:
    path = Path(name).expanduser()
    if not path.is_file() and not is_pipe(name):
        raise SourceNotFoundError(f"there is no such {what}", where=name, remedy="check the path")
    return resolve_sources([name]).parts[0]


def _batches(
    part: Part,
    records: Records,
    columns: Sequence[str],
    extra: Sequence[str],
    id_names: Sequence[str],
    text_names: Sequence[str],
    stem: str | None = None,
) -> Iterator[RawBatch]:
    """Yield batches with the ``extra`` columns and those that tell rows apart, and fill the records.

    Of ``id_names`` and of ``text_names`` the first one there counts, in any case. A row without an id gets
    one of ``stem`` and its number, or none where ``stem`` is None.
    """
    identifier, text = (next(iter(usual_columns(columns, names)), None) for names in (id_names, text_names))
    number = "row" if stem is None and "row" in columns else None
    wanted = [name for name in (identifier, text, number, *extra) if name is not None]
    whole = {"ids": True, "texts": text is not None, "numbers": number is not None}
    for batch in part.reader.batches(list(dict.fromkeys(wanted))):
        if batch.bad:
            error = next(iter(batch.bad.values())).error
            raise type(error)(error.what, where=error.where, remedy=_MEND)  # rows cannot be skipped here
        ids = batch.columns[identifier] if identifier is not None else [None] * len(batch)
        for row, value in zip(batch.rows, ids, strict=True):
            if value is None or value == "":
                whole["ids"] &= stem is not None
                value = f"{stem}:{row}"
            records.ids.append(str(value))
        if text is not None:
            records.texts += [value if isinstance(value, str) else "" for value in batch.columns[text]]
        if number is not None:
            parsed = [_whole(value) for value in batch.columns[number]]
            whole["numbers"] &= None not in parsed
            records.numbers += [value or 0 for value in parsed]
        records.count += len(batch)
        yield batch
    for name, complete in whole.items():
        if not complete:
            getattr(records, name).clear()


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _by_id(records: Records, split: Split) -> IntArray:
    first: dict[str, int] = {}
    again: dict[str, int] = {}
    for position, identifier in enumerate(records.ids):
        if first.setdefault(identifier, position) != position:
            again.setdefault(identifier, position)
    places = np.array([first.get(identifier, -1) for identifier in split.ids], dtype=np.intp)
    if (places < 0).any():
        row = int(np.argmax(places < 0))
        what = f"{counted(int((places < 0).sum()), 'row')} of {len(split):,} of the data are not in it; "
        what += f"the first is row {row + 1:,}, id {split.ids[row]!r:.60}"
        remedy = f"{_SAME_ROWS}; of predict, without --only-flagged and --on-error skip"
        raise RowError(what, where=records.name, remedy=remedy)
    for identifier in split.ids if again else ():
        if identifier in again:
            what = f"the id {identifier!r:.60} is in the rows {first[identifier] + 1:,} and {again[identifier] + 1:,}"
            remedy = "give every row its own id, or a file without ids in the order of the data"
            raise RowError(what, where=records.name, remedy=remedy)
    return places


def _check_order(records: Records, n: int) -> None:
    if records.count != n:
        what = f"it has {counted(records.count, 'row')} and the data {n:,}, and it has no ids to join them by"
        raise RowError(what, where=records.name, remedy=_SAME_ROWS)
    gap = next((i for i, number in enumerate(records.numbers) if number != i + 1), None)
    if gap is not None:
        what = f"the row numbers are not 1, 2, 3 and so on: row {gap + 1:,} says {records.numbers[gap]:,}"
        where = place(records.name, gap + 1, column="row")
        raise RowError(what, where=where, remedy="rows were left out or sorted: " + _SAME_ROWS)


def _check_texts(records: Records, split: Split, places: IntArray) -> None:
    for row, position in enumerate(places.tolist()):
        there, here = records.texts[position], split.texts[row]
        if there != here and fold_text(there) != fold_text(here):
            what = f"the comment is not that of row {row + 1:,} of the data: {there[:40]!r}, not {here[:40]!r}"
            raise RowError(what, where=place(records.name, position + 1), remedy=_SAME_ROWS)
