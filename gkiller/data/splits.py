"""Duplicates, which row goes to which split, and what each split then has of every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import LEAST_OF_A_KIND, SPLIT_NAMES, LabelCount
from gkiller.data.labels import UNKNOWN
from gkiller.errors import EmptyDataError, SingleClassError

TRAIN, VALID, TEST = range(len(SPLIT_NAMES))


class Shares(NamedTuple):
    """Shares of the rows to split off; 0 where the split is given or not wanted."""

    valid: float
    test: float


def split_rows(
    folded: npt.NDArray[np.uint64], labels: npt.NDArray[np.int8], shares: Shares, seed: int
) -> npt.NDArray[np.int8]:
    """Assign rows without duplicates to train, valid and test: stratified and seeded.

    Each row's rank comes from a seeded mix of its text's digest, so the same comments are split the same
    way whatever the batch size or the order of the files. A stratum is a value of the first label (0, 1,
    unknown) with "some label is positive" or not. Each gives its share, to one row, but keeps one for train;
    within it, rows are drawn evenly over the combinations of all labels.

    Args:
        folded: shape (n, 2), digests of the folded texts, all different.
        labels: shape (n, L), -1 where unknown.

    Returns:
        Positions in ``SPLIT_NAMES``, of shape (n,).
    """
    splits = np.full(len(folded), TRAIN, dtype=np.int8)
    priority = _mix(folded[:, 0] ^ _mix(folded[:, 1] + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)))
    combination = _combination(labels)
    stratum = (labels[:, 0] - UNKNOWN) * 2 + (labels == 1).any(axis=1)
    seen = 0
    for code in np.unique(stratum):
        rows = np.flatnonzero(stratum == code)
        rows = rows[np.lexsort((priority[rows], combination[rows]))]
        tested, rest = _draw(rows, _quota(seen, len(rows), shares.test))
        validated, _ = _draw(rest, _quota(seen, len(rows), shares.valid))
        splits[tested] = TEST
        splits[validated] = VALID
        seen += len(rows)
    return splits


def _quota(seen: int, size: int, share: float) -> int:
    """Return how many of a stratum's rows to draw, so that the strata's sum is the share of all rows."""
    count = int((seen + size) * share + 0.5) - int(seen * share + 0.5)
    return max(count, 1) if share > 0 and size >= LEAST_OF_A_KIND else count


def _draw(rows: npt.NDArray[np.int64], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Take ``count`` rows, evenly spaced in ``rows``, but never all; return them and the rest."""
    count = min(count, max(len(rows) - 1, 0))
    chosen = np.zeros(len(rows), dtype=bool)
    if count:
        chosen[(2 * np.arange(count) + 1) * len(rows) // (2 * count)] = True
    return rows[chosen], rows[~chosen]


def _combination(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    _, inverse = np.unique(labels, axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit numbers: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@dataclass(frozen=True)
class Duplicates:
    """Which of n rows stay, and why the others go."""

    keep: npt.NDArray[np.bool_]
    exact: int  # rows dropped because the same text, to the letter, stands earlier in their split
    folded: int  # rows dropped because a text that differs in case or white space only does
    # rows dropped because another given split has their text, as train in test and so on
    overlap: dict[str, int]
    conflicts: int  # dropped rows of any of these kinds whose known labels differ from the kept row's
    conflicting_groups: int  # texts for which some label is both 0 and 1


def find_duplicates(
    folded: npt.NDArray[np.uint64],
    exact: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.int8],
    labels: npt.NDArray[np.int8],
) -> Duplicates:
    """Find rows with the same folded text; the first row stays, a test row before a valid and a train row.

    Args:
        folded: shape (n, 2), digests of the folded texts.
        exact: shape (n,), digests of the texts.
        splits: shape (n,), positions in ``SPLIT_NAMES``.
        labels: shape (n, L), -1 where unknown.
    """
    n = len(exact)
    pairs = list(combinations(range(len(SPLIT_NAMES)), 2))
    overlap = {f"{SPLIT_NAMES[low]} in {SPLIT_NAMES[high]}": 0 for low, high in pairs}
    if n == 0:
        return Duplicates(np.zeros(0, dtype=bool), 0, 0, overlap, 0, 0)
    order = np.lexsort((np.arange(n), -splits, folded[:, 1], folded[:, 0]))
    starts = _run_starts(folded[order])
    head = order[np.maximum.accumulate(np.where(starts, np.arange(n), 0))]
    keep = np.zeros(n, dtype=bool)
    keep[order[starts]] = True
    dropped, kept = order[~starts], head[~starts]
    here = splits[dropped] == splits[kept]
    repeated = _repeats_exactly(folded, exact, order)
    conflict = ((labels[dropped] != labels[kept]) & (labels[dropped] != UNKNOWN) & (labels[kept] != UNKNOWN)).any(
        axis=1
    )
    for low, high in pairs:
        count = np.count_nonzero((splits[dropped] == low) & (splits[kept] == high))
        overlap[f"{SPLIT_NAMES[low]} in {SPLIT_NAMES[high]}"] = int(count)
    return Duplicates(
        keep=keep,
        exact=int(np.count_nonzero(here & repeated[dropped])),
        folded=int(np.count_nonzero(here & ~repeated[dropped])),
        overlap=overlap,
        conflicts=int(np.count_nonzero(conflict)),
        conflicting_groups=_conflicting_groups(order, starts, labels),
    )


def _run_starts(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Mark where a run of equal rows starts in a sorted array of shape (n, k)."""
    starts = np.ones(len(keys), dtype=bool)
    starts[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return starts


def _repeats_exactly(
    folded: npt.NDArray[np.uint64], exact: npt.NDArray[np.uint64], order: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Mark the rows before which, in ``order``, the very same text stands."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    finer = np.lexsort((rank, exact, folded[:, 1], folded[:, 0]))
    keys = np.column_stack([folded[finer], exact[finer]])
    repeated = np.empty(len(order), dtype=bool)
    repeated[finer] = ~_run_starts(keys)
    return repeated


def _conflicting_groups(
    order: npt.NDArray[np.int64], starts: npt.NDArray[np.bool_], labels: npt.NDArray[np.int8]
) -> int:
    first = np.flatnonzero(starts)
    ordered = labels[order]
    positive = np.maximum.reduceat((ordered == 1).astype(np.int8), first, axis=0)
    negative = np.maximum.reduceat((ordered == 0).astype(np.int8), first, axis=0)
    return int(np.count_nonzero(((positive == 1) & (negative == 1)).any(axis=1)))


def label_counts(labels: Sequence[str], codes: npt.NDArray[np.int8]) -> dict[str, LabelCount]:
    """Count each label's rows; ``codes`` has shape (n, L), -1 where unknown."""
    counts = {}
    for position, label in enumerate(labels):
        negative, positive = (int(np.count_nonzero(codes[:, position] == value)) for value in (0, 1))
        known = positive + negative
        counts[label] = LabelCount(
            positive=positive, negative=negative, unknown=len(codes) - known, rate=positive / known if known else None
        )
    return counts


def class_weights(counts: dict[str, LabelCount]) -> dict[str, dict[str, float | None]]:
    """Return scikit-learn's ``balanced`` weights, n / (2 n_c) over known rows; None for an absent class."""
    weights: dict[str, dict[str, float | None]] = {}
    for label, count in counts.items():
        classes = {"0": count["negative"], "1": count["positive"]}
        known = sum(classes.values())
        weights[label] = {name: known / (2 * rows) if rows else None for name, rows in classes.items()}
    return weights


def check_classes(labels: Sequence[str], codes: npt.NDArray[np.int8], where: str) -> None:
    """Refuse train rows, with labels of shape (n, L), from which no label can be learnt.

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


def class_warnings(split: str, counts: dict[str, LabelCount]) -> list[str]:
    """Return a line for each label of a split that lacks a class."""
    lines = []
    for label, count in counts.items():
        classes = (("positive", count["positive"]), ("negative", count["negative"]))
        if missing := [f"no {name}" for name, rows in classes if not rows]:
            lines.append(f"{split}: {' and '.join(missing)} row of {label!r}")
    return lines
