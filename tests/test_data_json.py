"""JSON as people have it: arrays, objects over several lines, objects within objects."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from data_helpers import write_parquet
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data.readers import BadRowError
from gkiller.data.readers import text as textfile
from gkiller.data.readers.jsonl import JsonLinesReader, picked
from gkiller.data.readers.parquet import ParquetReader
from gkiller.errors import EmptyDataError, FormatError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=3), min_size=2, max_size=6)


def reader(path: Path, text: str) -> JsonLinesReader:
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return JsonLinesReader(path, "a.json")


def read(reader: JsonLinesReader | ParquetReader, wanted: list[str]) -> Any:
    return [
        row for batch in reader.batches(wanted) for row in zip(*(batch.columns[name] for name in wanted), strict=True)
    ]


@given(rows=objects, indent=st.sampled_from([None, 0, 2, "\t"]), array=st.booleans(), piece=st.integers(1, 40))
def test_arrays_and_pretty_json_are_read_as_the_lines_are(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, indent: Any, array: Any, piece: Any
) -> None:
    folder = tmp_path_factory.mktemp("json")
    lines = reader(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    text = json.dumps(rows, indent=indent) if array else "\n".join(json.dumps(r, indent=indent or 1) for r in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "_PIECE", piece)
        other = reader(folder / "a.json", text)
        wanted = [key for row in rows for key in row]
        wanted = list(dict.fromkeys(wanted))
        found = [list(other._objects()), read(other, wanted)]
    assert [value for _, _, value, _ in found[0]] == [value for _, _, value, _ in lines._objects()] == rows
    assert found[1] == read(lines, wanted)


def test_strings_in_an_array_are_comments(tmp_path: Path) -> None:
    assert read(reader(tmp_path / "a.json", '["a", "b\\n",\n "c"]'), ["text"]) == [("a",), ("b\n",), ("c",)]


@pytest.mark.parametrize(
    ("text", "what", "row"),
    [
        ('[{"text": "a"}, {"text": "b"', "not valid JSON|ends within", 2),
        ('[{"text": "a"} {"text": "b"}]', "a comma should", 2),
        ('[{"text": "a"}, oops, {"text": "b"}]', "not valid JSON", 2),
        ('[{"text": "a"}]\n[{"text": "b"}]', "follows the end", 2),
        ('[{"text": "a"},' + "[" * 100_000, "not usable JSON", 2),
        ('[{"text": "a"},', "ends within the array", 2),
    ],
)
def test_a_broken_array_is_named_after_the_rows_before(tmp_path: Path, text: str, what: str, row: int) -> None:
    found: list[Any] = []
    with pytest.raises(FormatError, match=what) as error:
        found.extend(value for _, _, value, _ in reader(tmp_path / "a.json", text)._objects())
    del found
    assert f"row {row}" in error.value.where


def test_bad_elements_of_an_array_are_rows_of_their_own(tmp_path: Path) -> None:
    found = list(reader(tmp_path / "a.json", '[{"text": "a"}, 3, {"a": 1, "a": 2},\n{"text": "b"}]')._objects())
    assert [isinstance(value, BadRowError) for _, _, value, _ in found] == [False, True, True, False]
    assert found[3][:2] == (4, 2)
    assert "'a' stands twice" in found[2][2].error.what  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["[]", "[ \n ]", "  "])
def test_an_empty_array_is_empty(tmp_path: Path, text: str) -> None:
    with pytest.raises(EmptyDataError):
        reader(tmp_path / "a.json", text).columns()


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_that_holds_the_rows_names_the_remedy(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps({"page": 1, "comments": [{"text": "a"}]}, indent=indent)
    with pytest.raises(FormatError, match="comments") as error:
        reader(tmp_path / "a.json", text).columns()
    assert "jq -c '.[\"comments\"][]'" in error.value.remedy


@pytest.mark.parametrize(
    ("text", "mark"),
    [('{"text": "a"},\n{"text": "b"},\n', "','"), ('[{"text": "a"},]', "']'"), ('[{"text": "a"},,]', "','")],
)
def test_a_stray_comma_is_named(tmp_path: Path, text: str, mark: str) -> None:
    with pytest.raises(FormatError, match=f"{mark} stands where a value should"):
        read(reader(tmp_path / "a.json", text), ["text"])


def test_fields_of_objects_are_named_with_dots(tmp_path: Path) -> None:
    rows = [{"comment": {"text": "a", "by": {"id": 7}}, "x.y": "literal", "x": {"y": "nested"}}, {"comment": None}]
    found = reader(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert found.columns() == ["comment.text", "comment.by.id", "x.y", "comment"]
    assert read(found, ["comment.text", "comment.by.id", "x.y"]) == [("a", 7, "literal"), (None, None, None)]
    assert picked({"a": {"b.c": 1}}, "a.b.c") == 1
    assert picked({"a": 3}, "a.b") is None


def test_fields_of_parquet_structs_are_named_with_dots(tmp_path: Path) -> None:
    comments = [{"text": "a", "by": {"id": 7}}, {"text": None, "by": None}, None]
    path = write_parquet(tmp_path / "a.parquet", comment=comments, label=[0, 1, math.pi])
    found = ParquetReader(path, "a")
    assert found.columns() == ["comment.text", "comment.by.id", "label"]
    assert read(found, ["comment.text", "comment.by.id"]) == [("a", 7), (None, None), (None, None)]
