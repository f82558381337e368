from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from data_helpers import plain_text, write_csv, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data import readers as rows_room
from gkiller.data.readers import delimited
from gkiller.data.readers.delimited import DelimitedReader, UnclosedQuoteError, parse_records
from gkiller.data.readers.jsonl import JsonLinesReader
from gkiller.data.readers.parquet import ParquetReader
from gkiller.errors import ColumnError, EmptyDataError, EncodingError, FormatError, RowError


def lines_of(text: str) -> Any:
    return iter(io.StringIO(text, newline=""))


def parse(text: str, separator: str = ",") -> list[Any]:
    return [(record.line, record.fields, record.fault) for record in parse_records(lines_of(text), separator)]


def collect(reader: DelimitedReader | JsonLinesReader | ParquetReader, wanted: list[str]) -> Any:
    rows, bad = [], {}
    for batch in reader.batches(wanted):
        for i in range(len(batch)):
            if i in batch.bad:
                bad[batch.rows[i]] = batch.bad[i]
            else:
                rows.append(tuple(batch.columns[name][i] for name in wanted))
    return rows, bad


@given(
    st.lists(st.tuples(plain_text, plain_text, plain_text), min_size=1, max_size=8),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from([",", "\t", ";"]),
)
def test_parser_reads_what_csv_writes(rows: Any, quoting: Any, separator: Any) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting, delimiter=separator).writerows(rows)
    parsed = parse(stream.getvalue(), separator)
    assert [tuple(fields) for _, fields, _ in parsed] == rows
    assert all(not fault for _, _, fault in parsed)


@given(st.text(st.sampled_from('ab",\n\r '), max_size=30))
def test_parser_agrees_with_csv_on_any_text(text: Any) -> None:
    try:
        parsed = parse(text)
    except UnclosedQuoteError:
        return
    if any(fault for _, _, fault in parsed):
        return
    expected = [row for row in csv.reader(lines_of(text)) if row]
    assert [fields for _, fields, _ in parsed] == expected


def test_parser_counts_physical_lines() -> None:
    text = 'a,b\n\n"one\ntwo",x\r\n"say ""hi""",y\rlast,z'
    assert parse(text) == [
        (1, ["a", "b"], ""),
        (3, ["one\ntwo", "x"], ""),
        (5, ['say "hi"', "y"], ""),
        (6, ["last", "z"], ""),
    ]


def test_parser_marks_text_after_a_closing_quote() -> None:
    assert parse('"a"b,c\nd,e\n') == [(1, ["a", "c"], "quoting"), (2, ["d", "e"], "")]


def test_parser_names_the_line_of_an_unclosed_quote() -> None:
    with pytest.raises(UnclosedQuoteError) as caught:
        parse('a,b\n"c,d\ne,f\n')
    assert caught.value.line == 2


def test_parser_drops_the_content_of_a_huge_field_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_FIELD_CHARACTERS", 100)
    huge = "\n".join(["x" * 60] * 50)
    parsed = parse(f'"{huge}",1\nshort,0\n{"y" * 101},1\n')
    assert [fault for _, _, fault in parsed] == ["oversized", "", "oversized"]
    assert len(parsed[0][1][0]) <= 100
    assert parsed[1] == (51, ["short", "0"], "")


@given(st.lists(st.tuples(plain_text, st.integers(0, 1)), min_size=1, max_size=6), st.booleans())
def test_csv_file_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: Any, packed: Any) -> None:
    folder = tmp_path_factory.mktemp("csv")
    path = write_csv(folder / "a.csv", rows)
    if packed:
        path = folder / "a.csv.gz"
        path.write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    found, bad = collect(DelimitedReader(path, "a.csv", ".csv"), ["text", "label"])
    assert found == [(text, str(label)) for text, label in rows]
    assert not bad


@given(st.lists(plain_text, min_size=1, max_size=6), st.booleans())
def test_jsonl_file_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: Any, ascii_only: Any) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = [json.dumps({"text": text, "label": 1}, ensure_ascii=ascii_only) for text in texts]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    found, bad = collect(JsonLinesReader(path, "a.jsonl"), ["text", "label"])
    assert found == [(text, 1) for text in texts]
    assert not bad


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_batches_do_not_change_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = [(f"text {i}\nwith a line", i % 2) for i in range(10)]
    path = write_csv(tmp_path / "a.csv", rows)
    lines = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label} for text, label in rows])
    monkeypatch.setattr(rows_room, "BATCH_ROWS", size)
    for reader in (DelimitedReader(path, "a", ".csv"), JsonLinesReader(lines, "a")):
        batches = list(reader.batches(["text"]))
        assert [row for batch in batches for row in batch.rows] == list(range(1, 11))
        assert [text for batch in batches for text in batch.columns["text"]] == [text for text, _ in rows]
        assert max(map(len, batches)) <= size


def test_bom_and_crlf_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\nhello,1\r\n\r\nbye,0\r\n")
    reader = DelimitedReader(path, "a.csv", ".csv")
    assert reader.columns() == ["text", "label"]
    assert collect(reader, ["text", "label"])[0] == [("hello", "1"), ("bye", "0")]


