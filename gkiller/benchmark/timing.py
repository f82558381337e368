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
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Seconds = npt.NDArray[np.float64]
Stage = Callable[[Any], Any]
Progress = Callable[[int, int], None]

OUTLIER_RULE: Final = "beyond 1.5 interquartile ranges of the quartiles (Tukey); counted, not removed"
_FENCE: Final = 1.5
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Timing:
    """What one call took.

    Attributes:
        rounds: timed rounds.
        median: seconds; of several processes the geometric mean of their medians.
        low: lower end of its interval, see `typical`.
        high: its upper end.
        p95: seconds that 95 % of the rounds did not exceed.
        p99: seconds that 99 % did not exceed.
        outliers: rounds by `OUTLIER_RULE`.
    """

    rounds: int
    median: float
    low: float
    high: float
    p95: float
    p99: float
    outliers: int


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
        calls: by name, one or more stages; the first takes the number of the round, from 0, and each of the
            others what the one before it gave.
        rounds: timed rounds.
        warm_up: rounds before them, which are thrown away.
        clock: gives seconds.
        progress: called with the rounds done and their number.

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
        processes: that the rounds come from.
        seed: of the bootstrap.
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


def ratio(
    slower: Seconds, faster: Seconds, *, processes: int = 1, seed: int = 0, confidence: float = 0.95
) -> Ratio:
    """Return how many times as long ``slower`` took, taken within rounds.

    Args:
        slower: (rounds,) seconds of one call.
        faster: (rounds,) seconds of the other, in the same rounds.
        processes: that the rounds come from.
        seed: of the bootstrap over rounds.
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
        processes: that they come from.
        seed: of the resamples.
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
