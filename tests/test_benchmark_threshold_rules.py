"""benchmarks/threshold_rules.py: thresholds are judged on comments that they were not tuned on."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "threshold_rules.py"


@pytest.fixture
def rules():
    spec = importlib.util.spec_from_file_location("threshold_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(rows):
    """Probabilities, and labels drawn by them."""
    rng = np.random.default_rng(1)
    scores = 1 / (1 + np.exp(-rng.normal(-2.0, 1.5, rows)))
    return (rng.random(rows) < scores).astype(float), scores


def test_of_calibrated_scores_the_expected_rule_spreads_less(rules):
    figures, thresholds = rules.halves(*drawn(1_000), splits=12, seed=0)
    assert figures.shape == thresholds.shape == (12, 2)
    assert thresholds[:, 1].std() < thresholds[:, 0].std() / 2
    again, _ = rules.halves(*drawn(1_000), splits=12, seed=0)
    assert np.array_equal(figures, again)


def test_the_table_has_a_row_for_each_file(rules, tmp_path, monkeypatch, capsys):
    truth, scores = drawn(200)
    pq.write_table(pa.table({"label": truth.astype(np.int8)}), tmp_path / "comments.parquet")
    for name in ("first", "second"):
        pq.write_table(pa.table({"toxicity": scores.astype(np.float32)}), tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"{name}.parquet") for name in ("first", "second")]
    argv = [str(SCRIPT), *files, "--data", str(tmp_path / "comments.parquet"), "--splits", "3"]
    monkeypatch.setattr(sys, "argv", argv)
    rules.main()
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| first", "| second"]
    assert rows[2].split(" | ")[1:] == rows[3].split(" | ")[1:]
