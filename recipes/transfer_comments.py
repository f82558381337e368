"""Write the transfer comments that a file of scores knows, with their ids, for another model to score.

    python recipes/transfer_comments.py default/transfer-100000.parquet --of scores/mpnet-own.parquet \
        --out comments.parquet
    gkiller predict --model giant/runs/mpnet --input comments.parquet --id-column id --output scores.parquet \
        --long-text truncate

A transfer comment is called after its row in the transfer file (`gkiller.training.finish`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gkiller.training.teachers import PREFIX


def known(transfer: Path, scores: Path) -> pa.Table:
    """Return ids and texts of the transfer comments that a file of scores has, in its order."""
    ids = [name for name in pq.read_table(scores, columns=["id"])["id"].to_pylist() if name.startswith(PREFIX)]
    texts = pq.read_table(transfer, columns=["text"])["text"]
    rows = [int(name.removeprefix(PREFIX)) for name in ids]
    if not rows or max(rows) > len(texts):
        sys.exit(f"{scores} has scores of no or of other transfer comments than the {len(texts):,} of {transfer}")
    return pa.table({"id": ids, "text": texts.take([row - 1 for row in rows])})


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transfer", type=Path, help="the transfer file, as recipes/default.py writes it")
    parser.add_argument("--of", type=Path, required=True, metavar="FILE", help="of scores, with ids")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    pq.write_table(known(arguments.transfer, arguments.of), arguments.out)


if __name__ == "__main__":
    main()
