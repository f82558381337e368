"""A chunk of comments on its way through the network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gkiller.inference.batches import Windows
from gkiller.inference.session import Logits, Stop

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Scores of n comments.

    Attributes:
        scores: float64 of shape (n, L), in 0..1.
        windows: int64 of shape (n,): pieces that each comment was read in.
        truncated: bool of shape (n,): whether its end was left unread.
    """

    scores: Scores
    windows: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Work:
    """A chunk on its way through the network."""

    windows: Windows
    parts: list[npt.NDArray[np.int64]]
    answers: Sequence[Logits | Future[Logits]]
    back: npt.NDArray[np.int64]
    labels: int
    ending: Stop

    def result(self) -> Scored:
        """Wait for the scores: of each comment, the highest of its windows."""
        logits = np.zeros((len(self.windows.owner), self.labels), np.float32)
        try:
            for rows, answer in zip(self.parts, self.answers, strict=True):
                logits[rows] = answer.result() if isinstance(answer, Future) else answer
        except BaseException:
            self.stop()
            raise
        count = self.windows.count
        if len(count) != len(logits):
            logits = np.maximum.reduceat(logits, np.cumsum(count) - count)
        return Scored(sigmoid(logits)[self.back], count[self.back], self.windows.truncated[self.back])

    def stop(self) -> None:
        """Let go of what has no answer yet, so that no thread is waited for."""
        self.ending.terminate = True
        for answer in self.answers:
            if isinstance(answer, Future):
                answer.cancel()


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Return probabilities in 0..1, without overflow: 1 / (1 + exp(-x)) by way of tanh."""
    half: Scores = np.tanh(np.asarray(logits, np.float64) / 2)
    return 0.5 + half / 2
