"""Which criterion passes, fails, or is not shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkiller.benchmark.plan import Rate, Ratio, Speed, SpeedRatio, same_runtime
from gkiller.benchmark.quality import Duel, Quality, SetQuality
from gkiller.benchmark.scorecard import (
    NAMES,
    Found,
    Training,
    checked_demand,
    giant_of,
    pass_share,
    require,
    scorecard,
    training_of,
)
from gkiller.benchmark.systems import SystemSpec
from gkiller.errors import CriteriaError, SettingsError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.significance import Side, compare_sides, verdict
from gkiller.settings import EvaluationSettings

BASE = 110_000_000


def spec(
    name: str,
    runtime: str,
    role: str = "rival",
    parameters: int = 2_000_000,
    kind: str = "gkiller",
    files: Any = (),
    **more: Any,
) -> SystemSpec:
    return SystemSpec(name, kind, runtime, "", ("toxicity",), parameters, tuple(files), role=role, **more)  # type: ignore[arg-type]


@pytest.fixture
def specs(tmp_path: Path) -> list[SystemSpec]:
    file = tmp_path / "graph"
    file.write_bytes(b"x" * 3_000_000)
    own = [spec("tiny", runtime, "model", files=[str(file)]) for runtime in ("onnx fp32", "onnx int8")]
    giant = [spec("big", runtime, "giant", BASE, files=[str(file)]) for runtime in ("onnx fp32", "onnx int8")]
    return [*own, *giant]


def speed(low: int, value: int, high: int) -> Speed:
    rate = Rate(value, low, high, 0)
    return Speed(rate, rate, rate, {}, 20.0)


def times(runtime: str, low: int, value: int, high: int) -> SpeedRatio:
    return SpeedRatio(f"tiny, {runtime}", f"big, {runtime}", "throughput", Ratio(value, low, high, 7))


def quality(model_scores: list[int], giant_scores: list[int], truth: list[int]) -> Quality:
    settings = EvaluationSettings(resamples=200)
    sides = [Side(np.array(scores, float), 0.5) for scores in (model_scores, giant_scores)]
    paired = compare_sides(np.array(truth, float), *sides, resamples=200)
    judged = verdict(paired.differences["f1"], 0.02, n=paired.n)
    keys = ("tiny, onnx int8", "big, onnx int8")
    systems = {
        key: evaluate(("toxicity",), np.array(truth)[:, None], side.scores[:, None], None, {"toxicity": 0.5}, settings)
        for key, side in zip(keys, sides, strict=True)
    }
    duel = Duel("toxicity", *keys, paired, judged)
    return Quality({}, "max f1", (SetQuality("test", len(truth), systems, (duel,)),))


TRUTH = [1, 0, 0, 1, 0, 1, 0, 0] * 40
SAME = quality(TRUTH, TRUTH, TRUTH)
TRAINING = Training(33_000, 200.0, "cpu", 2, dendrites=True)


def found(specs: list[SystemSpec], **changes: Any) -> Found:
    values = {
        "specs": specs,
        "speeds": {one.key: speed(900, 1000, 1100) for one in specs},
        "ratios": [times("onnx fp32", 110, 120, 130), times("onnx int8", 14, 20, 80)],
        "quality": SAME,
        "training": TRAINING,
        "label": "toxicity",
        "threads": 1,
    }
    return Found(**(values | changes))  # type: ignore[arg-type]


def statuses(state: Found) -> dict[str, str]:
    return {one.name: one.status for one in scorecard(state)}


def test_every_criterion_is_reported_whatever_is_known(specs: list[SystemSpec]) -> None:
    full, bare = scorecard(found(specs)), scorecard(found(specs[:2], quality=None, training=None, ratios=[]))
    assert tuple(one.name for one in full) == tuple(one.name for one in bare) == NAMES


def test_an_interval_decides(specs: list[SystemSpec]) -> None:
    assert statuses(found(specs)) == {
        "f1-within": "PASS",
        "15x-fp32": "PASS",
        "15x-int8": "NOT SHOWN",
        "100x-fp32": "PASS",
        "100x-int8": "FAIL",
        "25-mb": "PASS",
        "20-mb": "PASS",
        "parameters": "PASS",
        "training-time": "PASS",
        "comments-per-second": "PASS",
        "f1-floor": "PASS",
        "dendrites": "PASS",
    }


@pytest.mark.parametrize(("low", "high", "status"), [(501, 600, "PASS"), (450, 600, "NOT SHOWN"), (300, 499, "FAIL")])
def test_the_rate_of_the_int8_graph_counts(specs: list[SystemSpec], low: int, high: int, status: str) -> None:
    speeds = {one.key: speed(1, 1, 1) for one in specs} | {"tiny, onnx int8": speed(low, 480, high)}
    assert statuses(found(specs, speeds=speeds))["comments-per-second"] == status


def test_without_a_giant_nothing_is_shown_of_one(specs: list[SystemSpec]) -> None:
    state = statuses(found(specs[:2], ratios=[], quality=None))
    assert {state[name] for name in ("f1-within", "15x-fp32", "100x-int8", "f1-floor")} == {"NOT SHOWN"}


def test_a_small_or_frozen_giant_decides_nothing(specs: list[SystemSpec]) -> None:
    small = [replace(one, parameters=22_000_000) if one.role == "giant" else one for one in specs]
    card = {one.name: one for one in scorecard(found(small))}
    assert {card[n].status for n in ("f1-within", "15x-fp32", "100x-int8")} == {"NOT SHOWN"}
    assert "less than base size" in card["100x-fp32"].why
    frozen = [replace(one, trained="head") if one.role == "giant" else one for one in specs]
    card = {one.name: one for one in scorecard(found(frozen))}
    assert (card["f1-within"].status, card["100x-fp32"].status) == ("NOT SHOWN", "PASS")
    assert "frozen" in card["f1-within"].why


def test_a_worse_model_fails_and_a_small_test_shows_nothing(specs: list[SystemSpec]) -> None:
    bad = [0] * len(TRUTH)
    bad[: len(TRUTH) // 2] = TRUTH[: len(TRUTH) // 2]
    assert statuses(found(specs, quality=quality(bad, TRUTH, TRUTH)))["f1-within"] == "FAIL"
    few = TRUTH[:16]
    one_missed, another_missed = [0, *few[1:]], [*few[:3], 0, *few[4:]]
    state = statuses(found(specs, quality=quality(one_missed, another_missed, few)))
    assert state["f1-within"] == "NOT SHOWN"


@pytest.mark.parametrize(
    ("rows", "seconds", "device", "status"),
    [
        (5000, 200, "cpu", "PASS"),
        (33_000, 200, "cpu", "PASS"),
        (5000, 400, "cpu", "FAIL"),
        (2000, 400, "cpu", "FAIL"),
        (2000, 200, "cpu", "NOT SHOWN"),
        (33_000, 400, "cpu", "NOT SHOWN"),
        (5000, 200, "cuda", "NOT SHOWN"),
    ],
)
def test_training_time_counts_only_where_the_rows_decide_it(
    specs: list[SystemSpec], rows: int, seconds: int, device: str, status: str
) -> None:
    training = Training(rows, float(seconds), device, 2, dendrites=False)
    state = statuses(found(specs, training=training))
    assert (state["training-time"], state["dendrites"]) == (status, "NOT SHOWN")


def test_the_giant_is_the_one_asked_for_else_the_largest(specs: list[SystemSpec]) -> None:
    rivals = [spec("mid", "onnx fp32", parameters=9_000_000), spec("large", "onnx fp32", parameters=BASE)]
    assert giant_of([*specs, *rivals]).name == "big"
    assert giant_of([*specs[:2], *rivals]).name == "large"
    assert giant_of([*specs[:2], spec("lin", "scikit-learn", parameters=BASE, kind="linear")]) is None


def test_only_rows_of_the_same_runtime_are_timed_against_each_other(specs: list[SystemSpec]) -> None:
    linear = spec("lin", "scikit-learn", kind="linear")
    only_torch = spec("other", "torch fp32", kind="transformers")
    pairs = [(a.key, b.key) for a, b in same_runtime([*specs, linear, only_torch])]
    assert pairs == [
        ("tiny, onnx fp32", "big, onnx fp32"),
        ("tiny, onnx int8", "big, onnx int8"),
        ("tiny, onnx int8", "lin, scikit-learn"),
    ]


def test_a_manifest_tells_of_the_training() -> None:
    manifest = {
        "data": {"rows": {"train": 12}},
        "training_seconds": 3.5,
        "device": "cpu",
        "threads": 2,
        "best": {"0": {}, "1": {}},
    }
    assert training_of(manifest) == Training(12, 3.5, "cpu", 2, dendrites=True)
    assert training_of({**manifest, "best": {"0": {}}}).dendrites is False
    assert training_of({"data": {}}) is None


def test_fail_under_takes_a_share_or_a_name(specs: list[SystemSpec]) -> None:
    card = scorecard(found(specs))
    assert pass_share(card) == pytest.approx(10 / 12)
    require(card, ["0.8", "parameters"])
    with pytest.raises(CriteriaError, match=r"10 of 12 criteria passed.*90%") as caught:
        require(card, ["0.9"])
    assert caught.value.exit_code == 70
    with pytest.raises(CriteriaError, match="100x-int8: FAIL; 15x-int8: NOT SHOWN"):
        require(card, ["100x-int8", "15x-int8"])


@pytest.mark.parametrize("demand", ["1.5", "-0.1", "nan", "parametres", ""])
def test_fail_under_refuses_what_is_neither(demand: str) -> None:
    with pytest.raises(SettingsError):
        checked_demand(demand)
    assert checked_demand("1") == 1.0
