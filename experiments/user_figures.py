"""Whether published figures are what users get: gkiller evaluate, and gkiller predict with scikit-learn.

    python experiments/user_figures.py --data $DATA [--model default]

For each set of the public corpora: F1, precision and recall at the model's threshold, ROC-AUC and average
precision of toxicity, (a) as ``gkiller evaluate`` prints them and (b) of the scores and flags of ``gkiller
predict``. Ends with 1 where they differ in the fourth digit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

sys.path.append(str(Path(__file__).parents[1] / "recipes"))

from commands import answer, gkiller

SETS = ("test/jigsaw", "valid/jigsaw", "test/civil_natural", "valid/civil_natural", "valid/civil", "ood/*")
FIGURES = ("f1", "precision", "recall", "roc_auc", "ap")
TOLERANCE = 5e-5


def main() -> int:
    """Print a row for each way of each set; return 1 where a set's rows differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    arguments = parser.parse_args()
    paths = [path for name in SETS for path in sorted(arguments.data.glob(f"{name}.parquet"))]
    sys.stdout.write(f"| comments | way | n | {' | '.join(FIGURES)} |\n|{'---|' * (3 + len(FIGURES))}\n")
    differ = []
    for path in paths:
        name = f"{path.parent.name}/{path.stem}"
        ways = {"evaluate": evaluated(arguments.model, path), "predict": predicted(arguments.model, path)}
        for way, found in ways.items():
            cells = " | ".join(f"{found[figure]:.4f}" for figure in FIGURES)
            sys.stdout.write(f"| {name} | {way} | {found['n']:,} | {cells} |\n")
            sys.stdout.flush()
        if not same(*ways.values()):
            differ.append(name)
    if differ:
        sys.stderr.write(f"figures differ: {', '.join(differ)}\n")
    return 1 if differ or not paths else 0


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two ways have the same rows and, to four digits, the same figures."""
    close = all(abs(one[figure] - other[figure]) <= TOLERANCE for figure in FIGURES)
    return one["n"] == other["n"] and close


def evaluated(model: str | Path, path: Path, label: str = "label") -> dict[str, float]:
    """Return the figures that ``gkiller evaluate`` gives of a Parquet file."""
    weights = ("--weight-column", "weight") if "weight" in pq.read_schema(path).names else ()
    columns = ("--label-columns", label, *weights)
    found = answer("evaluate", model, "--data", path, *columns, "--resamples", 10)
    (one,) = found["labels"].values()
    figures = {**one["stored"], "roc_auc": one["roc_auc"], "ap": one["ap"]}
    return {"n": found["rows"], **{figure: figures[figure]["value"] for figure in FIGURES}}


def predicted(model: str | Path, path: Path, label: str = "label") -> dict[str, float]:
    """Return the figures that scikit-learn gives of what ``gkiller predict`` says of a Parquet file."""
    table = pq.read_table(path)
    truth = np.array(table[label].to_pylist(), dtype=float)
    weights = np.array(table["weight"]) if "weight" in table.column_names else np.ones(len(truth))
    with tempfile.TemporaryDirectory(prefix="gkiller-figures-") as folder:
        out = Path(folder) / "scores.parquet"
        gkiller("predict", "--model", model, "--input", path, "--output", out)
        answers = pq.read_table(out)
    scores = np.array(answers["toxicity"])
    flags = np.array(["toxicity" in flagged for flagged in answers["flags"].to_pylist()])
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, flags, average="binary", sample_weight=weights, zero_division=0
    )
    return {
        "n": len(truth),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "roc_auc": float(roc_auc_score(truth, scores, sample_weight=weights)),
        "ap": float(average_precision_score(truth, scores, sample_weight=weights)),
    }


if __name__ == "__main__":
    sys.exit(main())
