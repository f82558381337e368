"""experiments/threshold_rules.py: thresholds are judged on comments that they were not tuned on."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "experiments" / "threshold_rules.py"


@pytest.fixture
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("threshold_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities, and labels drawn by them."""
    rng = np.random.default_rng(1)
    scores = 1 / (1 + np.exp(-rng.normal(-2.0, 1.5, rows)))
    return (rng.random(rows) < scores).astype(float), scores


def test_of_calibrated_scores_the_expected_rule_spreads_less(rules: ModuleType) -> None:
    tried = (rules.Rule(expected=False), rules.Rule(expected=True))
    figures, even, thresholds = rules.halves(*drawn(1_000), tried, splits=12, seed=0)
    assert figures.shape == even.shape == thresholds.shape == (12, 2)
    assert thresholds[:, 1].std() < thresholds[:, 0].std() / 2
    again, _, _ = rules.halves(*drawn(1_000), tried, splits=12, seed=0)
    assert np.array_equal(figures, again)


def test_slack_lowers_the_threshold_and_gains_where_half_is_positive(rules: ModuleType) -> None:
    tried = (rules.Rule(expected=True), rules.Rule(expected=True, slack=0.02))
    figures, even, thresholds = rules.halves(*drawn(2_000), tried, splits=12, seed=0)
    assert (thresholds[:, 1] < thresholds[:, 0]).all()
    assert even[:, 1].mean() > even[:, 0].mean()
    assert (even > figures).all()  # of a fifth positive, precision is less than of a half
    assert str(tried[1]) == "expected less 0.02"


def test_half_of_the_weight_is_positive(rules: ModuleType) -> None:
    truth, scores = drawn(400)
    doubled = np.where(truth == 1, 0.9, np.where(scores > np.median(scores), 0.9, 0.1))
    rng = np.random.default_rng(0)
    here = rng.permutation(len(truth)) < len(truth) // 2
    flagged = doubled[~here] > 0.5
    share = flagged[truth[~here] == 0].mean()
    _, even, _ = rules.halves(truth, doubled, (rules.Rule(expected=False),), splits=1, seed=0)
    assert even[0, 0] == pytest.approx(2 / (2 + share))  # recall 1: F1 = 2 TP / (2 TP + FP), each half of 1


def test_the_table_has_a_row_for_each_file(
    rules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, scores = drawn(200)
    pq.write_table(pa.table({"label": truth.astype(np.int8)}), tmp_path / "comments.parquet")
    for name in ("first", "second"):
        pq.write_table(pa.table({"toxicity": scores.astype(np.float32)}), tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"{name}.parquet") for name in ("first", "second")]
    argv = [str(SCRIPT), *files, "--data", str(tmp_path / "comments.parquet"), "--splits", "3"]
    monkeypatch.setattr(sys, "argv", argv)
    rules.main()
    rows = capsys.readouterr().out.splitlines()
    names = ["observed", "expected", *(f"expected less {slack}" for slack in ("0.005", "0.01", "0.02"))]
    cells = [row.strip("| ").split(" | ") for row in rows[2:]]
    assert [one[:2] for one in cells] == [[file, name] for file in ("first", "second") for name in names]
    assert [one[1:] for one in cells[:5]] == [one[1:] for one in cells[5:]]
