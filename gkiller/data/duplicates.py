"""Duplicates among all rows of all splits, found on digests alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.labels import UNKNOWN


@dataclass(frozen=True)
class Duplicates:
    """Which rows stay, and why the others go.

    Attributes:
        keep: bool of shape (n,).
        exact: rows dropped because the same text, to the letter, stands earlier in their split.
        folded: rows dropped because a text that differs in case or white space only does.
        overlap: rows dropped because another given split has their text, as ``train in test`` and so on.
        conflicts: dropped rows of any of these kinds whose known labels differ from the kept row's.
        groups: texts that stand more than once.
        conflicting_groups: those of them whose rows disagree on a label.

    """

    keep: npt.NDArray[np.bool_]
    exact: int
    folded: int
    overlap: dict[str, int]
    conflicts: int
    groups: int
    conflicting_groups: int


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
        labels: shape (n, L), with -1 for unknown.

    """
    n = len(exact)
    if n == 0:
        return Duplicates(np.zeros(0, dtype=bool), 0, 0, _pairs(), 0, 0, 0)
    order = np.lexsort((np.arange(n), -splits, folded[:, 1], folded[:, 0]))
    starts = _run_starts(folded[order])
    head = order[np.maximum.accumulate(np.where(starts, np.arange(n), 0))]
    keep = np.zeros(n, dtype=bool)
    keep[order[starts]] = True
    dropped, kept = order[~starts], head[~starts]
    here = splits[dropped] == splits[kept]
    repeated = _repeats_exactly(folded, exact, order)
    conflict = (
        (labels[dropped] != labels[kept]) & (labels[dropped] != UNKNOWN) & (labels[kept] != UNKNOWN)
    ).any(axis=1)
    overlap = _pairs()
    for low, high in combinations(range(len(SPLIT_NAMES)), 2):
        count = np.count_nonzero((splits[dropped] == low) & (splits[kept] == high))
        overlap[f"{SPLIT_NAMES[low]} in {SPLIT_NAMES[high]}"] = int(count)
    return Duplicates(
        keep=keep,
        exact=int(np.count_nonzero(here & repeated[dropped])),
        folded=int(np.count_nonzero(here & ~repeated[dropped])),
        overlap=overlap,
        conflicts=int(np.count_nonzero(conflict)),
        groups=len(np.unique(kept)),
        conflicting_groups=_conflicting_groups(order, starts, labels),
    )


def _pairs() -> dict[str, int]:
    return {f"{low} in {high}": 0 for low, high in combinations(SPLIT_NAMES, 2)}


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
    """Count the texts for which some label is both 0 and 1."""
    first = np.flatnonzero(starts)
    ordered = labels[order]
    positive = np.maximum.reduceat((ordered == 1).astype(np.int8), first, axis=0)
    negative = np.maximum.reduceat((ordered == 0).astype(np.int8), first, axis=0)
    return int(np.count_nonzero(((positive == 1) & (negative == 1)).any(axis=1)))
