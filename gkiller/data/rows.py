"""The one rule for the value of a comment, whoever reads it: text, missing, too long or badly encoded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.data.labels import MOST_CLASSES, UNKNOWN, LabelReader, as_number, has_decimal_comma
from gkiller.data.readers import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, place
from gkiller.data.readers.text import encoding_error
from gkiller.errors import EmptyDataError, LabelValueError, RowError

if TYPE_CHECKING:
    from gkiller.data.columns import ColumnPlan, PartColumns
    from gkiller.data.hub import Part
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
    if escaped or (value.isascii() and "\0" not in value):
        return None
    error = encoding_error(value, where())
    return None if error is None else BadRowError("encoding", error)


def _bad(kind: str, what: str, where: Callable[[], str]) -> BadRowError:
    mend = "shorten it" if kind == "oversized" else "mend the row"
    return BadRowError(kind, RowError(what, where=where(), remedy=f"{mend}, {SKIP}"))


EXAMPLES_KEPT = 5

"""``progress(stage, done, total)``; total is None while unknown."""


def fold_text(text: str) -> str:
    """Return the text without differences of case and white space: what duplicates are judged by."""
    return " ".join(text.casefold().split())


def folded_hash(text: str) -> bytes:
    """Return the 16-byte BLAKE2b digest of the folded text."""
    return blake2b(fold_text(text).encode(), digest_size=16).digest()


def exact_hash(text: str) -> bytes:
    """Return the 8-byte BLAKE2b digest of the text as it stands."""
    return blake2b(text.encode(), digest_size=8).digest()


@dataclass(frozen=True)
class CleanBatch:
    """Canonical rows of one part."""

    part: int
    ids: list[str]
    texts: list[str]
    labels: npt.NDArray[np.int8]  # int8 of shape (n, L): 0, 1 or -1 where unknown
    weights: npt.NDArray[np.float64]  # float64 of shape (n,)
    folded: npt.NDArray[np.uint64]  # uint64 of shape (n, 2): digest of the folded text
    exact: npt.NDArray[np.uint64]  # uint64 of shape (n,): digest of the text

    def __len__(self) -> int:
        return len(self.texts)


@dataclass
class Tally:
    """What was read and what was left out."""

    read: list[int]
    readers: dict[str, LabelReader]
    bad: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def clean_rows(
    parts: Sequence[Part], plan: ColumnPlan, settings: DataSettings, tally: Tally, progress: Progress | None = None
) -> Iterator[CleanBatch]:
    """Yield all parts' canonical rows, in order, and keep the tally.

    Args:
        settings: ``on_error`` decides whether a bad row is raised or counted.
        tally: from :func:`new_tally`; filled on the way.

    Raises:
        DataError: a source is broken, a part is empty, or a row is bad and bad rows are refused.
    """
    totals = [part.reader.total for part in parts]
    total = sum(n for n in totals if n is not None) if None not in totals else None
    for index, (part, columns) in enumerate(zip(parts, plan.parts, strict=True)):
        cleaner = _Cleaner(index, part, columns, plan, settings, tally)
        for raw in part.reader.batches(columns.wanted()):
            tally.read[index] += len(raw)
            batch = cleaner.clean(raw)
            if len(batch):
                yield batch
            if progress is not None:
                progress(sum(tally.read), total, "reading")
        if not tally.read[index]:
            raise EmptyDataError(
                "there are no rows below the header", where=part.reader.name, remedy="give a file with rows"
            )


def new_tally(parts: Sequence[Part], plan: ColumnPlan, settings: DataSettings) -> Tally:
    """Return an empty tally for :func:`clean_rows`."""
    readers = {label: LabelReader(settings.cutoff, settings.positive_values) for label in plan.labels}
    return Tally(read=[0] * len(parts), readers=readers)


class _Cleaner:
    """Cleans the batches of one part."""

    def __init__(
        self, index: int, part: Part, columns: PartColumns, plan: ColumnPlan, settings: DataSettings, tally: Tally
    ) -> None:
        self.index = index
        self.name = part.reader.name
        self.stem = part.stem
        self.columns = columns
        self.labels = [(columns.labels.get(label), tally.readers[label]) for label in plan.labels]
        self.refuse = settings.on_error == "refuse"
        if hasattr(part.reader, "named"):  # of the hub
            numbered = any(reader.numbered for _, reader in self.labels)
            part.reader.named = bool(settings.positive_values) and not numbered
        self.tally = tally

    def clean(self, raw: RawBatch) -> CleanBatch:
        """Return the batch's good rows."""
        ids: list[str] = []
        texts: list[str] = []
        codes: list[list[int]] = []
        weights: list[float] = []
        folded, exact = bytearray(), bytearray()
        for i in range(len(raw)):
            try:
                if i in raw.bad:
                    raise raw.bad[i]
                text = self._text(raw, i)
                identifier = self._id(raw, i)
                row_codes = self._labels(raw, i)
                weight = self._weight(raw, i)
            except BadRowError as bad:
                self._reject(bad)
                continue
            ids.append(identifier)
            texts.append(text)
            codes.append(row_codes)
            weights.append(weight)
            folded += folded_hash(text)
            exact += exact_hash(text)
        return CleanBatch(
            part=self.index,
            ids=ids,
            texts=texts,
            labels=np.array(codes, dtype=np.int8).reshape(len(texts), len(self.labels)),
            weights=np.array(weights, dtype=np.float64),
            folded=np.frombuffer(bytes(folded), dtype="<u8").reshape(-1, 2),
            exact=np.frombuffer(bytes(exact), dtype="<u8"),
        )

    def _reject(self, bad: BadRowError) -> None:
        if self.refuse:
            raise bad.error from bad
        self.tally.bad[bad.kind] += 1
        if len(self.tally.examples) < EXAMPLES_KEPT:
            self.tally.examples.append(f"{bad.error.where}: {bad.error.what}")

    def _where(self, raw: RawBatch, i: int, column: str) -> str:
        return place(self.name, raw.rows[i], raw.lines[i] if raw.lines else None, column)

    def _text(self, raw: RawBatch, i: int) -> str:
        column = self.columns.text
        text = raw.columns[column][i]
        fault = comment_fault(text, lambda: self._where(raw, i, column))
        if fault is not None:
            raise fault
        return str(text)

    def _check_encoding(self, text: str, raw: RawBatch, i: int, column: str) -> None:
        if text.isascii() and "\0" not in text:
            return
        error = encoding_error(text, self._where(raw, i, column))
        if error is not None:
            raise BadRowError("encoding", error)

    def _id(self, raw: RawBatch, i: int) -> str:
        column = self.columns.id
        value = raw.columns[column][i] if column is not None else None
        if value is None or value == "":
            return f"{self.stem}:{raw.rows[i]}"
        identifier = str(value)
        self._check_encoding(identifier, raw, i, column or "")
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
                raise self._bad_label(value, reader, raw, i, column) from error
        if all(code == UNKNOWN for code in codes):
            columns = ", ".join(column for column, _ in self.labels if column is not None)
            unlabelled = LabelValueError(
                "no label of the row is known (empty, NaN, null and -1 mean unknown)",
                where=self._where(raw, i, columns),
                remedy=f"fill in a label, {SKIP}",
            )
            raise BadRowError("unlabelled", unlabelled)
        return codes

    def _bad_label(self, value: Any, reader: LabelReader, raw: RawBatch, i: int, column: str) -> BadRowError:
        if isinstance(value, str):
            encoding = encoding_error(value, self._where(raw, i, column))
            if encoding is not None:
                return BadRowError("encoding", encoding)
        what = f"the label {_short(value)} is neither 0 or 1, nor a score in 0..1, nor a known class name"
        remedy = (
            "classes may be toxic/non-toxic, true/false or yes/no, or those named with --positive-values; "
            f"mend the row, {SKIP}"
        )
        if has_decimal_comma(value):
            what = f"the label {_short(value)} is written with a decimal comma"
            remedy = f"write {value.strip().replace(',', '.')}, {SKIP}"
        if len(reader.class_names) >= MOST_CLASSES:
            what = f"{_short(value)} is one class name too many: over {MOST_CLASSES} are in the column"
            remedy = "a label column holds few classes: check --label-columns"
        error = LabelValueError(what, where=self._where(raw, i, column), remedy=remedy)
        return BadRowError("bad_label", error)

    def _weight(self, raw: RawBatch, i: int) -> float:
        column = self.columns.weight
        if column is None:
            return 1.0
        value = raw.columns[column][i]
        weight = as_number(value)
        if not (math.isfinite(weight) and weight >= 0):
            error = LabelValueError(
                f"the weight {_short(value)} is not a number of 0 or more",
                where=self._where(raw, i, column),
                remedy=f"mend the row, {SKIP}",
            )
            raise BadRowError("bad_weight", error)
        return weight


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
