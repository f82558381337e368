"""The linear model that gkiller's network is compared with, measured the same way.

TF-IDF of words (1 to 2) and of characters within words (2 to 5), a class-balanced logistic regression, and
a threshold tuned on the validation split. The figures are those of ``gkiller evaluate``, on both splits.

    python experiments/linear_baseline.py --data prepared/

``prepared/`` is made by ``gkiller data prepare``; its first label is measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gkiller.benchmark.linear import Linear, fit_linear
from gkiller.data.dataset import Split
from gkiller.data.load import read_prepared
from gkiller.evaluation.models import Measured, evaluate_measured, tune_measured
from gkiller.evaluation.report import evaluation_text
from gkiller.settings import resolve


def measured(model: Linear, split: Split, label: str, threshold: float) -> Measured:
    """Return the scores of a split."""
    return Measured(
        labels=(label,),
        missing=(),
        truth=split.labels[:, :1],
        scores=model.run(model.prepare(split.texts))[:, :1],
        weights=split.weights,
        thresholds={label: threshold},
    )


def main() -> None:
    """Train, tune, measure and write the two reports on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory written by 'gkiller data prepare'")
    arguments = parser.parse_args()
    dataset = read_prepared(arguments.data)
    settings = resolve(environ={}).settings.evaluation
    begun = time.monotonic()
    model = fit_linear(dataset.split("train"), dataset.labels)
    sys.stderr.write(f"fitted in {time.monotonic() - begun:.0f} s, {model.coefficients.shape[1]:,} features\n")
    label, threshold = dataset.labels[0], 0.5
    for name in ("valid", "test"):
        split = measured(model, dataset.split(name), label, threshold)
        if name == "valid":
            threshold = tune_measured(split, settings)[label].value
            split.thresholds[label] = threshold
        heading = f"Linear baseline, {name} split"
        sys.stdout.write(evaluation_text(evaluate_measured(split, settings), heading=heading) + "\n")


if __name__ == "__main__":
    main()
