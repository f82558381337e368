from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import many, settings, write_csv

from gkiller.data.dataset import Dataset, Split, manifest_digest
from gkiller.data.load import load_dataset, read_prepared, split_fingerprint
from gkiller.data.prepare import prepare
from gkiller.errors import ColumnError, FormatError, SettingsError, SourceNotFoundError


def small_split(labels: list[list[float]] | np.ndarray[Any, Any]) -> Split:
    n = len(labels)
    return Split([str(i) for i in range(n)], [f"t {i}" for i in range(n)], np.array(labels, np.float32), np.ones(n))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    rows = [(f"Comment\n{i}", i % 3 == 0, "" if i % 2 else i % 4 == 0, 1 + i / 7) for i in range(60)]
    source = write_csv(tmp_path / "a.csv", rows, header=("text", "toxic", "threat", "w"))
    chosen = settings(label_columns=("toxic", "threat"), weight_column="w")
    prepare(chosen, tmp_path / "prepared", sources=[str(source)])
    return tmp_path / "prepared"


def test_prepared_rows_come_back(prepared: Path) -> None:
    dataset = read_prepared(prepared)
    assert dataset.labels == ("toxicity", "threat")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 48, "valid": 6, "test": 6}
    for split in dataset.splits.values():
        assert split.labels.dtype == np.float32
        assert split.weights.dtype == np.float64
        for identifier, text, labels, weight in zip(split.ids, split.texts, split.labels, split.weights, strict=True):
            i = int(text.split("\n")[1])
            assert identifier == f"a:{i + 1}"
            assert labels[0] == (i % 3 == 0)
            assert np.isnan(labels[1]) if i % 2 else labels[1] == (i % 4 == 0)
            assert weight == 1 + i / 7


def test_fingerprints_are_those_of_the_manifest(prepared: Path) -> None:
    dataset = read_prepared(prepared)
    for name, split in dataset.splits.items():
        assert split_fingerprint(split, dataset.labels) == dataset.manifest["splits"][name]["fingerprint"]
    changed = dataset.split("train").take(range(47))
    assert split_fingerprint(changed, dataset.labels) != dataset.manifest["splits"]["train"]["fingerprint"]


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet", "manifest.json"])
def test_any_changed_byte_is_found(prepared: Path, name: str) -> None:
    path = prepared / name
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 23)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        if name == "manifest.json" and _same(whole, bytes(changed)):
            continue  # white space outside strings
        with pytest.raises(FormatError) as caught:
            read_prepared(prepared)
        assert caught.value.remedy
    path.write_bytes(whole)
    read_prepared(prepared)


