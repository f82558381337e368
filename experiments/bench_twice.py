"""Does the bench agree with itself? Runs it twice, a model beside itself, and compares the ratios.

    python experiments/bench_twice.py runs/NAME --data prepared/ -- --rows 256 --rounds 61

Each run times the model against itself and against what is named after ``--``, which goes to
``gkiller bench`` as it is, such as ``--against runs/giant``. Prints each throughput ratio of both runs, and
ends with 1 when two of them differ by more than a tenth, or when the interval of a ratio of the model with
itself does not hold 1. Up to six ratios are judged so, three runtimes in two runs: their intervals are wide
enough to hold the truth all at once in 95 % of cases (Bonferroni: 99.2 % each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

MOST = 0.1
TOGETHER = 0.95
JUDGED = 6
"""Ratios of the model with itself: of torch, ONNX fp32 and int8, in both runs."""


def bench(model: str, data: str | None, more: list[str]) -> dict[str, Any]:
    """Return what one run of the bench answers."""
    command = [sys.executable, "-m", "gkiller", "bench", model, "--against", model, "--benchmark-only"]
    command += ["--no-linear", "--processes", "1", "--json", *(["--data", data] if data else [])]
    command += ["--set", f"evaluation.confidence={1 - (1 - TOGETHER) / JUDGED}", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def throughputs(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the throughput ratios by pair."""
    return {(one["system"], one["other"]): one["times"] for one in found["ratios"] if one["what"] == "throughput"}


def is_itself(system: str, other: str) -> bool:
    """Whether a row is the model's own second copy, which the bench numbers."""
    name, runtime = system.split(", ")
    return other == f"{name} (2), {runtime}"


def main() -> None:
    """Run twice, print a table, and end with 1 where the runs disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What stands after -- goes to gkiller bench.",
    )
    parser.add_argument("model", help="a run or a model directory")
    parser.add_argument("--data", help="instead of the run's own")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, more = parser.parse_args(words[:end]), words[end + 1 :]
    first, second = (throughputs(bench(arguments.model, arguments.data, more)) for _ in range(2))
    bad = 0
    for pair, one in first.items():
        other = second[pair]
        apart = abs(other["value"] / one["value"] - 1)
        off = is_itself(*pair) and not all(r["low"] <= 1 <= r["high"] for r in (one, other))
        bad += apart > MOST or off
        shown = [f"{r['value']:.2f} ({r['low']:.2f}-{r['high']:.2f})" for r in (one, other)]
        sys.stdout.write(f"{pair[0]} against {pair[1]}: {shown[0]}, {shown[1]}, {apart:.1%} apart\n")
    sys.stdout.write(f"{bad} of {len(first)} ratios disagree\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
