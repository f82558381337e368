"""Every bad input: the right leaf of the error tree, the place, and a remedy."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from data_helpers import many, settings, write_csv, write_jsonl, write_parquet

from gkiller import errors
from gkiller.data.prepare import prepare


def refused(error: Any, source: Path | str, out: Path, **values: Any) -> Any:
    """Prepare a source that must be refused; return the error."""
    with pytest.raises(error) as caught:
        prepare(settings(**values), out, sources=[str(source)])
    assert caught.value.remedy
    assert caught.value.where
    assert not out.exists()
    assert [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")] == []
    return caught.value


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def raw(path: Path, text: bytes | str) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_missing_file_names_the_nearest(tmp_path: Path, out: Path) -> None:
    write_csv(tmp_path / "comments.csv", many())
    error = refused(errors.SourceNotFoundError, tmp_path / "coments.csv", out)
    assert "comments.csv" in error.remedy


def test_missing_folder(tmp_path: Path, out: Path) -> None:
    error = refused(errors.SourceNotFoundError, tmp_path / "nowhere" / "a.csv", out)
    assert "nowhere" in error.what


def test_misspelt_known_source(out: Path) -> None:
    assert "civil_comments" in refused(errors.SourceNotFoundError, "civil_coments", out).remedy


def test_unknown_format(tmp_path: Path, out: Path) -> None:
    error = refused(errors.FormatError, raw(tmp_path / "a.xlsx", b"PK"), out)
    assert ".parquet" in error.remedy


def test_folder_without_splits(tmp_path: Path, out: Path) -> None:
    write_csv(tmp_path / "a.csv", many())
    assert "a.csv" in refused(errors.FormatError, tmp_path, out).what


def test_folder_without_train(tmp_path: Path, out: Path) -> None:
    write_csv(tmp_path / "test.csv", many())
    refused(errors.FormatError, tmp_path, out)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_empty_file(tmp_path: Path, out: Path, name: str) -> None:
    refused(errors.EmptyDataError, raw(tmp_path / name, b""), out)


def test_empty_gzip(tmp_path: Path, out: Path) -> None:
    refused(errors.EmptyDataError, raw(tmp_path / "a.csv.gz", gzip.compress(b"")), out)


def test_header_only(tmp_path: Path, out: Path) -> None:
    assert "no rows" in refused(errors.EmptyDataError, raw(tmp_path / "a.csv", "text,label\n"), out).what


def test_one_empty_file_of_two(tmp_path: Path, out: Path) -> None:
    good = write_csv(tmp_path / "a.csv", many())
    bad = raw(tmp_path / "b.csv", "text,label\n")
    with pytest.raises(errors.EmptyDataError) as caught:
        prepare(settings(), out, sources=[str(good), str(bad)])
    assert caught.value.where.endswith("b.csv")


@pytest.mark.parametrize(
    "values",
    [
        {"text_column": "coment", "label_columns": ("label",)},
        {"label_columns": ("lable",)},
        {"label_columns": ("label", "lable")},
        {"id_column": "lable"},
        {"weight_column": "lable"},
    ],
)
def test_no_such_column_names_the_nearest(tmp_path: Path, out: Path, values: Any) -> None:
    source = write_csv(tmp_path / "a.csv", many(), header=("comment", "label"))
    error = refused(errors.ColumnError, source, out, **values)
    assert "'comment'" in error.remedy or "'label'" in error.remedy


@pytest.mark.parametrize("header", [("a", "label"), ("text", "b"), ("text", "Text")])
def test_nothing_to_guess(tmp_path: Path, out: Path, header: tuple[str, str]) -> None:
    source = write_csv(tmp_path / "a.csv", many(), header=header)
    error = refused(errors.ColumnError, source, out)
    assert "--text-column" in error.remedy or "--label-columns" in error.remedy


@pytest.mark.parametrize(
    ("labels", "what"),
    [(("a", "a"), "more than once"), (("toxic", "toxicity"), "both the label"), (("text", "a"), "called 'text'")],
)
def test_clashing_label_columns(tmp_path: Path, out: Path, labels: tuple[str, str], what: str) -> None:
    header = ("comment", "a", "toxic", "toxicity", "text")
    source = write_csv(tmp_path / "a.csv", [("x", 1, 1, 1, 1)], header=header)
    assert what in refused(errors.ColumnError, source, out, text_column="comment", label_columns=labels).what


def test_text_column_as_a_label(tmp_path: Path, out: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many())
    refused(errors.ColumnError, source, out, text_column="label", label_columns=("label",))
    refused(errors.ColumnError, source, out, label_columns=("text",))


def test_one_file_without_any_label(tmp_path: Path, out: Path) -> None:
    good = write_csv(tmp_path / "a.csv", many())
    bad = write_csv(tmp_path / "b.csv", many(), header=("text", "score"))
    with pytest.raises(errors.ColumnError) as caught:
        prepare(settings(label_columns=("label",)), out, sources=[str(good), str(bad)])
    assert caught.value.where.endswith("b.csv")


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(tmp_path: Path, out: Path, label: int) -> None:
    source = write_csv(tmp_path / "a.csv", [(f"text {i}", label) for i in range(20)])
    error = refused(errors.SingleClassError, source, out)
    assert error.where == str(source)  # and no row: it is not the fault of one
    assert "one class" in error.what


def test_one_class_in_every_label(tmp_path: Path, out: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [(f"t {i}", 0, 1) for i in range(20)], header=("text", "a", "b"))
    refused(errors.SingleClassError, source, out, label_columns=("a", "b"))


@pytest.mark.parametrize("value", ["2", "-0.5", "1.5", "maybe", "inf", "1,0"])
def test_label_out_of_range(tmp_path: Path, out: Path, value: str) -> None:
    source = write_csv(tmp_path / "a.csv", [*many(5), ("bad", value)])
    error = refused(errors.LabelValueError, source, out)
    assert "row 6 (line 7), column 'label'" in error.where
    assert repr(value) in error.what


def test_label_out_of_range_in_parquet(tmp_path: Path, out: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", text=["a", "b"], score=[0.5, -0.083])
    error = refused(errors.LabelValueError, source, out, label_columns=("score",))
    assert "row 2, column 'score'" in error.where
    assert "-0.083" in error.what


def test_unlabelled_row(tmp_path: Path, out: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*many(5), ("bad", "")])
    assert "no label" in refused(errors.LabelValueError, source, out).what


@pytest.mark.parametrize("weight", ["", "heavy", "-1", "nan", "inf", "1_0"])
def test_bad_weight(tmp_path: Path, out: Path, weight: str) -> None:
    rows = [(*row, 1.5) for row in many(5)]
    source = write_csv(tmp_path / "a.csv", [*rows, ("bad", 1, weight)], header=("text", "label", "w"))
    error = refused(errors.LabelValueError, source, out, weight_column="w")
    assert "row 6 (line 7), column 'w'" in error.where


def test_a_weight_of_hundreds_of_digits(tmp_path: Path, out: Path) -> None:
    rows = [{"text": f"t {i}", "label": i % 2, "w": 1} for i in range(5)]
    source = write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "bad", "label": 1, "w": 10**400}])
    assert "row 6" in refused(errors.LabelValueError, source, out, weight_column="w").where


def test_invalid_utf8_names_the_row(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.csv", b'text,label\n"fine\nfine",1\ncaf\xe9,0\n')
    error = refused(errors.EncodingError, source, out)
    assert "row 2 (line 4), column 'text'" in error.where
    assert "byte 0xE9 at character 4" in error.what


def test_invalid_utf8_in_the_header(tmp_path: Path, out: Path) -> None:
    assert "header" in refused(errors.EncodingError, raw(tmp_path / "a.csv", b"t\xe9xt,label\na,1\n"), out).where


def test_invalid_utf8_in_json_and_parquet(tmp_path: Path, out: Path) -> None:
    import pyarrow as pa

    source = raw(tmp_path / "a.jsonl", b'{"text": "a", "label": 1}\n{"text": "caf\xe9", "label": 0}\n')
    assert "row 2 (line 2)" in refused(errors.EncodingError, source, out).where
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xe9"))
    source = write_parquet(tmp_path / "a.parquet", text=broken, label=[1, 0])
    assert "row 2, column 'text'" in refused(errors.EncodingError, source, out).where


def test_lone_surrogate_in_json(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.jsonl", b'{"text": "a", "label": 1}\n{"text": "\\ud83d", "label": 0}\n')
    assert "U+D83D" in refused(errors.EncodingError, source, out).what


def test_nul_byte_names_the_row(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.csv", b"text,label\nfine and quite long,1\nnu\0l,0\nfine,1\n")
    error = refused(errors.EncodingError, source, out)
    assert "row 2 (line 3), column 'text'" in error.where
    assert "NUL byte stands at character 3" in error.what


def test_utf16_file(tmp_path: Path, out: Path) -> None:
    refused(errors.EncodingError, raw(tmp_path / "a.csv", "text,label\na,1\n".encode("utf-16")), out)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_ten_megabyte_field(tmp_path: Path, out: Path, name: str) -> None:
    huge = "long " * 2_000_000
    path = tmp_path / name
    if name == "a.csv":
        write_csv(path, [("short", 1), (huge, 0)])
    elif name == "a.jsonl":
        write_jsonl(path, [{"text": "short", "label": 1}, {"text": huge, "label": 0}])
    else:
        write_parquet(path, text=["short", huge], label=[1, 0])
    error = refused(errors.RowError, path, out)
    assert "1,000,000" in error.what
    assert "row 2" in error.where


@pytest.mark.parametrize("text", ["", "   ", "\t\u00a0"])
def test_missing_text_in_csv(tmp_path: Path, out: Path, text: str) -> None:
    source = write_csv(tmp_path / "a.csv", [*many(3), (text, 1)])
    error = refused(errors.RowError, source, out)
    assert "empty or missing" in error.what
    assert "row 4" in error.where


@pytest.mark.parametrize("text", ["null", "NaN", '""', '" "'])
def test_missing_text_in_jsonl(tmp_path: Path, out: Path, text: str) -> None:
    source = raw(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": ' + text + ', "label": 0}\n')
    assert "row 2" in refused(errors.RowError, source, out).where


def test_missing_key_in_jsonl(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"label": 0}\n')
    assert "empty or missing" in refused(errors.RowError, source, out).what


def test_text_that_is_a_number(tmp_path: Path, out: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": 7, "label": 1}])
    assert "of type int, not text" in refused(errors.RowError, source, out).what
    source = write_parquet(tmp_path / "a.parquet", text=[1, 2], label=[0, 1])
    refused(errors.RowError, source, out)


def test_null_text_in_parquet(tmp_path: Path, out: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", text=["a", None], label=[0, 1])
    assert "row 2, column 'text'" in refused(errors.RowError, source, out).where


def test_ragged_row(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.csv", "text,label\na,1\nb, with a comma,0\n")
    assert "row 2 (line 3)" in refused(errors.RowError, source, out).where


def test_bad_json_line(tmp_path: Path, out: Path) -> None:
    source = raw(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": \n')
    assert "row 2 (line 2)" in refused(errors.RowError, source, out).where


def test_skip_counts_bad_rows_by_kind(tmp_path: Path, out: Path) -> None:
    body = b"".join(b"comment %d,%d\n" % (i, i % 2) for i in range(40))
    bad = b"caf\xe9,1\nnul\0,0\n,1\nodd,7\nnone,\none,two,three\n" + b"x" * 1_000_001 + b",1\n"
    source = raw(tmp_path / "a.csv", b"text,label\n" + body + bad + body.replace(b"comment", b"other"))
    manifest = prepare(settings(on_error="skip"), out, sources=[str(source)])
    assert manifest["rows_read"] == 87
    assert manifest["rows_kept"] == 80
    assert manifest["dropped"]["bad"] == {
        "bad_label": 1,
        "encoding": 2,
        "missing_text": 1,
        "oversized": 1,
        "ragged": 1,
        "unlabelled": 1,
    }
    assert len(manifest["bad_row_examples"]) == 5
    assert "row 41 (line 42)" in manifest["bad_row_examples"][0]


def test_skip_with_nothing_left(tmp_path: Path, out: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("a", 7), ("b", 8)])
    assert "2 bad_label" in refused(errors.EmptyDataError, source, out, on_error="skip").what


def test_output_that_is_not_ours(tmp_path: Path, out: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many())
    out.mkdir()
    (out / "thesis.txt").write_text("precious", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(errors.OutputError):
            prepare(settings(), out, sources=[str(source)], overwrite=overwrite)
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_output_that_is_a_file(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", many())
    for out in (source, source / "below"):
        with pytest.raises(errors.OutputError):
            prepare(settings(), out, sources=[str(source)])
