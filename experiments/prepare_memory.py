"""How much memory and time ``gkiller data prepare`` and ``augment`` take for a large CSV file.

Writes a file of made-up comments (a million by default, some of them duplicates, some quoted and with
line ends) to a temporary folder, prepares it in a process of its own, augments the result in another, and
prints each process's peak resident memory, its wall time, and the same for a thousand rows: what imports
alone cost. Run it as ``python experiments/prepare_memory.py``. Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "town", "council", "road", "bridge", "plan", "vote", "paper", "silly", "idea", "nonsense"),
    *("agree", "fool", "budget", "school", "bus", "late", "rain", "train", "ticket", "price", "garden"),
    *("dog", "noise", "neighbour", "letter", "editor", "page", "source", "article", "wrong", "never"),
)


def write_comments(path: Path, rows: int, seed: int) -> None:
    """Write ``rows`` comments of 5 to 80 words; every 50th repeats an earlier one in capitals."""
    rng = random.Random(seed)
    recent = ["first comment"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "comment_text", "toxic", "insult"))
        for row in range(rows):
            if row % 50 == 49:
                text = rng.choice(recent).upper()
            else:
                text = f"{row} " + " ".join(rng.choices(WORDS, k=rng.randint(5, 80)))
                if row % 10 == 0:
                    text = f'He said "{text}",\nand left.'
                recent = [*recent[-20:], text]
            toxic = int(rng.random() < 0.1)
            writer.writerow((row, text, toxic, int(toxic and rng.random() < 0.5)))


def measure(command: str, source: Path, out: Path, *flags: str) -> dict[str, Any]:
    """Run a data command in a new process; return its peak memory in MiB, seconds, and rows."""
    arguments = [sys.executable, "-m", "gkiller", "data", command, str(source), "--out", str(out), "--json", *flags]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as captured:
        process = subprocess.Popen(arguments, stdout=captured, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        captured.seek(0)
        if process.returncode:
            raise SystemExit(f"gkiller data {command} ended with {process.returncode}")
        manifest = json.load(captured)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "rows": manifest["rows_read"],
        "kept": manifest["rows_kept"],
        "peak_mib": round(usage.ru_maxrss / unit, 1),
        "seconds": round(seconds, 1),
        "rows_per_second": round(manifest["rows_read"] / seconds),
    }


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {}
        for label, rows in (("imports alone (1,000 rows)", 1000), ("large file", arguments.rows)):
            source = folder / f"{rows}.csv"
            write_comments(source, rows, arguments.seed)
            prepared = folder / f"prepared-{rows}"
            columns = ("--text-column", "comment_text", "--label-columns", "toxic,insult")
            results[label] = {
                "file_mib": round(source.stat().st_size / (1 << 20), 1),
                "prepare": measure("prepare", source, prepared, *columns),
                "augment": measure("augment", prepared, folder / f"augmented-{rows}"),
            }
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
