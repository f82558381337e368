"""Columns of the input that the output repeats, and how their values are written."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gkiller.data.readers import RawBatch, Reader, place
from gkiller.data.readers.jsonl import WHOLE
from gkiller.data.readers.text import encoding_error
from gkiller.errors import ColumnError, GkillerError
from gkiller.tokens.encoding import clean
from gkiller.wording import did_you_mean

Keep = Sequence[str] | None
"""Names of columns to keep, each one or several with commas between them; None for all."""

_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class _Missing:
    """A key that a JSON object lacks, which is not the same as null."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()


@dataclass(frozen=True)
class Kept:
    """Which columns are kept, and how a row's values are found."""

    source: str
    form: str
    names: tuple[str, ...] = ()
    types: tuple[Any, ...] = ()
    wanted: tuple[str, ...] = ()
    # keys of JSON objects that may be there; empty where others do no harm
    known: frozenset[str] = field(default_factory=frozenset)

    def add(self, row: Row, batch: RawBatch, position: int) -> Row:
        """Return a row with its kept values, or with what is wrong with them."""
        if row.fault is not None:
            return row
        if self.wanted == (WHOLE,):
            found = batch.columns[WHOLE][position]
            values = tuple(found.get(name, MISSING) for name in self.names)
            late = next((key for key in found if key not in self.known), None)
            fault = None if late is None else self._late(late, row.number)
        else:
            values = tuple(batch.columns[name][position] for name in self.names)
            fault = self._damage(values, row.number) if self.form in ("csv", "tsv") else None
        return row._replace(kept=values) if fault is None else row._replace(text="", id=None, fault=fault)

    def _late(self, key: str, number: int) -> GkillerError:
        return ColumnError(
            f"the key {key!r} is in none of the first objects, from which the columns are known",
            where=place(self.source, number),
            remedy="name the columns to keep with --keep, or put an object with every key first",
        )

    def _damage(self, values: Sequence[str], number: int) -> GkillerError | None:
        """Return what is wrong with the text of a CSV file."""
        for name, value in zip(self.names, values, strict=True):
            if value is not None and not value.isascii():
                fault = encoding_error(value, place(self.source, number, None, name))
                if fault is not None:
                    return fault
        return None


def refuse_keep(keep: Keep, source: str, what: str) -> None:
    """Refuse to keep columns of an input without columns.

    Raises:
        ColumnError: some are to be kept.
    """
    if keep is None or keep:
        raise ColumnError(
            f"{what} has no columns to keep",
            where=source,
            remedy="leave --keep and --keep-columns out, or name the format with --input-format",
        )


def kept_columns(reader: Reader, form: str, text: str, identifier: str | None, keep: Keep) -> Kept:
    """Return what is kept of an input: the comment and the id are not, they have columns of their own.

    Raises:
        ColumnError: a named column is not there, or is the comment.
    """
    columns = reader.columns()
    whole: list[str] = getattr(reader, "whole", columns)
    columns = list(dict.fromkeys([*columns, *whole]))
    if keep is None:
        names = [name for name in whole if name not in (text, identifier)]
        if form == "jsonl":
            return Kept(reader.name, form, tuple(names), (), (WHOLE,), frozenset(whole))
    else:
        named = [one for given in keep for one in ([given] if given in columns else given.split(","))]
        _check(reader.name, named, columns, text)
        names = [name for name in dict.fromkeys(named) if name != identifier]
    types = tuple(getattr(reader, "types", {})[name] for name in names) if form == "parquet" else ()
    if form == "parquet":
        reader.scalars = frozenset(names)  # type: ignore[attr-defined]
    return Kept(reader.name, form, tuple(names), types, tuple(names))


def _check(source: str, named: Sequence[str], columns: Sequence[str], text: str) -> None:
    for name in named:
        if name not in columns:
            what = f"there is no column {name!r} (--keep)"
            raise ColumnError(what, where=source, remedy=did_you_mean(name, columns))
        if name == text:
            what = f"{name!r} is the comment column (--keep)"
            raise ColumnError(what, where=source, remedy="--with-text repeats the comment as 'text'")


def extent(value: Any) -> int:
    """Return about how many characters a kept value has."""
    return len(value) if isinstance(value, str) else len(str(value))


def plain(value: Any) -> Any:
    """Return a kept value as JSON can hold it.

    Times are in ISO 8601, decimals text with all digits, binary data in Base64; NaN is null, infinities are text.
    """
    if value is None or value is MISSING or isinstance(value, bool | int | str):
        return None if value is MISSING else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "as_py"):
        # Python's own times have no nanoseconds.
        stamp = str(value.type).startswith(("timestamp", "time"))
        return value.cast("string").as_py().replace(" ", "T") if stamp else plain(value.as_py())
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def json_of(value: Any) -> str:
    """Return a kept value as JSON; a lone surrogate stays escaped."""
    found = plain(value)
    text = json.dumps(found, ensure_ascii=False)
    return text if text.isascii() or text == clean(text) else json.dumps(found)


def text_of(value: Any) -> str | None:
    """Return a kept value as text: text as it is, other values as JSON, None where there is none."""
    found = plain(value)
    if found is None:
        return None
    return clean(found) if isinstance(found, str) else clean(json.dumps(found, ensure_ascii=False))


def safe_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe goes first, as OWASP advises."""
    found = clean(text)
    return f"'{found}" if found.startswith(_FORMULA) else found


class Row(NamedTuple):
    """One row: its number from 1, its comment, its id and its kept values, or what is wrong with it."""

    number: int
    text: str
    id: str | int | float | None
    fault: GkillerError | None = None
    kept: tuple[Any, ...] = ()
