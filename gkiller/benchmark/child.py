"""The worker that times: it reads one request, and tells its progress and last the measurement.

Its parent has set its threads before any library is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gkiller.benchmark.plan import Measurement, Plan, Stage, take_turns
from gkiller.benchmark.systems import System, SystemSpec, open_system
from gkiller.storage.workers import tell

WARM_SINGLES = 10
"""Single comments before those that are timed."""
_COUNTED = 200
"""Comments whose tokens are counted for the mean."""


def measure(
    specs: Sequence[SystemSpec], plan: Plan, told: Callable[[str, int, int], None], **engine: Any
) -> Measurement:
    """Time systems in turns: whole passes over comments, then single comments of each length.

    Args:
        engine: passed on to `take_turns`.
    """
    systems = {}
    for done, spec in enumerate(specs):
        told("loading", done, len(specs))
        systems[spec.key] = open_system(spec, plan.threads)
    passes = take_turns(
        {key: _pass(system, plan.texts) for key, system in systems.items()},
        plan.rounds,
        plan.warm_up,
        progress=partial(told, "throughput"),
        **engine,
    )
    single = {}
    for length in plan.lengths:
        texts = joined(plan.long_texts, length, list(systems.values()))
        single[length] = take_turns(
            {key: _single(system, texts, length) for key, system in systems.items()},
            plan.latency_rounds,
            WARM_SINGLES,
            progress=partial(told, f"latency, {length} tokens"),
            **engine,
        )
    tokens = {key: _mean_length(system, plan.texts[:_COUNTED]) for key, system in systems.items()}
    return Measurement(passes, single, tokens)


def joined(texts: Sequence[str], length: int, systems: Sequence[System]) -> list[str]:
    """Return comments of at least ``length`` tokens (or each system's limit), put together of real ones."""
    found: list[str] = []
    current, reached = "", {place: -1 for place in range(len(systems))}
    for text in texts:
        current = f"{current} {text}".strip()
        now = {place: system.length(current) for place, system in enumerate(systems)}
        # A count that does not rise any more is the system's own limit.
        if all(n is None or n >= length or n == reached[place] for place, n in now.items()):
            found.append(current)
            current, reached = "", dict.fromkeys(reached, -1)
        else:
            reached = {place: -1 if n is None else n for place, n in now.items()}
    return found or [current]


def _pass(system: System, texts: Sequence[str]) -> list[Stage]:
    return [lambda turn: system.prepare(texts), system.run]


def _single(system: System, texts: Sequence[str], length: int) -> list[Stage]:
    return [lambda turn: system.prepare([texts[turn % len(texts)]], length), system.run]


def _mean_length(system: System, texts: Sequence[str]) -> float | None:
    counts = [n for n in map(system.length, texts) if n is not None]
    return float(np.mean(counts)) if counts else None


def main() -> None:
    """Do what the request says."""
    request = json.loads(sys.stdin.readline())
    specs = [SystemSpec.from_dict(values) for values in request["systems"]]

    def told(stage: str, done: int, total: int) -> None:
        tell(sys.stdout, stage=stage, done=done, total=total)

    tell(sys.stdout, result=measure(specs, Plan.from_dict(request["plan"]), told).as_dict())


if __name__ == "__main__":
    main()
