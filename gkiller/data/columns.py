"""Which column of each source is the comment, the id, the weight and each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gkiller.data.labels import (
    ID_NAMES,
    LABEL_NAMES,
    MAX_LABELS,
    RESERVED_NAMES,
    TEXT_NAMES,
    LabelReader,
    canonical_name,
    label_problem,
    need_header,
    refuse_repeated,
    usual_columns,
    vocabulary_name,
)
from gkiller.data.readers import Reader
from gkiller.data.readers.delimited import DelimitedReader
from gkiller.data.readers.jsonl import JsonLinesReader
from gkiller.data.readers.parquet import ParquetReader
from gkiller.errors import ColumnError
from gkiller.wording import did_you_mean

if TYPE_CHECKING:
    from gkiller.data.hub import Part
    from gkiller.settings import DataSettings

SINGLE_LABEL = "toxicity"


@dataclass(frozen=True)
class PartColumns:
    """The columns of one part."""

    text: str
    labels: dict[str, str]
    id: str | None = None  # column of the id, or None
    weight: str | None = None  # column of the sample weight, or None

    def wanted(self) -> list[str]:
        """Return every column to read, each once."""
        named = [self.text, *self.labels.values(), self.id, self.weight]
        return list(dict.fromkeys(name for name in named if name is not None))


@dataclass
class ColumnPlan:
    """The columns of all parts."""

    labels: tuple[str, ...]  # label names, in order
    parts: list[PartColumns]
    renames: dict[str, str] = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weighted: bool = False  # whether some part has weights


def plan_columns(parts: Sequence[Part], settings: DataSettings) -> ColumnPlan:
    """Choose the columns: as named, else as the catalogue says, else by their usual names.

    A label column must be in one part at least, and each part must have one label at least; where a part
    lacks a label, its rows' value is unknown.

    Raises:
        ColumnError: a named column is not there, names clash, or nothing can be guessed.
    """
    plan = ColumnPlan(labels=(), parts=[])
    _check_named(settings)
    names = [_names(part, settings) for part in parts]
    _need_somewhere(parts, names, settings)
    maps = [_part_labels(part, there, settings, plan) for part, there in zip(parts, names, strict=True)]
    if not settings.label_columns:
        maps = _learnable(parts, maps, plan)
    met = dict.fromkeys(label for labels in maps for label in labels)
    order = {canonical_name(column): place for place, column in enumerate(settings.label_columns)}
    plan.labels = tuple(sorted(met, key=lambda label: order.get(label, len(order))))  # as named, or first met
    if len(plan.labels) == 1 and plan.labels[0] != SINGLE_LABEL:
        maps = [{SINGLE_LABEL: next(iter(labels.values()))} for labels in maps]
        plan.labels = (SINGLE_LABEL,)
    _check_labels(plan.labels, parts[0].reader.name)
    for part, there, labels in zip(parts, names, maps, strict=True):
        plan.parts.append(_part_columns(part, there, labels, settings, plan))
        if missing := [label for label in plan.labels if label not in labels]:
            plan.notes.append(f"{part.reader.name}: has no column for {', '.join(missing)}: unknown in its rows")
    plan.weighted = any(columns.weight for columns in plan.parts)
    return plan


def _check_named(settings: DataSettings) -> None:
    """Refuse names that clash before any file is read."""
    named = settings.label_columns
    refuse_repeated(named, "the setting", "--label-columns")
    for kind in ("text", "id", "weight"):
        if (other := getattr(settings, f"{kind}_column")) is not None and other in named:
            what = f"column {other!r} is named both as a label and as --{kind}-column"
            raise ColumnError(what, where="--label-columns", remedy="name a column for one purpose")
    if len(named) < 2:
        return
    _check_labels([canonical_name(column) for column in named], "--label-columns")
    owners: dict[str, str] = {}
    for column in named:
        label = canonical_name(column)
        if label in RESERVED_NAMES:
            what = f"a label cannot be called {label!r}"
            raise ColumnError(what, where="--label-columns", remedy="rename the column")
        if label in owners:
            what = f"columns {owners[label]!r} and {column!r} are both the label {label!r}"
            raise ColumnError(what, where="--label-columns", remedy="name one of them")
        owners[label] = column


def _check_labels(labels: Sequence[str], where: str) -> None:
    """Refuse labels that no model directory may have: too many, or with a name too long or not printable."""
    if len(labels) > MAX_LABELS:
        what = f"there are {len(labels):,} labels; a model has {MAX_LABELS:,} at most"
        raise ColumnError(what, where=where, remedy="name fewer columns with --label-columns")
    for label in labels:
        if problem := label_problem(label):
            shown = ascii(label) if len(label) <= 80 else ascii(label[:80]) + "..."
            raise ColumnError(f"no label can have the name {shown}: {problem}", where=where, remedy="rename the column")


def _names(part: Part, settings: DataSettings) -> list[str]:
    """Return a part's columns; keys of JSON objects that come late are looked for when needed."""
    names = part.reader.columns()
    asked = [settings.text_column, settings.id_column, settings.weight_column, *settings.label_columns]
    if isinstance(part.reader, DelimitedReader):
        need_header(names, asked, f"{part.reader.name}, line 1")
    missing = not {None, *names}.issuperset(asked)
    return part.reader.all_columns() if missing and isinstance(part.reader, JsonLinesReader) else names


