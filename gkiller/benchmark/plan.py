"""The timing engine: warmed up, taken in turns, and summed up with intervals.

Every round times every call once, one after the other, so that what else the machine does meets all of
them. The order moves on by one place each round, so that none always begins. A ratio is taken within rounds,
where both sides met the same machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from gkiller.benchmark.systems import Runtime, SystemSpec
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Seconds = npt.NDArray[np.float64]
Stage = Callable[[Any], Any]


OUTLIER_RULE: Final = "beyond 1.5 interquartile ranges of the quartiles (Tukey); counted, not removed"
_FENCE: Final = 1.5
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Timing:
    """What one call took."""

    rounds: int
    median: float  # seconds; of several processes the geometric mean of their medians
    low: float  # lower end of its interval, see typical
    high: float
    p95: float  # seconds that 95 % of the rounds did not exceed
    p99: float  # seconds that 99 % did not exceed
    outliers: int  # rounds by OUTLIER_RULE


@dataclass(frozen=True)
class Ratio:
    """How many times as long one call took as another: see `typical`."""

    value: float
    low: float
    high: float
    rounds: int


def take_turns(
    calls: Mapping[str, Sequence[Stage]],
    rounds: int,
    warm_up: int = 1,
    *,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> dict[str, Seconds]:
    """Time calls in turns.

    Args:
        calls: by name, one or more stages; the first takes the number of the round, from 0, each other one
            what the stage before it returned.
        clock: gives seconds.

    Returns:
        By name, the seconds of each stage in each round: float64 of shape (rounds, stages).
    """
    names = list(calls)
    seconds = {name: np.zeros((rounds, len(stages))) for name, stages in calls.items()}
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is there already need not be looked through after every round
    try:
        for turn in range(warm_up + rounds):
            first = turn % len(names) if names else 0
            for name in (*names[first:], *names[:first]):
                marks = _run(calls[name], turn, clock)
                if turn >= warm_up:
                    seconds[name][turn - warm_up] = np.diff(marks)
            gc.collect()
            if progress is not None:
                progress(turn + 1, warm_up + rounds)
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return seconds


def _run(stages: Sequence[Stage], turn: int, clock: Callable[[], float]) -> list[float]:
    value: Any = turn
    marks = [clock()]
    for stage in stages:
        value = stage(value)
        marks.append(clock())
    return marks


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, Seconds]:
    """Return the seconds (rounds,) of each call, by name; see `take_turns`."""
    staged = {name: [_without_argument(call)] for name, call in calls.items()}
    return {name: values[:, 0] for name, values in take_turns(staged, rounds, warm_up).items()}


def _without_argument(call: Callable[[], object]) -> Stage:
    return lambda turn: call()


def summarise(seconds: Seconds, *, processes: int = 1, seed: int = 0, confidence: float = 0.95) -> Timing:
    """Sum up what a call took.

    Args:
        seconds: (rounds,).
        confidence: coverage of the interval.
    """
    median, low, high = typical(seconds, processes, seed, confidence)
    p95, p99 = np.quantile(seconds, (0.95, 0.99))
    return Timing(
        rounds=len(seconds),
        median=median,
        low=low,
        high=high,
        p95=float(p95),
        p99=float(p99),
        outliers=count_outliers(seconds),
    )


def ratio(slower: Seconds, faster: Seconds, *, processes: int = 1, seed: int = 0, confidence: float = 0.95) -> Ratio:
    """Return how many times as long ``slower`` took, taken within rounds.

    Args:
        slower: (rounds,) seconds of one call.
        faster: (rounds,) seconds of the other, in the same rounds.
        confidence: coverage of the interval.

    Raises:
        ValueError: the rounds are not the same, or a round took no time.
    """
    if slower.shape != faster.shape or not (faster > 0).all():
        raise ValueError("a ratio needs the same rounds of both, each of which took time")
    within = slower / faster
    return Ratio(*typical(within, processes, seed, confidence), len(within))


def count_outliers(values: Seconds) -> int:
    """Return how many values are outliers by `OUTLIER_RULE`."""
    first, third = np.quantile(values, (0.25, 0.75))
    reach = _FENCE * (third - first)
    return int(((values < first - reach) | (values > third + reach)).sum())


def typical(values: Seconds, processes: int, seed: int, confidence: float) -> tuple[float, float, float]:
    """Return the typical one of positive values, and the ends of its interval.

    Where a process's memory lies makes a call a few per cent faster or slower for as long as the process
    lives, so rounds of one process say little of the next one's. Of several processes it is the geometric
    mean of their medians, with Student's t interval over processes, on logarithms. Of one process it is the
    median, with the percentile interval of seeded resamples of its rounds: of that process alone.

    Args:
        values: (rounds,), those of a process one after the other, as many of each.
        confidence: coverage of the interval.
    """
    tail = (1.0 - confidence) / 2.0
    if processes == 1:
        rng = np.random.default_rng(seed)
        drawn = values[rng.integers(0, len(values), size=(_RESAMPLES, len(values)))]
        low, high = np.quantile(np.median(drawn, axis=1), (tail, 1.0 - tail))
        return float(np.median(values)), float(low), float(high)
    logs = np.log(np.median(values.reshape(processes, -1), axis=1))
    reach = float(stdtrit(processes - 1, 1.0 - tail)) * logs.std(ddof=1) / np.sqrt(processes)
    centre, low, high = np.exp([logs.mean(), logs.mean() - reach, logs.mean() + reach])
    return float(centre), float(low), float(high)


WHOLE: Final = "whole"
STAGES: Final = ("preparing", "network")
"""What a pass over comments consists of: tokens or features, then scores."""


@dataclass(frozen=True)
class Plan:
    """What is timed, the same for every system."""

    texts: tuple[str, ...]
    long_texts: tuple[str, ...]
    threads: int
    processes: int
    rounds: int  # passes over texts in each of them
    warm_up: int
    lengths: tuple[int, ...]
    latency_rounds: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Read what `asdict` gave, after its way through JSON."""
        lists = {name: tuple(values[name]) for name in ("texts", "long_texts", "lengths")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Measurement:
    """The seconds of every system, by its key."""

    # (rounds, 2) seconds of a pass over the comments, by stage; of several processes those of one after those of
    # another
    passes: dict[str, Seconds]
    single: dict[int, dict[str, Seconds]]  # by length, (rounds, 2) seconds of one comment
    # mean tokens of a comment as each system reads it; None where it counts none
    tokens: dict[str, float | None]
    processes: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "passes": {key: values.tolist() for key, values in self.passes.items()},
            "single": {
                str(length): {key: values.tolist() for key, values in found.items()}
                for length, found in self.single.items()
            },
            "tokens": self.tokens,
            "processes": self.processes,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Read what `as_dict` gave."""
        return cls(
            {key: np.array(found) for key, found in values["passes"].items()},
            {
                int(length): {key: np.array(one) for key, one in found.items()}
                for length, found in values["single"].items()
            },
            dict(values["tokens"]),
            values["processes"],
        )

    def joined(self, other: Measurement) -> Measurement:
        """Return both, the other's rounds after these."""

        def both(one: Mapping[str, Seconds], two: Mapping[str, Seconds]) -> dict[str, Seconds]:
            return {key: np.concatenate([values, two[key]]) for key, values in one.items()}

        single = {length: both(found, other.single[length]) for length, found in self.single.items()}
        processes = self.processes + other.processes
        return Measurement(both(self.passes, other.passes), single, self.tokens, processes)


@dataclass(frozen=True)
class Rate:
    """Comments per second, with the interval of the typical pass."""

    value: float
    low: float
    high: float
    outliers: int


@dataclass(frozen=True)
class Speed:
    """How fast a system is."""

    whole: Rate  # comments per second from text to score
    preparing: Rate
    network: Rate
    latency: dict[int, Timing]  # by token length, what a single comment takes from text to score, seconds
    tokens: float | None  # mean tokens of a comment; None where none are counted


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast one system is as another."""

    system: str
    other: str
    what: str  # "throughput", "network", or "latency N" at N tokens
    times: Ratio


def speed_of(measured: Measurement, key: str, rows: int, seed: int, confidence: float = 0.95) -> Speed:
    """Sum up what one system took; ``rows`` comments a pass."""
    passes = measured.passes[key]
    sum_up = partial(summarise, processes=measured.processes, seed=seed, confidence=confidence)
    parts = {name: _rate(sum_up(passes[:, place]), rows) for place, name in enumerate(STAGES)}
    return Speed(
        whole=_rate(sum_up(passes.sum(axis=1)), rows),
        latency={length: sum_up(found[key].sum(axis=1)) for length, found in measured.single.items()},
        tokens=measured.tokens[key],
        **parts,
    )


def ratios_of(measured: Measurement, key: str, other: str, seed: int, confidence: float = 0.95) -> list[SpeedRatio]:
    """Return how many times as fast ``key`` is as ``other``, taken within rounds."""
    pairs = {
        "throughput": [measured.passes[name].sum(axis=1) for name in (other, key)],
        "network": [measured.passes[name][:, 1] for name in (other, key)],
        **{
            f"latency {length}": [found[name].sum(axis=1) for name in (other, key)]
            for length, found in measured.single.items()
        },
    }
    divide = partial(ratio, processes=measured.processes, seed=seed, confidence=confidence)
    return [SpeedRatio(key, other, what, divide(slower, faster)) for what, (slower, faster) in pairs.items()]


def same_runtime(specs: Sequence[SystemSpec]) -> list[tuple[SystemSpec, SystemSpec]]:
    """Pair the model with every rival of the same runtime; a rival of another kind, with its main row."""
    own = {spec.runtime: spec for spec in specs if spec.role == "model"}
    rivals = [spec for spec in specs if spec.role != "model"]
    return [(own.get(rival.runtime, main_row(specs)), rival) for rival in rivals if _comparable(rival, own)]


def main_row(specs: Sequence[SystemSpec]) -> SystemSpec:
    """Return the model's row that it is judged by: int8 where it has one, else ONNX, else torch."""
    order = ("onnx int8", "onnx fp32", "torch fp32")
    own = [spec for spec in specs if spec.role == "model"]
    return min(own, key=lambda spec: order.index(spec.runtime))


def _comparable(rival: SystemSpec, own: Mapping[Runtime, SystemSpec]) -> bool:
    return rival.runtime in own or rival.kind in ("linear", "static")


def _rate(timing: Timing, rows: int) -> Rate:
    return Rate(rows / timing.median, rows / timing.high, rows / timing.low, timing.outliers)
