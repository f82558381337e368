"""Learning from a file of scores: which comment has which, and whole trainings with one."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import TINY, comment

from gkiller.data.load import load_dataset
from gkiller.data.scorefiles import Records, ScoreFile
from gkiller.errors import (
    EmptyDataError,
    LabelMismatchError,
    ResumeError,
    RowError,
    ScoreRangeError,
    SettingsError,
    SourceNotFoundError,
)
from gkiller.settings.definition import DistillSettings, Settings
from gkiller.training.runtime import Ranks
from gkiller.training.teachers import EXTREME, Lesson, find_teachers, lesson, logits_of
from gkiller.training.train import train

PLAIN = ("data.sample_size=48", "dendrites.enabled=false", "train.epochs=1")
NAN = float("nan")


def write(path: Path, rows: list[Any]) -> Path:
    """Write a CSV file of dictionaries."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def told(
    path: Path,
    texts: list[str],
    ids: list[str] | tuple[Any, ...] = (),
    labels: tuple[Any, ...] = ("toxicity",),
    **changes: Any,
) -> Lesson:
    """What a file says of comments."""
    settings = DistillSettings(teachers=(str(path),), **changes)
    found = find_teachers(settings.teachers, labels)
    cache = path.parent / "cache"
    told_of = lesson(found, texts, list(ids), labels, settings, cache, torch.device("cpu"), Ranks(), lambda *told: None)
    assert not cache.exists()  # there is nothing to compute
    return told_of


def toy_scores(
    settings: Settings, tmp_path: Path, splits: tuple[Any, ...] = ("train", "valid")
) -> list[dict[str, float | str]]:
    """Return a row for each comment, with the score .9 or .2 by its label."""
    dataset = load_dataset(settings.data, cache=tmp_path / "cache")
    return [
        {"id": identifier, "text": text, "toxicity": 0.9 if toxic else 0.2}
        for name in splits
        for split in [dataset.split(name)]
        for identifier, text, toxic in zip(split.ids, split.texts, split.labels[:, 0], strict=True)
    ]


# -- which comment has which score --------------------------------------------------------------


def test_comments_are_found_by_their_texts_but_for_case_and_space(tmp_path: Path) -> None:
    rows = [
        {"text": "You are  DULL", "toxicity": 0.75, "insult": 0.5},
        {"text": "nice work", "toxicity": 0.25, "insult": 0.1},
        {"text": "you are dull", "toxicity": 0.1, "insult": 0.1},  # again: the first counts
    ]
    found = told(
        write(tmp_path / "s.csv", rows),
        ["nice\nwork", "nobody knows", "you are dull"],
        labels=("threat", "insult", "toxicity"),
    )
    expected = [[NAN, np.log(1 / 9), np.log(1 / 3)], [NAN, NAN, NAN], [NAN, 0, np.log(3)]]
    np.testing.assert_allclose(found.logits, np.float32(expected), rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.each[0], found.logits)
    assert found.logits.dtype == np.float32
    assert found.hidden == ()


def test_without_texts_they_are_found_by_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"id": ["b", "a"], "score_toxicity": [0.5, 0.75]}), path)
    found = told(path, ["x", "y", "z"], ["a", "c", "b"])
    np.testing.assert_allclose(found.logits[:, 0], [np.log(3), NAN, 0], rtol=1e-6)


def test_texts_count_before_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", [{"id": "a", "text": "one", "toxicity": 0.75}])
    np.testing.assert_allclose(told(path, ["two", "one"], ["a", "b"]).logits[:, 0], [NAN, np.log(3)], rtol=1e-6)


def test_rounded_scores_have_bounded_logits(tmp_path: Path) -> None:
    rows = [{"text": "a", "toxicity": 0}, {"text": "b", "toxicity": 1}]
    found = told(write(tmp_path / "s.csv", rows), ["a", "b"])
    most = np.log((1 - EXTREME) / EXTREME)
    np.testing.assert_allclose(found.logits[:, 0], [-most, most], rtol=1e-5)


@given(
    st.lists(st.tuples(st.text("ab ", max_size=4), st.floats(0, 1)), min_size=1, max_size=8),
    st.lists(st.text("ab ", max_size=4), max_size=8),
)
def test_each_comment_has_the_score_of_the_first_row_like_it(rows: Any, texts: Any) -> None:
    records = Records("x", texts=[text for text, _ in rows], count=len(rows))
    scores = np.array([[score] for _, score in rows])
    found = logits_of(ScoreFile(records, ("toxicity",), scores, None), texts, [])
    assert found.shape == (len(texts), 1)
    for text, logit in zip(texts, found[:, 0], strict=True):
        like = [score for other, score in rows if other.split() == text.split()]
        if like:
            score = min(max(like[0], EXTREME), 1 - EXTREME)
            assert logit == pytest.approx(np.log(score / (1 - score)), rel=1e-5, abs=1e-6)
        else:
            assert np.isnan(logit)


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("toxicity\n0.5\n", RowError, "neither comments nor ids"),
        ("text,toxicity\n", EmptyDataError, "no rows"),
        ("text,threat\na,0.5\n", LabelMismatchError, "no score of toxicity"),
        ("text,toxicity\na,0.5\nb,1.5\n", ScoreRangeError, "is not in 0..1"),
        ("text,toxicity\na,\n", ScoreRangeError, "is missing"),
    ],
)
def test_files_that_cannot_teach_are_refused(text: str, error: Any, what: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(error, match=what) as caught:
        find_teachers([str(path)], ["toxicity"])
    assert str(path) in caught.value.where
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="score file"):
        find_teachers([str(tmp_path / "none.csv")], ["toxicity"])


