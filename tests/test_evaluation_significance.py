"""Comparing two sides: cases by hand, exact enumeration, coverage by simulation, and the verdict's words."""

from __future__ import annotations

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkiller.errors import GkillerError, LabelMismatchError, LabelValueError, ScoreRangeError
from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.significance import FIGURES, Difference, Side, compare_sides, holm, mcnemar_p, verdict
from gkiller.storage.strict_json import plain

QUICK = settings(max_examples=60)


def logistic(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 1 / (1 + np.exp(-values))


def population(
    n: int, seed: int = 0, gain_b: float = 1.6
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two sides that err together: each adds its own noise to what both see of a comment."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    seen = rng.normal(size=n)
    a = logistic(seen + 0.5 * rng.normal(size=n) + 2.0 * truth - 1)
    b = logistic(seen + 0.5 * rng.normal(size=n) + gain_b * truth - 1)
    return truth, a, b


# -- two sides that are one ---------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_side_against_itself_differs_by_exactly_nothing(weighted: bool) -> None:
    truth, a, _ = population(300)
    weights = np.random.default_rng(1).uniform(0.1, 5, 300) if weighted else None
    found = compare_sides(truth, Side(a, 0.4), Side(a.copy(), 0.4), weights, resamples=200)
    for name in FIGURES:
        one = found.differences[name]
        assert (one.delta, one.low, one.high, one.p) == (0, 0, 0, 1)
        assert (one.relative, one.relative_low, one.relative_high) == (1, 1, 1)
        assert verdict(one, n=found.n).kind == "within"
    assert (found.mcnemar.only_a_right, found.mcnemar.only_b_right, found.mcnemar.p) == (0, 0, 1)
    assert found.agreement[0, 1] == found.agreement[1, 0] == 0


def test_swapping_the_sides_turns_the_signs() -> None:
    truth, a, b = population(200)
    one = compare_sides(truth, Side(a, 0.5), Side(b, 0.3), resamples=300)
    other = compare_sides(truth, Side(b, 0.3), Side(a, 0.5), resamples=300)
    for name in FIGURES:
        left, right = one.differences[name], other.differences[name]
        assert (left.delta, left.p) == (-right.delta, right.p)
        assert (left.low, left.high) == pytest.approx((-right.high, -right.low), abs=1e-15)
    assert one.mcnemar.only_a_right == other.mcnemar.only_b_right
    assert one.mcnemar.p == other.mcnemar.p
    assert np.array_equal(one.agreement, other.agreement.T)


# -- McNemar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1),
        (3, 3, 1),
        (1, 0, 1),  # 2 / 2
        (5, 0, 2 / 32),
        (1, 9, 2 * (1 + 10) / 1024),
        (2, 6, 2 * (1 + 8 + 28) / 256),
        (4, 5, 1),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(p, rel=1e-12)
    assert mcnemar_p(only_b, only_a) == mcnemar_p(only_a, only_b)


@QUICK
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_sum_in_whole_numbers(only_a: Any, only_b: Any) -> None:
    n, least = only_a + only_b, min(only_a, only_b)
    exact = min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n)
    assert mcnemar_p(only_a, only_b) == pytest.approx(exact, rel=1e-10)


def test_mcnemar_of_very_many_rows_is_finite() -> None:
    assert 0 < mcnemar_p(499_000, 501_000) < 0.05
    assert mcnemar_p(0, 1_000_000) == 0.0


def test_decisions_are_counted_by_hand() -> None:
    #                 a, b:  right right wrong wrong | right right wrong, unknown, weight 0
    truth = np.array([1, 1, 1, 1, 0, 0, 0, np.nan, 0])
    a = np.array([0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9])
    b = np.array([0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1])
    weights = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0])
    found = compare_sides(truth, Side(a, 0.5), Side(b, 0.5), weights, resamples=50)
    assert (found.n, found.positives) == (7, 4)
    assert (found.mcnemar.only_a_right, found.mcnemar.only_b_right) == (2, 1)
    assert found.agreement.tolist() == [[2, 2], [1, 2]]


