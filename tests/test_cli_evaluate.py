"""What ``gkiller evaluate`` and ``threshold`` measure on, and what they say of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import record_path, write_toy_csv

from gkiller.data.sources import public_source
from gkiller.model.directory import load_model

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")
QUICK = ("--resamples", 10)


def few(count: int, kind: str = "positives") -> str:
    """The warning of a label's few rows."""
    return f"fewer than 50 positives or negatives: toxicity ({count} {kind}): figures and intervals are rough"


def split_again(call: Callable[..., Any]) -> None:
    code, _, err = call("data", "prepare", "comments.csv", "--out", "prepared", "--split-seed", 7, "--force")
    assert code == 0, err


# -- the run's own data -------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "threshold"])
def test_data_that_changed_since_training_are_refused(call: Callable[..., Any], place: Path, command: str) -> None:
    assert call(command, "runs/d1")[0] == 0
    split_again(call)
    model = (place / "runs" / "d1" / "model" / "gkiller.json").read_bytes()
    code, out, err = call(command, "runs/d1", "--json")
    assert code == 53, err
    assert json.loads(out)["error"] == "DataChangedError"
    assert "changed since it was trained" in err
    assert "train" in json.loads(out)["what"]
    assert "--data" in json.loads(out)["remedy"]
    assert (place / "runs" / "d1" / "model" / "gkiller.json").read_bytes() == model
    code, _, err = call(command, "runs/d1", "--data", "prepared")  # the remedy works
    assert code == 0, err


def test_a_changed_file_is_refused(call: Callable[..., Any], place: Path) -> None:
    record_path(place, "file", str(place / "comments.csv"))
    rows = (place / "comments.csv").read_text().splitlines()
    (place / "comments.csv").write_text("\n".join([*rows, "row999,some more words of praise,0"]) + "\n")
    assert call("evaluate", "runs/file")[0] == 53


def test_a_run_without_its_manifest_cannot_tell(call: Callable[..., Any], place: Path) -> None:
    (place / "runs" / "d1" / "manifest.json").unlink()
    code, _, err = call("evaluate", "runs/d1")
    assert code == 53
    assert "manifest.json" in err


def test_a_run_on_a_single_file_is_measured_on_its_test_split(call: Callable[..., Any], place: Path) -> None:
    code, out, err = call("evaluate", "runs/file", "--json", *QUICK)
    assert code == 0, err
    found = json.loads(out)
    recorded = json.loads((place / "runs" / "file" / "manifest.json").read_text())["data"]["rows"]
    assert (found["split"], found["rows"]) == ("test", recorded["test"])
    assert json.loads(call("threshold", "runs/file", "--json")[1])["split"] == "valid"


@pytest.mark.parametrize(("split", "said"), [("train", "was trained on"), ("valid", "were tuned on")])
def test_rows_that_the_model_has_seen_are_warned_of(
    call: Callable[..., Any], place: Path, split: str, said: str
) -> None:
    code, out, err = call("evaluate", "runs/d1", "--split", split, "--json", *QUICK)
    assert code == 0, err
    assert said in err
    assert any(said in line for line in json.loads(out)["warnings"])
    assert json.loads(call("evaluate", "runs/d1", "--json", *QUICK)[1])["warnings"] == [few(4)]


@pytest.mark.parametrize("command", ["evaluate", "threshold"])
@pytest.mark.parametrize("way", ["file", "variable"])
def test_what_lies_around_does_not_replace_the_run_s_data(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch, command: str, way: str
) -> None:
    write_toy_csv(place / "other.csv", 24)
    expected = json.loads(call(command, "runs/d1", "--json")[1])
    if way == "file":
        (place / "gkiller.toml").write_text('[data]\nsource = "other.csv"\n')
    else:
        monkeypatch.setenv("GKILLER_DATA__SOURCE", "other.csv")
    found = json.loads(call(command, "runs/d1", "--json")[1])
    assert (found["split"], found["rows"]) == (expected["split"], expected["rows"])


@pytest.mark.parametrize(
    "given",
    [("--data", "other.csv"), ("--set", "data.source=other.csv"), ("--config", "other.toml")],
    ids=lambda given: given[0],
)
def test_the_command_line_replaces_them(call: Callable[..., Any], place: Path, given: tuple[str, str]) -> None:
    write_toy_csv(place / "other.csv", 24)
    (place / "other.toml").write_text('[data]\nsource = "other.csv"\n')
    for command in ("evaluate", "threshold"):
        code, out, err = call(command, "runs/d1", "--json", *given)
        assert code == 0, err
        assert (json.loads(out)["split"], json.loads(out)["rows"]) == ("all", 24)


@pytest.mark.parametrize("command", ["evaluate", "threshold"])
def test_how_to_read_data_without_naming_any_is_refused(call: Callable[..., Any], place: Path, command: str) -> None:
    flags = ("--label-columns", "toxicity", "--cutoff", "0.9")
    code, out, err = call(command, "runs/d1", *flags, "--json")
    assert code == 2, err
    assert json.loads(out)["where"] == "data.cutoff, data.label_columns"
    assert "--data" in json.loads(out)["remedy"]
    assert call(command, "runs/d1", "--cutoff", "0.5")[0] == 0  # as in the run


# -- from another directory ---------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_works_from_another_directory(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    if recorded:
        record_path(place, "d1", str(place / "prepared"))
    (place / "elsewhere" / "prepared").mkdir(parents=True)  # another one of the same name
    monkeypatch.chdir(place / "elsewhere")
    if not recorded:
        (place / "elsewhere" / "prepared").rmdir()
    code, _, err = call("evaluate", "../runs/d1", *QUICK)
    assert code == 0, err


