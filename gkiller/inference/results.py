"""What a classifier answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The answer for one comment. ``prediction["threat"]`` and ``dict(prediction)`` give scores.

    Attributes:
        scores: probability in 0..1 of each label.
        flags: for each label that decides, whether its score reaches the threshold; all labels decide unless
            the model, or who asked, names some.
        windows: in how many pieces the comment was read: over 1 when it is longer than the model reads at
            once, and each score is then the highest of the pieces.
        truncated: whether the comment's end was left unread (only with ``long_text="truncate"``).
    """

    scores: Mapping[str, float]
    flags: Mapping[str, bool]
    windows: int = 1
    truncated: bool = False

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
    """What a stretch of a comment adds to the scores.

    Attributes:
        text: the stretch.
        start: where it starts in the comment, in characters.
        end: where it ends.
        contributions: for each label, how far the score's log-odds fall when the stretch is hidden; below
            0 when they rise.
    """

    text: str
    start: int
    end: int
    contributions: Mapping[str, float]
