"""Where and when something was timed: processor, load, threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gkiller.inference.loading import available_threads
from gkiller.report.environment import CPU_FLAGS, read_cpu

BUSY: Final = 0.25
"""Load a core, beside the benchmark's own, from which on the machine is called busy."""

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran.

    Attributes:
        cpu: the processor's name.
        flags: its vector instructions that matter here.
        cores: that the process may use.
        load_before: the load average of the last minute before the timing, None where the system has none.
        load_after: the same after it, with the benchmark's own threads in it.
    """

    cpu: str
    flags: tuple[str, ...]
    cores: int
    load_before: float | None
    load_after: float | None

    def warnings(self, threads: int) -> list[str]:
        """Return what makes the timings doubtful.

        Args:
            threads: that the benchmark used.
        """
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
        import sys
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
