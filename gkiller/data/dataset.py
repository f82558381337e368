"""A data set in memory, and the manifest that says where it came from. Needs numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from gkiller.errors import SourceNotFoundError
from gkiller.wording import counted

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.intp]

SPLIT_NAMES = ("train", "valid", "test")
LEAST_OF_A_KIND = 3
"""From so many rows of the same labels on, at least one goes to each split that is split off train."""


class LabelCount(TypedDict):
    """A label's rows in one split; ``rate`` is the share of positives among the known, None without any."""

    positive: int
    negative: int
    unknown: int
    rate: float | None
    weighted_rate: NotRequired[float | None]


class SplitEntry(TypedDict):
    """A prepared split: its file, what it holds, and the digests of rows and bytes."""

    file: str
    rows: int
    origin: str
    labels: dict[str, LabelCount]
    fingerprint: str
    sha256: str


class DataManifest(TypedDict, total=False):
    """How data came to be, as ``manifest.json`` holds it; of data that were not prepared some keys only."""

    format: str
    format_version: int
    gkiller_version: str
    source: str
    sources: list[dict[str, Any]]
    synthetic: bool
    licence: list[str]
    labels: list[str]
    label_kinds: dict[str, str]
    class_names: dict[str, int]
    cutoff: float
    weighted: bool
    renames: dict[str, str]
    guesses: list[str]
    notes: list[str]
    warnings: list[str]
    rows_read: int
    rows_kept: int
    dropped: dict[str, Any]
    bad_row_examples: list[str]
    conflicts: int
    splits: dict[str, SplitEntry]
    class_weights: dict[str, dict[str, float | None]]
    settings: dict[str, Any]
    augmentations: list[dict[str, Any]]
    digest: str


@dataclass(frozen=True)
class Split:
    """One split: n comments with L labels."""

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.float32]  # float32 of shape (n, L): 0, 1, or NaN where unknown
    weights: FloatArray  # float64 of shape (n,): sample weights, 1.0 when the source had none

    def __post_init__(self) -> None:
        n = len(self.texts)
        if len(self.ids) != n or self.labels.shape[:1] != (n,) or self.weights.shape != (n,):
            raise ValueError(
                f"a split's columns differ in length: {len(self.ids)} ids, {n} texts, "
                f"labels {self.labels.shape}, weights {self.weights.shape}"
            )
        if self.labels.ndim != 2:
            raise ValueError(f"labels must have shape (rows, labels), not {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def any_positive(self) -> NDArray[np.bool_]:
        """Shape (n,): whether any known label of the row is positive."""
        positive: NDArray[np.bool_] = (self.labels == 1.0).any(axis=1)
        return positive

    def take(self, indices: Iterable[int]) -> Split:
        """Return the rows at these positions, in the order given."""
        chosen = np.fromiter(indices, dtype=np.int64)
        return Split(
            ids=[self.ids[i] for i in chosen],
            texts=[self.texts[i] for i in chosen],
            labels=self.labels[chosen],
            weights=self.weights[chosen],
        )

    def sample(self, size: int, seed: int) -> Split:
        """At most ``size`` rows, stratified on "any label positive"; the order is kept.

        The share of positives stays, rounded, but with at least one row of each kind where possible.

        Raises:
            ValueError: ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if size >= len(self):
            return self
        rng = np.random.default_rng(seed)
        positive = np.flatnonzero(self.any_positive)
        negative = np.flatnonzero(~self.any_positive)
        wanted = round(size * len(positive) / len(self))
        if size >= 2 and len(positive) and len(negative):
            wanted = min(max(wanted, 1), size - 1)
        wanted = max(min(wanted, len(positive)), size - len(negative))
        drawn = [rng.choice(positive, wanted, replace=False), rng.choice(negative, size - wanted, replace=False)]
        return self.take(np.sort(np.concatenate(drawn)))


@dataclass(frozen=True)
class Dataset:
    """Splits that share their labels."""

    labels: tuple[str, ...]
    splits: dict[str, Split]  # by name, among train, valid and test
    manifest: DataManifest = field(default_factory=DataManifest)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be named, each once: {self.labels!r}")
        for name, split in self.splits.items():
            if name not in SPLIT_NAMES:
                raise ValueError(f"a split is named one of {', '.join(SPLIT_NAMES)}, not {name!r}")
            if split.labels.shape[1] != len(self.labels):
                raise ValueError(f"split {name!r} has {split.labels.shape[1]} label columns, not {len(self.labels)}")

    def split(self, name: str) -> Split:
        """Return the split of that name.

        Raises:
            SourceNotFoundError: there is none, or the rows were too few to split it off.
        """
        if name in self.splits:
            return self.splits[name]
        there = ", ".join(s for s in SPLIT_NAMES if s in self.splits) or "none"
        source = self.manifest.get("source") or "this data set"
        if self.manifest.get("settings", {}).get(f"{name}_share"):  # it was to be split off
            rows = counted(len(self.splits.get("train", ())), "train row")
            raise SourceNotFoundError(
                f"there are too few rows to split off a split {name!r}: {rows}",
                where=source,
                remedy=f"give at least {LEAST_OF_A_KIND} different comments with {self.labels[0]!r} and "
                f"{LEAST_OF_A_KIND} without any label, or rows of its own with "
                f"'gkiller data prepare ... --{name} FILE'",
            )
        raise SourceNotFoundError(
            f"there is no split {name!r}", where=source, remedy=f"choose one of the splits there are: {there}"
        )
