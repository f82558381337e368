"""How long it takes from nothing to a first score: import, load, and one comment.

Runs ``from gkiller import load; load(MODEL).predict("...")`` in fresh processes and prints the median and
the slowest of each step, in seconds, as one JSON object. ``libraries`` is what numpy, onnxruntime and
tokenizers take of ``import``; ``cpu`` is the processor time of the whole process, which other processes on
the machine disturb less. The first process, which may find cold disk caches, is counted apart. Run it as
``python benchmarks/cold_start.py runs/NAME``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CHILD = """
import json, sys, time
begun = time.perf_counter()
import numpy, onnxruntime, tokenizers
libraries = time.perf_counter()
from gkiller import load
import gkiller.inference
imported = time.perf_counter()
clf = load(sys.argv[1], precision=sys.argv[2], threads=1)
loaded = time.perf_counter()
clf.predict("a first comment")
scored = time.perf_counter()
cpu = time.process_time()
print(json.dumps({
    "libraries": libraries - begun, "import": imported - begun, "load": loaded - imported,
    "first_score": scored - loaded, "import_and_load": loaded - begun, "cpu": cpu,
    "precision": clf.precision,
}))
"""


def measure(model: str, precision: str) -> dict[str, float | str]:
    """Return one process's seconds by step, and those of the process as a whole."""
    started = time.perf_counter()
    command = [sys.executable, "-c", CHILD, model, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    steps: dict[str, float | str] = json.loads(done.stdout)
    return {**steps, "process": time.perf_counter() - started}


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="an exported model directory, or a run that has one")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--processes", type=int, default=15)
    arguments = parser.parse_args()
    first, *rest = [measure(arguments.model, arguments.precision) for _ in range(arguments.processes + 1)]
    precision = first.pop("precision")
    steps = {
        step: {
            "first": round(float(first[step]), 3),
            "median": round(statistics.median(float(one[step]) for one in rest), 3),
            "slowest": round(max(float(one[step]) for one in rest), 3),
        }
        for step in first
    }
    result = {"precision": precision, "processes": len(rest), "unit": "seconds", **steps}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
