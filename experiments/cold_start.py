"""How long it takes from nothing to a first score: import, load, and one comment.

Runs ``from gkiller import load; load(MODEL).predict("...")`` in fresh processes and prints the median and
the slowest of each step, in seconds, as one JSON object. ``libraries`` is what numpy, onnxruntime and
tokenizers take of ``import``; ``cpu`` is the processor time of the whole process, which other processes on
the machine disturb less. The first process, which may find cold disk caches, is counted apart. Run it as
``python experiments/cold_start.py runs/NAME``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from gkiller.benchmark.processes import start_cold
from gkiller.benchmark.rivals import Frame, gkiller_specs
from gkiller.benchmark.systems import ONNX
from gkiller.inference.loading import graph_name
from gkiller.model.directory import load_model


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="an exported model directory, or a run that has one")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "int8"))
    parser.add_argument("--processes", type=int, default=15)
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    assert loaded.path is not None
    precision, _ = graph_name(loaded.path, arguments.precision)
    frame = Frame(loaded.labels, loaded.max_length, 16, Path())
    specs = gkiller_specs(frame, loaded, "model", "model")
    [spec] = [spec for spec in specs if ONNX.get(spec.runtime) == precision]
    cold = start_cold(spec, ["a first comment"], 1, arguments.processes + 1)
    steps = {name: {k: round(v, 3) for k, v in asdict(step).items()} for name, step in cold.steps.items()}
    result = {"precision": precision, "processes": arguments.processes, "unit": "seconds", **steps}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
