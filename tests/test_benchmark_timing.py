"""The timing engine, with a clock that does what the test says."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

from gkiller.benchmark.plan import (
    Measurement,
    Plan,
    count_outliers,
    in_turns,
    ratio,
    ratios_of,
    speed_of,
    summarise,
    take_turns,
)
from gkiller.benchmark.processes import Machine, child_environment, cold_of


class Clock:
    """A clock that stands still until a call lets time pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: Callable[..., Any] | float) -> Callable[..., Any]:
        def stage(value: Any) -> Any:
            self.now += seconds(value) if callable(seconds) else seconds
            return value

        return stage


def test_every_round_times_each_call_once_and_the_first_one_changes() -> None:
    clock, order = Clock(), []

    def call(name: Any) -> Any:
        return [lambda turn: order.append((turn, name))]

    take_turns({name: call(name) for name in "abc"}, 3, 1, clock=clock)
    assert order == [
        *((0, name) for name in "abc"),
        *((1, name) for name in "bca"),
        *((2, name) for name in "cab"),
        *((3, name) for name in "abc"),
    ]


def test_stages_are_timed_apart_and_the_warm_up_is_thrown_away() -> None:
    clock = Clock()
    slow_start = clock.takes(lambda turn: 100.0 if turn < 2 else float(turn))
    found = take_turns({"a": [slow_start, clock.takes(0.5)]}, 3, 2, clock=clock)
    assert found["a"].tolist() == [[2.0, 0.5], [3.0, 0.5], [4.0, 0.5]]


def test_a_stage_takes_what_the_one_before_it_gave() -> None:
    seen: list[Any] = []
    take_turns({"a": [lambda turn: f"text {turn}", seen.append]}, 2, 1)
    assert seen == ["text 0", "text 1", "text 2"]


def test_progress_counts_the_warm_up_too() -> None:
    told = []
    take_turns({"a": [id]}, 2, 1, progress=lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_in_turns_gives_one_number_a_round() -> None:
    called = []
    found = in_turns({"a": lambda: called.append(1)}, 4, 2)
    assert found["a"].shape == (4,)
    assert len(called) == 6


def test_a_slow_round_that_meets_both_sides_leaves_their_ratio() -> None:
    """One call takes three times as long, whatever the machine does: the rates move, the ratio stays."""
    load = np.array([1.0, 7.0, 1.3, 2.0, 40.0])
    found = ratio(3 * load, load)
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)
    assert summarise(load).high > 2 * summarise(load).low


def test_a_call_against_itself_has_the_ratio_1_within_its_interval() -> None:
    draw = np.random.default_rng(0)
    found = ratio(1 + draw.random(50), 1 + draw.random(50))
    assert found.low <= 1 <= found.high
    assert found.rounds == 50


def test_the_interval_narrows_with_the_rounds_and_depends_on_the_seed_alone() -> None:
    draw = np.random.default_rng(0)
    few, many = 1 + draw.random(10), 1 + draw.random(1000)
    assert summarise(many).high - summarise(many).low < (summarise(few).high - summarise(few).low) / 3
    assert summarise(few, seed=3) == summarise(few, seed=3)
    assert summarise(few, seed=3) != summarise(few, seed=4)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for sample in draw.exponential(1.0, (300, 41)):
        found = summarise(sample)
        hits += found.low <= np.log(2) <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_rounds_of_several_processes_by_hand() -> None:
    """Medians 1, 2 and 4: their geometric mean is 2, and t of two degrees of freedom reaches 4.303 errors."""
    values = np.array([1.0, 1.0, 9.0, 2.0, 2.0, 2.0, 4.0, 0.1, 4.0])
    found = summarise(values, processes=3)
    reach = 4.302653 * np.log(2) / np.sqrt(3)
    assert (found.median, found.rounds) == (pytest.approx(2.0), 9)  # type: ignore[comparison-overlap]
    assert np.log([found.low, found.high]) == pytest.approx([np.log(2) - reach, np.log(2) + reach], rel=1e-6)
    assert summarise(values, processes=3, seed=5) == found  # nothing is drawn
    assert ratio(2 * values, values, processes=3).value == pytest.approx(2)


def test_the_interval_over_processes_covers_what_differs_between_them() -> None:
    """Each process is some per cent faster or slower as a whole: rounds alone would hide it."""
    draw = np.random.default_rng(2)
    hits = alone = 0
    for _ in range(300):
        values = np.exp(draw.normal(0, 0.02, (5, 1)) + draw.normal(0, 0.005, (5, 4))).ravel()
        found, naive = summarise(values, processes=5), summarise(values)
        hits += found.low <= 1 <= found.high
        alone += naive.low <= 1 <= naive.high
    assert 0.91 <= hits / 300 <= 0.99
    assert alone < hits


