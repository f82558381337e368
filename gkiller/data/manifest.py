"""The manifest of a prepared directory: where the rows came from and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller import __version__
from gkiller.data.assign import TRAIN
from gkiller.data.clean import Tally
from gkiller.data.columns import ColumnPlan
from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.duplicates import Duplicates
from gkiller.data.labels import UNKNOWN
from gkiller.data.sources import Plan, known_of
from gkiller.data.store import FORMAT, FORMAT_VERSION, RowWriter
from gkiller.errors import EmptyDataError, SingleClassError
from gkiller.files import sha256_file
from gkiller.settings import DataSettings

UNSTATED_LICENCE = "not stated: see where the file came from"


def label_counts(labels: Sequence[str], codes: npt.NDArray[np.int8]) -> dict[str, dict[str, Any]]:
    """Return per label the positive, negative and unknown rows, and the rate of positives among the known.

    Args:
        labels: L label names.
        codes: int8 of shape (n, L), -1 where unknown.

    """
    counts = {}
    for position, label in enumerate(labels):
        column = codes[:, position]
        positive = int(np.count_nonzero(column == 1))
        negative = int(np.count_nonzero(column == 0))
        known = positive + negative
        counts[label] = {
            "positive": positive,
            "negative": negative,
            "unknown": int(np.count_nonzero(column == UNKNOWN)),
            "rate": positive / known if known else None,
        }
    return counts


def class_weights(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return scikit-learn's ``balanced`` weights, n / (2 n_c) over known rows; None for an absent class."""
    weights: dict[str, dict[str, float | None]] = {}
    for label, count in counts.items():
        known = count["positive"] + count["negative"]
        weights[label] = {
            "0": known / (2 * count["negative"]) if count["negative"] else None,
            "1": known / (2 * count["positive"]) if count["positive"] else None,
        }
    return weights


def check_classes(labels: Sequence[str], codes: npt.NDArray[np.int8], where: str) -> None:
    """Refuse train rows from which no label can be learnt.

    Args:
        labels: L label names.
        codes: the train rows' labels, int8 of shape (n, L).
        where: for the message.

    Raises:
        EmptyDataError: there are no rows.
        SingleClassError: no label has both classes.

    """
    if not len(codes):
        raise EmptyDataError(
            "no rows are left to train on", where=where, remedy="give more rows; see the bad and dropped ones"
        )
    counts = label_counts(labels, codes)
    if any(count["positive"] and count["negative"] for count in counts.values()):
        return
    found = "; ".join(
        f"{label}: {count['positive']:,} positive, {count['negative']:,} negative"
        for label, count in islice(counts.items(), 10)
    ) + ("; ..." if len(counts) > 10 else "")
    raise SingleClassError(
        f"the train rows have one class only ({found})",
        where=where,
        remedy="add rows of the other class, check the label column, name the positive classes with "
        "--positive-values, or lower --cutoff for scores",
    )


def split_warnings(labels: Sequence[str], splits: dict[str, npt.NDArray[np.int8]]) -> list[str]:
    """Return what is wrong with the splits but can be lived with.

    Args:
        labels: L label names.
        splits: labels of the rows of each split, int8 of shape (n, L).

    """
    warnings = []
    for name in SPLIT_NAMES:
        codes = splits.get(name)
        if codes is None or not len(codes):
            warnings.append(f"there is no {name} split")
            continue
        warnings += class_warnings(name, label_counts(labels, codes))
    return warnings


