"""Whether ``gkiller predict`` takes the same memory for a long stream as for a short one.

Pipes made-up comments into ``gkiller predict`` in a process of its own, for each number of rows, and
prints that process's peak resident memory, wall time and comments per second as one JSON object. With
``--same`` every row is the same comment, as ``yes "some comment"`` writes it; else all differ and one in a
hundred is longer than the model reads at once. Run it as ``python experiments/predict_memory.py runs/NAME``.
Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

WORDS = (
    *("the", "town", "council", "road", "bridge", "plan", "vote", "paper", "silly", "idea", "nonsense"),
    *("agree", "fool", "budget", "school", "bus", "late", "rain", "train", "ticket", "price", "garden"),
    *("dog", "noise", "neighbour", "letter", "editor", "page", "source", "article", "wrong", "never"),
)


def comments(rows: int, *, same: bool) -> Iterator[bytes]:
    """Yield lines."""
    rng = random.Random(0)
    for row in range(rows):
        if same:
            yield b"some comment\n"
        else:
            words = rng.choices(WORDS, k=300 if row % 100 == 99 else rng.randint(3, 15))
            yield f"{row} {' '.join(words)}\n".encode()


def measure(model: str, rows: int, *, same: bool, threads: int) -> dict[str, Any]:
    """Score ``rows`` comments in a new process; return its peak memory in MiB and its seconds."""
    command = [sys.executable, "-m", "gkiller", "predict", "--model", model, "--threads", str(threads)]
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)
        assert process.stdin is not None
        with process.stdin as stream:
            stream.writelines(comments(rows, same=same))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"gkiller predict ended with {process.returncode}")
        output.seek(0)
        lines = sum(1 for _ in output)
    if lines != rows:
        raise SystemExit(f"{rows} rows in, {lines} out")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "rows": rows,
        "peak_mib": round(usage.ru_maxrss / unit, 1),
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
    }


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="an exported model directory, or a run that has one")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--same", action="store_true", help="every row is the same comment")
    arguments = parser.parse_args()
    results = [
        measure(arguments.model, rows, same=arguments.same, threads=arguments.threads) for rows in arguments.rows
    ]
    sys.stdout.write(json.dumps({"same": arguments.same, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
