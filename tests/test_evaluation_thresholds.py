"""Thresholds reach what they say, and nothing better was there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gkiller.errors import SettingsError, ThresholdTargetError
from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.thresholds import Threshold, tune_thresholds

QUICK = settings(max_examples=40)
SCORES = st.one_of(
    st.integers(0, 8).map(lambda k: k / 8),
    st.floats(0, 1),
    st.sampled_from([5e-324, np.nextafter(1.0, 0), np.nextafter(0.5, 0), 0.5]),
)


@st.composite
def columns(draw: Any) -> Any:
    n = draw(st.integers(2, 30))
    truth = np.array(draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=n, max_size=n)))
    truth[0], truth[1] = 0.0, 1.0
    scores = np.array(draw(st.lists(SCORES, min_size=n, max_size=n)))
    weights = np.array(draw(st.lists(st.floats(0.1, 10), min_size=n, max_size=n)))
    return truth, scores, weights


def tune(column: tuple[Any, ...], **target: Any) -> Threshold:
    truth, scores, weights = column
    return tune_thresholds(("toxicity",), truth[:, None], scores[:, None], weights, **target)["toxicity"]


def reachable(column: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> list[Any]:
    """Precision, recall and F1 of every cut strictly between 0 and 1, by brute force."""
    truth, scores, weights = column
    known = ~np.isnan(truth)
    if len(np.unique(scores[known])) == 1:
        return []
    cuts = [s for s in np.unique(scores[known]) if s > 0]
    found = [label_figures(truth, scores, weights, threshold=cut) for cut in cuts]
    return [(f["precision"], f["recall"], f["f1"]) for f in found]


@QUICK
@given(columns())
def test_the_default_reaches_the_greatest_f1(column: Any) -> None:
    assume(np.nanmax(np.where(np.isnan(column[0]), np.nan, column[1])) < 1.0)
    options = reachable(column)
    tuned = tune(column)
    if not options:
        assert tuned.note
        return
    assert tuned.f1 == pytest.approx(max(f1 for _, _, f1 in options), abs=1e-9)


@QUICK
@given(columns())
def test_a_threshold_attains_what_it_says(column: Any) -> None:
    tuned = tune(column)
    assert 0 < tuned.value < 1
    figures = label_figures(*column, threshold=tuned.value)
    assert tuned.recall == pytest.approx(figures["recall"], abs=1e-9)
    assert tuned.f1 == pytest.approx(figures["f1"], abs=1e-9)
    if tuned.precision is not None:
        assert tuned.precision == pytest.approx(figures["precision"], abs=1e-9)
    known = ~np.isnan(column[0])
    assert tuned.n == known.sum()
    assert tuned.positives == (column[0] == 1).sum()


@QUICK
@given(columns(), st.floats(0.05, 1.0))
def test_a_least_precision_gives_the_greatest_recall(column: Any, target: Any) -> None:
    assume(np.nanmax(np.where(np.isnan(column[0]), np.nan, column[1])) < 1.0)
    options = reachable(column)
    assume(options)
    fits = [recall for precision, recall, _ in options if precision >= target - 1e-12]
    if fits:
        tuned = tune(column, min_precision=target)
        assert tuned.precision >= target - 1e-9
        assert tuned.recall == pytest.approx(max(fits), abs=1e-9)
    else:
        best = max(precision for precision, _, _ in options)
        with pytest.raises(ThresholdTargetError, match=f"the best is {best:.4f}"):
            tune(column, min_precision=target)


@QUICK
@given(columns(), st.floats(0.05, 1.0))
def test_a_least_recall_gives_the_greatest_precision(column: Any, target: Any) -> None:
    assume(np.nanmax(np.where(np.isnan(column[0]), np.nan, column[1])) < 1.0)
    options = reachable(column)
    assume(options)
    fits = [precision for precision, recall, _ in options if recall >= target - 1e-12]
    if fits:
        tuned = tune(column, min_recall=target)
        assert tuned.recall >= target - 1e-9
        assert tuned.precision == pytest.approx(max(fits), abs=1e-9)
    else:
        with pytest.raises(ThresholdTargetError, match="recall"):
            tune(column, min_recall=target)


def test_the_cut_lies_halfway() -> None:
    truth, scores = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.6, 0.2, 0.1])
    assert tune((truth, scores, None)).value == pytest.approx(0.4)


def test_the_lowest_cut_lies_halfway_to_zero() -> None:
    tuned = tune((np.array([1.0, 0.0, 1.0]), np.array([0.4, 0.3, 0.2]), None), min_recall=1.0)
    assert tuned.value == pytest.approx(0.1)
    assert tuned.target == "recall >= 1"


def test_unweighted_rows_do_not_move_the_cut() -> None:
    truth, scores = np.array([1.0, 0.0, 0.0]), np.array([0.8, 0.2, 0.6])
    assert tune((truth, scores, np.array([1.0, 1.0, 0.0]))).value == pytest.approx(0.5)


def test_weights_decide() -> None:
    truth, scores = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.9, 0.6, 0.5, 0.3])
    assert tune((truth, scores, np.array([1.0, 50.0, 50.0, 1.0]))).value == pytest.approx(0.75)
    assert tune((truth, scores, np.array([1.0, 0.1, 0.1, 9.0]))).value == pytest.approx(0.15)


@pytest.mark.parametrize("stored", [None, 0.1679, 0.95])
@pytest.mark.parametrize(
    ("truth", "scores", "reason"),
    [
        ([0.0, 0.0], [0.1, 0.9], "there are only negatives"),
        ([1.0, 1.0], [0.1, 0.9], "there are only positives"),
        ([np.nan, np.nan], [0.1, 0.9], "no row of this label is known and weighted"),
        ([0.0, 1.0], [0.3, 0.3], "all scores are equal"),
        ([0.0, 1.0], [0.0, 0.0], "all scores are equal"),
    ],
)
@pytest.mark.parametrize("target", [{}, {"min_precision": 0.9}, {"expected": True}])
def test_a_label_that_cannot_be_tuned_keeps_its_threshold(
    truth: list[float], scores: list[float], reason: str, stored: float | None, target: dict[str, Any]
) -> None:
    """Report spaCy#7018: a label without positives must not lose the threshold that it had."""
    table = np.array([*truth, 0.0, 1.0])[:, None], np.array([*scores, 0.2, 0.8])[:, None]
    weights = np.array([1.0, 1.0, 0.0, 0.0])  # the last two count for nothing
    given: dict[str, Any] = {} if stored is None else {"stored": {"threat": stored}}
    tuned = tune_thresholds(("threat",), *table, weights, **given, **target)["threat"]  # type: ignore[misc]
    value = 0.5 if stored is None else stored
    assert (tuned.value, tuned.target) == (value, "none")
    assert tuned.note == f"kept at {value:.4g}: {reason}"
    known = ~np.isnan(np.array(truth))
    assert (tuned.n, tuned.positives) == (known.sum(), (np.array(truth) == 1).sum())
    if (np.array(truth) == 1).any():
        assert tuned.recall == np.mean((np.array(scores) >= value)[np.array(truth) == 1])


