"""Delimited files as other people write them: what is no row is told, and what hides rows is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from data_helpers import all_rows, many, settings, write_csv
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data.inspect import inspect
from gkiller.data.prepare import prepare
from gkiller.data.readers.delimited import DelimitedReader, Profile, parse_records
from gkiller.errors import ColumnError, FormatError, LabelValueError, RowError
from gkiller.inference.bulk.reading import from_file

LINES = [f"comment number {i},{int(i % 4 == 0)}" for i in range(40)]


def raw(path: Path, lines: list[Any], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def prepared(source: Path, tmp_path: Path, **values: Any) -> Any:
    manifest = prepare(settings(**values), tmp_path / "out", sources=[str(source)])
    return manifest, [row["text"] for row in all_rows(tmp_path / "out")]


def scored(source: Path, **columns: Any) -> tuple[Any, ...]:
    found = from_file(source, source.name, **columns)
    return list(found.rows()), found.notes


def with_stray_quotes(first: int, last: int, separator: str = ",", before: str = "") -> list[str]:
    lines = [line.replace(",", separator) for line in LINES]
    lines[first] = f'{before}"{lines[first]}'
    body, mark, label = lines[last].rpartition(separator)
    lines[last] = f'{body}"{mark}{label}'
    return lines


@pytest.mark.parametrize(("first", "last"), [(0, 3), (10, 12), (10, 30), (38, 39)])
def test_quotes_that_swallow_rows_are_refused_by_both_readers(tmp_path: Path, first: int, last: int) -> None:
    source = raw(tmp_path / "a.csv", with_stray_quotes(first, last))
    with pytest.raises(RowError, match=f"starts on line {first + 2} goes on to line {last + 2}") as caught:
        prepared(source, tmp_path)
    assert f"row {first + 1} (line {first + 2})" in caught.value.where
    rows, _ = scored(source)
    assert rows[first].fault is not None
    assert "look like rows" in rows[first].fault.what


def test_swallowed_rows_are_counted_when_skipped(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", with_stray_quotes(10, 30))
    manifest, texts = prepared(source, tmp_path, on_error="skip")
    assert manifest["dropped"]["bad"] == {"swallowed": 1}
    assert "line 12 goes on to line 32" in manifest["bad_row_examples"][0]
    assert len(texts) == 40 - 21


def test_swallowed_rows_of_a_tsv_and_of_a_first_line_with_commas(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.tsv", with_stray_quotes(5, 20, "\t"), "text\tlabel")
    with pytest.raises(RowError, match="line 7 goes on to line 22"):
        prepared(source, tmp_path)
    source = raw(tmp_path / "a.csv", with_stray_quotes(5, 20, before='"well, ')[:])
    rows, _ = scored(source)
    assert any(row.fault is not None for row in rows)


def test_a_quote_without_end_names_the_line_where_its_field_starts(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", ['"two\nlines",0', *LINES[:3], '"never closed,1', *LINES[3:]])
    with pytest.raises(RowError, match="ends inside a quoted field") as caught:
        prepared(source, tmp_path)
    assert caught.value.where.endswith("line 7")


@pytest.mark.parametrize(
    "text",
    [
        "Hello,\nI like it\nbye",
        "a list:\napples, 3\npears, 4\nplums, 0",
        'he said "no"\n\nand, then, left',
        "my table\n1,0\n0,1\n1,1\nas you see",
    ],
)
@pytest.mark.parametrize("header", [("text", "label"), ("label", "text"), ("id", "text", "label")])
def test_comments_over_several_lines_are_read(tmp_path: Path, text: str, header: tuple[Any, ...]) -> None:
    rows = []
    for number, (one, label) in enumerate([*many(40), (text, 1), *[(f"x {i}", 0) for i in range(9)]]):
        values = {"id": f"a{number}", "text": one, "label": label}
        rows.append([values[name] for name in header])
    _, texts = prepared(write_csv(tmp_path / "a.csv", rows, header=header), tmp_path)
    assert text in texts
    assert len(texts) == len(rows)


TEXTS = st.text(st.sampled_from('ab1,;"\n\r\t |.'), max_size=30)


@given(
    st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["0", "1", "0.5"])), min_size=1, max_size=12),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_the_judge_of_swallowed_rows_leaves_what_csv_writes_alone(rows: Any, quoting: Any, separator: Any) -> None:
    judge = Profile(("text", "reply", "label"), separator)
    for row in rows:
        judge.learn(row)
    lines = [line for row in rows for text in row[:2] for line in text.splitlines()]
    if any(judge.looks_like_record(line + end) for line in lines for end in ("", f"{separator}0")):
        return
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting, delimiter=separator).writerows(rows)
    lines = iter(io.StringIO(stream.getvalue(), newline=""))  # type: ignore[assignment]
    profile = Profile(("text", "reply", "label"), separator)
    found = list(parse_records(lines, separator, profile=profile))  # type: ignore[arg-type]
    assert [tuple(record.fields) for record in found] == rows
    assert {record.fault for record in found} == {""}


@pytest.mark.parametrize(
    "again", ["text,label", " Text , LABEL ", "\ufefftext,label", '\ufeff"text","label"', "comment_text,Target"]
)
def test_a_header_among_the_rows_is_left_out_with_a_note(tmp_path: Path, again: str) -> None:
    source = raw(tmp_path / "a.csv", [*LINES[:20], again, *LINES[20:30], again, *LINES[30:]])
    manifest, texts = prepared(source, tmp_path)
    assert len(texts) == manifest["rows_read"] == 40
    assert any("2 repeated headers left out (from line 22)" in note for note in manifest["notes"])
    rows, notes = scored(source)
    assert [row.number for row in rows] == list(range(1, 41))
    assert any("2 repeated headers" in note for note in notes)
    assert any("2 repeated headers" in note for note in inspect(str(source))["notes"])


def test_one_word_comments_that_are_names_too_are_no_headers(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", [*LINES, "message,toxic", "body,0", "label,1"])
    manifest, texts = prepared(source, tmp_path)
    assert len(texts) == 43
    assert not any("header" in note for note in manifest["notes"])


def test_a_header_of_other_usual_names_is_no_comment_that_is_toxic(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", [*LINES, "text,toxic"], "comment_text,toxic")
    manifest, texts = prepared(source, tmp_path)
    assert len(texts) == 40
    assert any("1 repeated header left out (on line 42)" in note for note in manifest["notes"])


def test_a_header_in_another_order_is_refused(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", [*LINES, "label,text", "1,swapped"])
    with pytest.raises(FormatError, match="another order") as caught:
        prepared(source, tmp_path)
    assert "line 42" in caught.value.where


def test_rows_of_separators_alone_are_left_out_with_a_note(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", [*LINES[:5], ",", " , ", *LINES[5:], ",", ",,,"])
    manifest, texts = prepared(source, tmp_path)
    assert len(texts) == 40
    assert any("4 empty rows left out (from line 7)" in note for note in manifest["notes"])
    rows, notes = scored(source)
    assert len(rows) == 40
    assert any("4 empty rows" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "head", "mark"),
    [
        ("a.csv", "sep=;\ntext;label", ";"),
        ("a.csv", '"SEP=|"\r\n\ntext|label', "|"),
        ("a.csv", "sep=\t\ntext\tlabel", "\t"),
        ("a.csv", "sep=\\t\ntext\tlabel", "\t"),
        ("a.csv", "sep = ;\ntext;label", ";"),
        ("a.csv", "sep=,\ntext;label", ";"),
        ("a.csv", "\u200btext|label\u200b", "|"),
        ("a.csv", "text|label", "|"),
        ("a.tsv", "text;label", ";"),
        ("a.csv", " text , label ", ","),
        ("a.csv", '"text", "label"', ","),
        ("a.csv", "text;label;a, b", ";"),
    ],
)
def test_ways_to_write_a_header(tmp_path: Path, name: str, head: str, mark: str) -> None:
    extra = f"{mark}x" if "a, b" in head else ""
    lines = [f"well, number {i}{mark}{i % 2}{extra}" for i in range(30)]
    if mark == ",":
        lines = [f'"well, number {i}", {i % 2}' for i in range(30)]
    source = raw(tmp_path / name, lines, head)
    manifest, texts = prepared(source, tmp_path)
    assert manifest["rows_read"] == 30
    assert "well, number 7" in texts
    rows, _ = scored(source)
    assert [row.text for row in rows] == [f"well, number {i}" for i in range(30)]


def test_spaces_before_quotes_where_the_header_has_them(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", ['"one, two", 0', ' "three" , 1'], '"text", "label"')
    assert [row.text for row in scored(source)[0]] == ["one, two", "three"]


@pytest.mark.parametrize("first", ["you are a fool,1", "ok,0", "a good one,non-toxic", "fool;0.8"])
def test_a_file_without_a_header_is_named_as_such(tmp_path: Path, first: str) -> None:
    source = raw(tmp_path / "a.csv", LINES, first)
    with pytest.raises(ColumnError, match="no header"):
        prepared(source, tmp_path)
    with pytest.raises(ColumnError, match="no header"):
        scored(source)


def test_a_column_of_comments_without_a_header_loses_no_comment(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", ["so is this"], "this is a whole comment")
    with pytest.raises(ColumnError, match="no header"):
        scored(source)
    assert len(scored(source, text_column="this is a whole comment")[0]) == 1


@pytest.mark.parametrize("line", ['{"text": "a", "label": 1}', '[{"text": "a", "label": 1}]'])
def test_json_that_is_named_csv_is_named_as_such(tmp_path: Path, line: str) -> None:
    source = raw(tmp_path / "a.csv", [line], line)
    for read in (lambda: prepared(source, tmp_path), lambda: scored(source)):
        with pytest.raises(FormatError, match="this is JSON"):
            read()


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    source = raw(tmp_path / "a.csv", ["a;0,85", "b;0,1"], "text;label")
    with pytest.raises(LabelValueError, match="decimal comma"):
        prepared(source, tmp_path)


def test_names_that_stand_twice_are_found_in_one_pass(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(200_000)]
    source = raw(tmp_path / "a.csv", [], ",".join([*names, "c7"]))
    with pytest.raises(ColumnError, match="'c7' more than once"):
        DelimitedReader(source, "a.csv", ".csv").columns()
