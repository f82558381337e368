"""``gkiller suite``: reports, side by side, of gkiller's and transformers' models, and refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from giants import save_transformers, tiny_bert
from toy import toy_rows
from transformers import BertForSequenceClassification, BertModel

from gkiller.data.augment.operators import identity_groups
from gkiller.model.directory import load_model
from gkiller.scoring.models import score_texts
from gkiller.scoring.scorers import open_scorer
from gkiller.settings import resolve

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")
QUICK = ("--resamples", 20)
WHO = ("gay", "muslim", "blind people", "")


def write_rows(path: Path, count: int = 160, label: Callable[..., Any] = lambda i: int(i % 4 == 0)) -> Path:
    """Toy comments, three of four about somebody, with a column that says whom."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "text", "toxicity", "who"))
        for i, (name, text, _) in enumerate(toy_rows(count)):
            who = WHO[i // 4 % len(WHO)]
            writer.writerow((name, f"{text} {who}".strip(), label(i), who))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    return write_rows(tmp_path / "rows.csv")


@pytest.fixture(scope="module")
def rival(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of transformers with the classes non-toxic and toxic."""
    config = tiny_bert(id2label={0: "non-toxic", 1: "toxic"}, label2id={"non-toxic": 0, "toxic": 1})
    folder = tmp_path_factory.mktemp("rival") / "rival"
    return save_transformers(folder, BertForSequenceClassification(config))


@pytest.fixture
def suite(call: Callable[..., Any]) -> Callable[..., Any]:
    """Run a suite with --json; return its object."""

    def run(name: Any, *arguments: Any) -> Any:
        code, out, err = call("suite", name, *arguments, "--json", *QUICK)
        assert code == 0, err
        return json.loads(out)

    return run


# -- identity -----------------------------------------------------------------------------------


def test_identity_of_a_model_beside_a_classifier_of_transformers(
    suite: Callable[..., Any], rows: Path, saved_once: Path, rival: Path
) -> None:
    found = suite("identity", saved_once, rival, "--data", rows, "--label-columns", "toxicity")
    assert (found["suite"], found["split"], found["label"]) == ("identity", "all", "toxicity")
    assert (found["rows"], found["positives"]) == (160, 40)
    assert found["left_out"] == {"old": 20}  # "the old town": words have other meanings, too
    assert found["terms"] == {name: {"n": 40, "positives": 10} for name in found["terms"]}
    assert set(found["terms"]) == {"gay", "muslim", "blind"}
    first, second = found["models"]
    assert (first["name"], first["threshold"]) == (str(saved_once), 0.25)
    assert first["threshold_origin"] == "stored in the model"
    assert (second["threshold"], second["threshold_origin"]) == (0.5, "none is stored in it")
    delta = found["differences"][0]["headline"]["auc"]
    assert delta["a"] == second["headline"]["auc"]["value"]
    assert delta["b"] == first["headline"]["auc"]["value"]
    assert delta["delta"] != 0
    assert 0 < first["headline"]["bpsn"]["low"] <= first["headline"]["bpsn"]["high"] < 1


def test_a_model_against_itself_differs_by_nothing(suite: Callable[..., Any], rows: Path, saved_once: Path) -> None:
    found = suite("identity", saved_once, saved_once, "--data", rows, "--label-columns", "toxicity")
    for one in (found["differences"][0]["headline"], *found["differences"][0]["terms"].values()):
        assert {figure["delta"] for figure in one.values()} <= {0.0, None}


@pytest.mark.parametrize("flags", [True, False])
def test_a_file_of_scores_stands_for_the_model_that_gave_them(
    suite: Callable[..., Any], rows: Path, saved_once: Path, tmp_path: Path, flags: bool
) -> None:
    loaded = load_model(saved_once)
    with rows.open(encoding="utf-8") as stream:
        comments = list(csv.DictReader(stream))
    scores = score_texts(loaded, [row["text"] for row in comments])[:, loaded.labels.index("toxicity")]
    lines = []
    for row, score in reversed(list(zip(comments, scores.tolist(), strict=True))):  # ids tell which is which
        line = {"id": row["id"], "scores": {"toxicity": score}}
        lines.append(line | ({"flags": ["toxicity"] if score >= 0.25 else []} if flags else {}))
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = suite("identity", saved_once, file, "--data", rows, "--label-columns", "toxicity")
    model, other = found["models"]
    for name in ("auc", "bpsn", "bnsp"):
        assert other["headline"][name] == model["headline"][name]
    if flags:
        assert other["terms"] == model["terms"]
        assert other["threshold"] == pytest.approx(0.25, abs=0.1)
        assert other["threshold_origin"] == "where the file's flags part its scores"
    else:
        assert (other["threshold"], other["threshold_origin"]) == (0.5, "none is stored in it")
    assert found["notes"][0] == f"{file}: joined by id"
    assert "does not tell" in found["notes"][1]


def test_a_column_and_terms_of_the_command_line_name_the_groups(
    suite: Callable[..., Any], rows: Path, saved_once: Path
) -> None:
    named = (saved_once, "--data", rows, "--label-columns", "toxicity")
    column = suite("identity", *named, "--term-column", "who")
    assert set(column["terms"]) == {"gay", "muslim", "blind people"}
    assert column["notes"] == [f"{rows}: joined by id"]
    terms = suite("identity", *named, "--term", "Gay", "--term", "blind-people", "--term", "nobody")
    assert set(terms["terms"]) == {"gay", "blind people"}
    assert terms["models"][0]["terms"]["gay"] == column["models"][0]["terms"]["gay"]
    assert column["left_out"] == terms["left_out"] == {}


def test_the_data_of_the_first_run_and_small_groups(
    call: Callable[..., Any], suite: Callable[..., Any], place: Path, rows: Path
) -> None:
    code, _, err = call("suite", "identity", "runs/d1", "--term", "nobody")
    assert code == 11
    assert "any of 16 comments" in err
    found = suite("identity", "runs/d1", "--data", rows, "--label-columns", "toxicity", "--threshold", "0.9")
    assert (found["models"][0]["threshold"], found["models"][0]["threshold_origin"]) == (0.9, "--threshold")
    small = write_rows(place / "small.csv", 56)
    named = ("--data", small, "--label-columns", "toxicity", "--term", "gay", "--term", "blind")
    found = suite("identity", "runs/d1", *named, "--least", 4)
    assert found["left_out"] == {"blind": 12}
    assert found["notes"] == ["left out, with fewer than 4 positive or negative comments: blind (12)"]


def test_reports_are_written(call: Callable[..., Any], rows: Path, saved_once: Path, tmp_path: Path) -> None:
    arguments = (saved_once, saved_once, "--data", rows, "--label-columns", "toxicity", *QUICK)
    code, out, err = call("suite", "identity", *arguments, "--out", "reports/one")
    assert code == 0, err
    assert "reports: " in err
    written = json.loads((tmp_path / "reports" / "one" / "identity.json").read_text())
    text = (tmp_path / "reports" / "one" / "identity.txt").read_text()
    code, again, _ = call("suite", "identity", *arguments, "--json")
    assert json.loads(again) == written
    for part in (out, text):
        for words in ("BPSN AUC", "blind", "Differences from", "rows.csv, all, toxicity"):
            assert words in part
    assert str(identity_groups()) not in text
    assert max(map(len, text.splitlines())) <= 120


# -- robustness ---------------------------------------------------------------------------------


def test_robustness_of_a_model_beside_a_classifier_of_transformers(
    call: Callable[..., Any], suite: Callable[..., Any], rows: Path, saved_once: Path, rival: Path, tmp_path: Path
) -> None:
    arguments = (saved_once, rival, "--data", rows, "--label-columns", "toxicity")
    found = suite("robustness", *arguments, "--kinds", "leet,zero_width,casing", "--threshold", f"{rival}=0.4")
    assert (found["suite"], found["rows"], found["positives"]) == ("robustness", 160, 40)
    assert found["negatives"] == 40
    assert found["changed"] == {"leet": 40, "zero_width": 40, "casing": 40}
    assert (found["rate"], found["intensity"], found["seed"]) == (1.0, 0.2, 0)
    for one in found["models"]:
        assert list(one["kinds"]) == ["leet", "zero_width", "casing", "mean"]
        for kind in ("zero_width", "casing"):  # the tokenizer takes both away
            none = {"value": 0.0, "low": 0.0, "high": 0.0, "defined": 20, "note": ""}
            assert one["kinds"][kind]["lost"] == one["kinds"][kind]["added"] == none
        assert one["kinds"]["leet"]["fpr"]["value"] >= 0
    assert found["models"][1]["threshold"] == 0.4
    assert found["models"][0]["threshold"] == 0.25
    code, out, err = call("suite", "robustness", *arguments, *QUICK, "--out", "r")
    assert code == 0, err
    text = (tmp_path / "r" / "robustness.txt").read_text()
    for words in ("homoglyph", "lost: mean", "added: mean", "share", "F1 of all comments as they are"):
        assert words in out
        assert words in text
    written = json.loads((tmp_path / "r" / "robustness.json").read_text())
    assert next(iter(written["changed"])) == "swap"


def test_rows_that_the_model_has_learnt_are_warned_of(suite: Callable[..., Any], place: Path) -> None:
    found = suite("robustness", "runs/d1", "--split", "train", "--kinds", "leet")
    assert found["split"] == "train"
    assert "runs/d1: the model was trained on these rows" in found["warnings"][0]
    assert any(line.startswith("fewer than 50 positives or negatives: toxicity (") for line in found["warnings"])
    assert suite("robustness", "runs/d1", "--kinds", "leet", "--rate", "0.5")["split"] == "test"


# -- models -------------------------------------------------------------------------------------


def test_scores_are_those_of_the_model_and_of_transformers(saved_once: Path, rival: Path) -> None:
    texts = ["you fool", "thank you for the careful edit of this page", "", "well " * 30, "watch your back [SEP]"]
    settings = resolve(overrides=["model.max_length=16"], environ={}).settings
    own = open_scorer(str(saved_once), ("toxicity",), settings)
    np.testing.assert_array_equal(own.score(texts, None), score_texts(load_model(saved_once), texts, 256))
    import torch
    from transformers import PreTrainedTokenizerFast

    network = BertForSequenceClassification.from_pretrained(rival).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(rival)
    batch = tokenizer(texts[:4], padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    theirs = open_scorer(str(rival), ("toxicity",), settings)
    seen = []
    scores = theirs.score(texts[:4], lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    np.testing.assert_allclose(scores, logits.softmax(-1)[:, 1:].numpy(), atol=1e-5)
    assert seen == [(4, 4)]
    assert theirs.thresholds == {}


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite_name", "more", "code", "said"),
    [
        ("identity", ("--term", "nobody"), 11, "none of 1 identity term stands in any of 160 comments"),
        ("identity", ("--least", "99"), 16, "fewer than 99 positives"),
        ("identity", ("--term", "gay", "--term-column", "who"), 2, "not both"),
        ("identity", ("--term-column", "whom"), 12, "(--term-column)"),
        ("identity", ("--label", "insult"), 51, "no label 'insult'"),
        ("robustness", ("--kinds", "leat"), 2, "leat"),
        ("robustness", ("--threshold", "other=0.5"), 2, "no model 'other'"),
        ("robustness", ("--threshold", "1.5"), 52, "outside 0..1"),
        ("robustness", ("--threshold", "high"), 2, "no number"),
        ("robustness", ("--split", "dev"), 2, "unknown split"),
    ],
)
def test_bad_input_is_refused(
    call: Callable[..., Any], rows: Path, saved_once: Path, suite_name: str, more: tuple[Any, ...], code: int, said: str
) -> None:
    found, out, err = call(
        "suite", suite_name, saved_once, "--data", rows, "--label-columns", "toxicity", *more, "--json"
    )
    assert found == code, err
    assert said in err
    assert json.loads(out)["remedy"]
    assert "Traceback" not in err


@pytest.mark.parametrize(("suite_name", "label"), [("identity", 0), ("identity", 1), ("robustness", 0)])
def test_one_class_is_refused(
    call: Callable[..., Any], tmp_path: Path, saved_once: Path, suite_name: str, label: int
) -> None:
    rows = write_rows(tmp_path / "one.csv", label=lambda i: label)
    arguments = (saved_once, "--data", rows, "--label-columns", "toxicity")
    code, _, err = call("suite", suite_name, *arguments)
    assert code == 16
    assert "nothing to measure" in err


def test_models_that_are_none_are_refused(
    call: Callable[..., Any], rows: Path, saved_once: Path, tmp_path: Path
) -> None:
    data = ("--data", rows, "--label-columns", "toxicity")
    encoder = save_transformers(tmp_path / "encoder", BertModel(tiny_bert()))
    code, _, err = call("suite", "robustness", saved_once, encoder, *data)
    assert code == 22
    assert "without a classifier" in err
    assert call("suite", "robustness", saved_once, tmp_path / "none", *data)[0] == 20
    mood = tiny_bert(id2label={0: "joy", 1: "fear", 2: "anger"}, label2id={"joy": 0, "fear": 1, "anger": 2})
    folder = save_transformers(tmp_path / "mood", BertForSequenceClassification(mood))
    assert call("suite", "robustness", saved_once, folder, *data)[0] == 51
    code, _, err = call("suite", "robustness", saved_once)
    assert code == 2
    assert "--data" in err
    assert call("suite")[0] == 2


def test_a_file_of_scores_has_none_of_changed_comments(call: Callable[..., Any], rows: Path, saved_once: Path) -> None:
    code, _, err = call("suite", "robustness", saved_once, rows, "--data", rows, "--label-columns", "toxicity")
    assert code == 2
    assert "no scores of changed ones" in err


def test_a_misspelt_run_is_no_hub_id(call: Callable[..., Any], place: Path) -> None:
    code, _, err = call("suite", "robustness", "runs/d1", "runs/fil")
    assert code == 20
    assert "did you mean runs/file" in err


def test_a_column_needs_a_file(call: Callable[..., Any], place: Path) -> None:
    code, _, err = call("suite", "identity", "runs/d1", "--term-column", "who")
    assert code == 12
    assert "only a single file" in err
    shutil.rmtree(place / "prepared")
    assert call("suite", "identity", "runs/d1")[0] == 10