def test_measurements_are_joined() -> None:
    one, two = measurement(a=[[1, 2]], b=[[3, 4]]), measurement(b=[[7, 8]], a=[[5, 6]])
    both = one.joined(two)
    assert both.passes["a"].tolist() == [[1, 2], [5, 6]]
    assert both.single[8]["b"].tolist() == [[3, 4], [7, 8]]
    assert both.processes == 2
    again = Measurement.from_dict(json.loads(json.dumps(both.as_dict())))
    assert (again.as_dict(), again.processes) == (both.as_dict(), 2)


def test_a_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        ratio(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="took time"):
        ratio(np.ones(3), np.zeros(3))


def test_outliers_are_counted_and_kept() -> None:
    values = np.array([1.0, 1.1, 1.2, 1.1, 1.0, 1.2, 9.0])
    assert count_outliers(values) == 1
    found = summarise(values)
    assert (found.outliers, found.rounds) == (1, 7)
    assert found.p99 > 8
    assert count_outliers(np.ones(5)) == 0


def measurement(**passes: Any) -> Measurement:
    arrays = {key: np.array(values, float) for key, values in passes.items()}
    return Measurement(arrays, {8: arrays}, dict.fromkeys(passes, 5.0))


def test_speeds_and_ratios_by_hand() -> None:
    measured = measurement(tiny=[[0.1, 0.4]] * 3, giant=[[0.1, 9.9]] * 3)
    speed = speed_of(measured, "tiny", 100, 0)
    assert speed.whole.value == pytest.approx(200)
    assert speed.preparing.value == pytest.approx(1000)
    assert speed.network.value == pytest.approx(250)
    assert speed.latency[8].median == pytest.approx(0.5)
    times = {one.what: one.times.value for one in ratios_of(measured, "tiny", "giant", 0)}
    assert times == pytest.approx({"throughput": 20, "network": 24.75, "latency 8": 20})


def test_intervals_of_speeds_and_ratios_have_the_confidence_asked_for() -> None:
    measured = replace(measurement(tiny=[[1, 1], [1, 2]], giant=[[5, 9], [9, 9]]), processes=2)
    for confidence in (0.95, 0.99):
        tail = stdtrit(1, (1 + confidence) / 2)
        (whole, *_) = ratios_of(measured, "tiny", "giant", 0, confidence)
        assert np.log(whole.times.high / whole.times.value) == pytest.approx(tail * np.log(7 / 6) / 2)
        speed = speed_of(measured, "tiny", 100, 0, confidence)
        reach = pytest.approx(tail * np.log(3 / 2) / 2)
        assert np.log(speed.whole.high / speed.whole.value) == reach
        assert np.log(speed.latency[8].high / speed.latency[8].median) == reach


def test_what_passes_between_processes_comes_back_as_it_was() -> None:
    plan = Plan(("a", "b"), ("c",), 1, 2, 3, 1, (8, 16), 5)
    assert Plan.from_dict(asdict(plan)) == plan
    measured = measurement(a=[[1, 2]])
    again = Measurement.from_dict(measured.as_dict())
    assert again.as_dict() == measured.as_dict()
    assert again.single[8]["a"].shape == (1, 2)


def test_the_first_cold_start_is_counted_apart() -> None:
    def run(seconds: Any, peak: Any) -> Any:
        names = ("process", "libraries", "import", "load", "first_score", "cpu")
        return {**dict.fromkeys(names, seconds), "peak_bytes": peak}

    cold = cold_of([run(9.0, 100), run(1.0, 300), run(2.0, 200)])
    assert (cold.start.first, cold.start.median, cold.start.slowest) == (27.0, 4.5, 6.0)
    assert (cold.peak_bytes, cold.processes) == (200, 3)
    assert cold_of([run(9.0, None)]).peak_bytes is None


@pytest.mark.parametrize(
    ("before", "after", "threads", "said"),
    [
        (0.1, 1.1, 1, []),
        (0.1, 1.7, 1, ["after"]),
        (1.5, 2.9, 1, ["before", "after"]),
        (None, None, 1, []),
        (0.0, 2.0, 4, ["4 threads were timed on 2 cores"]),
    ],
)
def test_a_busy_machine_is_warned_of(before: float | None, after: float | None, threads: int, said: list[Any]) -> None:
    found = Machine("cpu", (), 2, before, after).warnings(threads)
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_a_child_gets_its_threads_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    one, three = child_environment(1), child_environment(3)
    assert (one["OMP_NUM_THREADS"], one["RAYON_NUM_THREADS"], one["TOKENIZERS_PARALLELISM"]) == (*("1", "1"), "false")
    assert (three["MKL_NUM_THREADS"], three["TOKENIZERS_PARALLELISM"]) == ("3", "true")
