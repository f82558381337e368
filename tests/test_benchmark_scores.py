"""experiments/scores.py: a model's scores of the evaluation sets, without their texts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from toy_corpora import write_corpora

from gkiller import load

SCRIPT = Path(__file__).parents[1] / "experiments" / "scores.py"


def test_scores_are_the_models_and_are_kept(onnx_model: Path, tmp_path: Path) -> None:
    data = write_corpora(tmp_path / "data", {"valid/jigsaw": 30, "ood/gab": 24, "train/jigsaw": 9})
    out = tmp_path / "scores"
    model = load(onnx_model)
    label = model.labels[0]
    command = [sys.executable, SCRIPT, onnx_model, "--data", data, "--out", out, "--label", label]
    subprocess.run(command, check=True, capture_output=True)  # type: ignore[arg-type]
    assert sorted(path.name for path in out.iterdir()) == ["ood-gab.parquet", "valid-jigsaw.parquet"]
    for name in ("ood/gab", "valid/jigsaw"):
        found = pq.read_table(out / f"{name.replace('/', '-')}.parquet")
        assert found.column_names == ["row", label, "flags", "long_text"]
        assert set(found["long_text"].to_pylist()) == {"window"}
        texts = pq.read_table(data / f"{name}.parquet")["text"].to_pylist()
        expected = model.predict_proba(texts)[:, 0]
        np.testing.assert_allclose(found[label].to_numpy(), expected, atol=1e-6)
        flagged = [flags == [label] for flags in found["flags"].to_pylist()]
        assert flagged == (expected >= model.thresholds[label]).tolist()
    before = (out / "ood-gab.parquet").stat().st_mtime_ns
    (out / "valid-jigsaw.parquet").unlink()
    subprocess.run(command, check=True, capture_output=True)  # type: ignore[arg-type]
    assert (out / "ood-gab.parquet").stat().st_mtime_ns == before  # what is there is not scored again
