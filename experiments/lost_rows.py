"""Stops bulk jobs many times over, at random moments, goes on, and looks for lost rows.

    python experiments/lost_rows.py --runs 200 --seed 0

Every run draws the format of the input, how it comes in (file, standard input, pipe, FIFO, /dev/fd), the
format of the output, and one to three signals (SIGKILL, SIGTERM, SIGINT) at random moments. Each time the job
goes on with --resume. Its output must have a row for each input row, and the bytes of a job that nobody
stopped. It prints a table, and ends with 1 when a run differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from inference_helpers import write_model  # noqa: E402
from losing import WAYS, Jobs, draw  # noqa: E402


def main() -> int:
    """Draw, stop, go on, compare; print a table."""
    parser = argparse.ArgumentParser(description="Stop bulk jobs and look for lost rows.")
    parser.add_argument("--runs", type=int, default=200, help="jobs")
    parser.add_argument("--rows", type=int, default=6000, help="of each input")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--ways", default=",".join(WAYS), help="ways in, with commas; others are left out")
    given = parser.parse_args()
    source, started = random.Random(given.seed), time.monotonic()
    runs, struck, failed = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="gkiller-lost-") as name:
        model = write_model(Path(name) / "model")
        jobs, number = Jobs(Path(name) / "jobs", model, rows=given.rows), 0
        while number < given.runs:
            case = draw(source)
            if case.way not in given.ways.split(","):
                continue
            number += 1
            runs[case.way] += 1
            try:
                struck[case.way] += jobs.check(case)
            except AssertionError as error:
                failed[case.way] += 1
                sys.stderr.write(f"run {number}: {str(error)[:2000]}\n")
            sys.stderr.write(f"\r{number} of {given.runs}")
    sys.stdout.write("\n| way in | runs | stopped | differ |\n|---|---|---|---|\n")
    for way in WAYS:
        sys.stdout.write(f"| {way} | {runs[way]} | {struck[way]} | {failed[way]} |\n")
    seconds = time.monotonic() - started
    sys.stdout.write(f"\n{sum(struck.values())} stops in all, seed {given.seed}, {seconds:,.0f} s.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
