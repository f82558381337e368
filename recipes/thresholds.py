"""Tune a model's thresholds on the validation comments, by the rule of the default model.

    python recipes/thresholds.py default --data $DATA --out default/windows
    python recipes/card.py default/windows --data $DATA --out default/card.md
    python tools/ship_model.py default/windows --sections default/card.md

The lowest threshold whose expected F1 is at most .005 less than the best, for each of the six labels, on
comments that are read as users get them read. ``--out`` is a copy of the model with these thresholds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from commands import gkiller
from corpora import LABELS, six_labels

RULE = ("--threshold-rule", "expected", "--f1-slack", "0.005")


def main() -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory, a run, or default")
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--out", type=Path, required=True, help="directory of the copy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gkiller-thresholds-") as folder:
        source = arguments.data / "valid/jigsaw.parquet"
        valid = six_labels(source, Path(folder) / source.name)
        columns = ("--label-columns", ",".join(LABELS))
        gkiller("threshold", arguments.model, "--data", valid, *columns, *RULE, "--out", arguments.out)


if __name__ == "__main__":
    main()