def test_mcnemar_does_not_weigh_and_the_figures_do() -> None:
    truth, a, b = population(150)
    weights = np.random.default_rng(0).uniform(0.01, 9, 150)
    plain = compare_sides(truth, Side(a, 0.5), Side(b, 0.5), resamples=50)
    weighed = compare_sides(truth, Side(a, 0.5), Side(b, 0.5), weights, resamples=50)
    assert plain.mcnemar == weighed.mcnemar
    for name in FIGURES:
        by_hand = label_figures(truth, a, weights)[name] - label_figures(truth, b, weights)[name]
        assert weighed.differences[name].delta == pytest.approx(by_hand, abs=1e-12)
        assert weighed.differences[name].delta != plain.differences[name].delta


# -- the paired bootstrap -----------------------------------------------------------------------


def test_the_p_value_by_hand() -> None:
    """B misses one row of four: the difference is 0 where that row is not drawn, by (3/4)^4, else above."""
    truth = np.array([1.0, 1, 0, 0])
    a, b = np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.9, 0.2, 0.1, 0.1])
    found = compare_sides(truth, Side(a, 0.5), Side(b, 0.5), resamples=40_000)
    one = found.differences["f1"]
    assert (one.a, one.b) == pytest.approx((1, 2 / 3))
    # F1 exists where a positive is drawn, by 1 - (1/2)^4; without the missed row by (3/4)^4 - (1/2)^4.
    share = ((3 / 4) ** 4 - (1 / 2) ** 4) / (1 - (1 / 2) ** 4)
    assert one.p == pytest.approx(2 * share, abs=0.02)  # four standard errors
    assert found.differences["roc_auc"].delta == 0
    assert found.differences["roc_auc"].p == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_intervals_are_those_of_all_resamples(weighted: bool) -> None:
    """Of five rows there are 5^5 resamples: the interval must be that of all of them."""
    truth = np.array([1.0, 1, 0, 1, 0])
    a, b = np.array([0.9, 0.4, 0.6, 0.7, 0.1]), np.array([0.5, 0.6, 0.55, 0.2, 0.3])
    weights = np.array([1.0, 2, 0.5, 1, 3]) if weighted else np.ones(5)
    exact: Any = {name: [] for name in FIGURES}
    quotients: Any = {name: [] for name in FIGURES}
    for drawn in product(range(5), repeat=5):
        rows = list(drawn)
        left = label_figures(truth[rows], a[rows], weights[rows], threshold=0.5)
        right = label_figures(truth[rows], b[rows], weights[rows], threshold=0.5)
        for name in FIGURES:
            exact[name].append(left[name] - right[name])
            quotients[name].append(left[name] / right[name] if right[name] > 0 else np.nan)
    found = compare_sides(truth, Side(a, 0.5), Side(b, 0.5), weights, resamples=40_000, confidence=0.5)
    for name in FIGURES:
        one = found.differences[name]
        assert _surely_between(one.low, exact[name], 0.25), name
        assert _surely_between(one.high, exact[name], 0.75), name
        assert _surely_between(one.relative_low, quotients[name], 0.25), name
        assert _surely_between(one.relative_high, quotients[name], 0.75), name


def _surely_between(value: float, exact: list[float], level: float, slack: float = 0.01) -> Any:
    """Whether a quantile of 40,000 draws is that of all, give or take over four standard errors."""
    low, high = np.nanquantile(exact, (level - slack, level + slack))
    return low - 1e-9 <= value <= high + 1e-9


def test_the_interval_covers_the_true_difference_and_no_more() -> None:
    """Of 200 samples, a 90 % interval misses the population's difference in about 20, and p < 0.1 as often.

    The bounds are binomial ones of 99.9 %. Draws that are not shared by both sides would miss in none.
    """
    samples, n = 200, 400
    truth, a, b = population(400_000, seed=9)
    left, right = label_figures(truth, a), label_figures(truth, b)
    missed = dict.fromkeys(FIGURES, 0)
    for part in range(samples):
        rows = slice(part * n, part * n + n)
        found = compare_sides(
            truth[rows], Side(a[rows], 0.5), Side(b[rows], 0.5), resamples=250, seed=part, confidence=0.9
        )
        for name in FIGURES:
            one = found.differences[name]
            missed[name] += not one.low <= left[name] - right[name] <= one.high
    assert all(7 <= count <= 36 for count in missed.values()), missed


