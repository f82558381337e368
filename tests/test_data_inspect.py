from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import many, settings, write_csv
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gkiller.assets import tokenizer_path
from gkiller.data.dataset import Dataset, Split
from gkiller.data.inspect import inspect, plot_inspection
from gkiller.data.prepare import prepare
from gkiller.errors import EmptyDataError, ModelFormatError, ModelNotFoundError, OutputError
from gkiller.tokens.wordpiece import parse_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    """One token per word, [CLS] and [SEP] around."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_truncation(4)
    made.enable_padding(length=9)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path | int | str:
    """Two splits with known duplicates, conflicts, overlap and lengths."""
    data = tmp_path / "data"
    data.mkdir()
    train = [("one two three", 1), ("One  TWO three", 0), ("one two three", 1), ("a " * 200, 0), ("four", 0)]
    write_csv(data / "train.csv", train)
    write_csv(data / "test.csv", [("FOUR", 1), ("four", 0), ("five", 1), ("", 1), ("six", 8)])
    return data


def test_inspection_of_a_source(folder: Path, tokenizer: Path) -> None:
    result = inspect(str(folder), tokenizer, 128)
    train, test = result["splits"]["train"], result["splits"]["test"]
    assert result["unit"] == "tokens"
    assert (train["rows"], test["rows"]) == (5, 3)
    assert result["bad_rows"] == {"missing_text": 1, "bad_label": 1}
    assert train["labels"]["toxicity"] == {"positive": 2, "negative": 3, "unknown": 0, "rate": 0.4}
    assert train["duplicates"] == {"exact": 1, "folded": 1, "conflicting_texts": 1}
    assert test["duplicates"] == {"exact": 0, "folded": 1, "conflicting_texts": 1}
    assert result["overlap"] == {"train in test": 1, "test in train": 2}
    assert result["conflicting_texts"] == 2
    assert train["lengths"]["max"] == 202
    assert train["lengths"]["p50"] == 5
    assert train["lengths"]["truncated_share"] == pytest.approx(0.2)
    assert train["characters"]["max"] == 400
    assert sum(train["histogram"]["counts"]) == 5
    assert json.loads(json.dumps(result)) == result


def test_words_are_counted_without_a_tokenizer(folder: Path) -> None:
    result = inspect(str(folder), None, 128)
    assert (result["unit"], result["tokenizer"]) == ("words", None)
    assert result["splits"]["train"]["lengths"]["max"] == 200


def test_inspection_of_prepared_data_and_of_a_dataset(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(50))
    prepare(settings(), tmp_path / "out", sources=[str(source)])
    result = inspect(tmp_path / "out")
    assert {name: split["rows"] for name, split in result["splits"].items()} == {"train": 40, "valid": 5, "test": 5}
    assert set(result["overlap"].values()) == {0}
    labels = np.array([[1.0, np.nan], [0.0, 1.0]], np.float32)
    split = Split(["1", "2"], ["a b", "c"], labels, np.array([3.0, 1.0]))
    result = inspect(Dataset(("x", "y"), {"test": split}))
    assert result["splits"]["test"]["labels"] == {
        "x": {"positive": 1, "negative": 1, "unknown": 0, "rate": 0.5, "weighted_rate": 0.75},
        "y": {"positive": 1, "negative": 0, "unknown": 1, "rate": 1.0, "weighted_rate": 1.0},
    }


def test_shipped_tokenizer_counts_more_than_words(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("unbelievably shortsighted!", 1), ("[SEP]", 0)])
    result = inspect(str(source), tokenizer_path())
    assert result["splits"]["train"]["lengths"]["max"] > 4


def test_bad_tokenizers(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        inspect(str(folder), tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelFormatError) as caught:
        inspect(str(folder), tmp_path / "bad.json")
    with pytest.raises(ModelFormatError) as elsewhere:  # what a training says of the same file
        parse_tokenizer("{}", str(tmp_path / "bad.json"), 128)
    assert caught.value.as_dict() == elsewhere.value.as_dict()


def test_a_label_of_one_class_is_warned_of(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [("one", 0), ("two", 0)], header=("text", "label"))
    assert inspect(str(tmp_path / "a.csv"))["warnings"] == ["train: no positive row of 'toxicity'"]
    code, _, err = call("data", "inspect", "a.csv")
    assert code == 0, err
    assert "warning: train: no positive row of 'toxicity'" in err


def test_nothing_good_to_inspect(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("", 1)])
    with pytest.raises(EmptyDataError):
        inspect(str(source))


def test_plot(folder: Path, tmp_path: Path) -> None:
    result = inspect(str(folder))
    for name in ("a.png", "b.png"):
        plot_inspection(result, tmp_path / name)
    picture = (tmp_path / "a.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert picture == (tmp_path / "b.png").read_bytes()
    with pytest.raises(OutputError):
        plot_inspection(result, tmp_path / "a.png" / "c.png")
