"""Keep what a model says of the public evaluation sets, so that others can be compared without it.

    python experiments/scores.py giant/runs/mpnet --data $DATA --out experiments/scores/mpnet

For each set a Parquet file of the rows, their ids, the score of one label, and whether it was
flagged at the model's threshold; no texts. The column ``long_text`` says how long comments were read.
``gkiller compare`` and ``gkiller suite identity`` read them.
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run or model with an exported graph")
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--out", type=Path, required=True, help="directory of the scores")
    parser.add_argument("--label", default="toxicity")
    parser.add_argument("--long-text", choices=("window", "truncate"), default="window")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = [path for name in SETS for path in sorted(arguments.data.glob(f"{name}.parquet"))]
    for path in paths:
        target = arguments.out / f"{path.parent.name}-{path.name}"
        if not target.is_file():
            score(arguments.model, path, target, arguments.label, arguments.long_text)


def score(model: Path, path: Path, target: Path, label: str, long_text: str) -> None:
    """Write the scores of one set."""
    with tempfile.TemporaryDirectory(prefix="gkiller-scores-") as folder:
        whole = Path(folder) / "scores.parquet"
        how = ("--model", model, "--input", path, "--output", whole, "--long-text", long_text)
        gkiller("predict", *how)
        found = pq.read_table(whole)
    flags = [[flag for flag in row if flag == label] for row in found["flags"].to_pylist()]
    names = [name for name in ("row", "id", label) if name in found.column_names]
    kept = found.select(names).append_column("flags", pa.array(flags, pa.list_(pa.string())))
    kept = kept.append_column("long_text", pa.array([long_text] * len(kept)))
    pq.write_table(kept, target, compression="zstd")


if __name__ == "__main__":
    main()
