"""``predict --keep-columns``, ``--keep`` and ``--csv-safe``."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import comment

from gkiller.inference.bulk.formats import Shape, chunked, column_names
from gkiller.inference.bulk.reading import Row, from_file, safe_cell

HEADER = ["text", "id", "note", "toxicity", "row"]
RECORDS = [["you idiot", "1", ' a,b\n"c" ', "0.5", "x"], ["thank you", "2", "", "-1", "é"]]


@pytest.fixture
def predict(call: Callable[..., Any], onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(*arguments: Any, stdin: Any = b"") -> Any:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return call("predict", "--model", onnx_model, "--threads", 1, *arguments)

    return run


def delimited(separator: str = ",") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows([HEADER, *RECORDS])
    return text.getvalue().encode()


def json_lines() -> bytes:
    return "".join(json.dumps(dict(zip(HEADER, record, strict=True))) + "\n" for record in RECORDS).encode()


def read(path: Path) -> list[Any]:
    """Return an output as dictionaries."""
    if ".parquet" in path.name:
        return pq.read_table(path).to_pylist()
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".csv" in path.name:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet", "o.jsonl.gz", "o.csv.gz"])
@pytest.mark.parametrize("source", ["i.csv", "i.tsv", "i.jsonl", "i.parquet", "i.csv.gz", "stdin"])
def test_columns_are_kept_in_every_format(
    predict: Callable[..., Any], tmp_path: Path, source: str, target: str
) -> None:
    data = {"i.csv": delimited(), "i.tsv": delimited("\t"), "i.jsonl": json_lines(), "stdin": json_lines()}
    path = tmp_path / source
    if source == "i.parquet":
        pq.write_table(pa.table(dict(zip(HEADER, zip(*RECORDS, strict=True), strict=True))), path)
    elif source == "i.csv.gz":
        path.write_bytes(gzip.compress(delimited()))
    else:
        path.write_bytes(data[source])
    origin = () if source == "stdin" else ("--input", path)
    code, _, err = predict(*origin, "-o", tmp_path / target, "--keep-columns", stdin=path.read_bytes())
    assert code == 0, err
    found = read(tmp_path / target)
    kept = [[row["note"], row["input_toxicity"], row["input_row"]] for row in found]
    assert kept == [record[2:] for record in RECORDS]
    assert [str(row["id"]) for row in found] == ["1", "2"]
    assert [int(row["row"]) for row in found] == [1, 2]


def test_named_columns_are_kept_in_their_order(predict: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes(delimited())
    code, out, _ = predict("-i", path, "--keep", "row,note", "--keep", "toxicity")
    assert code == 0
    assert list(json.loads(out.splitlines()[0]))[-3:] == ["input_row", "note", "input_toxicity"]


def test_json_values_stay_what_they_are(predict: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    rows = [
        {"text": "a", "n": 1, "f": 1.5, "t": True, "z": None, "l": [1, {"k": "é"}], "big": 2**70, "s": "\ud800"},
        {"text": "b", "n": "1"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = predict("-i", path, "--keep-columns")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    for row, answer in zip(rows, found, strict=True):
        assert {key: answer[key] for key in row if key != "text"} == {k: row[k] for k in row if k != "text"}  # type: ignore[attr-defined, index]
    assert "z" not in found[1]
    for target in ("o.csv", "o.parquet"):
        assert predict("-i", path, "--keep-columns", "-o", tmp_path / target)[0] == 0
        first, second = read(tmp_path / target)
        assert [first[k] for k in ("n", "f", "t", "l")] == ["1", "1.5", "true", '[1, {"k": "é"}]']
        assert (first["z"] or "", second["n"], second["l"] or "") == ("", "1", "")


TABLE = {
    "i": pa.array([1, None], pa.int16()),
    "f": pa.array([1.5, float("nan")], pa.float32()),
    "day": pa.array([dt.date(2020, 1, 2), None]),
    "ns": pa.array([1, None], pa.timestamp("ns", "UTC")),
    "time": pa.array([1, None], pa.time64("ns")),
    "list": pa.array([[1, None], None], pa.list_(pa.int8())),
    "null": pa.nulls(2),
    "binary": pa.array([b"\xff\x00", None]),
    "decimal": pa.array([decimal.Decimal("1.50"), None]),
    "struct": pa.array([{"a": 1, "b": "x"}, None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
    "large": pa.array(["x", None], pa.large_string()),
    "yes": pa.array([True, None]),
}


def test_parquet_types_stay_what_they_are(predict: Callable[..., Any], tmp_path: Path) -> None:
    words = pa.array(["u", "v"]).dictionary_encode()
    table = pa.table({"text": ["a", "b"], **TABLE, "words": words})
    pq.write_table(table, tmp_path / "i.parquet")
    arguments = ("-i", tmp_path / "i.parquet", "--keep-columns", "--batch-size", 1, "-o")
    assert predict(*arguments, tmp_path / "o.parquet")[0] == 0
    found = pq.read_table(tmp_path / "o.parquet")
    for name, values in TABLE.items():
        assert found.schema.field(name).type == values.type
        assert [str(one) for one in found.column(name)] == [str(one) for one in values]
    assert found.column("words").to_pylist() == ["u", "v"]


def test_parquet_values_are_written_as_json(predict: Callable[..., Any], tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], **TABLE}), tmp_path / "i.parquet")
    code, out, err = predict("-i", tmp_path / "i.parquet", "--keep-columns")
    assert code == 0, err
    first, second = [json.loads(line) for line in out.splitlines()]
    assert {name: first[name] for name in TABLE} == {
        "i": 1,
        "f": 1.5,
        "day": "2020-01-02",
        "ns": "1970-01-01T00:00:00.000000001Z",
        "time": "00:00:00.000000001",
        "list": [1, None],
        "null": None,
        "binary": "/wA=",
        "decimal": "1.50",
        "struct": {"a": 1, "b": "x"},
        "map": [["k", 1]],
        "large": "x",
        "yes": True,
    }
    assert all(second[name] is None for name in TABLE)


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("--keep-columns",), b"hello\n", "no columns to keep"),
        (("--keep", "a", "hello"), b"", "no columns to keep"),
        (("--keep", "b"), b'{"text": "x", "a": 1}\n', "no column 'b'"),
        (("--keep", "text"), b'{"text": "x", "a": 1}\n', "--with-text"),
        (("--keep", "a", "--keep-columns"), b'{"text": "x", "a": 1}\n', "contradict"),
        (("--csv-safe",), b"hello\n", "--format csv"),
        (("--csv-safe", "hello"), b"", "--format csv"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    predict: Callable[..., Any], arguments: tuple[Any, ...], stdin: bytes, message: str
) -> None:
    code, out, err = predict(*arguments, stdin=stdin)
    assert (bool(code), out) == (True, "")
    assert message in err


def test_a_key_that_appears_late_does_not_vanish(predict: Callable[..., Any]) -> None:
    lines = [json.dumps({"text": "a"})] * 1000 + [json.dumps({"text": "a", "late": 1})]
    code, _, err = predict("--keep-columns", stdin="\n".join(lines).encode())
    assert code == 12
    assert "row 1,001" in err
    assert "'late'" in err


def test_damaged_text_in_a_kept_column_is_named(predict: Callable[..., Any]) -> None:
    code, _, err = predict("--input-format", "csv", "--keep", "n", stdin=b"text,n\na,\xff\n")
    assert code == 13
    assert "column 'n'" in err


@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet", "o.csv.gz"])
def test_a_resumed_job_keeps_the_same_columns(predict: Callable[..., Any], tmp_path: Path, target: str) -> None:
    rows = [{"text": comment(i, i % 3 == 0), "n": i, "l": [i]} for i in range(30)]
    good = "".join(json.dumps(row) + "\n" for row in rows)
    torn = good.replace('"n": 25', '"n": broken')
    whole, path = tmp_path / f"whole-{target}", tmp_path / target
    arguments = ("--keep-columns", "--batch-size", 4, "--input-format", "jsonl")
    assert predict(*arguments, "-o", whole, stdin=good.encode())[0] == 0
    assert predict(*arguments, "-o", path, stdin=torn.encode())[0] == 14
    resumed = ("-o", path, "--resume")
    code, _, err = predict("--keep", "n", *arguments[1:], *resumed, stdin=good.encode())
    assert code == 41
    assert "kept" in err
    other = good.replace('"l": [3]', '"l": [4]')
    assert predict(*arguments, *resumed, stdin=other.encode())[0] == 41  # a kept value of a row that is done
    assert predict(*arguments, *resumed, stdin=good.encode())[0] == 0
    assert path.read_bytes() == whole.read_bytes()


def test_long_kept_values_make_short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.inference.bulk.formats.CHUNK_CHARACTERS", 100)
    rows = (Row(number, "a", None, None, ("x" * 40, [1, 2])) for number in range(1, 11))
    assert max(len(chunk.rows) for chunk in chunked(rows, 1000, "fail")) < 4


def test_names_of_columns_are_never_twice() -> None:
    kept = ("row", "input_row", "toxicity", "score_id", "flags", "scores", "input_flags")
    names = column_names(Shape(("toxicity", "id"), {}, ids=True, text=True, kept=kept))
    assert len(set(names)) == len(names)
    assert names[-7:] == [
        "input_input_row",
        "input_row",
        "input_toxicity",
        "input_score_id",
        "input_input_flags",
        "input_scores",
        "input_flags",
    ]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1"]


def test_csv_safe_writes_no_formula(predict: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    rows = [{"text": one, "id": one, "=note": one, "n": -5} for one in [*FORMULAS, "a=1"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, safe = tmp_path / "plain.csv", tmp_path / "safe.csv.gz"
    common = ("-i", path, "--keep-columns", "--with-text")
    assert predict(*common, "-o", plain)[0] == 0
    assert predict(*common, "-o", safe, "--csv-safe")[0] == 0
    assert [row["=note"] for row in read(plain)] == [*FORMULAS, "a=1"]
    found = read(safe)
    expected = [*(f"'{one}" for one in FORMULAS), "a=1"]
    for column in ("text", "id", "'=note"):
        assert [row[column] for row in found] == expected
    assert {row["n"] for row in found} == {"-5"}  # a number is no formula


@given(st.text())
def test_a_safe_cell_begins_with_no_sign_of_a_formula(text: Any) -> None:
    assert safe_cell(text)[:1] not in {one[0] for one in FORMULAS}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2),
        min_size=1,
    )
)
def test_kept_text_is_read_as_it_stands(tmp_path: Path, records: Any) -> None:
    path = tmp_path / "i.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["text", "a", "b"], *(["x", *r] for r in records)])
    rows = list(from_file(path, "i.csv", keep=None).rows())
    assert [list(row.kept) for row in rows] == records
