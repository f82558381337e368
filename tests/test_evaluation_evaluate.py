"""The assembled evaluation: complete, repeatable, and plain enough for JSON and text."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gkiller.errors import LabelMismatchError, ScoreRangeError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.report import evaluation_text
from gkiller.evaluation.results import Evaluation
from gkiller.settings.definition import EvaluationSettings

LABELS = ("toxicity", "threat", "insult")
THRESHOLDS = {"toxicity": 0.4, "threat": 0.5, "insult": 0.99}
SETTINGS = EvaluationSettings(resamples=120, bootstrap_seed=5, ece_bins=10)


@pytest.fixture(scope="module")
def data() -> bytes | tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    truth = (rng.random((400, 3)) < [0.2, 0.0, 0.1]).astype(float)
    scores = 1 / (1 + np.exp(-(rng.normal(size=(400, 3)) + 2 * truth - 1.5)))
    scores[:, 2] = np.minimum(scores[:, 2], 0.95)
    truth[:50, 2] = np.nan
    return truth, scores, rng.uniform(0.5, 2.0, 400)


@pytest.fixture(scope="module")
def evaluation(data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> Evaluation:
    return evaluate(LABELS, *data, THRESHOLDS, SETTINGS)


def test_values_are_the_metrics(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]], evaluation: Evaluation
) -> None:
    truth, scores, weights = data
    for i, result in enumerate(evaluation.labels):
        stored = label_figures(truth[:, i], scores[:, i], weights, threshold=THRESHOLDS[result.label], bins=10)
        half = label_figures(truth[:, i], scores[:, i], weights, bins=10)
        for name in ("roc_auc", "ap", "brier", "ece"):
            value = getattr(result, name).value
            assert (np.nan if value is None else value) == pytest.approx(stored[name], nan_ok=True)
        for point, expected in ((result.stored, stored), (result.half, half)):
            for name in ("f1", "precision", "recall", "accuracy", "mcc"):
                value = getattr(point, name).value
                assert (np.nan if value is None else value) == pytest.approx(expected[name], nan_ok=True)


def test_counts_and_confusions(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]], evaluation: Evaluation
) -> None:
    truth, scores, weights = data
    insult = evaluation.label("insult")
    assert (insult.n, insult.unknown) == (350, 50)
    assert insult.positives == np.nansum(truth[:, 2])
    known = ~np.isnan(truth[:, 2])
    prior = weights[known & (truth[:, 2] == 1)].sum() / weights[known].sum()
    assert insult.prior == pytest.approx(prior)
    toxicity = evaluation.label("toxicity").stored
    hit = (truth[:, 0] == 1) & (scores[:, 0] >= 0.4)
    assert toxicity.counts.tp == hit.sum()
    assert toxicity.confusion.tp == pytest.approx(weights[hit].sum())
    for result in evaluation.labels:
        for point in (result.stored, result.half):
            counts = point.counts
            assert counts.tp + counts.fp + counts.fn + counts.tn == result.n
            confusion = point.confusion
            total = confusion.tp + confusion.fp + confusion.fn + confusion.tn
            assert point.accuracy.value == pytest.approx((confusion.tp + confusion.tn) / total)


def test_undefined_figures_say_why(evaluation: Evaluation) -> None:
    threat, insult = evaluation.label("threat"), evaluation.label("insult")
    for figure in (threat.roc_auc, threat.ap, threat.stored.f1, threat.stored.precision, threat.stored.mcc):
        assert (figure.value, figure.low, figure.high) == (None, None, None)
        assert figure.note == "there are only negatives"
    assert insult.stored.precision.note == "no row is called positive"
    assert (insult.stored.f1.value, insult.stored.mcc.value) == (0.0, 0.0)


def test_macro_is_the_mean_of_the_defined(evaluation: Evaluation) -> None:
    macro = evaluation.macro
    pair = [evaluation.label(name).roc_auc.value for name in ("toxicity", "insult")]
    assert macro.roc_auc.value == pytest.approx(np.mean(pair))
    assert macro.roc_auc.note == "over 2 of 3 labels"
    assert macro.roc_auc.low < macro.roc_auc.value < macro.roc_auc.high
    assert macro.brier.note == ""
    assert macro.stored.precision.value == evaluation.label("toxicity").stored.precision.value
    assert macro.stored.threshold is None


def test_macro_shares_the_resamples_of_the_labels(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    truth, scores, weights = data
    twice = evaluate(("a", "b"), truth[:, [0, 0]], scores[:, [0, 0]], weights, {"a": 0.4, "b": 0.4}, SETTINGS)
    for name in ("roc_auc", "ap", "brier"):
        one, mean = getattr(twice.label("a"), name), getattr(twice.macro, name)
        assert (mean.low, mean.high) == pytest.approx((one.low, one.high))


def test_the_seed_decides(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]], evaluation: Evaluation
) -> None:
    again = evaluate(LABELS, *data, THRESHOLDS, SETTINGS)
    assert again == evaluation
    other = evaluate(LABELS, *data, THRESHOLDS, SETTINGS.model_copy(update={"bootstrap_seed": 6}))
    assert other.label("toxicity").ap.value == evaluation.label("toxicity").ap.value
    assert other.label("toxicity").ap.low != evaluation.label("toxicity").ap.low


def test_more_confidence_is_wider(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]], evaluation: Evaluation
) -> None:
    narrow = evaluate(LABELS, *data, THRESHOLDS, SETTINGS.model_copy(update={"confidence": 0.5}))
    wide, tight = evaluation.label("toxicity").ap, narrow.label("toxicity").ap
    assert wide.low < tight.low < tight.high < wide.high


def test_a_rare_label_loses_its_interval_not_its_value() -> None:
    truth = np.zeros((30, 1))
    truth[0] = 1
    settings = EvaluationSettings(resamples=400)
    scores = np.linspace(0.9, 0.1, 30)[:, None]
    result = evaluate(("threat",), truth, scores, None, {"threat": 0.95}, settings).labels[0]
    assert result.ap.value == 1.0
    assert 200 < result.ap.defined < 320  # one row is drawn in about 63 % of resamples
    assert result.stored.precision.value is None
    first = evaluate(("threat",), truth, scores, np.r_[1.0, np.zeros(29)], {"threat": 0.5}, settings).labels[0]
    assert first.roc_auc.note == "there are only positives"
    assert first.stored.recall.value == 1.0


def test_json_is_strict_and_complete(evaluation: Evaluation) -> None:
    plain = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert list(plain["labels"]) == list(LABELS)
    assert plain["labels"]["threat"]["roc_auc"]["value"] is None
    assert plain["labels"]["toxicity"]["stored"]["counts"]["tp"] > 0
    assert plain["macro"]["half"]["threshold"] == 0.5
    assert (plain["rows"], plain["resamples"], plain["weighted"]) == (400, 120, True)


def test_text_is_aligned_and_names_everything(evaluation: Evaluation) -> None:
    text = evaluation_text(evaluation, heading="tiny on test")
    lines = text.splitlines()
    assert lines[0] == "tiny on test"
    assert text.endswith("\n")
    assert not any(line != line.rstrip() for line in lines)
    start = lines.index("At the stored threshold")
    header, _, *rows = lines[start + 1 : start + 7]
    assert [row.split()[0] for row in rows] == [*LABELS, "macro"]
    assert len({len(row) for row in (header, *rows)}) == 1
    figure = evaluation.label("toxicity").stored.f1
    assert f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" in rows[0]
    assert "threat: ROC-AUC, AP, F1, precision, recall, MCC: there are only negatives" in text
    assert text.count("resampling adds noise") == 1


def test_text_of_one_unweighted_label_has_no_macro(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    truth, scores, _ = data
    one = evaluate(LABELS[:1], truth[:, :1], scores[:, :1], None, THRESHOLDS, SETTINGS)
    text = evaluation_text(one)
    assert "macro" not in text
    assert "tp weight" not in text
    assert "all rows weigh the same" in text


def test_progress_is_called(data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    seen = []
    evaluate(LABELS, *data, THRESHOLDS, SETTINGS, progress=lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert seen[-1] == (120, 120)


def test_missing_and_impossible_thresholds(
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    with pytest.raises(LabelMismatchError, match="'insult'"):
        evaluate(LABELS, *data, {"toxicity": 0.5, "threat": 0.5}, SETTINGS)
    with pytest.raises(ScoreRangeError):
        evaluate(LABELS, *data, {**THRESHOLDS, "threat": float("nan")}, SETTINGS)


def test_the_room_never_imports_torch() -> None:
    code = """
import sys
import gkiller.evaluation.evaluate, gkiller.evaluation.thresholds, gkiller.evaluation.plots
sys.exit(sum(name in sys.modules for name in ("torch", "transformers", "sklearn", "matplotlib.pyplot")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