def test_equal_sides_are_called_different_as_often_as_promised() -> None:
    samples, n = 200, 400
    truth, a, b = population(samples * n, seed=4, gain_b=2.0)
    false = dict.fromkeys((*FIGURES, "mcnemar"), 0)
    for part in range(samples):
        rows = slice(part * n, part * n + n)
        found = compare_sides(truth[rows], Side(a[rows], 0.5), Side(b[rows], 0.5), resamples=250, seed=part)
        for name in FIGURES:
            false[name] += found.differences[name].p < 0.1
        false["mcnemar"] += found.mcnemar.p < 0.1
    exact = false.pop("mcnemar")
    assert all(7 <= count <= 36 for count in false.values()), false
    assert 2 <= exact <= 33  # the exact test errs on the safe side


def test_pairing_narrows_the_interval() -> None:
    """Apart, the variances of the two sides would add up; each is measured against scores that are alike."""
    truth, a, b = population(500)
    alike = Side(np.full(500, 0.5), 0.5)

    def width(one: Any, other: Any) -> Any:
        found = compare_sides(truth, one, other, resamples=400).differences["roc_auc"]
        return found.high - found.low

    left, right = Side(a, 0.5), Side(b, 0.5)
    assert width(left, right) < 0.8 * np.hypot(width(left, alike), width(right, alike))


def test_the_seed_alone_decides() -> None:
    truth, a, b = population(120)
    once, again, other = (
        plain(compare_sides(truth, Side(a, 0.5), Side(b, 0.5), resamples=60, seed=seed)) for seed in (3, 3, 4)
    )
    assert once == again
    assert once["differences"]["ap"]["low"] != other["differences"]["ap"]["low"]


def test_scores_may_be_of_any_kind_of_number() -> None:
    truth, a, b = population(80)
    wide = compare_sides(truth, Side(a.astype(np.float32).astype(float), 0.5), Side(b, 0.5), resamples=30)
    narrow = compare_sides(list(truth), Side(a.astype(np.float32), 0.5), Side(list(b), 0.5), resamples=30)  # type: ignore[arg-type]
    assert plain(wide) == plain(narrow)


def test_one_class_leaves_what_it_must_undefined() -> None:
    scores = np.array([0.2, 0.8, 0.6])
    found = compare_sides(np.zeros(3), Side(scores, 0.5), Side(scores / 2, 0.5), resamples=20)
    assert all(np.isnan(found.differences[name].delta) for name in FIGURES)
    assert found.mcnemar.only_b_right == 2
    assert plain(found)["differences"]["f1"]["p"] is None
    judged = verdict(found.differences["f1"], n=3)
    assert (judged.kind, judged.needed_n, judged.absolute) == ("not shown", None, "not shown")
    assert "undefined" in judged.text


def test_a_figure_of_zero_has_no_relative_difference() -> None:
    truth, a = np.array([1.0, 1, 0, 0]), np.array([0.9, 0.8, 0.1, 0.2])
    one = compare_sides(truth, Side(a, 0.5), Side(a / 10, 0.5), resamples=50).differences["f1"]
    assert (one.a, one.b, one.delta) == (1, 0, 1)
    assert np.isnan(one.relative)
    judged = verdict(one, n=4)
    assert (judged.kind, judged.absolute) == ("not shown", "within")


@pytest.mark.parametrize(
    ("truth", "a", "b", "error", "said"),
    [
        ([0, 1], [0.1, 0.2, 0.3], [0.1, 0.2], LabelMismatchError, "do not fit together"),
        ([0, 1], [0.1, 0.2], [0.1, 1.2], ScoreRangeError, "row 2, label 'B'"),
        ([0, 2], [0.1, 0.2], [0.1, 0.2], LabelValueError, "2 is not a label"),
    ],
)
def test_bad_input_is_refused(truth: list[int], a: list[float], b: list[float], error: type[Any], said: str) -> None:
    with pytest.raises(error) as caught:
        compare_sides(np.array(truth), Side(np.array(a), 0.5), Side(np.array(b), 0.5))
    assert said in str(caught.value)
    assert isinstance(caught.value, GkillerError)


