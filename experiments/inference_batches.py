"""How many rows and tokens should one call of the graph have? Comments per second by the size of a batch.

    python experiments/inference_batches.py MODEL --data prepared/

The comments are those of the test split. All sizes are timed in turns after a warm-up; the median counts. A
batch has at most ``rows`` rows and ``tokens`` tokens, its padding included. Tokenizing is part of the time.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import numpy as np

from gkiller.benchmark.plan import in_turns
from gkiller.data.load import read_prepared
from gkiller.inference import load
from gkiller.tokens import batches

SIZES = ((2, 512), (4, 512), (8, 512), (8, 1024), (16, 512), (16, 1024), (32, 1024), (32, 2048), (64, 4096))


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported model directory or run")
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--precision", default="int8,fp32", help="comma-separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2000, help="comments")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts = read_prepared(arguments.data).split("test").texts[: arguments.rows]

    def score(precision: str, rows: int, tokens: int) -> None:
        batches.BATCH_ROWS, batches.BATCH_TOKENS = rows, tokens
        loaded[precision].predict_proba(texts)

    loaded = {
        name: load(arguments.model, precision=name, threads=arguments.threads)
        for name in arguments.precision.split(",")
    }
    names = {f"{name} {size}": partial(score, name, *size) for name in loaded for size in SIZES}
    seconds = in_turns(names, arguments.rounds)
    lines = [
        f"{len(texts):,} comments, {arguments.threads} thread(s), comments/s:",
        "",
        f"| rows | tokens | {' | '.join(loaded)} |",
        "|---|---|" + "---|" * len(loaded),
    ]
    for size in SIZES:
        rates = [len(texts) / float(np.median(seconds[f"{name} {size}"])) for name in loaded]
        lines.append(f"| {size[0]} | {size[1]} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
