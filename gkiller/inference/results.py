"""What a classifier answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gkiller.errors import SettingsError
from gkiller.wording import did_you_mean


@dataclass(frozen=True)
class Prediction:
    """The answer for one comment. ``prediction["threat"]`` and ``dict(prediction)`` give scores."""

    scores: Mapping[str, float]  # probability in 0..1 of each label
    flags: Mapping[str, bool]  # for each label that decides, whether its score reaches the threshold
    windows: int = 1  # pieces that the comment was read in; each score is the highest of theirs
    truncated: bool = False  # whether the comment's end was left unread (only with long_text="truncate")

    @property
    def flagged(self) -> bool:
        """Whether the score of any label that decides reaches its threshold."""
        return any(self.flags.values())

    def __getitem__(self, label: str) -> float:
        return self.scores[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def keys(self) -> list[str]:
        """Return the labels."""
        return list(self.scores)


@dataclass(frozen=True)
class Contribution:
    """What a stretch of a comment adds to the scores."""

    text: str
    start: int
    end: int
    # for each label, how far the score's log-odds fall when the stretch is hidden; below 0 when they rise
    contributions: Mapping[str, float]


def deciding_labels(names: str | Iterable[str], labels: Sequence[str], where: str = "labels") -> tuple[str, ...]:
    """Return the named labels in the model's order; a SettingsError for an unknown one, or none at all."""
    asked = [names] if isinstance(names, str) else list(names)
    if not asked:
        raise SettingsError("no label is named", where=where, remedy=f"name some of: {', '.join(labels)}")
    for name in asked:
        if name not in labels:
            raise SettingsError(f"the model has no label {name!r}", where=where, remedy=did_you_mean(str(name), labels))
    return tuple(label for label in labels if label in asked)


def reached(
    scores: npt.NDArray[np.float64], labels: Sequence[str], thresholds: Mapping[str, float], deciding: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Return where a deciding label's score reaches its threshold, (n, L); False for the other labels."""
    limits = np.array([thresholds[label] for label in labels])
    return (scores >= limits) & np.isin(labels, deciding)
