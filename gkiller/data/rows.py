"""Raw rows become canonical ones, or are refused or counted; and the one rule for a comment, whoever reads it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.data.columns import plan_columns
from gkiller.data.labels import MOST_CLASSES, UNKNOWN, LabelReader, as_number, has_decimal_comma
from gkiller.data.readers import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, place
from gkiller.data.readers.text import encoding_error
from gkiller.errors import EmptyDataError, LabelValueError, RowError

if TYPE_CHECKING:
    from gkiller.data.sources import Plan
    from gkiller.settings import DataSettings
    from gkiller.wording import Progress

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
    return None if escaped else _unclean(value, where)


def _unclean(text: str, where: Callable[[], str]) -> BadRowError | None:
    if text.isascii() and "\0" not in text:
        return None
    error = encoding_error(text, where())
    return None if error is None else BadRowError("encoding", error)


def _bad(kind: str, what: str, where: Callable[[], str]) -> BadRowError:
    mend = "shorten it" if kind == "oversized" else "mend the row"
    return BadRowError(kind, RowError(what, where=where(), remedy=f"{mend}, {SKIP}"))


EXAMPLES_KEPT = 5


def fold_text(text: str) -> str:
    """Return the text without differences of case and white space: what duplicates are judged by."""
    return " ".join(text.casefold().split())


def folded_hash(text: str) -> bytes:
    """Return the 16-byte BLAKE2b digest of the folded text."""
    return blake2b(fold_text(text).encode(), digest_size=16).digest()


def exact_hash(text: str) -> bytes:
    """Return the 8-byte BLAKE2b digest of the text as it stands."""
    return blake2b(text.encode(), digest_size=8).digest()


def digests(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the digests of n folded texts, of shape (n, 2), and of the texts, of shape (n,)."""
    folded, exact = (b"".join(map(digest, texts)) for digest in (folded_hash, exact_hash))
    return np.frombuffer(folded, dtype="<u8").reshape(-1, 2), np.frombuffer(exact, dtype="<u8")


@dataclass(frozen=True)
class CleanBatch:
    """Canonical rows of one part."""

    part: int
    ids: list[str]
    texts: list[str]
    labels: npt.NDArray[np.int8]  # int8 of shape (n, L): 0, 1 or -1 where unknown
    weights: npt.NDArray[np.float64]  # float64 of shape (n,)
    folded: npt.NDArray[np.uint64]  # see `digests`
    exact: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.texts)


class Reading:
    """What is read and how, and what was read and left out so far.

    Raises:
        DataError: a source cannot be read, or its columns cannot be told.
    """

    def __init__(self, plan: Plan, settings: DataSettings) -> None:
        self.settings = settings
        self.plan = plan
        self.columns = plan_columns(plan.parts, settings)
        self.labels = {label: LabelReader(settings.cutoff, settings.positive_values) for label in self.columns.labels}
        self.counts = [0] * len(plan.parts)  # of each part's rows
        self.bad: Counter[str] = Counter()
        self.examples: list[str] = []

    def rows(self, progress: Progress | None = None) -> Iterator[CleanBatch]:
        """Yield all parts' canonical rows, in order.

        Raises:
            DataError: a source is broken, a part is empty, or a row is bad and bad rows are refused.
        """
        totals = [part.reader.total for part in self.plan.parts]
        total = sum(n for n in totals if n is not None) if None not in totals else None
        for index, (part, columns) in enumerate(zip(self.plan.parts, self.columns.parts, strict=True)):
            cleaner = _Cleaner(self, index)
            for raw in part.reader.batches(columns.wanted()):
                self.counts[index] += len(raw)
                if len(batch := cleaner.clean(raw)):
                    yield batch
                if progress is not None:
                    progress(sum(self.counts), total, "reading")
            if not self.counts[index]:
                what = "there are no rows below the header"
                raise EmptyDataError(what, where=part.reader.name, remedy="give a file with rows")

    def notes(self) -> list[str]:
        """Return what the readers noted."""
        return [note for part in self.plan.parts for note in part.reader.notes]

    def reject(self, bad: BadRowError) -> None:
        """Raise a bad row's error, or count it, as the settings say."""
        if self.settings.on_error == "refuse":
            raise bad.error from bad
        self.bad[bad.kind] += 1
        if len(self.examples) < EXAMPLES_KEPT:
            self.examples.append(f"{bad.error.where}: {bad.error.what}")


