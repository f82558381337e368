"""The mean of what several models say of the same comments: one file of scores, to be learnt from.

    gkiller predict --model runs/one --input comments.parquet --id-column id --output one.parquet
    ...
    python recipes/mean_scores.py one.parquet two.parquet three.parquet --out recipes/scores/students.parquet

It is the mean of the logits, which ``gkiller train`` takes of several teachers too; here these together count
as one of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from keep_scores import scores_of, write

from gkiller.data.labels import CANONICAL_LABELS
from gkiller.training.teachers import logits_of, mean_logits, read_teacher


def mean_scores(files: Sequence[Path], labels: Sequence[str]) -> pa.Table:
    """Return ids and scores: the mean over files that have the same ids."""
    found = [read_teacher(str(file), labels) for file in files]
    ids = found[0].records.ids
    for file, one in zip(files, found, strict=True):
        if not ids or set(one.records.ids) != set(ids):
            sys.exit(f"{file} has not the same ids as {files[0]}, or none")
        if tuple(one.labels) != tuple(found[0].labels):
            sys.exit(f"{file} has not the same labels as {files[0]}")
    return scores_of(ids, found[0].labels, mean_logits([logits_of(one, (), ids) for one in found]))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="+", help="files of gkiller predict")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    write(mean_scores(arguments.scores, CANONICAL_LABELS), arguments.out)


if __name__ == "__main__":
    main()