def test_other_separator_is_found_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;label\nhello, you;1\n", encoding="utf-8")
    reader = DelimitedReader(path, "a.csv", ".csv")
    assert reader.columns() == ["text", "label"]
    assert collect(reader, ["text"])[0] == [("hello, you",)]
    assert "';'" in reader.notes[0]


def test_tsv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.tsv", [("tab\tinside, and comma", 1)], delimiter="\t")
    reader = DelimitedReader(path, "a.tsv", ".tsv")
    assert collect(reader, ["text", "label"])[0] == [("tab\tinside, and comma", "1")]


def test_ragged_row_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines",1\na,b,c\nlast,0\n', encoding="utf-8")
    found, bad = collect(DelimitedReader(path, "a.csv", ".csv"), ["text"])
    assert found == [("two\nlines",), ("last",)]
    assert bad[2].kind == "ragged"
    assert bad[2].error.where == "a.csv, row 2 (line 4)"
    assert "3 fields, the header 2" in bad[2].error.what


def test_duplicate_header_names_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("a", "b", 1)], header=("text", "text", "label"))
    with pytest.raises(ColumnError, match="'text' more than once"):
        DelimitedReader(path, "a.csv", ".csv").columns()


def test_unclosed_quote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\nfine,1\n"open,0\nmore,1\n', encoding="utf-8")
    with pytest.raises(RowError) as caught:
        collect(DelimitedReader(path, "a.csv", ".csv"), ["text"])
    assert caught.value.where == "a.csv, line 3"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n  \n"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_empty_text_files(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    reader = DelimitedReader(path, "a", ".csv") if kind == "csv" else JsonLinesReader(path, "a")
    with pytest.raises(EmptyDataError, match="empty"):
        reader.columns()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_recognised(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nhello there,1\n".encode(encoding))
    with pytest.raises(EncodingError, match="UTF-16"):
        DelimitedReader(path, "a.csv", ".csv").columns()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(gzip.compress(b"a", mtime=0), mtime=0), "gzip"),
        (b"PAR1\x15...", "Parquet"),
        (b"PK\x03\x04....", "zip"),
    ],
    ids=["gzip", "Parquet", "zip"],
)
def test_other_kinds_of_file_are_recognised(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=kind):
        DelimitedReader(path, "a.csv", ".csv").columns()


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + b"".join(b"hello %d,1\n" % i for i in range(20000)))
    for name, content in {"cut": whole[: len(whole) // 2], "other": b"text,label\nhello,1\n"}.items():
        path = tmp_path / f"{name}.csv.gz"
        path.write_bytes(content)
        with pytest.raises(FormatError, match="gzip"):
            collect(DelimitedReader(path, name, ".csv"), ["text"])


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": "a"', "not valid JSON"),
        ("[1, 2]", "array stands where an object"),
        ('"text"', "string stands"),
        ("null", "null stands"),
        ('{"text": "a", "text": "b"}', "'text' stands twice"),
        ("[" * 100_000, "not usable JSON"),
        ('{"text": ' + "9" * 5000 + "}", "not usable JSON"),
    ],
)
def test_bad_json_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine", "label": 1}\n\n' + line + '\n{"text": "too", "label": 0}\n', encoding="utf-8")
    found, bad = collect(JsonLinesReader(path, "a.jsonl"), ["text"])
    assert found == [("fine",), ("too",)]
    assert what in bad[2].error.what
    assert bad[2].error.where == "a.jsonl, row 2 (line 3)"


def test_json_keys_that_come_late_are_found(tmp_path: Path) -> None:
    rows = [{"text": f"a {i}"} for i in range(1500)] + [{"text": "b", "label": 1}]
    reader = JsonLinesReader(write_jsonl(tmp_path / "a.jsonl", rows), "a")
    assert reader.columns() == ["text"]
    assert reader.all_columns() == ["text", "label"]


def test_parquet_kinds_of_text(tmp_path: Path) -> None:
    import pyarrow as pa

    values = ["one", "two", None, "one"]
    path = write_parquet(
        tmp_path / "a.parquet",
        plain=pa.array(values),
        large=pa.array(values, pa.large_string()),
        coded=pa.array(values).dictionary_encode(),
        binary=pa.array([v and v.encode() for v in values], pa.binary()),
    )
    reader = ParquetReader(path, "a")
    found, _ = collect(reader, ["plain", "large", "coded", "binary"])
    assert found == [(value,) * 4 for value in values]
    assert reader.total == 4


def test_parquet_gz(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=["one", "two"])
    packed = tmp_path / "b.parquet.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert collect(ParquetReader(packed, "b"), ["text"])[0] == [("one",), ("two",)]


def test_broken_parquet(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", text=[f"number {i} " * 20 for i in range(2000)]).read_bytes()
    damaged = bytearray(whole)
    damaged[100:400] = bytes(300)
    for name, content in {"text": b"not parquet", "cut": whole[:-50], "damaged": bytes(damaged)}.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(FormatError, match="not a whole Parquet file"):
            collect(ParquetReader(path, name), ["text"])


def test_parquet_without_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[])
    with pytest.raises(EmptyDataError):
        ParquetReader(path, "a").columns()
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(EmptyDataError):
        ParquetReader(tmp_path / "b.parquet", "b").columns()
