"""Which labels decide `flagged`: chosen, stored, written, read again, and what the decision reaches."""

import copy
import csv
import gzip
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inference_helpers import LABELS, write_model
from saved_models import save

from gkiller import load
from gkiller.data.load import load_labelled
from gkiller.data.scorefiles import read_scores
from gkiller.errors import LabelMismatchError, ModelFormatError, SettingsError
from gkiller.evaluation.comparison import GivenThresholds, side_of_file
from gkiller.evaluation.models import Measured, flagged_figures
from gkiller.inference.classifier import Classifier
from gkiller.model.directory import add_files, load_model, rewrite_model
from gkiller.scoring.scorers import scorer_of_file
from gkiller.settings.definition import DataSettings

TEXTS = ["you idiot", "thank you", "a fool and a clown", "good work", "you loser", "the map"]
GIVEN = GivenThresholds("--threshold-a")


@pytest.fixture
def clf(onnx_model: Path) -> Classifier:
    return load(onnx_model, threads=1)


def insult_alone(folder: Path) -> Classifier:
    """A toy model of which insult alone decides."""
    return load(write_model(folder, flag_labels=["insult"]), threads=1)


# -- Python -------------------------------------------------------------------------------------


def test_named_labels_alone_decide(clf: Classifier) -> None:
    low = {"toxicity": 0.0, "insult": 1.0}
    every = clf.predict(TEXTS, thresholds=low)
    assert all(one.flagged and one.flags == {"toxicity": True, "insult": False} for one in every)
    for labels in (["insult"], "insult", ("insult",)):
        named = clf.predict(TEXTS, thresholds=low, labels=labels)
        assert [one.flags for one in named] == [{"insult": False}] * len(TEXTS)
        assert not any(one.flagged for one in named)
        assert [one.scores for one in named] == [one.scores for one in every]
    assert clf.predict("a", labels=["insult", "toxicity"]) == clf.predict("a")


def test_a_copy_has_the_labels_that_decide(tmp_path: Path) -> None:
    clf = insult_alone(tmp_path / "model")
    for same in (copy.copy(clf), pickle.loads(pickle.dumps(copy.copy(clf)))):
        assert same.flag_labels == clf.flag_labels == ("insult",)
        assert same.predict(TEXTS) == clf.predict(TEXTS)


