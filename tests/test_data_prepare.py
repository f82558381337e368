from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import SHARED, all_rows, comments, many, read_rows, settings, write_csv, write_jsonl, write_parquet
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from toy import SIX

from gkiller.data.prepare import TEST, VALID, Shares, prepare, split_rows
from gkiller.data.rows import fold_text
from gkiller.errors import OutputError, SourceNotFoundError


def test_canonical_files(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(100))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train.parquet",
        "valid.parquet",
        "test.parquet",
        "manifest.json",
    }
    schema = pq.read_schema(tmp_path / "out" / "train.parquet")
    assert schema.names == ["id", "text", "toxicity"]
    assert schema.field("toxicity").type == pa.int8()
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 80, "valid": 10, "test": 10}
    rows = {row["text"]: row for row in all_rows(tmp_path / "out")}
    assert {text: row["toxicity"] for text, row in rows.items()} == dict(many(100))
    assert rows["comment number 7"]["id"] == "a:8"


@given(st.lists(st.tuples(comments, st.integers(0, 1)), min_size=1, max_size=30), st.booleans())
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_and_splits_share_none(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, as_csv: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [*rows, *many(40)]
    if as_csv:
        source = write_csv(folder / "a.csv", rows)
    else:
        source = write_jsonl(folder / "a.jsonl", [{"text": text, "label": label} for text, label in rows])
    prepare(settings(valid_share=0.3, test_share=0.3), folder / "out", sources=[str(source)])
    first: dict[Any, Any] = {}
    for text, label in rows:
        first.setdefault(fold_text(text), (text, label))
    kept = all_rows(folder / "out")
    assert sorted((row["text"], row["toxicity"]) for row in kept) == sorted(first.values())
    folded = [
        {fold_text(row["text"]) for row in read_rows(folder / "out", name)} for name in ("train", "valid", "test")
    ]
    assert sum(map(len, folded)) == len(set.union(*folded))


def test_duplicates_are_counted_by_kind(tmp_path: Path) -> None:
    rows = [
        *many(40),
        ("Hello  World", 1),
        ("hello world", 1),  # differs in case and white space
        ("hello world", 0),  # the same again, to the letter, and in conflict
        (" HELLO\tworld\n", 0),  # a conflict
        ("comment number 0", 1),  # exact
        ("STRASSE", 0),
        ("straße", 0),  # the same when case-folded
    ]
    source = write_csv(tmp_path / "a.csv", rows)
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert manifest["dropped"]["exact_duplicates"] == 2
    assert manifest["dropped"]["folded_duplicates"] == 3
    assert manifest["conflicts"] == 2
    texts = [row["text"] for row in all_rows(tmp_path / "out")]
    assert "Hello  World" in texts
    assert len(texts) == 42 == manifest["rows_kept"]


def test_train_rows_in_given_splits_are_dropped(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv", [*many(40), ("Shared one", 1), ("shared two", 0)])
    valid = write_csv(tmp_path / "v.csv", [("v", 0), ("v2", 1), ("shared  ONE", 1), ("shared three", 0)])
    test = write_csv(tmp_path / "e.csv", [("e", 0), ("e2", 1), ("SHARED TWO", 1), ("Shared Three", 0)])
    out = tmp_path / "out"
    manifest = prepare(settings(), out, sources=[str(train)], valid=[str(valid)], test=[str(test)])
    assert manifest["dropped"]["overlap"] == {"train in valid": 1, "train in test": 1, "valid in test": 1}
    assert manifest["conflicts"] == 1
    assert [row["text"] for row in read_rows(out, "test")] == ["e", "e2", "SHARED TWO", "Shared Three"]
    assert [row["text"] for row in read_rows(out, "valid")] == ["v", "v2", "shared  ONE"]
    assert len(read_rows(out, "train")) == 40
    assert {name: split["origin"] for name, split in manifest["splits"].items()} == dict.fromkeys(
        ("train", "valid", "test"), "given"
    )


def test_missing_splits_are_split_off(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv", many(50))
    test = write_csv(tmp_path / "e.csv", [("e", 0), ("e2", 1)])
    manifest = prepare(settings(), tmp_path / "out", sources=[str(train)], test=[str(test)])
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 45, "valid": 5, "test": 2}
    assert manifest["splits"]["valid"]["origin"] == "split off train"


def test_no_test_split_when_none_is_wanted(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(50))
    manifest = prepare(settings(test_share=0), tmp_path / "out", sources=[str(source)])
    assert set(manifest["splits"]) == {"train", "valid"}
    assert "there is no test split" in manifest["warnings"]


def test_folder_of_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "train-00000-of-00002.csv", many(20))
    write_jsonl(folder / "train-00001-of-00002.jsonl", [{"text": f"more {i}", "label": i % 2} for i in range(20)])
    write_parquet(folder / "validation.parquet", text=["a", "b"], label=[0, 1])
    write_csv(folder / "Test.tsv", [("c", 0), ("d", 1)], delimiter="\t")
    write_csv(folder / "training_notes.csv", many(3))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(folder)])
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 40, "valid": 2, "test": 2}
    assert any("training_notes.csv" in line for line in manifest["notes"])
    again = prepare(
        settings(), tmp_path / "again", sources=[str(folder / "train-00000-of-00002.csv")], test=[str(folder)]
    )
    assert again["splits"]["test"]["rows"] == 2


