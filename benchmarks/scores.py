"""Keep what a model says of the public evaluation sets, so that others can be compared without it.

    python benchmarks/scores.py giant/runs/mpnet --data $DATA --out benchmarks/scores/mpnet

For each set a Parquet file of the rows, their ids, the score of one label, and whether it was
flagged at the model's threshold; no texts. ``gkiller compare`` and ``gkiller suite identity`` read them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).parents[1] / "recipes"))

from commands import gkiller

SETS = ("valid/jigsaw", "valid/civil", "test/jigsaw", "ood/*", "suites/identity_madlibs")


def main() -> None:
    """Score what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a run or model with an exported graph")
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--out", type=Path, required=True, help="directory of the scores")
    parser.add_argument("--label", default="toxicity")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = [path for name in SETS for path in sorted(arguments.data.glob(f"{name}.parquet"))]
    for path in paths:
        target = arguments.out / f"{path.parent.name}-{path.name}"
        if not target.is_file():
            score(arguments.model, path, target, arguments.label)


def score(model: Path, path: Path, target: Path, label: str) -> None:
    """Write the scores of one set; as when training, the end of a long comment is not read."""
    with tempfile.TemporaryDirectory(prefix="gkiller-scores-") as folder:
        whole = Path(folder) / "scores.parquet"
        how = ("--model", model, "--input", path, "--output", whole, "--long-text", "truncate")
        gkiller("predict", *how)
        found = pq.read_table(whole)
    flags = [[flag for flag in row if flag == label] for row in found["flags"].to_pylist()]
    names = [name for name in ("row", "id", label) if name in found.column_names]
    kept = found.select(names).append_column("flags", pa.array(flags, pa.list_(pa.string())))
    pq.write_table(kept, target, compression="zstd")


if __name__ == "__main__":
    main()
