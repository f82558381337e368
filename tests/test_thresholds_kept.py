"""A label that cannot be tuned keeps the threshold that is stored, wherever thresholds are tuned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference_helpers import LABELS, write_model

from gkiller import load
from gkiller.benchmark.quality import LabelledSet, _tune
from gkiller.benchmark.systems import SystemSpec
from gkiller.data.dataset import Split
from gkiller.evaluation.thresholds import stored_entries, tune_thresholds
from gkiller.scoring.models import load_any
from gkiller.settings.definition import EvaluationSettings


def test_a_label_without_positives_keeps_its_stored_threshold(call: Callable[..., Any], tmp_path: Path) -> None:
    """Report spaCy#7018."""
    data = tmp_path / "two.csv"
    rows = [f"{'you idiot' if i % 4 == 0 else 'thank you'} {i},{int(i % 4 == 0)},0" for i in range(240)]
    data.write_text("text,toxicity,threat\n" + "\n".join(rows) + "\n")
    before = load().thresholds["threat"]
    flags = ("--data", data, "--label-columns", "toxicity,threat", "--json")
    code, out, err = call("threshold", "default", *flags, "--out", "mine")
    assert code == 0, err
    stored = json.loads((tmp_path / "mine" / "gkiller.json").read_text())["thresholds"]
    assert stored["threat"] == load_any("default").metadata["thresholds"]["threat"]
    assert stored["toxicity"]["tuned_on"]["rows"] == 240
    line = f"threat: threshold kept at {before:.4g}: there are only negatives"
    assert line in json.loads(out)["warnings"]
    assert f"warning: {line}" in err
    assert any("severe_toxicity" in line and "lack" in line for line in json.loads(out)["warnings"])


@pytest.mark.parametrize("label", [0, 1])
def test_where_no_label_can_be_tuned_nothing_is_written(call: Callable[..., Any], tmp_path: Path, label: int) -> None:
    (tmp_path / "one.csv").write_text("text,toxicity\n" + "".join(f"words {i},{label}\n" for i in range(20)))
    code, out, _ = call("threshold", "default", "--data", "one.csv", "--json", "--out", "mine")
    answer = json.loads(out)
    assert (code, answer["error"]) == (50, "ThresholdTargetError")
    assert "toxicity: threshold kept at" in answer["what"]
    assert answer["remedy"]
    assert not (tmp_path / "mine").exists()


def test_what_is_stored_of_a_label_that_was_not_tuned_stays_as_it_was() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 0.0]])
    tuned = tune_thresholds(LABELS, truth, np.array([[0.9, 0.1], [0.1, 0.2]]), stored={"insult": 0.25})
    before = {"insult": {"value": 0.25, "target": "recall >= 0.8", "tuned_on": {"rows": 9}}}
    entries = stored_entries(tuned, before)
    assert entries["insult"] == before["insult"]
    assert (entries["toxicity"]["value"], entries["toxicity"]["target"]) == (0.5, "max f1")
    assert stored_entries(tuned, {})["insult"]["note"] == "kept at 0.25: there are only negatives"


def test_a_benchmark_keeps_the_threshold_of_a_label_that_it_cannot_tune(tmp_path: Path) -> None:
    stored = {"toxicity": {"value": 0.5}, "insult": {"value": 0.125}}
    model = write_model(tmp_path / "model", thresholds=stored)
    truth = np.array([[1, 0], [0, 0]], np.float32)
    valid = LabelledSet("valid", LABELS, Split(["a", "b"], ["you idiot", "thank you"], truth, np.ones(2)))
    for kind, value in (("gkiller", 0.125), ("transformers", 0.5)):
        spec = SystemSpec("toy", kind, "onnx fp32", str(model), LABELS, 1, ())  # type: ignore[arg-type]
        tuned = _tune(spec, valid, np.array([[0.9, 0.1], [0.1, 0.2]]), EvaluationSettings())
        assert tuned["insult"].value == value
        assert "there are only negatives" in tuned["insult"].note