def test_valid_source_without_that_split(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    train = write_csv(folder / "train.csv", many(20))
    with pytest.raises(SourceNotFoundError, match="no valid split"):
        prepare(settings(), tmp_path / "out", sources=[str(train)], valid=[str(folder)])


def test_multi_label_with_unknown(tmp_path: Path) -> None:
    rows = [(f"t {i}", i % 2, "" if i % 3 else i % 6 == 0, -1 if i % 5 else 1) for i in range(60)]
    source = write_csv(tmp_path / "a.csv", rows, header=("comment_text", "toxic", "threat", "identity_hate"))
    chosen = settings(label_columns=("threat", "toxic", "identity_hate"))
    manifest = prepare(chosen, tmp_path / "out", sources=[str(source)])
    assert manifest["labels"] == ["threat", "toxicity", "identity_attack"]
    assert manifest["renames"] == {"toxic": "toxicity", "identity_hate": "identity_attack"}
    rows = {row["text"]: row for row in all_rows(tmp_path / "out")}  # type: ignore[assignment]
    assert (rows["t 0"]["threat"], rows["t 0"]["toxicity"], rows["t 0"]["identity_attack"]) == (1, 0, 1)  # type: ignore[call-overload]
    assert (rows["t 1"]["threat"], rows["t 1"]["toxicity"], rows["t 1"]["identity_attack"]) == (None, 1, None)  # type: ignore[call-overload]
    assert any("no negative row of 'identity_attack'" in line for line in manifest["warnings"])
    assert manifest["class_weights"]["identity_attack"]["0"] is None


def test_a_file_that_lacks_a_label_leaves_it_unknown(tmp_path: Path) -> None:
    one = write_csv(
        tmp_path / "1.csv", [(f"a {i}", i % 2, i % 3 == 0) for i in range(30)], header=("text", "toxic", "threat")
    )
    two = write_csv(tmp_path / "2.csv", [(f"b {i}", i % 2) for i in range(30)], header=("text", "toxicity"))
    chosen = settings(label_columns=("toxic", "threat"))
    manifest = prepare(chosen, tmp_path / "out", sources=[str(one), str(two)])
    rows = all_rows(tmp_path / "out")
    assert {row["threat"] for row in rows if row["text"].startswith("b")} == {None}
    assert {row["toxicity"] for row in rows if row["text"].startswith("b")} == {0, 1}
    assert any("2.csv: has no column for threat" in line for line in manifest["notes"])
    assert any("'toxicity' is read as 'toxic'" in line for line in manifest["notes"])


def test_weights_where_some_files_have_them(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv", many(40))
    test = write_csv(tmp_path / "e.csv", [("e", 0, 9.5), ("e2", 1, 1)], header=("text", "label", "w"))
    prepare(settings(weight_column="w"), tmp_path / "out", sources=[str(train)], test=[str(test)])
    assert [row["weight"] for row in read_rows(tmp_path / "out", "test")] == [9.5, 1.0]
    assert {row["weight"] for row in read_rows(tmp_path / "out", "train")} == {1.0}


def test_positive_classes_are_named(tmp_path: Path) -> None:
    rows = [(f"t {i}", ("hate", "Abuse", "normal", "fun")[i % 4]) for i in range(80)]
    write_csv(tmp_path / "a.csv", rows)
    own = settings(positive_values=("abuse", "HATE", "haet"))
    manifest = prepare(own, tmp_path / "out", sources=[str(tmp_path / "a.csv")])
    assert manifest["class_names"] == {"abuse": 1, "fun": 0, "hate": 1, "normal": 0}
    assert manifest["settings"]["positive_values"] == ["abuse", "HATE", "haet"]
    assert "no row has the class 'haet' (--positive-values)" in manifest["warnings"]
    assert sum("no row has the class" in line for line in manifest["warnings"]) == 1
    labels = {row["text"]: row["toxicity"] for row in all_rows(tmp_path / "out")}
    assert [labels[f"t {i}"] for i in range(4)] == [1, 1, 0, 0]


def test_scores_are_cut_and_class_names_are_told(tmp_path: Path) -> None:
    scores = write_csv(tmp_path / "s.csv", [(f"t {i}", i / 20) for i in range(20)], header=("text", "target"))
    manifest = prepare(settings(cutoff=0.7), tmp_path / "a", sources=[str(scores)])
    assert sum(row["toxicity"] for row in all_rows(tmp_path / "a")) == 6
    assert (manifest["cutoff"], manifest["label_kinds"]) == (0.7, {"toxicity": "score"})
    named = write_csv(tmp_path / "n.csv", [(f"t {i}", "Toxic" if i % 3 == 0 else "Non-Toxic") for i in range(20)])
    manifest = prepare(settings(), tmp_path / "b", sources=[str(named)])
    assert manifest["class_names"] == {"non-toxic": 0, "toxic": 1}
    assert sum(row["toxicity"] for row in all_rows(tmp_path / "b")) == 7


def test_class_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(90, positive_every=7))
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    labels = [row["toxicity"] for row in read_rows(tmp_path / "out", "train")]
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=np.array(labels))
    assert list(manifest["class_weights"]["toxicity"].values()) == pytest.approx(list(expected))
    assert manifest["splits"]["train"]["labels"]["toxicity"]["rate"] == pytest.approx(np.mean(labels))


