"""Which column of each source is the comment, the id, the weight and each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gkiller.data.delimited import DelimitedReader
from gkiller.data.jsonl import JsonLinesReader
from gkiller.data.labels import (
    MAX_LABELS,
    RESERVED_NAMES,
    LabelReader,
    canonical_name,
    label_problem,
    vocabulary_name,
)
from gkiller.data.names import ID_NAMES, LABEL_NAMES, TEXT_NAMES, need_header
from gkiller.data.parts import Part
from gkiller.errors import ColumnError, did_you_mean
from gkiller.settings import DataSettings

SINGLE_LABEL = "toxicity"


@dataclass(frozen=True)
class PartColumns:
    """The columns of one part.

    Attributes:
        text: column of the comment.
        labels: for each label that the part has, its column.
        id: column of the id, or None.
        weight: column of the sample weight, or None.

    """

    text: str
    labels: dict[str, str]
    id: str | None = None
    weight: str | None = None

    def wanted(self) -> list[str]:
        """Return every column to read, each once."""
        named = [self.text, *self.labels.values(), self.id, self.weight]
        return list(dict.fromkeys(name for name in named if name is not None))


@dataclass
class ColumnPlan:
    """The columns of all parts.

    Attributes:
        labels: label names, in order.
        parts: columns of each part, in the parts' order.
        renames: label columns that go by another name from now on.
        guesses: columns that were guessed, as sentences.
        notes: other decisions to tell.
        weighted: whether some part has weights.

    """

    labels: tuple[str, ...]
    parts: list[PartColumns]
    renames: dict[str, str] = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weighted: bool = False


def plan_columns(parts: Sequence[Part], settings: DataSettings) -> ColumnPlan:
    """Choose the columns: as named, else as the catalogue says, else by their usual names.

    A label column must be in one part at least, and each part must have one label at least; where a part
    lacks a label, its rows' value is unknown.

    Raises:
        ColumnError: a named column is not there, names clash, or nothing can be guessed.
        DataError: a header cannot be read.

    """
    plan = ColumnPlan(labels=(), parts=[])
    _check_named(settings)
    names = [_names(part, settings) for part in parts]
    _need_somewhere(parts, names, settings)
    maps = [_part_labels(part, there, settings, plan) for part, there in zip(parts, names, strict=True)]
    plan.labels = _label_order(settings, maps)
    if len(plan.labels) == 1 and plan.labels[0] != SINGLE_LABEL:
        maps = [{SINGLE_LABEL: next(iter(labels.values()))} for labels in maps]
        plan.labels = (SINGLE_LABEL,)
    for part, there, labels in zip(parts, names, maps, strict=True):
        plan.parts.append(_part_columns(part, there, labels, settings, plan))
        _tell_gaps(part, labels, plan)
    plan.weighted = any(columns.weight for columns in plan.parts)
    return plan


def _check_named(settings: DataSettings) -> None:
    """Refuse names that clash before any file is read."""
    named = settings.label_columns
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ColumnError(
            f"label column {twice[0]!r} is named twice", where="--label-columns", remedy="name each once"
        )
    for flag, other in (
        ("--text-column", settings.text_column),
        ("--id-column", settings.id_column),
        ("--weight-column", settings.weight_column),
    ):
        if other is not None and other in named:
            raise ColumnError(
                f"column {other!r} is named both as a label and as {flag}",
                where="--label-columns",
                remedy="name a column for one purpose",
            )
    if len(named) < 2:
        return
    owners: dict[str, str] = {}
    for column in named:
        label = canonical_name(column)
        if label in RESERVED_NAMES:
            raise ColumnError(
                f"a label cannot be called {label!r}", where="--label-columns", remedy="rename the column"
            )
        if label in owners:
            raise ColumnError(
                f"columns {owners[label]!r} and {column!r} are both the label {label!r}",
                where="--label-columns",
                remedy="name one of them",
            )
        owners[label] = column


def _names(part: Part, settings: DataSettings) -> list[str]:
    """Return a part's columns; keys of JSON objects that come late are looked for when needed."""
    names = part.reader.columns()
    asked = [settings.text_column, settings.id_column, settings.weight_column, *settings.label_columns]
    missing = any(name is not None and name not in names for name in asked)
    if missing and isinstance(part.reader, JsonLinesReader):
        return part.reader.all_columns()
    return names


def _need_somewhere(parts: Sequence[Part], names: Sequence[list[str]], settings: DataSettings) -> None:
    """Refuse label, id and weight columns that no part has."""
    everywhere = list(dict.fromkeys(name for there in names for name in there))
    asked = [(column, "--label-columns") for column in settings.label_columns]
    asked += [(settings.id_column or "", "--id-column"), (settings.weight_column or "", "--weight-column")]
    for column, flag in asked:
        found = column in everywhere or (
            flag == "--label-columns" and _same_label(column, everywhere) is not None
        )
        if column and not found:
            where = ", ".join(dict.fromkeys(part.reader.name for part in parts))
            raise ColumnError(
                f"there is no column {column!r} ({flag})",
                where=where,
                remedy=did_you_mean(column, everywhere),
            )