def _need_somewhere(parts: Sequence[Part], names: Sequence[list[str]], settings: DataSettings) -> None:
    """Refuse label, id and weight columns that no part has."""
    everywhere = dict.fromkeys(name for there in names for name in there)
    spellings = _spellings(everywhere)
    asked = [(column, "--label-columns") for column in settings.label_columns]
    asked += [(settings.id_column or "", "--id-column"), (settings.weight_column or "", "--weight-column")]
    for column, flag in asked:
        found = column in everywhere or (flag == "--label-columns" and _same_label(column, spellings))
        if column and not found:
            where = ", ".join(dict.fromkeys(part.reader.name for part in parts))
            raise missing_column(column, flag, where, list(everywhere))


def _spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the columns by the label that they are a spelling of."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(canonical_name(name), []).append(name)
    return found


def _same_label(column: str, spellings: dict[str, list[str]]) -> str | None:
    """Return the one column that is another spelling of the same label, or None."""
    same = spellings.get(canonical_name(column), [])
    return same[0] if len(same) == 1 else None


def _part_labels(part: Part, names: list[str], settings: DataSettings, plan: ColumnPlan) -> dict[str, str]:
    """Return the label columns of one part, by label."""
    named = settings.label_columns
    labels: dict[str, str] = {}
    if not named:
        if part.known is not None:
            labels = {canonical_name(name): name for name in part.known.default_labels if name in names}
        elif len(found := _vocabulary(part, names, settings, plan)) > 1:
            labels = found
        if not labels:
            hits = usual_columns(names, LABEL_NAMES)
            only = _one_of(hits, part.reader.name, names, LABEL_NAMES, "--label-columns", plan.guesses)
            labels = {SINGLE_LABEL: only}
        return labels
    there, spellings = frozenset(names), _spellings(names)
    for column in named:
        same = column if column in there else _same_label(column, spellings)
        if same is None:
            continue
        if same != column:
            plan.notes.append(f"{part.reader.name}: column {same!r} is read as {column!r}")
        labels[SINGLE_LABEL if len(named) == 1 else canonical_name(column)] = same
    if not labels:
        what = f"there is no label column here: not {', '.join(map(repr, named))}"
        raise ColumnError(what, where=part.reader.name, remedy=did_you_mean(named[0], names))
    return labels


def _vocabulary(part: Part, names: list[str], settings: DataSettings, plan: ColumnPlan) -> dict[str, str]:
    """Return the columns that are named after labels of the vocabulary, by label.

    Two at least are, one of them the comment's overall toxicity, and no column has the more usual name
    "label". The first rows are looked at: a column whose values are no labels is left out.
    """
    found: dict[str, str] = {}
    for name in names:
        if vocabulary_name(name):
            found.setdefault(vocabulary_name(name), name)
    usual = next(iter(usual_columns(names, LABEL_NAMES)), "")
    if len(found) < 2 or vocabulary_name(usual) != SINGLE_LABEL:
        return {}
    columns = list(found.values())
    first = next(part.reader.batches(columns), None) if part.path is not None else None
    for label, column in list(found.items()):
        odd = _odd_value(first.columns[column], settings) if first is not None else None
        if odd is not None:
            del found[label]
            plan.notes.append(f"{part.reader.name}: {column!r} is not a label column: {ascii(odd)[:60]} is no label")
    if len(found) > 1:
        plan.guesses.append(
            f"{part.reader.name}: {', '.join(map(repr, found.values()))} are taken as the label columns; "
            "--label-columns names others"
        )
    return found


