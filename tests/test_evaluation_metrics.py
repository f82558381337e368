"""Our metrics against scikit-learn's and against their own laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from gkiller.errors import EmptyDataError, LabelMismatchError, LabelValueError, ScoreRangeError, SingleClassError
from gkiller.evaluation.metrics import label_figures, macro_score, rank, reliability_of

QUICK = settings(max_examples=40)
TIED = st.integers(0, 6).map(lambda k: k / 6)
SCORES = st.one_of(TIED, st.floats(0, 1, allow_subnormal=False))
WEIGHTS = st.floats(0.01, 100)


def roc_auc(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] = None) -> float:
    return label_figures(truth, scores, weights)["roc_auc"]


def average_precision(
    truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] = None
) -> float:
    return label_figures(truth, scores, weights)["ap"]


def f1_score(
    truth: list[int] | np.ndarray[Any, Any],
    scores: list[float | np.float64] | np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any] | None = None,
) -> float:
    return label_figures(truth, scores, weights)["f1"]


@st.composite
def tables(draw: Any, weights: Any = WEIGHTS) -> Any:
    """Truth with both classes, scores with ties, and weights."""
    n = draw(st.integers(2, 40))
    truth = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=float)
    place = draw(st.integers(0, n - 2))
    truth[place], truth[place + 1] = 0.0, 1.0
    scores = np.array(draw(st.lists(SCORES, min_size=n, max_size=n)))
    mass = np.array(draw(st.lists(weights, min_size=n, max_size=n)), dtype=float)
    return truth, scores, mass


@QUICK
@given(tables())
def test_ranking_figures_match_scikit_learn(table: Any) -> None:
    truth, scores, mass = table
    assert roc_auc(truth, scores, mass) == pytest.approx(
        reference.roc_auc_score(truth, scores, sample_weight=mass), abs=1e-9
    )
    assert average_precision(truth, scores, mass) == pytest.approx(
        reference.average_precision_score(truth, scores, sample_weight=mass), abs=1e-9
    )


@QUICK
@given(tables(), TIED)
def test_threshold_figures_match_scikit_learn(table: Any, cut: Any) -> None:
    truth, scores, mass = table
    called = (scores >= cut).astype(float)
    figures = label_figures(truth, scores, mass, threshold=cut)
    weighted = {"sample_weight": mass, "zero_division": 0}
    expected = {
        "f1": reference.f1_score(truth, called, **weighted),
        "recall": reference.recall_score(truth, called, **weighted),
        "accuracy": reference.accuracy_score(truth, called, sample_weight=mass),
        "mcc": reference.matthews_corrcoef(truth, called, sample_weight=mass),
        "brier": reference.brier_score_loss(truth, scores, sample_weight=mass),
    }
    if called.any():
        expected["precision"] = reference.precision_score(truth, called, **weighted)
    else:
        assert math.isnan(figures["precision"])
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-9), name


@QUICK
@given(tables(), st.integers(2, 20))
def test_calibration_error_is_the_sum_over_bins(table: Any, bins: Any) -> None:
    truth, scores, mass = table
    total = 0.0
    for b in range(bins):
        inside = [i for i, s in enumerate(scores) if min(int(s * bins), bins - 1) == b]
        total += abs(sum(mass[i] * (truth[i] - scores[i]) for i in inside))
    figures = label_figures(truth, scores, mass, bins=bins)
    assert figures["ece"] == pytest.approx(total / mass.sum(), abs=1e-9)
    binned = reliability_of(rank(truth, scores, mass), bins)
    full = binned.weight > 0
    gaps = np.abs(binned.rate[full] - binned.score[full]) * binned.weight[full]
    assert gaps.sum() / mass.sum() == pytest.approx(figures["ece"], abs=1e-9)
    assert binned.rows.sum() == len(truth)


@QUICK
@given(tables())
def test_order_alone_decides_ranking_figures(table: Any) -> None:
    truth, scores, mass = table
    squeezed = np.unique(scores, return_inverse=True)[1] / 100  # same order, same ties
    assert roc_auc(truth, squeezed, mass) == pytest.approx(roc_auc(truth, scores, mass), abs=1e-12)
    assert average_precision(truth, squeezed, mass) == pytest.approx(average_precision(truth, scores, mass), abs=1e-12)


@QUICK
@given(tables(weights=st.integers(0, 3)))
def test_a_weight_is_a_repetition(table: Any) -> None:
    truth, scores, mass = table
    times = mass.astype(int)
    assume(times.any())
    weighted = label_figures(truth, scores, mass, threshold=0.4)
    repeated = label_figures(np.repeat(truth, times), np.repeat(scores, times), threshold=0.4)
    assert weighted == pytest.approx(repeated, abs=1e-9, nan_ok=True)


@QUICK
@given(tables(), st.floats(1e-3, 1e3))
def test_the_scale_of_weights_does_not_matter(table: Any, factor: Any) -> None:
    truth, scores, mass = table
    assert label_figures(truth, scores, mass * factor) == pytest.approx(
        label_figures(truth, scores, mass), abs=1e-9, nan_ok=True
    )


@QUICK
@given(tables())
def test_swapping_the_classes_mirrors_the_auc(table: Any) -> None:
    truth, scores, mass = table
    assert roc_auc(1 - truth, scores, mass) == pytest.approx(1 - roc_auc(truth, scores, mass), abs=1e-9)


@QUICK
@given(tables(), st.data())
def test_unknown_rows_are_as_good_as_absent(table: Any, data: Any) -> None:
    truth, scores, mass = table
    hidden = np.array(data.draw(st.lists(st.booleans(), min_size=len(truth), max_size=len(truth))))
    assume(not hidden.all())
    masked = np.where(hidden, np.nan, truth)
    assert label_figures(masked, scores, mass) == pytest.approx(
        label_figures(truth[~hidden], scores[~hidden], mass[~hidden]), abs=1e-12, nan_ok=True
    )


def test_known_values() -> None:
    truth, scores = [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]
    figures = label_figures(truth, scores, threshold=0.75)
    assert figures["roc_auc"] == 0.75
    assert figures["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.5, 0.5, 0.5)
    assert (figures["accuracy"], figures["mcc"]) == (0.5, 0.0)
    assert figures["brier"] == pytest.approx((0.01 + 0.64 + 0.09 + 0.01) / 4)


def test_a_score_at_the_threshold_is_positive() -> None:
    assert f1_score([1, 0], [0.5, np.nextafter(0.5, 0)]) == 1.0


@pytest.mark.parametrize(("truth", "defined"), [([0, 0], {"brier", "ece", "accuracy"})])
def test_without_positives_nothing_is_said_about_them(truth: list[int], defined: set[str]) -> None:
    figures = label_figures(truth, [0.2, 0.9])
    assert {name for name, value in figures.items() if not math.isnan(value)} == defined


def test_without_negatives_ranking_is_undefined() -> None:
    figures = label_figures([1, 1], [0.2, 0.9])
    assert math.isnan(figures["roc_auc"])
    assert math.isnan(figures["ap"])
    assert math.isnan(figures["mcc"])
    assert figures["recall"] == 0.5


def test_macro_score_averages_labels_with_both_classes() -> None:
    truth = np.array([[1, 0, np.nan], [0, 0, 1], [1, 0, 0], [0, 0, 1]])
    scores = np.array([[0.6, 0.1, 0.9], [0.7, 0.2, 0.8], [0.9, 0.9, 0.85], [0.1, 0.1, 0.2]])
    weights = np.array([1.0, 2.0, 1.0, 1.0])
    ap = [average_precision(truth[:, i], scores[:, i], weights) for i in (0, 2)]
    f1 = [f1_score(truth[:, i], scores[:, i], weights) for i in (0, 2)]
    assert macro_score("ap", truth, scores, weights) == pytest.approx(np.mean(ap))
    assert macro_score("f1", truth, scores, weights) == pytest.approx(np.mean(f1))
    assert macro_score("ap", truth, scores) != pytest.approx(np.mean(ap))


def test_macro_score_refuses_one_class() -> None:
    with pytest.raises(SingleClassError):
        macro_score("ap", np.zeros((3, 1)), np.full((3, 1), 0.5))


@pytest.mark.parametrize(
    ("truth", "scores", "weights", "error", "place"),
    [
        ([[0.5], [1]], [[0.1], [0.2]], None, LabelValueError, "row 1"),
        ([[0], [1]], [[0.1], [1.2]], None, ScoreRangeError, "row 2"),
        ([[0], [1]], [[0.1], [np.nan]], None, ScoreRangeError, "row 2"),
        ([[0], [1]], [[0.1], [0.2]], [1, -1], LabelValueError, "row 2"),
        ([[0], [1]], [[0.1], [0.2]], [np.inf, 1], LabelValueError, "row 1"),
        ([[0], [1]], [[0.1], [0.2]], [0, 0], LabelValueError, ""),
        ([[0], [1]], [[0.1], [0.2]], [1], LabelMismatchError, ""),
        ([[0], [1]], [[0.1, 0.2]], None, LabelMismatchError, ""),
        (np.zeros((0, 1)), np.zeros((0, 1)), None, EmptyDataError, ""),
    ],
)
def test_bad_input_names_its_place(
    truth: list[Any] | np.ndarray[Any, Any],
    scores: list[list[float]] | np.ndarray[Any, Any],
    weights: list[Any] | None,
    error: Any,
    place: str,
) -> None:
    with pytest.raises(error) as caught:
        macro_score("ap", np.array(truth), np.array(scores), weights)
    assert place in caught.value.where
    assert caught.value.remedy