def _same(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_missing_pieces(prepared: Path, tmp_path: Path) -> None:
    (prepared / "valid.parquet").unlink()
    with pytest.raises(FormatError, match="missing"):
        read_prepared(prepared)
    (prepared / "manifest.json").unlink()
    with pytest.raises(FormatError, match="not prepared data"):
        read_prepared(prepared)
    with pytest.raises(SourceNotFoundError) as caught:
        read_prepared(tmp_path / "prepard")
    assert "prepared" in caught.value.remedy


@pytest.mark.parametrize("lead", ["../", "{absolute}/", "..\\", "C:"])
def test_a_manifest_does_not_lead_out_of_its_directory(prepared: Path, tmp_path: Path, lead: str) -> None:
    (prepared / "train.parquet").rename(tmp_path / "train.parquet")  # where it would be found
    path = prepared / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["splits"]["train"]["file"] = lead.format(absolute=tmp_path) + "train.parquet"
    manifest["digest"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(FormatError, match="not in this directory"):
        read_prepared(prepared)


def test_unknown_version(prepared: Path) -> None:
    path = prepared / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(FormatError, match="unknown format version 99"):
        read_prepared(prepared)


def test_load_reads_a_prepared_directory(prepared: Path, tmp_path: Path) -> None:
    dataset = load_dataset(settings(source=str(prepared)), cache=tmp_path / "cache")
    assert len(dataset.split("train")) == 48
    assert not (tmp_path / "cache").exists()


def test_load_selects_labels(prepared: Path, tmp_path: Path) -> None:
    chosen = settings(source=str(prepared), label_columns=("threat",))
    dataset = load_dataset(chosen, cache=tmp_path / "cache")
    assert dataset.labels == ("threat",)
    assert sum(map(len, dataset.splits.values())) == 30
    assert not any(np.isnan(split.labels).any() for split in dataset.splits.values())
    with pytest.raises(ColumnError, match="'thraet'") as caught:
        load_dataset(settings(source=str(prepared), label_columns=("thraet",)), cache=tmp_path / "cache")
    assert "'threat'" in caught.value.remedy


def test_settings_that_prepared_data_cannot_follow(prepared: Path, tmp_path: Path) -> None:
    same = settings(source=str(prepared), weight_column="w")
    assert load_dataset(same, cache=tmp_path / "cache").split("train").weights.max() > 1
    for other in ({"cutoff": 0.7}, {"weight_column": "v"}, {"text_column": "body"}):
        with pytest.raises(SettingsError, match="were prepared with"):
            load_dataset(settings(source=str(prepared), **other), cache=tmp_path / "cache")


def test_load_prepares_into_the_cache_once(tmp_path: Path) -> None:
    source, cache = write_csv(tmp_path / "a.csv", many(50)), tmp_path / "cache"
    calls = []
    chosen = settings(source=str(source))
    first = load_dataset(chosen, cache=cache, progress=lambda *call: calls.append(call))
    assert calls
    calls.clear()
    again = load_dataset(chosen, cache=cache, progress=lambda *call: calls.append(call))
    assert not calls
    assert again.manifest == first.manifest
    load_dataset(settings(source=str(source), split_seed=3), cache=cache)
    write_csv(source, many(60))
    assert sum(map(len, load_dataset(chosen, cache=cache).splits.values())) == 60
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("file", ["train.parquet", "manifest.json"])
def test_a_broken_cache_is_written_anew(tmp_path: Path, file: str) -> None:
    source, cache = write_csv(tmp_path / "a.csv", many(50)), tmp_path / "cache"
    chosen = settings(source=str(source))
    first = load_dataset(chosen, cache=cache)
    (folder,) = cache.iterdir()
    (folder / file).write_bytes(b"broken")
    assert load_dataset(chosen, cache=cache).manifest == first.manifest


def test_load_the_sample(tmp_path: Path) -> None:
    dataset = load_dataset(settings(sample_size=200), cache=tmp_path / "cache")
    assert len(dataset.labels) == 6
    assert len(dataset.split("train")) == 200
    assert len(dataset.split("valid")) > 200


def test_sample_is_stratified_and_keeps_the_order() -> None:
    labels = np.zeros((1000, 2), np.float32)
    labels[::10, 1] = 1
    split = small_split(labels)
    drawn = split.sample(100, seed=1)
    assert len(drawn) == 100
    assert drawn.any_positive.sum() == 10
    assert [int(i) for i in drawn.ids] == sorted(int(i) for i in drawn.ids)
    assert drawn.ids == split.sample(100, seed=1).ids
    assert drawn.ids != split.sample(100, seed=2).ids
    assert split.sample(5000, seed=1) is split
    assert split.sample(2, seed=0).any_positive.sum() == 1


def test_sample_of_odd_shapes() -> None:
    for labels in ([[1.0]] * 5, [[0.0]] * 5, [[np.nan]] * 5, [[1.0]] + [[0.0]] * 4):
        for size in range(1, 6):
            assert len(small_split(labels).sample(size, seed=0)) == size
    with pytest.raises(ValueError, match="at least 1"):
        small_split([[1.0]]).sample(0, seed=0)


def test_a_missing_split_names_those_there_are() -> None:
    dataset = Dataset(("toxicity",), {"train": small_split([[1.0]])}, {"source": "mine.csv"})
    with pytest.raises(SourceNotFoundError, match="no split 'valid'") as caught:
        dataset.split("valid")
    assert caught.value.where == "mine.csv"
    assert caught.value.remedy.endswith("train")


@pytest.mark.parametrize("rows", [2, 4])
def test_too_few_rows_to_split_off_says_how_many_are_needed(tmp_path: Path, rows: int) -> None:
    source = write_csv(tmp_path / "tiny.csv", many(rows, 2))
    dataset = load_dataset(settings(source=str(source)), cache=tmp_path / "cache")
    with pytest.raises(SourceNotFoundError, match=f"too few rows .* 'valid': {rows} train rows") as caught:
        dataset.split("valid")
    assert "at least 3 different comments with 'toxicity' and 3 without" in caught.value.remedy
    assert "--valid FILE" in caught.value.remedy
    enough = write_csv(tmp_path / "enough.csv", many(6, 2))
    dataset = load_dataset(settings(source=str(enough)), cache=tmp_path / "cache")
    assert [len(dataset.split(name)) for name in ("train", "valid", "test")] == [2, 2, 2]


def test_mismatched_columns_are_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Split(["1"], ["a", "b"], np.zeros((2, 1), np.float32), np.ones(2))
    with pytest.raises(ValueError, match="label columns"):
        Dataset(("a", "b"), {"train": small_split([[1.0]])})
    with pytest.raises(ValueError, match="named one of"):
        Dataset(("a",), {"dev": small_split([[1.0]])})
