"""What ``predict`` reads: formats, columns, bad rows, and a stream that can be looked at twice."""

import gzip
import io
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from data_helpers import write_csv, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data.readers import MAX_FIELD_CHARACTERS
from gkiller.data.readers.text import Replayable
from gkiller.errors import ColumnError, EmptyDataError, EncodingError, FormatError, RowError
from gkiller.inference.bulk.formats import chunked
from gkiller.inference.bulk.reading import Row, Source, from_file, from_stream, from_texts


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def good(source: Source) -> Any:
    rows = list(source.rows())
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.fault is None for row in rows)
    return [(row.id, row.text) for row in rows]


def stream(data: bytes, form: str = "auto", **columns: Any) -> Source:
    return from_stream(io.BytesIO(data), form, **columns)  # type: ignore[arg-type]


def fault(source: Source, number: int) -> Any:
    return list(source.rows())[number - 1].fault


def test_a_text_file_has_a_comment_a_line(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\r\n\n  two\xc2\x85 \ntorn"
    expected = [(None, "one"), (None, ""), (None, "  two\x85 "), (None, "torn")]
    assert good(from_file(raw(tmp_path / "a.txt", content), "a.txt")) == expected
    packed = raw(tmp_path / "a.txt.gz", gzip.compress(content))
    assert good(from_file(packed, "a.txt.gz")) == expected
    assert good(from_file(raw(tmp_path / "b", content), "b", "txt")) == expected
    assert good(stream(content)) == expected
    assert good(stream(b"")) == []


def test_columns_are_guessed_and_told(tmp_path: Path) -> None:
    rows = [("1", "a,b", "x"), ("2", 'say "hi"\nthere', "y")]
    path = write_csv(tmp_path / "a.csv", rows, header=("ID", "Comment_Text", "other"))
    source = from_file(path, "a.csv")
    assert (source.has_ids, source.notes) == (True, ["a.csv: 'Comment_Text' is taken as the comment column"])
    assert good(source) == [("1", "a,b"), ("2", 'say "hi"\nthere')]
    named = from_file(path, "a.csv", text_column="other", id_column="Comment_Text")
    assert (named.notes, good(named)[0]) == ([], ("a,b", "x"))
    assert good(stream(path.read_bytes(), "csv"))[1] == ("2", 'say "hi"\nthere')
    assert good(stream(b"remark\nfine\n", "tsv")) == [(None, "fine")]  # the only column


def test_json_lines(tmp_path: Path) -> None:
    objects = [
        {"id": 7, "text": "a"},
        {"text": "b\u0000\ud800", "id": None},
        {"id": "x", "text": ""},
        {"id": 10**400, "text": "c"},
        {"id": float("nan"), "text": "d"},  # what tables of numbers have where an id is missing
    ]
    expected = [(7, "a"), (None, "b\0\ud800"), ("x", ""), (10**400, "c"), (None, "d")]
    path = write_jsonl(tmp_path / "a.jsonl", objects)
    assert good(from_file(path, "a.jsonl")) == expected
    source = stream(b"\n" + path.read_bytes())
    assert "JSON Lines" in source.notes[0]
    assert good(source) == expected


@pytest.mark.parametrize("line", [b"{not json}", b"[1]", b'"text"', b"{}x", b"{" * 5000])
def test_text_that_only_looks_like_json_is_text(line: bytes) -> None:
    assert good(stream(line + b"\n")) == [(None, line.decode())]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(gzip.compress(b"a\n", mtime=0), mtime=0), "gzip data"),
        ("a line\n".encode("utf-16"), "UTF-16"),
        (b"PAR1\x15\x04\x15", "Parquet"),
    ],
)
def test_what_is_plainly_no_text_is_said_to_be_so(tmp_path: Path, content: bytes, message: str) -> None:
    for form in ("auto", "txt"):
        with pytest.raises((FormatError, EncodingError), match=message):
            stream(content, form)
    with pytest.raises((FormatError, EncodingError), match=message):
        from_file(raw(tmp_path / "a.txt", content), "a.txt")
    assert good(stream(b"PAR1 of the plan\n")) == [(None, "PAR1 of the plan")]


def test_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=["a", "b\0"], comment_id=[3, 4])
    assert from_file(path, "a").total == 2
    rows = list(from_file(path, "a").rows())
    assert (rows[0].id, rows[0].text) == (3, "a")
    assert [row[:3] for row in stream(path.read_bytes()).rows()] == [row[:3] for row in rows]
    with pytest.raises(FormatError, match="whole Parquet file"):
        stream(b"PAR1", "parquet")
    moments = [Decimal("1.50"), None, datetime(2020, 1, 2, 3), date(2020, 1, 2)]
    for moment, expected in zip(moments, ["1.50", None, "2020-01-02 03:00:00", "2020-01-02"], strict=True):
        path = write_parquet(tmp_path / "b.parquet", text=["a"], id=[moment])
        assert good(from_file(path, "b")) == [(expected, "a")]