def test_repeated_ids_are_told(tmp_path: Path) -> None:
    source = write_csv(
        tmp_path / "a.csv", [(f"t {i}", i % 2, i // 2) for i in range(20)], header=("text", "label", "id")
    )
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert "10 rows share their id with another row" in manifest["warnings"]


def test_same_input_same_bytes_whatever_the_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"Comment {i}\n" * (i % 5 + 1), int(i % 7 == 0)) for i in range(300)]
    source = write_csv(tmp_path / "a.csv", rows)
    found: list[Any] = []
    for size in (4096, 4096, 7, 1):
        monkeypatch.setattr("gkiller.data.readers.BATCH_ROWS", size)
        out = tmp_path / f"out{len(found)}"
        prepare(settings(), out, sources=[str(source)])
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert all(files == found[0] for files in found)


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(200))
    tests = []
    for seed in (0, 1):
        prepare(settings(split_seed=seed), tmp_path / str(seed), sources=[str(source)])
        tests.append({row["text"] for row in read_rows(tmp_path / str(seed), "test")})
    assert tests[0] != tests[1]


def test_split_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = many(200)
    for name, ordered in (("a", rows), ("b", rows[::-1])):
        prepare(settings(), tmp_path / name, sources=[str(write_csv(tmp_path / f"{name}.csv", ordered))])
    for split in ("train", "valid", "test"):
        one, other = (read_rows(tmp_path / name, split) for name in "ab")
        assert [row["text"] for row in one] == [row["text"] for row in other][::-1]


