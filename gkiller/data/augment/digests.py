"""A growing set of 64-bit digests, at 8 bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]


class DigestSet:
    """Sorted runs, each longer than the next; a run is merged into the one before once it is as long."""

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def contains(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Mark the digests, of shape (n,), that are in the set."""
        found = np.zeros(len(digests), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, digests), len(run) - 1)
            found |= run[at] == digests
        return found

    def add(self, digests: Digests) -> None:
        """Put digests, of shape (n,), into the set."""
        run = np.unique(digests)
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.union1d(self._runs.pop(), run)
        if len(run):
            self._runs.append(run)
