"""Whether a model's ranking is better than chance at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gkiller.evaluation.results import Evaluation


def learnt_nothing(evaluation: Evaluation) -> list[str]:
    """Return the labels for which nothing shows that the model has learnt them.

    Scores drawn by lot have an average precision near the share of positives, as have equal scores. A label
    is returned when the interval of its average precision does not lie above that share. On few rows a weak
    model looks like this too. A label with one class only is left out: there it cannot be told.
    """
    found = []
    for result in evaluation.labels:
        least = result.ap.value if result.ap.low is None else result.ap.low
        if least is not None and result.prior is not None and least <= result.prior < 1:
            found.append(result.label)
    return found
