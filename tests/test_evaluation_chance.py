"""A model that has learnt nothing is told from one that has learnt a little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.results import Evaluation, learnt_nothing
from gkiller.settings.definition import EvaluationSettings

SETTINGS = EvaluationSettings(resamples=100)


def evaluation(
    scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] | None = None
) -> Evaluation:
    labels = tuple("abcdef"[: truth.shape[1]])
    return evaluate(labels, truth, scores, weights, dict.fromkeys(labels, 0.5), SETTINGS)


@pytest.fixture
def truth() -> Any:
    return (np.random.default_rng(0).random((800, 1)) < 0.1).astype(float)


def noise(truth: np.ndarray[Any, Any], gain: int, seed: int = 1) -> np.ndarray[Any, Any]:
    drive = np.random.default_rng(seed).normal(size=truth.shape) + gain * truth
    return 1 / (1 + np.exp(-drive))


@pytest.mark.parametrize("scores", ["equal", "random", "reversed"])
def test_chance_is_found(truth: np.ndarray[Any, Any], scores: str) -> None:
    made = {"equal": np.full_like(truth, 0.3), "random": noise(truth, 0), "reversed": noise(truth, -2)}
    assert learnt_nothing(evaluation(made[scores], truth)) == ["a"]


@pytest.mark.parametrize("gain", [1, 3])
def test_what_was_learnt_is_seen(truth: np.ndarray[Any, Any], gain: int) -> None:
    assert learnt_nothing(evaluation(noise(truth, gain), truth)) == []


def test_each_label_is_judged_alone(truth: np.ndarray[Any, Any]) -> None:
    both = np.hstack([truth, truth, np.ones_like(truth), np.zeros_like(truth)])
    scores = np.hstack([noise(truth, 2), noise(truth, 0), noise(truth, 0), noise(truth, 0)])
    assert learnt_nothing(evaluation(scores, both)) == ["b"]


def test_the_share_of_positives_is_the_weighted_one(truth: np.ndarray[Any, Any]) -> None:
    weights = np.where(truth[:, 0] > 0, 20.0, 1.0)
    assert learnt_nothing(evaluation(noise(truth, 0), truth, weights)) == ["a"]
