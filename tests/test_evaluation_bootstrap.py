"""Resampling: the same for the same seed, true to slow resampling, and wide enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkiller.evaluation import metrics as bootstrap
from gkiller.evaluation.metrics import draws, interval, label_figures, plan, rank, resample

QUICK = settings(max_examples=40)
FEW = settings(max_examples=10)


def synthetic(n: int = 300, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.2).astype(float)
    scores = np.round(1 / (1 + np.exp(-(rng.normal(size=n) + 2 * truth - 1))), 2)
    return truth, scores, rng.uniform(0.2, 3.0, n)


def test_every_replica_is_the_metric_of_its_drawn_rows() -> None:
    truth, scores, weights = synthetic(60)
    truth[::7] = np.nan
    replicas = resample([plan(rank(truth, scores, weights), (0.3, 0.5), 10)], 60, 25, seed=3)[0]
    counts = np.concatenate(list(draws(60, 25, seed=3)))
    for replica, drawn in zip(replicas, counts, strict=True):
        rows = np.repeat(np.arange(60), drawn.astype(int))
        at_stored = label_figures(truth[rows], scores[rows], weights[rows], threshold=0.3, bins=10)
        at_half = label_figures(truth[rows], scores[rows], weights[rows], bins=10)
        expected = [*at_stored.values(), *list(at_half.values())[4:]]
        assert replica == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_draws_depend_on_the_seed_and_not_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(50, 20, seed=1)))
    monkeypatch.setattr(bootstrap, "CELLS", 150)
    parts = list(draws(50, 20, seed=1))
    assert len(parts) == 7
    assert np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(np.concatenate(list(draws(50, 20, seed=2))), whole)
    assert (whole.sum(axis=1) == 50).all()
    assert whole.mean() == pytest.approx(1.0)


def test_progress_reaches_the_end() -> None:
    truth, scores, weights = synthetic(40)
    seen = []
    resample([plan(rank(truth, scores, weights), (0.5,), 5)], 40, 30, 0, lambda *step: seen.append(step))
    assert seen[-1] == (30, 30)


@QUICK
@given(st.lists(st.floats(-1, 1), min_size=10, max_size=60), st.floats(0.5, 0.99))
def test_interval_is_the_percentiles(values: Any, confidence: Any) -> None:
    low, high, defined = interval(np.array(values), confidence)
    tail = (1 - confidence) / 2
    assert low == pytest.approx(np.quantile(values, tail))
    assert high == pytest.approx(np.quantile(values, 1 - tail))
    assert defined == len(values)


def test_undefined_resamples_are_left_out_until_too_many_are() -> None:
    values = np.array([0.1, 0.2, 0.3, np.nan])
    assert interval(values, 0.5) == (*np.quantile([0.1, 0.2, 0.3], (0.25, 0.75)), 3)
    low, high, defined = interval(np.array([0.1, np.nan, np.nan]), 0.5)
    assert np.isnan([low, high]).all()
    assert defined == 1
    assert np.isnan(interval(np.full(5, np.nan), 0.95)[0])


def test_a_centred_interval_is_shifted_and_stays_above_zero() -> None:
    low, high, _ = interval(np.linspace(0.2, 0.4, 101), 0.9, centre=0.1)
    assert (low, high) == pytest.approx((0.01, 0.19))
    assert interval(np.linspace(0.2, 0.4, 101), 0.9, centre=0.02)[0] == 0.0


@FEW
@given(st.integers(0, 10_000))
def test_the_interval_holds_the_value_nearly_always(seed: Any) -> None:
    truth, scores, weights = synthetic(200, seed)
    prepared = plan(rank(truth, scores, weights), (0.4,), 10)
    point = prepared.figures(np.ones((1, 200)))[0]
    replicas = resample([prepared], 200, 200, seed)[0]
    for k in range(len(point)):
        low, high, _ = interval(replicas[:, k], 0.99, centre=point[k] if k == 3 else None)
        assert low <= point[k] <= high


def test_intervals_cover_the_truth() -> None:
    """Of 60 samples from one population, a 90 % interval misses its ROC-AUC in about 6."""
    truth, scores, weights = synthetic(40_000, seed=99)
    auc = label_figures(truth, scores, weights)["roc_auc"]
    missed = 0
    for part in range(60):
        rows = slice(part * 400, part * 400 + 400)
        prepared = plan(rank(truth[rows], scores[rows], weights[rows]), (0.5,), 10)
        low, high, _ = interval(resample([prepared], 400, 200, part)[0][:, 0], 0.9)
        missed += not low <= auc <= high
    assert 1 <= missed <= 14
