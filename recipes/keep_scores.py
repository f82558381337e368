"""Keep what a run's teachers said of its comments, so that others can learn it without them.

    python recipes/keep_scores.py default/runs/default-first --out recipes/scores/minilm.parquet

The file has the ids of the training comments, the transfer comments among them, and of the validation
comments, and for each label the mean of the teachers, or what the one of ``--teacher`` said, as a score; no
texts. ``gkiller train --teacher`` and ``recipes/default.py --teacher NAME=FILE`` take it. It is joined by the
ids, so it is for the same data, the same transfer file and the same order of both. What the run has scored is
read from beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gkiller.data.load import load_dataset
from gkiller.training.run import run_settings
from gkiller.training.runtime import Ranks, resolve_device
from gkiller.training.teachers import find_teachers, lesson, transfer_texts, with_transfer
from gkiller.training.train import TEACHERS

DIGITS = 4
"""Digits of a score: logits of fine-tuned teachers end near 6, whose score is 0.9975."""


def kept(run: Path, name: str | None = None) -> pa.Table:
    """Return ids and scores: the mean over a run's teachers, or those of the one of that name."""
    settings = run_settings(run)
    dataset = load_dataset(settings.data, cache=run.parent / ".data")
    teachers = find_teachers(settings.distill.teachers, dataset.labels)
    if name is not None:
        known = [one.name for one in teachers]
        teachers = tuple(one for one in teachers if one.name == name)
        if not teachers:
            sys.exit(f"no teacher of {run} is called {name}: {', '.join(known)}")
    taken = with_transfer(dataset, transfer_texts(settings, dataset))
    where = (run.parent / TEACHERS, resolve_device(settings.train.device), Ranks(), lambda *done: None)
    ids: list[str] = []
    logits = []
    for split in map(taken.split, ("train", "valid")):
        found = lesson(teachers, split.texts, split.ids, dataset.labels, settings.distill, *where)
        ids += split.ids
        logits.append(found.logits)
    return scores_of(ids, dataset.labels, np.concatenate(logits))


def scores_of(ids: Sequence[str], labels: Sequence[str], logits: npt.NDArray[np.float32]) -> pa.Table:
    """Return ids and, of their logits of shape (n, L), the scores."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    columns = dict(zip(labels, scores.round(DIGITS).astype(np.float32).T, strict=True))
    return pa.table({"id": list(ids), **columns})


def write(table: pa.Table, out: Path) -> None:
    """Write scores, in few bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd", compression_level=19)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="that learnt from teachers")
    parser.add_argument("--teacher", metavar="NAME", help="the only one whose scores are kept")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    write(kept(arguments.run, arguments.teacher), arguments.out)


if __name__ == "__main__":
    main()
