"""Which rule gives thresholds that hold: the best observed F1, or the best expected one?

    gkiller predict --model default --input $DATA/valid/jigsaw.parquet --output default.parquet
    python benchmarks/threshold_rules.py default.parquet --data $DATA/valid/jigsaw.parquet

For each file of scores the comments are split in halves at random, many times: a threshold is tuned on one
half by either rule (``evaluation.threshold_rule``), and F1 is taken on the other. Means over the splits, how
far the thresholds spread, and in how many splits the expected rule's F1 is the greater. No figure is of
comments that its threshold was tuned on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.thresholds import tune_thresholds

Floats = npt.NDArray[np.float64]


def halves(truth: Floats, scores: Floats, splits: int, seed: int) -> tuple[Floats, Floats]:
    """Return F1 on the other half and thresholds, both (splits, 2), by the observed and the expected F1."""
    rng = np.random.default_rng(seed)
    figures, thresholds = np.zeros((splits, 2)), np.zeros((splits, 2))
    for split in range(splits):
        here = rng.permutation(len(truth)) < len(truth) // 2
        for rule, expected in enumerate((False, True)):
            tuned = tune_thresholds(("label",), truth[here, None], scores[here, None], expected=expected)
            cut = thresholds[split, rule] = tuned["label"].value
            figures[split, rule] = label_figures(truth[~here], scores[~here], threshold=cut)["f1"]
    return figures, thresholds


def table(files: list[Path], truth: Floats, name: str, splits: int, seed: int) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| scores | F1, observed | F1, expected | expected wins | spread, observed | spread, expected |"
    yield "|---|---|---|---|---|---|"
    for file in files:
        scores = pq.read_table(file)[name].to_numpy().astype(np.float64)
        figures, thresholds = halves(truth, scores, splits, seed)
        mean, spread = figures.mean(axis=0), thresholds.std(axis=0)
        more = f"{(figures[:, 1] > figures[:, 0]).mean():.0%}"
        yield f"| {file.stem} | {mean[0]:.4f} | {mean[1]:.4f} | {more} | {spread[0]:.3f} | {spread[1]:.3f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, nargs="+", help="Parquet files, a row for each of the comments")
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of the comments")
    parser.add_argument("--label", default="label", help="its column of 0 and 1")
    parser.add_argument("--name", default="toxicity", help="the scores' column")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    truth = pq.read_table(given.data)[given.label].to_numpy().astype(np.float64)
    for line in table(given.scores, truth, given.name, given.splits, given.seed):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
