"""Which labels decide whether a comment is flagged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gkiller.errors import SettingsError, did_you_mean


def deciding_labels(
    names: str | Iterable[str], labels: Sequence[str], where: str = "labels"
) -> tuple[str, ...]:
    """Return the named labels in the model's order.

    Args:
        names: labels, or one of them.
        labels: the model's.
        where: what named them, for messages.

    Raises:
        SettingsError: one is not a label of the model, or none is named.
    """
    asked = [names] if isinstance(names, str) else list(names)
    if not asked:
        raise SettingsError("no label is named", where=where, remedy=f"name some of: {', '.join(labels)}")
    for name in asked:
        if name not in labels:
            raise SettingsError(
                f"the model has no label {name!r}", where=where, remedy=did_you_mean(str(name), labels)
            )
    return tuple(label for label in labels if label in asked)


def reached(
    scores: npt.NDArray[np.float64],
    labels: Sequence[str],
    thresholds: Mapping[str, float],
    deciding: Sequence[str],
) -> npt.NDArray[np.bool_]:
    """Return where a deciding label's score reaches its threshold, (n, L); False for the other labels.

    Args:
        scores: (n, L), columns as ``labels``.
        labels: L labels.
        thresholds: by label.
        deciding: the labels that decide.
    """
    limits = np.array([thresholds[label] for label in labels])
    return (scores >= limits) & np.isin(labels, deciding)