def _odd_value(values: Sequence[object], settings: DataSettings) -> object:
    """Return the first value that is no label, or None."""
    reader = LabelReader(settings.cutoff, settings.positive_values)
    for value in values:
        try:
            reader.read(value)
        except ValueError:
            return value
    return None


def _learnable(parts: Sequence[Part], maps: Sequence[dict[str, str]], plan: ColumnPlan) -> list[dict[str, str]]:
    """Return the label columns without the labels that no train part has, where they were only guessed."""
    trained = {label for part, labels in zip(parts, maps, strict=True) if part.split == "train" for label in labels}
    kept = []
    for part, labels in zip(parts, maps, strict=True):
        rest = {label: column for label, column in labels.items() if label in trained}
        left = [column for label, column in labels.items() if label not in trained]
        if rest and left:
            unused = ", ".join(map(repr, left))
            plan.notes.append(f"{part.reader.name}: not used, as no train row has these labels: {unused}")
        kept.append(rest or labels)
    return kept


def _part_columns(
    part: Part, names: list[str], labels: dict[str, str], settings: DataSettings, plan: ColumnPlan
) -> PartColumns:
    text = settings.text_column
    if text is None and part.known is not None and part.known.text_column in names:
        text = part.known.text_column
    text = comment_column(part.reader, names, text, plan.guesses)
    if text in labels.values():
        remedy = "name the columns with --text-column and --label-columns"
        what = f"column {text!r} would be both the comment and a label"
        raise ColumnError(what, where=part.reader.name, remedy=remedy)
    identifier = settings.id_column if settings.id_column in names else None
    if settings.id_column is None:
        identifier = next((name for name in names if name.lower() in ID_NAMES and name != text), None)
        identifier = None if identifier in labels.values() else identifier
    plan.renames |= {column: label for label, column in labels.items() if label != column}
    weight = settings.weight_column if settings.weight_column in names else None
    return PartColumns(text=text, labels=labels, id=identifier, weight=weight)


def comment_column(
    reader: Reader, names: list[str], named: str | None, guesses: list[str], *, scoring: bool = False
) -> str:
    """Return the comment's column: the named one, else one with a usual name.

    Args:
        guesses: takes a line where the name was guessed.
        scoring: whether the first of names that differ in case will do, and an only column of any name.

    Raises:
        ColumnError: it is not there, holds lists, or cannot be guessed.
    """
    if named is None:
        found = usual_columns(names, TEXT_NAMES)
        if scoring:
            found = found[:1] or (names if len(names) == 1 else [])
        named = _one_of(found, reader.name, names, TEXT_NAMES, "--text-column", guesses)
    elif named not in names:
        raise missing_column(named, "--text-column", reader.name, names)
    if isinstance(reader, ParquetReader):
        reader.refuse_lists(named)
    return named


def missing_column(column: str, flag: str, where: str, names: Sequence[str]) -> ColumnError:
    """Return the error for a column that is named and not there, with the nearest one that is."""
    return ColumnError(f"there is no column {column!r} ({flag})", where=where, remedy=did_you_mean(column, names))


def _one_of(hits: list[str], name: str, names: list[str], usual: Sequence[str], flag: str, guesses: list[str]) -> str:
    """Return the one column that was found by its usual name."""
    if len(hits) == 1:
        what = "comment" if flag == "--text-column" else "label"
        guesses.append(f"{name}: {hits[0]!r} is taken as the {what} column")
        return hits[0]
    what, remedy = f"columns {', '.join(map(repr, hits))} differ in case only", f"say which one with {flag}"
    if not hits:
        there = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        what, remedy = f"no column has a usual name ({', '.join(usual)})", f"name one with {flag}; there are: {there}"
    raise ColumnError(what, where=name, remedy=remedy)
