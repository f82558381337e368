"""Which rule gives thresholds that hold: the best observed F1, the best expected one, or nearly that?

    gkiller predict --model default --input $DATA/valid/jigsaw.parquet --output default.parquet
    python experiments/threshold_rules.py default.parquet --data $DATA/valid/jigsaw.parquet

For each file of scores the comments are split in halves at random, many times: a threshold is tuned on one
half by each rule (``evaluation.threshold_rule``, and ``evaluation.f1_slack`` for "less .01"), and F1 is taken
on the other, as it is and weighted so that half of it is positive, as where comments are looked at because
somebody complained. Means over the splits, how far the thresholds spread, and in how many splits F1 is
greater than by the observed rule. No F1 is of comments that its threshold was tuned on. The threshold that is
printed is the one of all comments, as ``gkiller compare --threshold-a`` takes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.thresholds import tune_thresholds

Floats = npt.NDArray[np.float64]


class Rule(NamedTuple):
    """How a threshold is tuned."""

    expected: bool
    slack: float = 0.0

    def __str__(self) -> str:
        name = "expected" if self.expected else "observed"
        return f"{name} less {self.slack:g}" if self.slack else name

    def threshold(self, truth: Floats, scores: Floats) -> float:
        """Return the threshold of comments."""
        tables = truth[:, None], scores[:, None]
        tuned = tune_thresholds(("label",), *tables, expected=self.expected, f1_slack=self.slack)
        return tuned["label"].value


def halves(
    truth: Floats, scores: Floats, rules: Sequence[Rule], splits: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Return F1 on the other half, F1 where half of that is positive, and thresholds: each (splits, R)."""
    rng = np.random.default_rng(seed)
    figures = np.zeros((3, splits, len(rules)))
    for split in range(splits):
        here = rng.permutation(len(truth)) < len(truth) // 2
        there = truth[~here]
        even = np.where(there == 1, 1 / there.sum(), 1 / (len(there) - there.sum()))
        for place, rule in enumerate(rules):
            cut = rule.threshold(truth[here], scores[here])
            for row, weights in enumerate((None, even)):
                found = label_figures(there, scores[~here], weights, threshold=cut)
                figures[row, split, place] = found["f1"]
            figures[2, split, place] = cut
    return figures[0], figures[1], figures[2]


def table(files: list[Path], truth: Floats, name: str, rules: Sequence[Rule], splits: int, seed: int) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| scores | rule | F1 | wins over observed | F1, half positive | threshold | its spread |"
    yield "|---|---|---|---|---|---|---|"
    for file in files:
        scores = pq.read_table(file)[name].to_numpy().astype(np.float64)
        figures, even, thresholds = halves(truth, scores, rules, splits, seed)
        for place, rule in enumerate(rules):
            wins = f"{(figures[:, place] > figures[:, 0]).mean():.0%}" if place else ""
            cells = [f"{one[:, place].mean():.4f}" for one in (figures, even)]
            cuts = (rule.threshold(truth, scores), thresholds[:, place].std())
            line = (file.stem, rule, cells[0], wins, cells[1], *(f"{one:.3f}" for one in cuts))
            yield f"| {' | '.join(map(str, line))} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="+", help="Parquet files, a row for each of the comments")
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of the comments")
    parser.add_argument("--label", default="label", help="its column of 0 and 1")
    parser.add_argument("--name", default="toxicity", help="the scores' column")
    parser.add_argument("--slack", type=float, nargs="*", default=[0.005, 0.01, 0.02])
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rules = (Rule(expected=False), Rule(expected=True), *(Rule(True, slack) for slack in given.slack))
    truth = pq.read_table(given.data)[given.label].to_numpy().astype(np.float64)
    for line in table(given.scores, truth, given.name, rules, given.splits, given.seed):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
