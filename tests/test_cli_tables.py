"""The results table: whole where there is room, and never folded at a terminal's usual width."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from gkiller.cli.tables import evaluation_table
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.results import Evaluation
from gkiller.settings.definition import EvaluationSettings

LABELS = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")


def evaluation(count: int, rows: int = 400) -> Evaluation:
    rng = np.random.default_rng(1)
    truth = (rng.random((rows, count)) < 0.2).astype(float)
    scores = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 2 * truth - 1.5)))
    settings = EvaluationSettings(resamples=50)
    return evaluate(LABELS[:count], truth, scores, np.ones(rows), dict.fromkeys(LABELS, 0.4), settings)


def drawn(count: int, width: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, markup=False, highlight=False)
    console.print(evaluation_table(evaluation(count), "Title", width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 110, 120, 160])
@pytest.mark.parametrize("count", [1, 6])
def test_nothing_folds(count: int, width: int) -> None:
    found = evaluation(count)
    lines = drawn(count, width).splitlines()
    assert max(map(len, lines)) <= width
    for result in found.labels:
        (line,) = [line for line in lines if line.split()[:1] == [result.label]]
        cells = line.split()
        assert cells[1] == str(result.positives)
        assert cells[2] == "0.400"
        assert f"{result.ap.value:.3f}" in cells
        assert f"{result.roc_auc.value:.3f}" in cells
    if width >= 80:
        low, high = found.labels[0].ap.low, found.labels[0].ap.high
        assert f"{low:.3f}-{high:.3f}" in drawn(count, width)


@pytest.mark.parametrize("count", [1, 6])
def test_the_whole_table_is_kept_where_there_is_room(count: int) -> None:
    for width in (110, 160):
        text = drawn(count, width)
        assert all(name in text for name in ("prec.", "recall", "F1@0.5", "95% intervals"))
        assert "no room" not in text
    assert "in brackets" in drawn(count, 160)


def test_what_is_left_out_is_said() -> None:
    assert "no room for precision, recall, F1@0.5: see --json" in drawn(6, 80)
    assert "below the figures 95% intervals" in drawn(6, 80)
    assert "F1@0.5, intervals: see --json" in drawn(6, 60)


def test_the_console_s_width_counts_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(evaluation_table(evaluation(6), "").columns) == 6
    monkeypatch.setenv("COLUMNS", "200")
    assert len(evaluation_table(evaluation(6), "").columns) == 9