def test_a_threshold_outside_is_refused() -> None:
    scores = np.array([0.1, 0.9])
    with pytest.raises(ScoreRangeError, match="side B"):
        compare_sides(np.array([0, 1]), Side(scores, 0.5), Side(scores, 1.5))


# -- several tests at once ----------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    adjusted = holm([0.02, float("nan"), 0.5])
    assert adjusted[0] == 0.04
    assert np.isnan(adjusted[1])
    assert holm([]) == []


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values: Any) -> None:
    adjusted = holm(values)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= max(p, min(1.0, len(values) * max(values)))
        assert q >= min(1.0, p)
    assert min(adjusted) == pytest.approx(min(1.0, len(values) * min(values)))


# -- the verdict --------------------------------------------------------------------------------


def difference(relative: float, relative_low: float, relative_high: float, b: float = 0.5) -> Difference:
    ends = [b * (value - 1) for value in (relative, relative_low, relative_high)]
    return Difference(b * relative, b, *ends, relative, relative_low, relative_high, 0.5)  # type: ignore[call-arg]


def test_within_needs_the_lower_bound() -> None:
    assert verdict(difference(1.0, 0.981, 1.02), n=100).kind == "within"
    assert verdict(difference(1.0, 0.979, 1.02), n=100).kind == "not shown"
    ahead = verdict(difference(1.1, 1.05, 1.15), n=100)  # better is not worse
    assert ahead.kind == "within"
    assert ahead.text.count("ahead, so within") == 2
    assert "ahead" not in verdict(difference(1.0, 0.99, 1.02), n=100).text


def test_worse_needs_the_upper_bound() -> None:
    assert verdict(difference(0.9, 0.85, 0.979), n=100).kind == "worse"
    judged = verdict(difference(0.9, 0.85, 0.99), n=100)
    assert (judged.kind, judged.needed_n) == ("not shown", None)  # no n makes that within 2 %


def test_the_rows_needed_by_hand() -> None:
    """Half-width 0.04 below, 0.02 of room: the interval must halve, so four times the rows and one more."""
    judged = verdict(difference(1.0, 0.96, 1.04), n=1000)
    assert judged.needed_n == pytest.approx(4001, abs=1)
    assert "about 4,001 rows needed" in judged.text or "about 4,002 rows needed" in judged.text
    assert judged.absolute == "not shown"  # exactly at the margin is not above it
    assert verdict(difference(1.0, 0.97, 1.04), n=1000).absolute == "within"  # 0.015 of F1


def test_the_margin_counts() -> None:
    wide = difference(0.97, 0.94, 1.0)
    assert verdict(wide, 0.1, n=10).kind == "within"
    assert "within 10 %" in verdict(wide, 0.1, n=10).text
    assert verdict(wide, 0.02, n=10).needed_n is None


def test_both_differences_are_told() -> None:
    text = verdict(difference(0.99, 0.975, 1.005), n=500).text
    assert text.startswith("relative -1.00 % (-2.50 to +0.50): not shown within 2 %, about 1,1")
    assert text.endswith("; absolute -0.0050 (-0.0125 to +0.0025): within 0.02")


@QUICK
@given(st.floats(0.981, 1.02), st.floats(0.001, 0.1), st.integers(50, 5000))
def test_that_many_rows_are_enough_and_not_too_many(relative: Any, width: Any, n: Any) -> None:
    judged = verdict(difference(relative, relative - width, relative + width), n=n)
    if judged.needed_n is None:
        assert judged.kind == "within"
        return
    assert judged.needed_n > n
    shrunk = width * np.sqrt(n / judged.needed_n)
    assert relative - shrunk > 0.98 - 1e-12
    if judged.needed_n > n + 2:
        early = width * np.sqrt(n / (judged.needed_n - 2))
        assert relative - early <= 0.98 + 1e-12
