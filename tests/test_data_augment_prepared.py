"""`gkiller data augment`: prepared directories with changed copies."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from data_helpers import many, read_rows, settings, write_csv
from seq2seq_helpers import write_seq2seq

from gkiller.data.augment import KINDS, augment
from gkiller.data.augment.prepared import augment_source
from gkiller.data.load import load_labelled, read_prepared
from gkiller.data.prepare import prepare
from gkiller.errors import FormatError, OutputError, SettingsError, SourceNotFoundError
from gkiller.settings import AugmentSettings


def run(source: Path, out: Path, *, split: Any = None, data: Any = None, **values: Any) -> Any:
    return augment_source(str(source), out, data or settings(), AugmentSettings(**values), split=split)


def write_prepared(
    folder: Path,
    train: list[tuple[str, int]],
    valid: list[tuple[str, int]] | tuple[tuple[str, int]] = (("a quiet valid comment", 0),),
) -> Path:
    write_csv(folder / "train.csv", train)
    write_csv(folder / "valid.csv", valid)
    data = settings(test_share=0)
    prepare(data, folder / "p", sources=[str(folder / "train.csv")], valid=[str(folder / "valid.csv")])
    return folder / "p"


def test_originals_stay_and_copies_stand_behind_them(prepared_six: Path, tmp_path: Path) -> None:
    manifest = run(prepared_six, tmp_path / "out", copies=2, rate=0.6)
    before, after = read_rows(prepared_six, "train"), read_rows(tmp_path / "out", "train")
    assert [row for row in after if "#" not in row["id"]] == before
    originals, last, numbers = {row["id"]: row for row in before}, None, {}  # type: ignore[var-annotated]
    for row in after:
        if "#" not in row["id"]:
            last, numbers = row, []  # type: ignore[assignment]
            continue
        source, kind, number = re.fullmatch(r"(.*)#(\w+)\.(\d)", row["id"]).groups()
        assert originals[source] is not None
        assert source == last["id"]
        assert kind in KINDS
        numbers.append(int(number))  # type: ignore[attr-defined]
        assert numbers == list(range(1, len(numbers) + 1))
        assert row["text"] != last["text"]  # type: ignore[unreachable]
        assert {**row, "id": 0, "text": 0} == {**last, "id": 0, "text": 0}
    for name in ("valid", "test"):
        assert (tmp_path / "out" / f"{name}.parquet").read_bytes() == (prepared_six / f"{name}.parquet").read_bytes()
    [report] = manifest["augmentations"]
    assert sum(report["kinds"].values()) == len(after) - len(before)
    assert report["changed"] == len({row["id"].partition("#")[0] for row in after if "#" in row["id"]})
    assert report["changed"] + report["unchanged"] == report["rows"] == len(before)
    assert 0.4 * len(before) < report["changed"] < 0.8 * len(before)
    source = json.loads((prepared_six / "manifest.json").read_text(encoding="utf-8"))
    assert report["source_digest"] == source["digest"]
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    dataset = read_prepared(tmp_path / "out")
    for position, label in enumerate(dataset.labels):
        counts = manifest["splits"]["train"]["labels"][label]
        assert counts["positive"] == int((dataset.split("train").labels[:, position] == 1).sum())


def test_the_command_and_the_function_change_comments_alike(prepared: Path, tmp_path: Path) -> None:
    run(prepared, tmp_path / "out", kinds=("noise", "leet"), seed=3, rate=0.5)
    texts = [row["text"] for row in read_rows(prepared, "train")]
    wanted = [new for old, new in zip(texts, augment(texts, ["noise", "leet"], 0.5, 3), strict=True) if old != new]
    rows = read_rows(tmp_path / "out", "train")
    assert [row["text"] for row in rows if "#" in row["id"]] == wanted


def test_same_seed_same_bytes_whatever_the_slices(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("a", 512), ("b", 7)):
        monkeypatch.setattr("gkiller.data.augment.prepared._SLICE_ROWS", rows)
        run(prepared, tmp_path / name, copies=3)
    run(prepared, tmp_path / "c", copies=3, seed=1)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["manifest.json", "test.parquet", "train.parquet", "valid.parquet"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train.parquet").read_bytes() != (tmp_path / "c" / "train.parquet").read_bytes()


def test_rate_0_adds_nothing(prepared: Path, tmp_path: Path) -> None:
    manifest = run(prepared, tmp_path / "out", rate=0)
    source = read_prepared(prepared).manifest
    assert manifest["splits"]["train"]["fingerprint"] == source["splits"]["train"]["fingerprint"]
    assert manifest["augmentations"][0]["kinds"] == {}


def test_copies_that_are_another_comment_are_dropped(tmp_path: Path) -> None:
    train = [("do not shout", 0), ("can not go", 1), ("cannot go", 1), ("do not stop", 1)]
    source = write_prepared(tmp_path, train, valid=[("DON'T  shout", 0), ("x", 1)])
    manifest = run(source, tmp_path / "out", kinds=("contraction",))
    made = [row["text"] for row in read_rows(tmp_path / "out", "train") if "#" in row["id"]]
    assert sorted(made) == ["can't go", "don't stop"]
    assert manifest["augmentations"][0]["duplicates"] == 2


def test_copies_that_differ_in_case_alone_stay(tmp_path: Path) -> None:
    source = write_prepared(tmp_path, [("quiet words", 0), ("loud words", 1)])
    run(source, tmp_path / "out", kinds=("casing",))
    assert len(read_rows(tmp_path / "out", "train")) == 4


def test_weights_and_unknown_labels_go_with_the_copies(tmp_path: Path) -> None:
    rows = [(f"a comment, number {i}", "" if i % 3 == 0 else i % 2, i % 2, i + 0.5) for i in range(30)]
    path = write_csv(tmp_path / "a.csv", rows, header=("text", "toxic", "threat", "w"))
    data = settings(label_columns=("toxic", "threat"), weight_column="w")
    prepare(data, tmp_path / "p", sources=[str(path)])
    run(tmp_path / "p", tmp_path / "out", kinds=("swap",))
    train = read_rows(tmp_path / "out", "train")
    values = {row["id"]: (row["toxicity"], row["threat"], row["weight"]) for row in train}
    assert len(values) == 2 * len([key for key in values if "#" not in key])
    assert all(value == values[key.partition("#")[0]] for key, value in values.items())
    assert any(value[0] is None for value in values.values())
    schemas = [pq.read_schema(tmp_path / name / "train.parquet") for name in ("p", "out")]
    assert schemas[0] == schemas[1]


def test_a_suite_is_the_split_with_its_comments_replaced(prepared: Path, tmp_path: Path) -> None:
    manifest = run(prepared, tmp_path / "suite", split="test", kinds=("obfuscation",))
    assert {path.name for path in (tmp_path / "suite").iterdir()} == {"manifest.json", "test.parquet"}
    before, after = read_rows(prepared, "test"), read_rows(tmp_path / "suite", "test")
    assert [row["id"].partition("#")[0] for row in after] == [row["id"] for row in before]
    assert [row["toxicity"] for row in after] == [row["toxicity"] for row in before]
    changed = [b["text"] != a["text"] for b, a in zip(before, after, strict=True)]
    assert changed == ["#" in row["id"] for row in after]
    assert all(changed)
    assert list(manifest["splits"]) == ["test"]
    found = load_labelled(settings(source=str(tmp_path / "suite")), None)
    assert (found.name, len(found.rows)) == ("test", len(before))
    with pytest.raises(SourceNotFoundError, match="there is no split 'valid'"):
        load_labelled(settings(source=str(tmp_path / "suite")), "valid")


def test_a_suite_keeps_the_comments_that_nothing_can_change(tmp_path: Path) -> None:
    valid = [("12 34", 0), ("you don't", 1), ("傻瓜", 1)]
    source = write_prepared(tmp_path, many(10), valid=valid)
    run(source, tmp_path / "suite", split="valid", kinds=("contraction",))
    rows = read_rows(tmp_path / "suite", "valid")
    assert [row["text"] for row in rows][::2] == ["12 34", "傻瓜"]
    assert [row["id"] for row in rows] == ["valid:1", "valid:2#contraction.1", "valid:3"]


def test_augmented_data_can_be_augmented_again(prepared: Path, tmp_path: Path) -> None:
    run(prepared, tmp_path / "one", kinds=("identity", "swap"), rate=0.5)
    manifest = run(tmp_path / "one", tmp_path / "two", kinds=("leet",))
    assert [entry["settings"]["kinds"] for entry in manifest["augmentations"]] == [["identity", "swap"], ["leet"]]
    ids = [row["id"] for row in read_rows(tmp_path / "two", "train")]
    assert any(re.search(r"#swap\.1#leet\.1$", identifier) for identifier in ids)
    assert len(ids) == len(set(ids))


def test_a_file_is_prepared_first(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many(60))
    prepare(settings(), tmp_path / "p", sources=[str(source)])
    run(source, tmp_path / "direct")
    run(tmp_path / "p", tmp_path / "twice")
    for name in ("train", "valid", "test"):
        one, other = (tmp_path / folder / f"{name}.parquet" for folder in ("direct", "twice"))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_refused(prepared: Path, tmp_path: Path) -> None:
    source = shutil.copytree(prepared, tmp_path / "p")
    with pytest.raises(OutputError, match="already holds"):
        run(source, source)
    with pytest.raises(OutputError, match="would replace what is read"):
        augment_source(str(source), source, settings(), AugmentSettings(), overwrite=True)
    with pytest.raises(SettingsError, match="with all their labels"):
        run(source, tmp_path / "out", data=settings(label_columns=("toxicity",)))
    with pytest.raises(SettingsError, match=r"data\.cutoff"):
        run(source, tmp_path / "out", data=settings(cutoff=0.7))
    with pytest.raises(SettingsError, match="unknown split"):
        run(source, tmp_path / "out", split="tset")
    with pytest.raises(SettingsError, match="needs a model"):
        run(source, tmp_path / "out", kinds=("paraphrase",))
    (tmp_path / "small").mkdir()
    small = write_prepared(tmp_path / "small", many(10))
    with pytest.raises(SourceNotFoundError, match="no split 'test'"):
        run(small, tmp_path / "out", split="test")
    (source / "valid.parquet").write_bytes(b"")
    with pytest.raises(FormatError, match="SHA-256"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paraphrases_come_beside_the_copies(prepared: Path, tmp_path: Path) -> None:
    model = write_seq2seq(tmp_path / "model")
    manifest = run(prepared, tmp_path / "out", kinds=("swap",), seq2seq=(str(model),), rate=0.3)
    [report] = manifest["augmentations"]
    assert set(report["kinds"]) == {"swap", "paraphrase"}
    rows = {row["id"]: row for row in read_rows(tmp_path / "out", "train")}
    paraphrases = [row for key, row in rows.items() if key.endswith("#paraphrase.1")]
    assert len(paraphrases) == report["kinds"]["paraphrase"] > 0
    assert all(
        row["toxicity"] == rows[row["id"].partition("#")[0]]["toxicity"]
        and row["text"] != rows[row["id"].partition("#")[0]]["text"]
        for row in paraphrases
    )
    assert [len(digest) for digest in report["seq2seq_sha256"]] == [64]
    run(prepared, tmp_path / "again", kinds=("swap",), seq2seq=(str(model),), rate=0.3)
    assert (tmp_path / "out" / "train.parquet").read_bytes() == (tmp_path / "again" / "train.parquet").read_bytes()
    only = run(prepared, tmp_path / "only", kinds=("paraphrase",), seq2seq=(str(model), str(model)), rate=0.3)
    assert set(only["augmentations"][0]["kinds"]) <= {"paraphrase"}


def test_the_command(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", many(60))
    assert call("data", "prepare", "a.csv", "--out", "p")[0] == 0
    code, out, err = call("data", "augment", "p", "--out", "q", "--kinds", "noise,casing", "--rate", 0.5)
    assert code == 0, err
    assert re.search(r"insert +[1-9]", out)
    assert re.search(r"train: \d+ comments of 48 changed; 0 copies dropped", err)
    code, out, _ = call("data", "augment", "p", "--out", "s", "--split", "valid", "--json", "--augment-seed", 4)
    printed = json.loads(out)
    assert (code, printed.pop("directory"), list(printed["splits"])) == (0, "s", ["valid"])
    assert printed == json.loads((tmp_path / "s" / "manifest.json").read_text(encoding="utf-8"))
    assert printed["augmentations"][0]["settings"]["seed"] == 4
    code, _, err = call("data", "augment", "a.csv", "--out", "f", "--copies", 2, "--intensity", 0.5)
    assert code == 0, err
    assert "'text' is taken as the comment column" in err
    assert call("data", "inspect", "q")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--kinds", "noize"), 2, "'noise'"),
        (("--rate", "1.5"), 2, "augment.rate"),
        (("--split", "tset"), 2, "'test'"),
        (("--seq2seq", "nowhere"), 20, "no such directory"),
        (("--out", "p"), 19, "--force"),
    ],
)
def test_errors_have_their_exit_codes(
    call: Callable[..., Any], tmp_path: Path, arguments: tuple[str, str], code: int, said: str
) -> None:
    write_csv(tmp_path / "a.csv", many(40))
    assert call("data", "prepare", "a.csv", "--out", "p")[0] == 0
    found, out, err = call("data", "augment", "p", *(() if "--out" in arguments else ("--out", "q")), *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "q").exists()


def test_progress_counts_every_row(prepared: Path, tmp_path: Path) -> None:
    told = []
    augment_source(
        str(prepared), tmp_path / "out", settings(), AugmentSettings(), progress=lambda *call: told.append(call)
    )
    rows = {name: split["rows"] for name, split in read_prepared(prepared).manifest["splits"].items()}
    everything = sum(rows.values())
    assert (everything, everything, "comparing") in told
    assert told[-1] == (rows["train"], rows["train"], "augmenting")