def class_warnings(split: str, counts: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each label of a split that lacks a class; ``counts`` as of `label_counts`."""
    missing = {
        label: [kind for kind in ("positive", "negative") if not count[kind]]
        for label, count in counts.items()
    }
    return [
        f"{split}: no {' and no '.join(kinds)} row of {label!r}" for label, kinds in missing.items() if kinds
    ]


def _unmet(settings: DataSettings, tally: Tally) -> list[str]:
    """Return a warning for each positive class that no row has: its name may be misspelt."""
    readers = tally.readers.values()
    names = [name for name in settings.positive_values if not any(reader.met(name) for reader in readers)]
    return [f"no row has the class {name!r} (--positive-values)" for name in names]


def build_manifest(
    plan: Plan,
    columns: ColumnPlan,
    settings: DataSettings,
    tally: Tally,
    duplicates: Duplicates,
    assigned: npt.NDArray[np.int8],
    codes: npt.NDArray[np.int8],
    writers: dict[str, RowWriter],
) -> dict[str, Any]:
    """Return the manifest; plain values only, and no time of day: the same input gives the same bytes.

    Args:
        plan: what was read.
        columns: its columns.
        settings: the settings used.
        tally: counts of read and bad rows.
        duplicates: counts of dropped rows.
        assigned: int8 of shape (n,): each row's split, -1 where dropped.
        codes: int8 of shape (n, L): labels of all rows.
        writers: the closed writers of the splits that have rows.

    """
    labels = columns.labels
    by_split = {name: codes[assigned == index] for index, name in enumerate(SPLIT_NAMES)}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "gkiller_version": __version__,
        "source": " + ".join(part.reader.name for part in plan.parts),
        "sources": _source_entries(plan, columns, tally),
        "synthetic": any(part.info.get("synthetic", False) for part in plan.parts),
        "licence": [f"{known.name}: {known.licence}" for known in known_of(plan.parts)] or [UNSTATED_LICENCE],
        "labels": list(labels),
        "label_kinds": {label: reader.kind for label, reader in tally.readers.items()},
        "class_names": {
            name: code
            for reader in tally.readers.values()
            for name, code in sorted(reader.class_names.items())
        },
        "cutoff": settings.cutoff,
        "weighted": columns.weighted,
        "renames": columns.renames,
        "guesses": columns.guesses,
        "notes": [*plan.notes, *columns.notes, *(note for part in plan.parts for note in part.reader.notes)],
        "warnings": [*split_warnings(labels, by_split), *_unmet(settings, tally)],
        "rows_read": sum(tally.read),
        "rows_kept": int(np.count_nonzero(assigned >= 0)),
        "dropped": {
            "bad": dict(sorted(tally.bad.items())),
            "exact_duplicates": duplicates.exact,
            "folded_duplicates": duplicates.folded,
            "overlap": duplicates.overlap,
        },
        "bad_row_examples": tally.examples,
        "conflicts": duplicates.conflicts,
        "splits": _split_entries(plan, labels, by_split, writers),
        "class_weights": class_weights(label_counts(labels, by_split[SPLIT_NAMES[TRAIN]])),
        "settings": settings.model_dump(mode="json", exclude={"sample_size", "source"}),
    }


def _split_entries(
    plan: Plan,
    labels: Sequence[str],
    by_split: dict[str, npt.NDArray[np.int8]],
    writers: dict[str, RowWriter],
) -> dict[str, Any]:
    given = {part.split for part in plan.parts}
    return {
        name: {
            "file": writer.path.name,
            "rows": writer.rows,
            "origin": _origin(name, given),
            "labels": label_counts(labels, by_split[name]),
            "fingerprint": writer.fingerprint(),
            "sha256": sha256_file(writer.path),
        }
        for name, writer in writers.items()
    }


def _origin(name: str, given: set[str]) -> str:
    """Say whether a split is as the sources have it."""
    if name not in given:
        return "split off train"
    whole = name != "train" or given >= set(SPLIT_NAMES)
    return "given" if whole else "given, less what was split off"


def _source_entries(plan: Plan, columns: ColumnPlan, tally: Tally) -> list[dict[str, Any]]:
    entries = []
    for part, chosen, rows in zip(plan.parts, columns.parts, tally.read, strict=True):
        entry: dict[str, Any] = {"name": part.reader.name, "split": part.split, **part.info, "rows": rows}
        entry["columns"] = {
            "text": chosen.text,
            "labels": chosen.labels,
            "id": chosen.id,
            "weight": chosen.weight,
        }
        if part.path is not None:
            entry["bytes"] = part.path.stat().st_size
            entry["sha256"] = sha256_file(part.path)
        entries.append(entry)
    return entries
