"""The worker that starts cold: it imports what one system needs, loads it, scores a comment and then some more.

It tells the seconds of each step, the processor time, and the most memory that it held. An exported model of gkiller is
loaded by `gkiller.load`, as users do.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

LIBRARIES = ("numpy", "gkiller.inference.ort", "tokenizers")
"""What is most of the import, timed apart."""


def main() -> None:
    """Do what the request says."""
    begun = time.perf_counter()
    for library in LIBRARIES:
        import_module(library)
    libraries = time.perf_counter()
    from gkiller.benchmark.systems import ONNX, SystemSpec, open_system, score

    request = json.loads(sys.stdin.readline())
    spec, threads, texts = SystemSpec.from_dict(request["system"]), request["threads"], request["texts"]
    own = spec.kind == "gkiller" and spec.runtime in ONNX and Path(spec.graph).is_relative_to(spec.path)
    if own:
        from gkiller.inference import load

        imported = time.perf_counter()
        classifier = load(spec.path, precision=ONNX[spec.runtime], threads=threads)
        loaded = time.perf_counter()
        classifier.predict(texts[0], long_text=spec.long_text)
        scored = time.perf_counter()
        classifier.predict_proba(texts, long_text=spec.long_text)
    else:
        imported = time.perf_counter()
        system = open_system(spec, threads)
        loaded = time.perf_counter()
        score(system, texts[:1])
        scored = time.perf_counter()
        score(system, texts)
    from gkiller.benchmark.processes import peak_memory

    found = {
        "libraries": libraries - begun,
        "import": imported - begun,
        "load": loaded - imported,
        "first_score": scored - loaded,
        "cpu": time.process_time(),
        "peak_bytes": peak_memory(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
