"""Teachers that are files of scores: what another program has said of the comments, beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gkiller.data.clean import folded_hash
from gkiller.errors import EmptyDataError, RowError, counted
from gkiller.evaluation.scorefiles import read_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gkiller.evaluation.scorefiles import ScoreFile

EXTREME: Final = 1e-4
"""Scores are taken no nearer to 0 and 1 than this: the logit of a rounded 0 would be without bounds."""


def read_teacher(name: str, labels: Sequence[str]) -> ScoreFile:
    """Read a file of scores to learn from.

    Args:
        name: JSON Lines, CSV, TSV or Parquet, as ``gkiller predict --with-text`` writes it.
        labels: of the data; those that the file lacks are not learnt from it.

    Raises:
        DataError: it cannot be read, is empty, or a row is broken.
        LabelMismatchError: it has none of the labels.
        RowError: its rows have neither comments nor ids, so they cannot be found.
        ScoreRangeError: a score is missing or is no number in 0..1.
    """
    found = read_scores(name, labels)
    if not found.records.count:
        raise EmptyDataError("the score file has no rows", where=name, remedy="score the comments again")
    if not found.records.texts and not found.records.ids:
        raise RowError(
            "its rows have neither comments nor ids, so nothing tells whose scores they are",
            where=name,
            remedy="add the column text (gkiller predict --with-text writes it)",
        )
    return found


def logits_of(file: ScoreFile, texts: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the logits of comments by a file's scores, (n, its labels); NaN where it has no such comment.

    Comments are found by their texts, but for case and white space, or where the file has none by their ids;
    of several rows of one comment the first counts.

    Args:
        file: of scores.
        texts: n comments.
        ids: n ids.
    """
    records = file.records
    rows: dict[bytes | str, int] = {}
    if records.texts:
        keys: list[bytes | str] = [folded_hash(text) for text in texts]
        for row, text in enumerate(records.texts):
            rows.setdefault(folded_hash(text), row)
    else:
        keys = list(ids)
        for row, identifier in enumerate(records.ids):
            rows.setdefault(identifier, row)
    places = np.array([rows.get(key, -1) for key in keys], dtype=np.intp)
    scores: npt.NDArray[np.float64] = file.scores.clip(EXTREME, 1 - EXTREME)
    logits = np.log(scores / (1 - scores)).astype(np.float32)[places]
    logits[places < 0] = np.nan
    return logits


def coverage(name: str, logits: npt.NDArray[np.float32], where: str) -> str:
    """Return how many of n training comments a file of scores has, for a reader.

    Args:
        name: of the teacher.
        logits: (n, L), as of `logits_of`.
        where: the file, for messages.

    Raises:
        RowError: it has none of them.
    """
    known = int((~np.isnan(logits)).any(1).sum())
    if not known:
        raise RowError(
            "it has the scores of none of the training comments",
            where=where,
            remedy="score those: texts, or ids where there are none, have to be the data's",
        )
    return f"teacher {name}: has {known:,} of {counted(len(logits), 'training comment')}"
