"""The one rule for a comment's value: what is written is text, whatever the format."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from data_helpers import all_rows, many, settings, write_csv, write_jsonl, write_parquet

from gkiller.data.prepare import prepare
from gkiller.data.rows import comment_fault

WORDS = ("nan", "NaN", "NA", "null", "None", "n/a")


def write(path: Path, rows: list[tuple[str, int]]) -> Path:
    if path.suffix == ".csv":
        return write_csv(path, rows)
    if path.suffix == ".tsv":
        return write_csv(path, rows, delimiter="\t")
    if path.suffix == ".jsonl":
        return write_jsonl(path, [{"text": text, "label": label} for text, label in rows])
    return write_parquet(path, text=[text for text, _ in rows], label=[label for _, label in rows])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("word", WORDS)
def test_words_that_other_tools_read_as_missing_are_comments(tmp_path: Path, suffix: str, word: str) -> None:
    source = write(tmp_path / f"a{suffix}", [*many(20), (word, 1)])
    manifest = prepare(settings(), tmp_path / "out", sources=[str(source)])
    assert manifest["dropped"]["bad"] == {}
    assert word in {row["text"] for row in all_rows(tmp_path / "out")}


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize("empty", [False, True])
def test_only_null_and_nan_are_missing(value: float | None, empty: bool) -> None:
    assert comment_fault(value, lambda: "here", empty=empty).kind == "missing_text"


def test_an_empty_comment_can_be_scored_but_not_learnt_from() -> None:
    for text in ("", "  ", "\u00a0\t"):
        assert comment_fault(text, lambda: "here", empty=True) is None
        assert comment_fault(text, lambda: "here").kind == "missing_text"


def test_other_faults_name_the_place() -> None:
    for value, kind in ((5, "not_text"), ("x" * 1_000_001, "oversized"), ("a\0b", "encoding")):
        fault = comment_fault(value, lambda: "row 3", empty=True)
        assert (fault.kind, fault.error.where) == (kind, "row 3")
    assert comment_fault("a\0b", lambda: "row 3", escaped=True) is None
