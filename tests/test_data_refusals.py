"""What data prepare takes as labels, and what it refuses before any training: names, splits, readers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import many, settings, write_csv
from toy import SIX

from gkiller.data.inspect import inspect
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.data.load import load_labelled
from gkiller.data.prepare import prepare
from gkiller.errors import ColumnError, EmptyDataError, FormatError, SingleClassError, SourceNotFoundError
from gkiller.storage.files import write_bytes


def test_six_columns_unnamed_are_all_taken_and_a_note_says_so(tmp_path: Path) -> None:
    rows = [(f"t {i}", *([i % 2] * 6)) for i in range(30)]
    source = write_csv(tmp_path / "a.csv", rows, header=("comment_text", *SIX))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert manifest["labels"] == list(CANONICAL_LABELS)
    assert any("'severe_toxic'" in line and "--label-columns" in line for line in manifest["guesses"])
    found = load_labelled(settings(source=str(source)), None)
    assert found.dataset.labels == CANONICAL_LABELS
    assert set(inspect(str(source))["labels"]) == set(CANONICAL_LABELS)


def test_a_column_of_words_that_has_a_label_s_name_is_not_a_label(tmp_path: Path) -> None:
    rows = [(f"t {i}", i % 2, i % 3 // 2, "what a remark") for i in range(30)]
    source = write_csv(tmp_path / "a.csv", rows, header=("text", "Toxic", "obscene", "insult"))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert manifest["labels"] == ["toxicity", "obscene"]
    assert any("'insult' is not a label column" in line for line in manifest["notes"])


def test_labels_that_train_rows_lack_are_not_taken_of_other_splits(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "a.csv", many())
    rows = [(f"v {i}", i % 2, i % 2) for i in range(30)]
    valid = write_csv(tmp_path / "v.csv", rows, header=("text", "toxic", "insult"))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(train)], valid=[str(valid)])
    assert manifest["labels"] == ["toxicity"]
    assert any("'insult'" in line and "no train row" in line for line in manifest["notes"])


@pytest.mark.parametrize(("valid", "test"), [("v.csv", "v.csv"), ("v.csv", "link.csv"), ("a.csv", "v.csv")])
def test_one_file_for_two_splits_is_refused(tmp_path: Path, valid: str, test: str) -> None:
    write_csv(tmp_path / "a.csv", many())
    write_csv(tmp_path / "v.csv", [(f"v {i}", i % 2) for i in range(20)])
    (tmp_path / "link.csv").symlink_to(tmp_path / "v.csv")
    names = {"sources": ["a.csv"], "valid": [valid], "test": [test]}
    paths: dict[str, Any] = {key: [str(tmp_path / name) for name in value] for key, value in names.items()}
    with pytest.raises(FormatError, match="the same file is given for the"):
        prepare(settings(), tmp_path / "out", **paths)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("split", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_a_split_whose_rows_all_stand_in_another_is_refused(tmp_path: Path, split: str, other: str) -> None:
    paths: dict[str, Any] = {}
    for name, key in (("train", "sources"), ("valid", "valid"), ("test", "test")):
        rows = [(f"{name} {i}", i % 2) for i in range(20)]
        paths[key] = [str(write_csv(tmp_path / f"{name}.csv", rows))]
    write_csv(tmp_path / f"{split}.csv", [(f"{other.upper()}  {i}", i % 2) for i in range(15)])
    with pytest.raises(EmptyDataError, match=f"every row of the {split} split .15. is also in the {other}"):
        prepare(settings(), tmp_path / "out", **paths)


@pytest.mark.parametrize("name", ["ins\x1b[31mult", "soft\u00adhyphen", "x" * 201])
def test_label_names_that_a_model_cannot_have_are_refused(tmp_path: Path, name: str) -> None:
    source = write_csv(tmp_path / "a.csv", [(f"t {i}", 1, i % 2) for i in range(9)], ("text", "toxic", name))
    columns = settings(label_columns=("toxic", name))
    with pytest.raises(ColumnError, match="no label can have the name") as caught:
        prepare(columns, tmp_path / "out", sources=[str(source)])
    assert caught.value.what.isprintable()
    with pytest.raises(ColumnError, match="no label can have the name"):
        load_labelled(columns.model_copy(update={"source": str(source)}), None)


def test_more_labels_than_a_model_can_have_are_refused(tmp_path: Path) -> None:
    names = tuple(f"l{i}" for i in range(1001))
    source = write_csv(tmp_path / "a.csv", [("a", *[1] * 1001)], ("text", *names))
    with pytest.raises(ColumnError, match="1,001 labels"):
        prepare(settings(label_columns=names), tmp_path / "out", sources=[str(source)])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("umask", "folder", "file"), [(0o077, 0o700, 0o600), (0o022, 0o755, 0o644)])
def test_the_umask_decides_who_reads_prepared_data(tmp_path: Path, umask: int, folder: int, file: int) -> None:
    source = write_csv(tmp_path / "a.csv", many())
    before = os.umask(umask)
    try:
        prepare(settings(), tmp_path / "out", sources=[str(source)])
        write_bytes(tmp_path / "one", b"x")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {file}
    assert (tmp_path / "out").stat().st_mode & 0o777 == folder
    assert (tmp_path / "one").stat().st_mode & 0o777 == file


@pytest.mark.parametrize(
    ("make", "error"),
    [(lambda path: path.symlink_to("nowhere.csv"), SourceNotFoundError), (lambda path: path.mkdir(), FormatError)],
)
def test_a_split_that_cannot_be_read_is_no_split_that_is_missing(
    tmp_path: Path, make: Callable[..., Any], error: type[Any]
) -> None:
    write_csv(tmp_path / "train.csv", many())
    make(tmp_path / "valid.csv")
    with pytest.raises(error) as caught:
        prepare(settings(), tmp_path / "out", sources=[str(tmp_path)])
    assert "valid.csv" in caught.value.where


def test_a_folder_of_a_split_is_told_to_be_unread(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    (folder / "valid").mkdir(parents=True)
    write_csv(folder / "train.csv", many())
    manifest = prepare(settings(), tmp_path / "out", sources=[str(folder)])
    assert any("not read" in line and "valid" in line for line in manifest["notes"])


def test_one_class_in_a_thousand_labels_is_a_short_message(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(1000)]
    source = write_csv(tmp_path / "a.csv", [(f"t {i}", *[1] * 1000) for i in range(30)], header=("text", *names))
    with pytest.raises(SingleClassError) as caught:
        prepare(settings(label_columns=tuple(names)), tmp_path / "out", sources=[str(source)])
    assert len(str(caught.value)) < 1000
