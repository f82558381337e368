"""One label's scores, ready to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gkiller.evaluation.checks import FloatArray
from gkiller.evaluation.ranking import Cuts, Ranking


@dataclass(frozen=True)
class Curve:
    """One label, ready to draw."""

    name: str
    place: int
    ranking: Ranking
    threshold: float
    figures: FloatArray  # roc_auc, ap, brier, ece, f1, precision, recall, accuracy, mcc
    cuts: Cuts

    @property
    def at_threshold(self) -> tuple[float, float]:
        """Return true and false positives' weight at the stored threshold."""
        called = int(np.count_nonzero(self.cuts.scores >= self.threshold))
        if not called:
            return 0.0, 0.0
        return float(self.cuts.tp[called - 1]), float(self.cuts.fp[called - 1])