class _Cleaner:
    """Cleans the batches of one part."""

    def __init__(self, reading: Reading, index: int) -> None:
        part, self.columns = reading.plan.parts[index], reading.columns.parts[index]
        self.index, self.name, self.stem, self.reject = index, part.reader.name, part.stem, reading.reject
        self.labels = [(self.columns.labels.get(label), reader) for label, reader in reading.labels.items()]
        if hasattr(part.reader, "named"):  # of the hub
            numbered = any(reader.numbered for _, reader in self.labels)
            part.reader.named = bool(reading.settings.positive_values) and not numbered

    def clean(self, raw: RawBatch) -> CleanBatch:
        """Return the batch's good rows."""
        rows = []
        for i in range(len(raw)):
            try:
                if i in raw.bad:
                    raise raw.bad[i]
                rows.append((self._text(raw, i), self._id(raw, i), self._labels(raw, i), self._weight(raw, i)))
            except BadRowError as bad:
                self.reject(bad)
        texts = [text for text, *_ in rows]
        folded, exact = digests(texts)
        return CleanBatch(
            part=self.index,
            ids=[identifier for _, identifier, _, _ in rows],
            texts=texts,
            labels=np.array([codes for _, _, codes, _ in rows], dtype=np.int8).reshape(len(rows), len(self.labels)),
            weights=np.array([weight for *_, weight in rows], dtype=np.float64),
            folded=folded,
            exact=exact,
        )

    def _where(self, raw: RawBatch, i: int, column: str) -> str:
        return place(self.name, raw.rows[i], raw.lines[i] if raw.lines else None, column)

    def _text(self, raw: RawBatch, i: int) -> str:
        column = self.columns.text
        text = raw.columns[column][i]
        if (fault := comment_fault(text, lambda: self._where(raw, i, column))) is not None:
            raise fault
        return str(text)

    def _id(self, raw: RawBatch, i: int) -> str:
        column = self.columns.id
        value = raw.columns[column][i] if column is not None else None
        if column is None or value is None or value == "":
            return f"{self.stem}:{raw.rows[i]}"
        if (fault := _unclean(identifier := str(value), lambda: self._where(raw, i, column))) is not None:
            raise fault
        return identifier

    def _labels(self, raw: RawBatch, i: int) -> list[int]:
        codes = []
        for column, reader in self.labels:
            if column is None:
                codes.append(UNKNOWN)
                continue
            value = raw.columns[column][i]
            try:
                codes.append(reader.read(value))
            except ValueError as error:
                raise self._bad_label(value, reader, self._where(raw, i, column)) from error
        if all(code == UNKNOWN for code in codes):
            columns = ", ".join(column for column, _ in self.labels if column is not None)
            what = "no label of the row is known (empty, NaN, null and -1 mean unknown)"
            none = LabelValueError(what, where=self._where(raw, i, columns), remedy=f"fill in a label, {SKIP}")
            raise BadRowError("unlabelled", none)
        return codes

    def _bad_label(self, value: Any, reader: LabelReader, where: str) -> BadRowError:
        if isinstance(value, str) and (encoding := encoding_error(value, where)) is not None:
            return BadRowError("encoding", encoding)
        what = f"the label {_short(value)} is neither 0 or 1, nor a score in 0..1, nor a known class name"
        remedy = "classes may be toxic/non-toxic, true/false or yes/no, or those named with --positive-values; "
        remedy += f"mend the row, {SKIP}"
        if has_decimal_comma(value):
            what = f"the label {_short(value)} is written with a decimal comma"
            remedy = f"write {value.strip().replace(',', '.')}, {SKIP}"
        if len(reader.class_names) >= MOST_CLASSES:
            what = f"{_short(value)} is one class name too many: over {MOST_CLASSES} are in the column"
            remedy = "a label column holds few classes: check --label-columns"
        return BadRowError("bad_label", LabelValueError(what, where=where, remedy=remedy))

    def _weight(self, raw: RawBatch, i: int) -> float:
        column = self.columns.weight
        if column is None:
            return 1.0
        value = raw.columns[column][i]
        weight = as_number(value)
        if not (math.isfinite(weight) and weight >= 0):
            what = f"the weight {_short(value)} is not a number of 0 or more"
            error = LabelValueError(what, where=self._where(raw, i, column), remedy=f"mend the row, {SKIP}")
            raise BadRowError("bad_weight", error)
        return weight


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