def test_what_was_moved_together_is_found(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_path(place, "d1", str(place / "was" / "prepared"))
    monkeypatch.chdir(place / "runs")
    code, _, err = call("evaluate", "d1", *QUICK)
    assert code == 0, err


def test_data_that_are_gone_are_said_to_be_the_run_s_own(call: Callable[..., Any], place: Path) -> None:
    record_path(place, "d1", "/nowhere/prepared")
    shutil.rmtree(place / "prepared")
    code, out, _ = call("evaluate", "runs/d1", "--json")
    assert code == 10
    found = json.loads(out)
    assert "this run was trained on" in found["what"]
    assert "/nowhere/prepared" in found["what"]
    assert found["where"].endswith("settings.toml, data.source")
    assert "--data" in found["remedy"]


# -- thresholds ---------------------------------------------------------------------------------


def section(card: str, heading: str) -> str:
    return card.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_both_cards_follow_the_thresholds(call: Callable[..., Any], place: Path) -> None:
    run = place / "runs" / "d1"
    before = section((run / "README.md").read_text(), "On the validation split")
    for _ in range(2):  # the second time finds a card that was changed before
        assert call("threshold", "runs/d1", "--min-recall", "1")[0] == 0
        value = load_model(run).thresholds["toxicity"]
        for card in ((run / "README.md").read_text(), (run / "model" / "README.md").read_text()):
            assert f"`toxicity`: {value:.4f} (recall >= 1), tuned on the valid split" in card
            figures = section(card, "On the validation split")
            assert "`gkiller threshold` has replaced the thresholds since" in figures
            assert "At the training's threshold" in figures
            assert "stored threshold" not in figures
            assert "At the threshold 0.5" in figures
    assert "At the stored threshold" in before
    assert "has replaced" not in before


def test_what_a_threshold_was_tuned_on_is_recorded(call: Callable[..., Any], place: Path) -> None:
    write_toy_csv(place / "other.csv", 24)
    code, out, err = call("threshold", "runs/d1", "--data", place / "other.csv", "--json")
    assert code == 0, err
    record = load_model(place / "runs" / "d1").metadata["thresholds"]["toxicity"]["tuned_on"]
    assert json.loads(out)["thresholds"]["toxicity"]["tuned_on"] == record
    assert {key: record[key] for key in ("source", "split", "rows")} == {
        "source": "other.csv",
        "split": "all",
        "rows": 24,
    }
    assert json.loads(out)["warnings"] == [few(6)]
    assert (
        "tuned on other.csv (24 rows, long comments read in windows)"
        in (place / "runs" / "d1" / "model" / "README.md").read_text()
    )
    assert "were tuned on these rows" in call("evaluate", "runs/d1", "--data", "other.csv", *QUICK)[2]


def test_tuning_on_the_test_split_is_warned_of_and_leaves_a_trace(call: Callable[..., Any], place: Path) -> None:
    code, out, err = call("threshold", "runs/d1", "--split", "test", "--json")
    assert code == 0, err
    assert "warning: this uses up the test split" in err
    assert "uses up the test split" in json.loads(out)["warnings"][0]
    run = place / "runs" / "d1"
    assert load_model(run).metadata["thresholds"]["toxicity"]["tuned_on"]["split"] == "test"
    assert "which is no test any more" in (run / "model" / "README.md").read_text()
    assert "were tuned on these rows" in call("evaluate", "runs/d1", *QUICK)[2]
    assert "were tuned on these rows" in json.loads((run / "evaluation.json").read_text())["warnings"][0]
    assert call("threshold", "runs/d1")[0] == 0  # the remedy
    assert "were tuned on these rows" not in call("evaluate", "runs/d1", *QUICK)[2]


def test_the_cards_do_not_tell_where_the_data_lay(made: Path) -> None:
    run = made / "runs" / "file"
    assert json.loads((run / "manifest.json").read_text())["data"]["source"] == str(made / "comments.csv")
    for card in (run / "README.md", run / "model" / "README.md"):
        assert "| trained on | comments.csv: " in card.read_text()
        assert str(made) not in card.read_text()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("sample", "sample"),
        ("/home/me/prepared", "prepared"),
        ("/home/me/a.csv + b/c.csv", "a.csv + c.csv"),
        ("~/x/y.jsonl", "y.jsonl"),
        ("C:\\Users\\me\\x.csv", "x.csv"),
        ("org/name:config (train) + org/name:config (test)",) * 2,
        ("jigsaw", "jigsaw"),
        ("/", "local files"),
        ("/home/me/a\nb.csv", "a?b.csv"),
    ],
)
def test_public_source(source: str, shown: str) -> None:
    assert public_source(source) == shown


def test_public_source_of_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "one + two").mkdir()
    assert public_source(str(tmp_path / "one + two")) == "one + two"


# -- what else is said --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (0, "toxicity: there are only negatives: ROC-AUC, AP, F1 are undefined"),
        (1, "toxicity: there are only positives: ROC-AUC, AP are undefined"),
    ],
)
def test_one_class_is_warned_of(call: Callable[..., Any], place: Path, label: int, said: str) -> None:
    rows = "".join(f"some words {i},{label}\n" for i in range(12))
    (place / "one.csv").write_text("text,toxicity\n" + rows)
    code, out, err = call("evaluate", "runs/d1", "--data", "one.csv", "--json", *QUICK)
    assert code == 0, err
    assert f"warning: {said}" in err
    assert json.loads(out)["warnings"] == [said, few(0, "negatives" if label else "positives")]


@pytest.mark.parametrize(("command", "default"), [("evaluate", "test"), ("threshold", "valid")])
def test_help_states_what_is_read(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str, default: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"[default: {default}; all for a single file named with --data]" in out
    assert "instead of those of the model's own run" in out
    assert "Training data" not in out
