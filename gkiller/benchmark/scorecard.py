"""Every criterion with its target, what was measured, and PASS, FAIL or NOT SHOWN.

A criterion passes only when its whole interval is on the right side of the target, and fails only when it is
on the wrong side. What was not measured, or is not decided by its interval, is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gkiller.benchmark.plan import Speed, SpeedRatio, main_row
from gkiller.benchmark.quality import Duel, Quality, SetQuality
from gkiller.benchmark.systems import SystemSpec
from gkiller.errors import CriteriaError, SettingsError
from gkiller.evaluation.significance import MARGIN
from gkiller.wording import did_you_mean

Status = Literal["PASS", "FAIL", "NOT SHOWN"]
MOST_PARAMETERS: Final = 5_000_000
MOST_MEGABYTES: Final = (25, 20)
LEAST_RATE: Final = 500
LEAST_F1: Final = 0.3
LEAST_SPEEDUP: Final = 15
GOAL_SPEEDUP: Final = 100
MOST_MINUTES: Final = 5
TRAINING_ROWS: Final = 5_000
BASE_SIZE: Final = 80_000_000
"""Parameters from which an encoder is of base size: RoBERTa-Base has 125M, BERT-Base 110M, without embeddings
86M; DistilBERT, 66M, is smaller."""


@dataclass(frozen=True)
class Criterion:
    """One line of the scorecard."""

    name: str  # what --fail-under calls it
    target: str
    measured: str  # what was found, with its interval
    status: Status
    why: str = ""  # why it is not shown, or what else to know; else empty


@dataclass(frozen=True)
class Training:
    """What a run's manifest tells of the model's training."""

    rows: int
    seconds: float
    device: str  # "cpu" and so on
    threads: int
    dendrites: bool


@dataclass(frozen=True)
class Found:
    """What the scorecard is drawn from."""

    specs: Sequence[SystemSpec]
    speeds: Mapping[str, Speed]
    ratios: Sequence[SpeedRatio]
    quality: Quality | None  # None where it was not measured
    training: Training | None  # None where the model is outside of its run
    label: str
    threads: int
    margin: float = MARGIN  # share of the giant's F1 that the model may lose


def scorecard(found: Found) -> list[Criterion]:
    """Return every criterion of the seed project, then the goals of the duel."""
    main, giant = main_row(found.specs), giant_of(found.specs)
    return [
        _quality_criterion(found, giant),
        *_speed_criteria(found, giant),
        *(_size(main, most) for most in MOST_MEGABYTES),
        _parameters(main),
        _training_time(found.training),
        _rate(found, main),
        _least_f1(found, main),
        _dendrites(found.training),
    ]


def giant_of(specs: Sequence[SystemSpec]) -> SystemSpec | None:
    """Return a row of the giant: the one that was asked for, else the largest neural rival over the model."""
    asked = [spec for spec in specs if spec.role == "giant"]
    own = max(spec.parameters for spec in specs if spec.role == "model")
    others = [
        spec
        for spec in specs
        if spec.role == "rival" and spec.kind in ("gkiller", "transformers") and spec.parameters > own
    ]
    return next(iter(asked), max(others, key=lambda spec: spec.parameters, default=None))


def pass_share(criteria: Sequence[Criterion]) -> float:
    """Return the share of the criteria that passed; one that is not shown has not."""
    return sum(one.status == "PASS" for one in criteria) / len(criteria)


def require(criteria: Sequence[Criterion], demands: Sequence[str], report: Mapping[str, Any] | None = None) -> None:
    """Check what ``--fail-under`` asks for.

    Args:
        demands: each a share in 0..1 of criteria that must pass, or the name of one that must.

    Raises:
        SettingsError: a demand is neither.
        CriteriaError: one is not met.
    """
    failures = []
    for demand in demands:
        share = checked_demand(demand)
        if share is None:
            one = next(one for one in criteria if one.name == demand)
            if one.status != "PASS":
                failures.append(f"{one.name}: {one.status}")
        elif pass_share(criteria) < share:
            passed = sum(one.status == "PASS" for one in criteria)
            failures.append(f"{passed} of {len(criteria)} criteria passed, and {share:.0%} are asked for")
    if failures:
        raise CriteriaError(
            "; ".join(failures), where="--fail-under", remedy="the scorecard says what was measured", report=report
        )


def checked_demand(demand: str) -> float | None:
    """Return the share that a demand of ``--fail-under`` is, or None where it is a criterion's name.

    Raises:
        SettingsError: it is neither.
    """
    if demand in NAMES:
        return None
    try:
        share = float(demand)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError(
            f"{demand!r} is neither a share in 0..1 nor a criterion",
            where="--fail-under",
            remedy=did_you_mean(demand, NAMES),
        )
    return share


NAMES: Final = (
    "f1-within",
    *(f"{times}x-{precision}" for times in (LEAST_SPEEDUP, GOAL_SPEEDUP) for precision in ("fp32", "int8")),
    *(f"{most}-mb" for most in MOST_MEGABYTES),
    "parameters",
    "training-time",
    "comments-per-second",
    "f1-floor",
    "dendrites",
)
"""Of all criteria, in the order of the scorecard."""


def _quality_criterion(found: Found, giant: SystemSpec | None) -> Criterion:
    target = f"F1 within {100 * found.margin:g} % of the giant's"
    duel = _main_duel(found, giant)
    if duel is None:
        why = "no giant was compared" if giant is None else "the giant was not scored on test rows"
        return Criterion("f1-within", target, "-", "NOT SHOWN", why)
    statuses: dict[str, Status] = {"within": "PASS", "worse": "FAIL", "not shown": "NOT SHOWN"}
    f1 = duel.paired.differences["f1"]
    measured = f"{f1.a:.3f} against {f1.b:.3f}"
    status, why = statuses[duel.verdict.kind], duel.verdict.text
    reason = _no_giant(giant) if giant is not None else ""
    if giant is not None and giant.trained == "head":
        reason = "a frozen encoder is not a fine-tuned giant"
    if reason:
        status, why = "NOT SHOWN", f"{reason}; {why}"
    return Criterion("f1-within", target, measured, status, why)


def _no_giant(giant: SystemSpec) -> str:
    """Say why a rival is too small to be the giant of a criterion, or return an empty string."""
    if giant.parameters >= BASE_SIZE:
        return ""
    return f"{giant.name} has {giant.parameters / 1e6:.1f}M parameters, less than base size"


def _main_duel(found: Found, giant: SystemSpec | None) -> Duel | None:
    test = _test_set(found.quality)
    if giant is None or test is None:
        return None
    own = [d for d in test.duels if d.label == found.label and d.rival.startswith(f"{giant.name}, ")]
    main = main_row(found.specs).key
    return next((d for d in own if d.model == main), own[0] if own else None)


def _test_set(quality: Quality | None) -> SetQuality | None:
    return next((one for one in quality.sets if one.name == "test"), None) if quality else None


def _speed_criteria(found: Found, giant: SystemSpec | None) -> list[Criterion]:
    criteria = []
    for times in (LEAST_SPEEDUP, GOAL_SPEEDUP):
        for precision in ("fp32", "int8"):
            name, target = f"{times}x-{precision}", f"{times} times as fast as the giant, {precision}"
            one = _throughput_ratio(found, giant, precision)
            if one is None or giant is None:
                why = "no giant was compared" if giant is None else f"not both have {precision} timings"
                criteria.append(Criterion(name, target, "-", "NOT SHOWN", why))
                continue
            ratio = one.times
            status = _at_least(ratio.low, ratio.high, times)
            why = f"{one.system} against {one.other}"
            if reason := _no_giant(giant):
                status, why = "NOT SHOWN", f"{reason}; {why}"
            measured = f"{ratio.value:.1f}x ({ratio.low:.1f}-{ratio.high:.1f})"
            criteria.append(Criterion(name, target, measured, status, why))
    return criteria


def _throughput_ratio(found: Found, giant: SystemSpec | None, precision: str) -> SpeedRatio | None:
    """Return the throughput ratio with the giant; of fp32, that of ONNX where there is one."""
    if giant is None:
        return None
    runtimes = ("onnx int8",) if precision == "int8" else ("onnx fp32", "torch fp32")
    for runtime in runtimes:
        for one in found.ratios:
            same = one.other == f"{giant.name}, {runtime}" and one.system.endswith(f", {runtime}")
            if same and one.what == "throughput":
                return one
    return None


def _at_least(low: float, high: float, target: float) -> Status:
    return "PASS" if low >= target else "FAIL" if high < target else "NOT SHOWN"


def _size(main: SystemSpec, most: int) -> Criterion:
    megabytes = main.bytes / 1e6
    status: Status = "PASS" if megabytes < most else "FAIL"
    return Criterion(f"{most}-mb", f"under {most} MB", f"{megabytes:.2f} MB", status, main.key)


def _parameters(main: SystemSpec) -> Criterion:
    status: Status = "PASS" if main.parameters < MOST_PARAMETERS else "FAIL"
    return Criterion("parameters", "under 5M parameters", f"{main.parameters:,}", status)


def _training_time(training: Training | None) -> Criterion:
    name, target = "training-time", f"under {MOST_MINUTES} minutes on {TRAINING_ROWS:,} rows, on a CPU"
    if training is None:
        return Criterion(name, target, "-", "NOT SHOWN", "the model is outside of its run")
    measured = f"{training.seconds:.0f} s on {training.rows:,} rows, {training.device}"
    fast = training.seconds < MOST_MINUTES * 60
    if training.device != "cpu":
        return Criterion(name, target, measured, "NOT SHOWN", "it was not trained on a CPU")
    if fast == (training.rows >= TRAINING_ROWS) or training.rows == TRAINING_ROWS:
        return Criterion(name, target, measured, "PASS" if fast else "FAIL", f"{training.threads} threads")
    why = f"train on {TRAINING_ROWS:,} rows to decide it: --sample-size {TRAINING_ROWS}"
    return Criterion(name, target, measured, "NOT SHOWN", why)


def _rate(found: Found, main: SystemSpec) -> Criterion:
    rate = found.speeds[main.key].whole
    status: Status = "PASS" if rate.low > LEAST_RATE else "FAIL" if rate.high <= LEAST_RATE else "NOT SHOWN"
    measured = f"{rate.value:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})"
    why = f"{main.key}, {found.threads} thread{'s' * (found.threads > 1)}"
    return Criterion("comments-per-second", f"over {LEAST_RATE} comments a second", measured, status, why)


def _least_f1(found: Found, main: SystemSpec) -> Criterion:
    name, target = "f1-floor", f"F1 of {found.label} over {LEAST_F1}"
    test = _test_set(found.quality)
    if test is None or main.key not in test.systems:
        return Criterion(name, target, "-", "NOT SHOWN", "no test rows were scored")
    f1 = test.systems[main.key].label(found.label).stored.f1
    if f1.value is None or f1.low is None or f1.high is None:
        return Criterion(name, target, "-", "NOT SHOWN", f1.note)
    status: Status = "PASS" if f1.low > LEAST_F1 else "FAIL" if f1.high <= LEAST_F1 else "NOT SHOWN"
    return Criterion(name, target, f"{f1.value:.3f} ({f1.low:.3f}-{f1.high:.3f})", status, main.key)


def _dendrites(training: Training | None) -> Criterion:
    name, target = "dendrites", "dendritic training completes"
    if training is None:
        return Criterion(name, target, "-", "NOT SHOWN", "the model is outside of its run")
    if training.dendrites:
        return Criterion(name, target, "completed", "PASS")
    return Criterion(name, target, "no dendrites", "NOT SHOWN", "the run trained without them")


def training_of(manifest: Mapping[str, Any]) -> Training | None:
    """Read a finished run's manifest; None where it is not finished, or not as it was written."""
    try:
        return Training(
            rows=int(manifest["data"]["rows"]["train"]),
            seconds=float(manifest["training_seconds"]),
            device=str(manifest["device"]),
            threads=int(manifest["threads"]),
            dendrites=any(int(count) > 0 for count in manifest["best"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