@pytest.mark.parametrize(("labels", "said"), [(["insullt"], "insullt"), ([], "no label is named"), ([3], "3")])
def test_labels_that_are_none_are_refused(clf: Classifier, labels: list[Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        clf.predict("a", labels=labels)
    assert "insult" in caught.value.remedy


def test_a_model_says_which_labels_decide(tmp_path: Path, clf: Classifier) -> None:
    assert clf.flag_labels == LABELS
    own = insult_alone(tmp_path / "model")
    assert own.flag_labels == ("insult",)
    assert own.predict("you idiot", thresholds={"toxicity": 0.0, "insult": 1.0}).flags == {"insult": False}
    assert own.predict("you idiot", thresholds=0.0, labels=["toxicity"]).flags == {"toxicity": True}


@pytest.mark.parametrize(
    "value", [None, [], "insult", {"insult": 1}, ["insult", "insult"], ["threat"], [["insult"]], [1], ["insult"] * 9]
)
def test_hostile_flag_labels_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelFormatError, match="flag_labels"):
        load(write_model(tmp_path / "graph", flag_labels=value))


# -- model directories --------------------------------------------------------------------------


def test_copies_of_a_model_keep_them(tmp_path: Path) -> None:
    loaded = load_model(save(tmp_path / "one"))
    thresholds = loaded.metadata["thresholds"]
    rewrite_model(tmp_path / "two", loaded, thresholds=thresholds, card="", flag_labels=["threat"])
    two = load_model(tmp_path / "two")
    assert two.metadata["flag_labels"] == ["threat"]
    add_files(tmp_path / "three", two, {"onnx/model.onnx": b"a graph"})
    assert load_model(tmp_path / "three").metadata["flag_labels"] == ["threat"]
    rewrite_model(tmp_path / "four", two, thresholds=thresholds, card="")
    assert load_model(tmp_path / "four").metadata["flag_labels"] == ["threat"]
    rewrite_model(tmp_path / "five", two, thresholds=thresholds, card="", flag_labels=loaded.labels)
    assert "flag_labels" not in load_model(tmp_path / "five").metadata


# -- what predict writes, and reading it again --------------------------------------------------


def comments_csv(path: Path, rows: int = 60) -> Path:
    """Comments with two labels: rude words, and, apart from them, every third row."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "text", "toxicity", "insult"))
        for i in range(rows):
            writer.writerow((f"r{i}", TEXTS[i % 6], int(i % 2 == 0 and i % 6 < 5), int(i % 3 == 0)))
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "csv.gz"])
def test_the_output_says_which_labels_decide(
    call: Callable[..., Any], onnx_model: Path, tmp_path: Path, form: str
) -> None:
    path = comments_csv(tmp_path / "in.csv")
    out = tmp_path / f"out.{form}"
    flags = ("--model", onnx_model, "--input", path, "-t", "insult=0", "--labels", "toxicity")
    code, said, err = call("predict", *flags, "--output", out, "--json")
    assert code == 0, err
    assert json.loads(said)["flag_labels"] == ["toxicity"]
    assert f"{json.loads(said)['flagged']} flagged by toxicity" in err
    file = read_scores(str(out), LABELS)
    assert file.decided == ("toxicity",)
    assert file.flags.any(0).tolist() == [True, False]
    assert file.flags.sum() == json.loads(said)["flagged"] < 60
    if form == "parquet":
        assert pq.read_table(out).column("flag_labels").to_pylist() == [["toxicity"]] * 60
    if form == "csv.gz":
        assert gzip.decompress(out.read_bytes()).startswith(b"row,id,flagged,flags,flag_labels,windows")
    every = tmp_path / f"every.{form}"
    assert call("predict", *flags[:-2], "--output", every)[0] == 0
    assert read_scores(str(every), LABELS).decided == LABELS
    only = tmp_path / f"only.{form}"
    assert call("predict", *flags, "--only-flagged", "--output", only)[0] == 0
    assert read_scores(str(only), LABELS).records.count == json.loads(said)["flagged"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_threshold_is_read_off_the_flags_of_deciding_labels_alone(
    call: Callable[..., Any], onnx_model: Path, tmp_path: Path, form: str
) -> None:
    """Otherwise a label that never decided would look as if nothing had reached its threshold."""
    path, out = comments_csv(tmp_path / "in.csv"), str(tmp_path / f"out.{form}")
    flags = ("--model", onnx_model, "--input", path, "--labels", "toxicity", "--output", out)
    assert call("predict", *flags)[0] == 0
    found = load_labelled(DataSettings(source=str(path), label_columns=LABELS), None)
    with pytest.raises(SettingsError, match="no flags of 'insult'") as caught:
        side_of_file(out, found, GIVEN)
    assert "--threshold-a insult=0.5" in caught.value.remedy
    side = side_of_file(out, found, GivenThresholds("--threshold-a", single={"insult": 0.25}))
    assert side.thresholds["insult"] == 0.25
    whole = tmp_path / f"whole.{form}"
    assert call("predict", *flags[:4], "--output", whole)[0] == 0
    assert side.thresholds["toxicity"] == side_of_file(str(whole), found, GIVEN).thresholds["toxicity"]
    assert list(scorer_of_file(out, found).thresholds) == ["toxicity"]


def test_a_few_comments(call: Callable[..., Any], onnx_model: Path) -> None:
    flags = ("--model", onnx_model, "-t", "0", "--json")
    code, out, _ = call("predict", "you idiot", *flags, "--labels", "insult")
    answer = json.loads(out)
    assert (code, answer["flag_labels"]) == (0, ["insult"])
    assert answer["predictions"][0]["flags"] == ["insult"]
    assert list(answer["predictions"][0]["scores"]) == list(LABELS)
    for both in (("--labels", "insult, toxicity"), ("--labels", "insult", "--labels", "toxicity"), ()):
        answer = json.loads(call("predict", "you idiot", *flags, *both)[1])
        assert answer["flag_labels"] == answer["predictions"][0]["flags"] == list(LABELS)
    code, out, err = call("predict", "a", *flags, "--labels", "insullt")
    assert (code, json.loads(out)["where"]) == (2, "--labels")
    assert "did you mean 'insult'?" in err


def test_a_resumed_job_keeps_its_labels(call: Callable[..., Any], onnx_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("you idiot\nthank you\n")
    flags = ("--model", onnx_model, "--input", "in.txt", "--output", "out.jsonl")
    broken = ("--labels", "insult", "--batch-size", "1")
    (tmp_path / "in.jsonl").write_text('{"text": "you idiot"}\n{"text": 3}\n')
    flags = ("--model", onnx_model, "--input", "in.jsonl", "--output", "out.jsonl", *broken[2:])  # type: ignore[assignment]
    assert call("predict", *flags, *broken[:2])[0] == 14
    code, _, err = call("predict", *flags, "--resume", "--on-error", "skip")
    assert code == 41
    assert "other settings: flag_labels" in err
    assert call("predict", *flags, *broken[:2], "--resume", "--on-error", "skip")[0] == 0


# -- what the decision reaches ------------------------------------------------------------------


def measured(truth: Any, scores: list[list[float]], weights: list[int] | None = None) -> Measured:
    truth = np.array(truth, np.float32)
    mass = np.ones(len(truth)) if weights is None else np.array(weights)
    return Measured(LABELS, (), truth, np.array(scores), mass, dict.fromkeys(LABELS, 0.5))


def test_the_decision_of_several_labels_is_measured_against_any_of_them() -> None:
    truth = [[1, 0], [0, 0], [0, 1], [np.nan, 1], [np.nan, 0]]
    scores = [[0.9, 0.0], [0.0, 0.9], [0.0, 0.0], [0.9, 0.9], [0.9, 0.9]]
    found = flagged_figures(measured(truth, scores), dict.fromkeys(LABELS, 0.5), LABELS)
    assert (found.n, found.positives) == (4, 3)
    assert (found.precision, found.recall) == pytest.approx((2 / 3, 2 / 3))
    found = flagged_figures(measured(truth, scores, [1, 3, 1, 0, 1]), dict.fromkeys(LABELS, 0.5), LABELS)
    assert (found.n, found.precision, found.recall) == pytest.approx((3, 1 / 4, 1 / 2))
    one = flagged_figures(measured(truth, scores), dict.fromkeys(LABELS, 0.5), ["insult"])
    assert (one.n, one.positives, one.precision, one.recall) == pytest.approx((5, 2, 1 / 3, 1 / 2))
    assert flagged_figures(measured(truth, scores), {}, ["insult", "threat"]).precision is None


# -- gkiller threshold --------------------------------------------------------------------------

RUDE = ("idiot", "fool", "moron", "loser", "clown")
CALM = ("thank you for the edit", "nice photo of the bridge", "what a damn good map", "this is silly", "see you")


def noisy_csv(path: Path, rows: int = 240) -> Path:
    """Short comments: toxicity mostly where a rude word is, threat nowhere near what a model says."""
    draw = random.Random(0)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "toxicity", "obscene", "threat"))
        for i in range(rows):
            rude = i % 3 == 0
            text = f"you {draw.choice(RUDE)} {i}" if rude else f"{draw.choice(CALM)} {i}"
            writer.writerow((text, int(rude and i % 15 != 0), int(i % 7 == 0), int(i % 5 == 1)))
    return path


def flagged_of(call: Callable[..., Any], model: str, data: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which rows predict flags, and which are toxic."""
    code, out, err = call("predict", "--model", model, "--input", data)
    assert code == 0, err
    with data.open() as stream:
        toxic = np.array([row["toxicity"] == "1" for row in csv.DictReader(stream)])
    return np.array([json.loads(line)["flagged"] for line in out.splitlines()]), toxic


def test_flagged_holds_the_precision_asked_for_of_the_label_asked_for(call: Callable[..., Any], tmp_path: Path) -> None:
    data = noisy_csv(tmp_path / "valid.csv")
    columns = ("--data", data, "--label-columns", "toxicity,obscene,threat")
    asked = (*columns, "--labels", "toxicity", "--min-precision", "0.9", "--json")
    before = load().thresholds
    code, out, err = call("threshold", "default", *asked, "--out", "mine")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["flagged"]["labels"] == ["toxicity"]
    assert load("mine").flag_labels == ("toxicity",)
    others = {label: value for label, value in before.items() if label != "toxicity"}
    assert others.items() <= load("mine").thresholds.items()
    flagged, toxic = flagged_of(call, "mine", data)
    precision, recall = toxic[flagged].mean(), flagged[toxic].mean()
    assert precision >= 0.9
    assert (precision, recall) == pytest.approx((answer["flagged"]["precision"], answer["flagged"]["recall"]))
    assert "reaches the threshold" in (tmp_path / "mine" / "README.md").read_text()
    # A later tuning of all labels leaves the deciding ones as they are; naming all of them lets all decide.
    assert call("threshold", "mine", *columns)[0] == 0
    assert load("mine").flag_labels == ("toxicity",)
    rest = (*columns[:2], "--label-columns", "toxicity,obscene,threat")
    assert call("threshold", "mine", *rest, "--labels", "toxicity,threat")[0] == 0
    assert load("mine").flag_labels == ("toxicity", "threat")


def test_a_target_that_flagged_misses_is_warned_of(call: Callable[..., Any], tmp_path: Path) -> None:
    data = noisy_csv(tmp_path / "valid.csv")
    columns = ("--data", data, "--label-columns", "toxicity,obscene,threat")
    code, out, err = call("threshold", "default", *columns, "--min-recall", "1", "--json", "--out", "mine")
    assert code == 0, err
    (line,) = (line for line in json.loads(out)["warnings"] if "`flagged`" in line)
    assert "also decided by severe_toxicity, insult, identity_attack, which the data lack" in line
    assert "--labels toxicity" in line
    assert call("threshold", "mine", *columns, "--labels", "toxicity,threat")[0] == 0
    code, out, _ = call("threshold", "mine", *columns, "--min-precision", "0.2", "--json")
    answer = json.loads(out)
    assert answer["flagged"]["labels"] == ["toxicity", "threat"]
    told = [line for line in answer["warnings"] if "`flagged`" in line]
    assert bool(told) == (answer["flagged"]["precision"] < 0.2)


def test_a_label_that_the_data_lack_cannot_be_tuned(call: Callable[..., Any], tmp_path: Path) -> None:
    data = noisy_csv(tmp_path / "valid.csv")
    columns = ("--data", data, "--label-columns", "toxicity,obscene,threat")
    code, out, _ = call("threshold", "default", *columns, "--labels", "insult", "--json", "--out", "mine")
    assert (code, json.loads(out)["where"]) == (LabelMismatchError.exit_code, "--labels")
    code, _, err = call("threshold", "default", *columns, "--labels", "toxicty", "--out", "mine")
    assert (code, "did you mean 'toxicity'" in err) == (2, True)
    assert not (tmp_path / "mine").exists()