def test_hidden_states_cannot_be_learnt_from_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", [{"text": "a", "toxicity": 0.5}])
    with pytest.raises(SettingsError, match="no hidden states"):
        told(path, ["a"], hidden_weight=1.0)


def test_a_file_of_other_comments_is_refused_before_there_is_a_run(
    tiny: Callable[..., Any], tmp_path: Path, no_plots: None
) -> None:
    path = write(tmp_path / "s.csv", [{"text": "of somebody else", "toxicity": 0.5}])
    with pytest.raises(RowError, match="none of the training comments"):
        train(tiny(*PLAIN, f"distill.teachers={path}"), out=tmp_path / "out", name="x")
    assert not (tmp_path / "out" / "x").exists()


# -- whole trainings ----------------------------------------------------------------------------


def test_scores_teach_as_the_classifier_that_gave_them(
    call: Callable[..., Any],
    prepared: Path,
    tokenizer_file: Path,
    tmp_path: Path,
    no_plots: None,
    clean_environment: None,
) -> None:
    """train, predict to a file, and train from either: the figures and the losses are the same."""
    flags = [part for one in (*TINY, f"model.tokenizer={tokenizer_file}") for part in ("--set", one)]
    shared = ("train", "--data", prepared, "--no-dendrites", "--epochs", 1, "--sample-size", 48, *flags)
    for command in ((*shared, "--name", "teacher"), ("export", "runs/teacher")):
        code, _, err = call(*command)
        assert code == 0, err
    more = tmp_path / "more.txt"
    more.write_text("".join(comment(1000 + i, i % 2 == 0) + "\n" for i in range(12)))
    files = [*sorted(prepared.glob("*.parquet")), more]
    with (tmp_path / "all.jsonl").open("w") as joined:
        for number, file in enumerate(files):
            target = tmp_path / f"{number}.jsonl"
            how = ("--output", target, "--with-text", "--model", "runs/teacher", "--long-text", "truncate")
            code, _, err = call("predict", "--input", file, *how)
            assert code == 0, err
            joined.write(target.read_text())
    found = {}
    for name, teacher in (("network", "runs/teacher"), ("scores", "all.jsonl")):
        code, out, err = call(*shared, "--teacher", teacher, "--transfer", more, "--name", name, "--json")
        assert code == 0, err
        found[name] = json.loads(out)
    assert "teacher all.jsonl: has 60 of 60 training comments" in err
    assert "scored once" not in err
    [one], [other] = found["network"]["teachers"], found["scores"]["teachers"]
    assert (one["name"], other["name"]) == ("teacher", "all.jsonl")
    for figure in ("ap", "roc_auc"):
        values = [each["validation"]["labels"]["toxicity"][figure]["value"] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
    losses = [
        json.loads((tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()[0])["train_loss"]
        for name in found
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_file_without_the_validation_comments_is_not_measured(
    tiny: Callable[..., Any], tmp_path: Path, no_plots: None
) -> None:
    rows = toy_scores(tiny(*PLAIN), tmp_path, ("train",))
    path = write(tmp_path / "s.csv", rows[:20])
    events: list[Any] = []
    settings = tiny(*PLAIN, f"distill.teachers={path}")
    result = train(settings, out=tmp_path / "out", name="x", on_event=events.append)
    assert result.finished.taught == ()
    assert any("has 20 of 48 training comments" in (event.message or "") for event in events)
    [facts] = result.manifest["distill"]["teachers"]
    assert (facts["name"], facts["labels"]) == ("s.csv", ["toxicity"])
    assert "### Teachers" not in (result.run.path / "README.md").read_text()


def test_a_run_goes_on_with_the_same_scores_alone(tiny: Callable[..., Any], tmp_path: Path, no_plots: None) -> None:
    rows = toy_scores(tiny(*PLAIN), tmp_path)
    path = write(tmp_path / "s.csv", rows)
    settings = tiny(*PLAIN, f"distill.teachers={path}")
    result = train(settings, out=tmp_path / "out", name="x")
    rows[0]["toxicity"] = 0.5
    write(path, rows)
    with pytest.raises(ResumeError, match="teachers or transfer comments"):
        train(settings, resume=result.run.path, out=tmp_path / "out")
