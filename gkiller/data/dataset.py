"""A data set in memory: what every other room reads. Needs numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from gkiller.errors import SourceNotFoundError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.intp]


SPLIT_NAMES = ("train", "valid", "test")
LEAST_OF_A_KIND = 3
"""From so many rows of the same labels on, at least one goes to each split that is split off train."""

LabelArray = npt.NDArray[np.float32]
WeightArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """One split: n comments with L labels.

    Attributes:
        labels: float32 of shape (n, L): 0, 1, or NaN where unknown.
        weights: float64 of shape (n,): sample weights, 1.0 when the source had none.
    """

    ids: list[str]
    texts: list[str]
    labels: LabelArray
    weights: WeightArray

    def __post_init__(self) -> None:
        """Check that the four columns agree; a mismatch is a fault of the caller."""
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
    def any_positive(self) -> npt.NDArray[np.bool_]:
        """Shape (n,): whether any known label of the row is positive."""
        positive: npt.NDArray[np.bool_] = (self.labels == 1.0).any(axis=1)
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

        The positives' number is the share they have here, rounded, but at least one of either kind
        where there are any and ``size`` allows. The same seed gives the same rows.

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
        drawn = [
            rng.choice(positive, wanted, replace=False),
            rng.choice(negative, size - wanted, replace=False),
        ]
        return self.take(np.sort(np.concatenate(drawn)))


@dataclass(frozen=True)
class Dataset:
    """Splits that share their labels.

    Attributes:
        splits: by name, among ``train``, ``valid`` and ``test``.
        manifest: what ``prepare`` wrote: source, licence note, counts, fingerprints and so on.
    """

    labels: tuple[str, ...]
    splits: dict[str, Split]
    manifest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and shapes; a mismatch is a fault of the caller."""
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be named, each once: {self.labels!r}")
        for name, split in self.splits.items():
            if name not in SPLIT_NAMES:
                raise ValueError(f"a split is named one of {', '.join(SPLIT_NAMES)}, not {name!r}")
            if split.labels.shape[1] != len(self.labels):
                raise ValueError(
                    f"split {name!r} has {split.labels.shape[1]} label columns, not {len(self.labels)}"
                )

    def split(self, name: str) -> Split:
        """Return the split of that name.

        Raises:
            SourceNotFoundError: there is none; the message names those there are, or says that the rows
                were too few to split it off.
        """
        if name in self.splits:
            return self.splits[name]
        there = ", ".join(s for s in SPLIT_NAMES if s in self.splits) or "none"
        source = self.manifest.get("source") or "this data set"
        if self.manifest.get("settings", {}).get(f"{name}_share"):  # it was to be split off
            count, label = len(self.splits.get("train", ())), self.labels[0]
            rows = f"{count:,} train row{'s' * (count != 1)}"
            raise SourceNotFoundError(
                f"there are too few rows to split off a split {name!r}: {rows}",
                where=str(source),
                remedy=f"give at least {LEAST_OF_A_KIND} different comments with {label!r} and "
                f"{LEAST_OF_A_KIND} without any label, or rows of its own with "
                f"'gkiller data prepare ... --{name} FILE'",
            )
        raise SourceNotFoundError(
            f"there is no split {name!r}",
            where=str(source),
            remedy=f"choose one of the splits there are: {there}",
        )
