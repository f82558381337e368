"""Labelled data from pipes, and Parquet that is larger than it looks."""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import write_csv, write_jsonl, write_parquet

from gkiller.data.load import load_labelled
from gkiller.data.prepare import prepare
from gkiller.data.readers import text as spool
from gkiller.data.readers.parquet import ParquetReader
from gkiller.errors import ColumnError, EmptyDataError, FormatError
from gkiller.inference.bulk.reading import from_file
from gkiller.settings import DataSettings

ROWS = [(f"comment number {i} of the page", i % 2) for i in range(60)]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any] | bool:
    def pipe(content: Any) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return pipe


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_labelled_data_are_read_from_a_pipe_once(tmp_path: Path, piped: Callable[..., Any], form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form in ("csv", "tsv"):
        write_csv(path, ROWS, delimiter="," if form == "csv" else "\t")
    elif form == "parquet":
        write_parquet(path, text=[text for text, _ in ROWS], label=[label for _, label in ROWS])
    else:
        rows = [{"text": text, "label": label} for text, label in ROWS]
        write_jsonl(path, rows) if form == "jsonl" else path.write_text(json.dumps(rows, indent=1))
    expected = load_labelled(DataSettings(source=str(path)), None).rows
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        piped(content)
        assert load_labelled(DataSettings(source="-"), None).rows.texts == expected.texts
        piped(content)
        assert len(load_labelled(DataSettings(source="-"), "train").rows.texts) < len(ROWS)
    piped(path.read_bytes())
    manifest = prepare(DataSettings(), tmp_path / "out", sources=["-"])
    assert manifest["sources"][0]["rows"] == len(ROWS)


def test_pipes_that_are_empty_or_too_long_are_refused(
    tmp_path: Path, piped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(b"")
    with pytest.raises(EmptyDataError):
        load_labelled(DataSettings(source="-"), None)
    monkeypatch.setattr(spool, "MOST_BYTES", 100)
    piped(b"text,label\n" + b"a,1\n" * 100)
    with pytest.raises(FormatError, match="over 100 bytes"):
        load_labelled(DataSettings(source="-"), None)
    path = write_parquet(tmp_path / "a.parquet", text=["a"] * 100)
    packed = tmp_path / "b.parquet.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FormatError, match="over 100 bytes"):
        ParquetReader(packed, "b").columns()


_MEASURE = r"""
import re, sys
from gkiller.data.readers.parquet import ParquetReader
rows = sum(len(batch) for batch in ParquetReader(sys.argv[1], "a").batches(["text"]))
# The resource module also counts the process that this one was forked from.
print(rows, int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory in /proc")
@pytest.mark.parametrize("rows", [1500, 4000])
def test_parquet_is_bounded_by_its_decoded_size(tmp_path: Path, rows: int) -> None:
    texts = pa.array(["x" * 1_000_000]).take(pa.array([0])).dictionary_encode()
    codes = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), texts.dictionary)
    pq.write_table(pa.table({"text": codes}), tmp_path / "a.parquet")
    script = _MEASURE.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    command = [sys.executable, "-c", script, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    count, megabytes = map(int, done.stdout.split())
    assert count == rows
    assert megabytes < 700


def test_parquet_that_is_packed_beyond_what_text_can_be_is_refused(tmp_path: Path) -> None:
    texts = pa.array(["x" * 1_000_000] * 300)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, compression="zstd")
    with pytest.raises(FormatError, match="unpack to"):
        ParquetReader(path, "a").columns()


def test_a_list_of_texts_in_parquet_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[["a", "b"]], label=[1])
    for read in (lambda: from_file(path, "a"), lambda: load_labelled(DataSettings(source=str(path)), None)):
        with pytest.raises(ColumnError, match="list<"):
            read()