@given(st.integers(1, 400), st.integers(0, 2**32), st.floats(0, 0.49), st.floats(0.01, 0.49), st.floats(0.02, 0.98))
@hypothesis_settings(max_examples=60)
def test_splits_are_stratified(n: Any, seed: Any, test_share: Any, valid_share: Any, rate: Any) -> None:
    rng = np.random.default_rng(n)
    folded = rng.integers(0, 2**64, size=(n, 2), dtype=np.uint64)
    labels = (rng.random((n, 2)) < rate).astype(np.int8)
    labels[rng.random((n, 2)) < 0.1] = -1
    splits = split_rows(folded, labels, Shares(valid_share, test_share), seed)
    strata = list(zip(labels[:, 0].tolist(), (labels == 1).any(axis=1).tolist(), strict=True))
    for stratum, size in Counter(strata).items():
        here = splits[[s == stratum for s in strata]]
        for split, share in ((TEST, test_share), (VALID, valid_share)):
            count = np.count_nonzero(here == split)
            assert count - size * share <= 1
            # a stratum never gives its last row away, whatever the shares say
            assert size * share - count <= 1 or np.count_nonzero(here == 0) == 1
            if size >= 4 and share:
                assert count >= 1
        assert np.count_nonzero(here == 0) >= 1 or size == 1
    order = rng.permutation(n)
    assert (split_rows(folded[order], labels[order], Shares(valid_share, test_share), seed) == splits[order]).all()


def test_rare_combinations_are_spread(tmp_path: Path) -> None:
    n = 4000
    rng = np.random.default_rng(0)
    folded = rng.integers(0, 2**64, size=(n, 2), dtype=np.uint64)
    labels = np.zeros((n, 6), dtype=np.int8)
    labels[:400, 0] = 1
    labels[:40, 3] = 1
    splits = split_rows(folded, labels, Shares(0.1, 0.1), 0)
    for split in (VALID, TEST):
        assert 3 <= np.count_nonzero(splits[:40] == split) <= 5


def test_overwrite(tmp_path: Path) -> None:
    source, out = write_csv(tmp_path / "a.csv", many(40)), tmp_path / "out"
    first = prepare(settings(), out, sources=[str(source)])
    with pytest.raises(OutputError, match="already holds"):
        prepare(settings(), out, sources=[str(source)])
    second = prepare(settings(split_seed=5), out, sources=[str(source)], overwrite=True)
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8")) == second != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "out"]


def test_a_failure_leaves_the_old_directory(tmp_path: Path) -> None:
    source, out = write_csv(tmp_path / "a.csv", many(40)), tmp_path / "out"
    first = prepare(settings(), out, sources=[str(source)])

    def stop(done: Any, total: Any, stage: Any) -> None:
        if stage == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(settings(), out, sources=[str(source)], overwrite=True, progress=stop)  # type: ignore[arg-type]
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8")) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "out"]


def test_progress_is_told_in_rows(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", text=[f"t {i}" for i in range(50)], label=[i % 2 for i in range(50)])
    calls = []
    prepare(settings(), tmp_path / "out", sources=[str(source)], progress=lambda *call: calls.append(call))
    assert (50, 50, "reading") in calls
    assert (50, 50, "writing") in calls


def test_sample_is_a_source(tmp_path: Path) -> None:
    manifest = prepare(settings(), tmp_path / "out")
    assert manifest["synthetic"] is True
    assert manifest["dropped"]["exact_duplicates"] == 0
    assert set(manifest["splits"]) == {"train", "valid", "test"}
    assert len(manifest["labels"]) == 6


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data here")
def test_kaggle_layout(tmp_path: Path) -> None:
    source = SHARED / "raw" / "jigsaw_train_head.csv"
    chosen = settings(text_column="comment_text", label_columns=SIX)
    manifest = prepare(chosen, tmp_path / "out", sources=[str(source)])
    assert manifest["rows_kept"] == 1000
    assert manifest["splits"]["train"]["labels"]["toxicity"]["positive"] == 80
    import csv

    with source.open(encoding="utf-8", newline="") as stream:
        expected = {row["id"]: row["comment_text"] for row in csv.DictReader(stream)}
    assert {row["id"]: row["text"] for row in all_rows(tmp_path / "out")} == expected