def test_missing_and_unknown(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("a", "b")], header=("x", "y"))
    with pytest.raises(ColumnError, match="there are: x, y"):
        from_file(path, "a.csv")
    with pytest.raises(ColumnError, match="there is no column 'z'"):
        from_file(path, "a.csv", text_column="x", id_column="z")
    with pytest.raises(ColumnError, match="no columns"):
        stream(b"a", text_column="x")
    with pytest.raises(FormatError, match="--input-format"):
        from_file(raw(tmp_path / "a.doc", b"a"), "a.doc")
    with pytest.raises(EmptyDataError):
        from_file(raw(tmp_path / "b.csv", b""), "b.csv")
    with pytest.raises(EmptyDataError):
        stream(b"", "csv")


def test_bad_rows_name_their_place(tmp_path: Path) -> None:
    text = stream(b"fine\ncaf\xe9\na\0b\nfine\n")
    faults = [row.fault for row in text.rows()]
    assert [type(f) for f in faults] == [type(None), EncodingError, EncodingError, type(None)]
    assert faults[1].where == "(standard input), row 2"
    long = "x" * (MAX_FIELD_CHARACTERS + 1)
    assert "over 1,000,000" in fault(stream(long.encode()), 1).what
    found = fault(from_file(raw(tmp_path / "a.csv", b"id,text\n1,ok\n2\n"), "a.csv"), 2)
    assert (type(found), found.where) == (RowError, "a.csv, row 2 (line 3)")
    found = fault(from_file(raw(tmp_path / "b.csv", b"id,text\n\xff,ok\n"), "b.csv"), 1)
    assert "column 'id'" in found.where


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": null}', "missing"),
        ('{"id": 1}', "missing"),
        ('{"text": 5}', "of type int, not text"),
        ('{"text": "a", "id": [1]}', "the id is of type list"),
        ('{"text": "a", "id": 1e999}', "the id is infinite"),
        ('{"text": "a"', "not valid JSON"),
        ('{"text": "a", "text": "b"}', "stands twice"),
    ],
)
def test_bad_json_rows(tmp_path: Path, line: str, message: str) -> None:
    path = raw(tmp_path / "a.jsonl", f'{{"id": 1, "text": "a"}}\n{line}\n'.encode())
    found = fault(from_file(path, "a.jsonl"), 2)
    assert message in found.what
    assert "row 2 (line 2)" in found.where
    assert "--on-error skip" in found.remedy


def test_a_missing_text_in_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=["a", None])
    assert fault(from_file(path, "a"), 2).where == "a, row 2, column 'text'"


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=4))
def test_a_stream_can_be_opened_until_it_is_released(data: Any, peeks: Any) -> None:
    source = Replayable(io.BufferedReader(io.BytesIO(data)))
    for size in peeks:
        assert source.open().read(size) == data[:size]
    whole = source.open()
    start = whole.read(3)
    source.release()
    assert start + whole.read() == data
    with pytest.raises(ValueError, match="not kept"):
        source.open()


def test_a_released_stream_keeps_nothing() -> None:
    source = Replayable(io.BufferedReader(io.BytesIO(b"line\n" * 100_000)))
    with source.open() as reader:
        reader.readline()
        source.release()
        assert sum(1 for _ in reader) == 99_999
    assert len(source._head) == 0


rows_of_any_size = st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=40)


@given(rows_of_any_size, st.integers(1, 9))
def test_chunks_hold_every_row_once(drawn: Any, size: Any) -> None:
    rows = [Row(i, t, None, RowError("bad", where=str(i)) if b else None) for i, (t, b) in enumerate(drawn, 1)]
    chunks = list(chunked(iter(rows), size, "skip"))
    assert [r for c in chunks for r in c.rows] == [r.number for r in rows if r.fault is None]
    assert [t for c in chunks for t in c.texts] == [r.text for r in rows if r.fault is None]
    assert sum(len(c.skipped) for c in chunks) == sum(r.fault is not None for r in rows)
    assert [c.first for c in chunks] == [1 + size * i for i in range(len(chunks))]
    assert all(c.last - c.first + 1 <= size for c in chunks)
    assert not chunks or chunks[-1].last == len(rows)


def test_long_comments_make_short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.inference.bulk.formats.CHUNK_CHARACTERS", 10)
    chunks = list(chunked(from_texts(["a" * 11, "b", "c" * 9, "d"]).rows(), 100, "fail"))
    assert [c.rows for c in chunks] == [[1], [2, 3], [4]]


def test_a_bad_row_ends_the_chunks() -> None:
    rows = [Row(1, "a", None), Row(2, "", None, RowError("bad"))]
    with pytest.raises(RowError):
        list(chunked(iter(rows), 1, "fail"))


def test_a_chunk_s_digest_is_of_all_rows_so_far() -> None:
    def digest(texts: Any, ids: Any = None) -> Any:
        rows = [Row(i, t, ids) for i, t in enumerate(texts, 1)]
        return [c.digest for c in chunked(iter(rows), 2, "fail")]

    assert digest("abcd")[0] == digest("abxx")[0] != digest("acxx")[0]
    assert digest("abcd")[1] != digest("abcx")[1]
    assert digest("ab") != digest("ab", ids=1)
    assert json.dumps(digest("a\ud800"))