def _same_label(column: str, names: Iterable[str]) -> str | None:
    """Return the one column that is another spelling of the same label, or None."""
    same = [name for name in names if canonical_name(name) == canonical_name(column)]
    return same[0] if len(same) == 1 else None


def _part_labels(part: Part, names: list[str], settings: DataSettings, plan: ColumnPlan) -> dict[str, str]:
    """Return the label columns of one part, by label."""
    single = len(settings.label_columns) == 1
    if settings.label_columns:
        labels = {}
        for column in settings.label_columns:
            found = column if column in names else _same_label(column, names)
            if found is None:
                continue
            if found != column:
                plan.notes.append(f"{part.reader.name}: column {found!r} is read as {column!r}")
            labels[SINGLE_LABEL if single else canonical_name(column)] = found
        if not labels:
            first = settings.label_columns[0]
            raise ColumnError(
                f"there is no label column here: not {', '.join(map(repr, settings.label_columns))}",
                where=part.reader.name,
                remedy=did_you_mean(first, names),
            )
    elif part.known is not None:
        labels = {canonical_name(name): name for name in part.known.default_labels if name in names}
        labels = labels or {SINGLE_LABEL: _guess(part, names, LABEL_NAMES, "--label-columns", plan)}
    else:
        column = _guess(part, names, LABEL_NAMES, "--label-columns", plan)
        labels = {SINGLE_LABEL: column}
        others = [
            name for name in names if name != column and canonical_name(name) in _MULTI and name != "text"
        ]
        if others:
            plan.notes.append(
                f"{part.reader.name}: label columns not used: {', '.join(others)}; "
                "to learn them all, name them with --label-columns"
            )
    return labels


_MULTI = frozenset({"toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"})


def _label_order(settings: DataSettings, maps: Iterable[dict[str, str]]) -> tuple[str, ...]:
    """Return the labels in the order in which they are named, or first met."""
    met = list(dict.fromkeys(label for labels in maps for label in labels))
    named = [canonical_name(column) for column in settings.label_columns]
    return tuple(sorted(met, key=lambda label: named.index(label) if label in named else len(named)))


def _part_columns(
    part: Part, names: list[str], labels: dict[str, str], settings: DataSettings, plan: ColumnPlan
) -> PartColumns:
    text = settings.text_column
    if text is None and part.known is not None and part.known.text_column in names:
        text = part.known.text_column
    if text is None:
        text = _guess(part, names, TEXT_NAMES, "--text-column", plan)
    elif text not in names:
        raise ColumnError(
            f"there is no column {text!r} (--text-column)",
            where=part.reader.name,
            remedy=did_you_mean(text, names),
        )
    if text in labels.values():
        raise ColumnError(
            f"column {text!r} would be both the comment and a label",
            where=part.reader.name,
            remedy="name the columns with --text-column and --label-columns",
        )
    identifier = settings.id_column if settings.id_column in names else None
    if settings.id_column is None:
        identifier = next((name for name in names if name.lower() in ID_NAMES and name != text), None)
        identifier = None if identifier in labels.values() else identifier
    for label, column in labels.items():
        if label != column:
            plan.renames[column] = label
    weight = settings.weight_column if settings.weight_column in names else None
    return PartColumns(text=text, labels=labels, id=identifier, weight=weight)


def _guess(part: Part, names: list[str], usual: Sequence[str], flag: str, plan: ColumnPlan) -> str:
    """Return the first column with a usual name.

    Raises:
        ColumnError: there is none.

    """
    for word in usual:
        hits = [name for name in names if name.lower() == word]
        if len(hits) > 1:
            raise ColumnError(
                f"columns {', '.join(map(repr, hits))} differ in case only",
                where=part.reader.name,
                remedy=f"say which one with {flag}",
            )
        if hits:
            what = "comment" if flag == "--text-column" else "label"
            plan.guesses.append(f"{part.reader.name}: {hits[0]!r} is taken as the {what} column")
            return hits[0]
    there = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise ColumnError(
        f"no column has a usual name ({', '.join(usual)})",
        where=part.reader.name,
        remedy=f"name one with {flag}; there are: {there}",
    )


def _tell_gaps(part: Part, labels: dict[str, str], plan: ColumnPlan) -> None:
    missing = [label for label in plan.labels if label not in labels]
    if missing:
        plan.notes.append(f"{part.reader.name}: has no column for {', '.join(missing)}: unknown in its rows")