def test_labels_are_tuned_apart() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    scores = np.array([[0.9, 0.1], [0.1, 0.3], [0.1, 0.1]])
    tuned = tune_thresholds(("threat", "insult"), truth, scores)
    assert (tuned["threat"].value, tuned["insult"].value) == pytest.approx((0.5, 0.2))


@pytest.mark.parametrize(
    "target", [{"min_precision": 0.5, "min_recall": 0.5}, {"min_precision": 0.0}, {"min_recall": 1.5}]
)
def test_impossible_targets_are_refused(target: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        tune((np.array([0.0, 1.0]), np.array([0.1, 0.9]), None), **target)


def calibrated(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scores that are probabilities already, and labels drawn by them: few positives, as in the field."""
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-rng.normal(-3.0, 1.5, n)))
    return (rng.random(n) < scores).astype(float), scores, np.ones(n)


def test_of_calibrated_scores_the_expected_threshold_is_half_the_best_f1() -> None:
    """Lipton et al. 2014, theorem 1: the optimal threshold is F*/2."""
    tuned = tune(calibrated(200_000, 0), expected=True)
    assert tuned.target == "max expected f1"
    assert tuned.value == pytest.approx(tuned.f1 / 2, abs=0.02)


def test_the_expected_threshold_moves_less_from_one_sample_to_the_next() -> None:
    def spread(expected: Any) -> Any:
        return np.std([tune(calibrated(1_000, seed), expected=expected).value for seed in range(30)])

    assert spread(expected=True) < spread(expected=False) / 2


@QUICK
@given(columns())
def test_an_expected_threshold_is_a_cut_like_any_other(column: Any) -> None:
    tuned = tune(column, expected=True)
    assert 0 < tuned.value < 1
    assert tuned.target in {"max f1", "max expected f1", "none"}
    if tuned.target != "none":
        assert tuned.f1 <= tune(column).f1 + 1e-9


def test_where_scores_fall_with_the_truth_the_observed_f1_decides() -> None:
    truth, scores, weights = calibrated(500, 1)
    turned = truth, 1 - scores, weights
    assert tune(turned, expected=True) == tune(turned)


@pytest.mark.parametrize("expected", [False, True])
def test_slack_gives_the_lowest_threshold_of_nearly_the_best_f1(expected: bool) -> None:
    column = calibrated(5_000, 3)
    strict, slack = (tune(column, expected=expected, f1_slack=one) for one in (0.0, 0.02))
    name = "max expected f1" if expected else "max f1"
    assert (strict.target, slack.target) == (name, f"{name} less 0.02")
    assert slack.value < strict.value - 0.02
    assert slack.recall > strict.recall
    assert slack.f1 > strict.f1 - (0.05 if expected else 0.02 + 1e-9)


def naive_f1(truth: np.ndarray[Any, Any], flags: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> np.float64:
    mass = np.where(np.isnan(truth), 0.0, np.ones(len(truth)) if weights is None else weights)
    hits = (mass * flags * (truth == 1)).sum()
    return 2 * hits / ((mass * flags).sum() + mass[truth == 1].sum())


@QUICK
@given(columns(), st.floats(0.001, 0.5))
def test_slack_keeps_its_word(column: Any, slack: Any) -> None:
    best, found = tune(column), tune(column, f1_slack=slack)
    if found.target == "none":
        return
    assert found.f1 >= best.f1 - slack - 1e-9
    assert found.value <= best.value
    assert found.recall >= best.recall - 1e-9
    truth, scores, weights = column
    known = ~np.isnan(truth)
    for lower in np.unique(scores[known & (scores > 0) & (scores < found.value)]):  # each lets more in
        assert naive_f1(truth, scores >= lower, weights) < best.f1 - slack + 1e-9


@pytest.mark.parametrize("slack", [-0.1, 1.0, np.nan])
def test_impossible_slack_is_refused(slack: float) -> None:
    with pytest.raises(SettingsError, match="is out of range"):
        tune((np.array([0.0, 1.0]), np.array([0.1, 0.9]), None), f1_slack=slack)


def test_a_comment_counts_by_its_weight_in_the_expected_f1() -> None:
    truth, scores, _ = calibrated(400, 2)
    twice = np.where(np.arange(400) % 3 == 0, 2.0, 1.0)
    again = np.repeat(np.arange(400), twice.astype(int))
    weighed = tune((truth, scores, twice), expected=True)
    written_twice = tune((truth[again], scores[again], np.ones(len(again))), expected=True)
    assert weighed.value == pytest.approx(written_twice.value, abs=0.02)
