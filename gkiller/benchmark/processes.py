"""Fresh processes that time systems, their threads set before they start; and the machine they ran on."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gkiller.benchmark.plan import Measurement, Plan
from gkiller.benchmark.systems import SystemSpec
from gkiller.errors import BenchmarkFailedError
from gkiller.inference.loading import available_threads
from gkiller.storage.environment import CPU_FLAGS, read_cpu
from gkiller.storage.workers import Worker
from gkiller.wording import Progress

BUSY: Final = 0.25
"""Load a core, beside the benchmark's own, from which on the machine is called busy."""

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    # the load average of the last minute before the timing, None where the system has none
    load_before: float | None
    load_after: float | None

    def warnings(self, threads: int) -> list[str]:
        """Return what makes the timings doubtful."""
        found = []
        if threads > self.cores:
            found.append(f"{threads} threads were timed on {self.cores} cores")
        limit = BUSY * self.cores
        for when, load, own in (("before", self.load_before, 0), ("after", self.load_after, threads)):
            if load is not None and load - own > limit:
                found.append(
                    f"the machine was busy: load average {load:.2f} {when} the timing, on {self.cores} cores "
                    f"(limit {limit + own:.2f}); trust the ratios more than the rates"
                )
        return found


def load_average() -> float | None:
    """Return the load average of the last minute, None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def machine(load_before: float | None, load_after: float | None) -> Machine:
    """Describe this machine."""
    cpu, flags = read_cpu()
    known = tuple(flag for flag in CPU_FLAGS if flag in flags)
    return Machine(cpu, known, available_threads(), load_before, load_after)


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a child process that is to use so many threads."""
    return {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "PYTHONHASHSEED": "0",
    }


def peak_memory() -> int | None:
    """Return the most memory this process has held, in bytes; None where the system does not tell.

    Linux hands a parent's peak on to ``ru_maxrss`` of its children; ``VmHWM`` is the process's own.
    """
    try:
        lines = Path("/proc/self/status").read_text("utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return _by_usage()


def _by_usage() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


STEPS: Final = ("process", "libraries", "import", "load", "first_score", "cpu")


@dataclass(frozen=True)
class Step:
    """A step of a cold start over several processes, in seconds."""

    first: float
    median: float
    slowest: float


@dataclass(frozen=True)
class Cold:
    """What fresh processes took from nothing to a first score."""

    processes: int
    # by name: "process" from start to end; "libraries" (numpy, onnxruntime, tokenizers), a part of "import"; "load";
    # "first_score"; and "cpu", the processor time of the whole process
    steps: dict[str, Step]
    start: Step
    # the median of the most memory held while some more comments were scored; None where the system does not tell
    peak_bytes: int | None


def time_systems(specs: Sequence[SystemSpec], plan: Plan, progress: Progress) -> Measurement:
    """Time systems in fresh processes, one after the other, each of which times all of them.

    Raises:
        BenchmarkFailedError: a process did not come to its end.
    """
    found: Measurement | None = None
    for number in range(plan.processes):
        first = number % len(specs)
        ordered = [*specs[first:], *specs[:first]]  # opened in another order, they lie elsewhere in memory
        of = f", process {number + 1} of {plan.processes}" if plan.processes > 1 else ""
        one = _time_once(ordered, plan, progress, of)
        found = one if found is None else found.joined(one)
    assert found is not None
    return found


def _time_once(specs: Sequence[SystemSpec], plan: Plan, progress: Progress, of: str) -> Measurement:
    found: dict[str, Any] | None = None
    with Worker("gkiller.benchmark.child", variables=child_environment(plan.threads)) as worker:
        worker.send({"systems": [asdict(spec) for spec in specs], "plan": asdict(plan)})
        for message in worker.messages():
            found = message.get("result", found)
            if "stage" in message:
                progress(message["done"], message["total"], message["stage"] + of)
        if worker.wait() or found is None:
            raise _failed("the timing", worker)
    return Measurement.from_dict(found)


def start_cold(spec: SystemSpec, texts: Sequence[str], threads: int, processes: int) -> Cold:
    """Start a system in fresh processes, one after the other.

    Raises:
        BenchmarkFailedError: a process did not come to its end.
    """
    runs = []
    for _ in range(processes):
        begun = time.perf_counter()
        with Worker("gkiller.benchmark.once", variables=child_environment(threads)) as worker:
            worker.send({"system": asdict(spec), "threads": threads, "texts": list(texts)})
            told = list(worker.messages())
            if worker.wait() or not told:
                raise _failed(f"the cold start of {spec.key}", worker)
            runs.append({**told[-1], "process": time.perf_counter() - begun})
    return cold_of(runs)


def cold_of(runs: Sequence[Mapping[str, Any]]) -> Cold:
    """Sum up what each process told."""
    totals = [run["import"] + run["load"] + run["first_score"] for run in runs]
    peaks = [run["peak_bytes"] for run in runs if run["peak_bytes"] is not None]
    return Cold(
        processes=len(runs),
        steps={name: _step([run[name] for run in runs]) for name in STEPS},
        start=_step(totals),
        peak_bytes=int(statistics.median(peaks)) if peaks else None,
    )


def _step(values: Sequence[float]) -> Step:
    rest = values[1:] or values
    return Step(values[0], statistics.median(rest), max(rest))


def _failed(what: str, worker: Worker) -> BenchmarkFailedError:
    return BenchmarkFailedError(
        f"{what} did not come to its end: {worker.complaint() or f'exit status {worker.wait()}'}",
        remedy="free some memory, compare fewer systems at once, or lower bench.rows",
    )
