"""Recall on changed comments at the false-positive rate that a model has on the same comments unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gkiller.evaluation.metrics import ratio

if TYPE_CHECKING:
    from gkiller.evaluation.checks import FloatArray, IntArray


class EqualFpr:
    """One kind of change: where the threshold would stand, and what recall is there.

    The threshold is the lowest at which no greater share of the changed negatives is flagged than of the same
    ones unchanged at the model's own; so it follows scores that a change moves up or down as a whole, and
    recall that is bought with false alarms does not count.

    Args:
        positive: (P,) scores of the changed positives.
        negative: (N,) scores of the changed negatives.
        flagged: (N,) 0 or 1: the negatives that the model flags unchanged.
    """

    def __init__(self, positive: FloatArray, negative: FloatArray, flagged: FloatArray) -> None:
        self._flagged = flagged
        self._alarms: IntArray = np.argsort(-negative, kind="stable")
        self._hits: IntArray = np.argsort(-positive, kind="stable")
        falling, hits = negative[self._alarms], positive[self._hits]
        # The first changed negative that is one too many is not flagged, nor is what scores as it does:
        # those before all negatives of its score may be, and the positives that score higher.
        self._above = np.searchsorted(-hits, -falling, side="left")

    def recall(self, positive: FloatArray, negative: FloatArray) -> FloatArray:
        """Return the recall in each resample, (R,); NaN where a class has no mass.

        Args:
            positive: (R, P) masses of the positives.
            negative: (R, N) masses of the negatives.
        """
        if not negative.shape[1]:
            return np.full(len(negative), np.nan)
        allowed = negative @ self._flagged
        risen = np.cumsum(negative[:, self._alarms], axis=1)
        fits = risen <= allowed[:, None] * (1 + 1e-9)  # sums in another order round otherwise
        first = np.argmin(fits, axis=1)  # of those that do not fit
        places = np.where(fits.all(axis=1), positive.shape[1], self._above[first])
        gained = np.cumsum(positive[:, self._hits], axis=1)
        gained = np.concatenate([np.zeros((len(gained), 1)), gained], axis=1)
        mass = gained[:, -1]
        found: FloatArray = ratio(gained[np.arange(len(gained)), places], mass)
        found[(mass == 0) | (risen[:, -1] == 0)] = np.nan
        return np.minimum(found, 1.0)
