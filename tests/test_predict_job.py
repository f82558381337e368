"""Bulk jobs: what is written, and that a stopped job ends with the bytes of an unbroken one."""

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from full_disk import FileLimit
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_helpers import TEXTS, KilledError, breaking, job, to_file

from gkiller.errors import OutputError, ResumeError, RowError, RunLockedError, SettingsError
from gkiller.inference import load
from gkiller.inference.bulk import sinks
from gkiller.inference.bulk.formats import Shape
from gkiller.inference.bulk.job import Outcome, make_writer, run
from gkiller.inference.bulk.reading import Row, Source, from_texts
from gkiller.inference.bulk.sinks import StreamSink, whole_lines_backwards
from gkiller.inference.classifier import Classifier

FORMATS = ["jsonl", "csv", "parquet", "jsonl.gz", "csv.gz"]


@pytest.fixture(scope="module")
def clf(onnx_model: Path) -> Classifier:
    return load(onnx_model, threads=1)


def lines_of(clf: Classifier, texts: list[str], **changes: Any) -> tuple[list[dict[str, Any]], Outcome]:
    work = job(clf, **changes)
    writer = make_writer("jsonl", work.shape, explain=work.explain)
    out = io.BytesIO()
    outcome = run(work, from_texts(texts), StreamSink(out, writer, clf.labels), writer)
    return [json.loads(line) for line in out.getvalue().splitlines()], outcome


def test_json_lines_say_what_predict_says(clf: Classifier) -> None:
    found, outcome = lines_of(clf, TEXTS, text=True, chunk_rows=2048)
    for row, (line, text, expected) in enumerate(zip(found, TEXTS, clf.predict(TEXTS), strict=True), start=1):
        assert list(line) == ["row", "text", "flagged", "flags", "scores"]
        assert (line["row"], line["text"]) == (row, text)
        assert line["scores"] == {label: round(score, 6) for label, score in expected.scores.items()}
        assert line["flags"] == [label for label, flagged in expected.flags.items() if flagged]
        assert line["flagged"] == expected.flagged
    mark = outcome.mark
    assert (mark.rows, mark.scored, mark.skipped) == (23, 23, 0)
    assert mark.flagged == sum(line["flagged"] for line in found)
    assert 6 <= mark.flagged < 23


def test_long_texts_odd_texts_and_explanations_in_json(clf: Classifier) -> None:
    found, outcome = lines_of(clf, ["page " * 40, "a\0\ud800\u2028"], text=True, explain=True)
    assert found[0]["windows"] > 1
    assert "truncated" not in found[0]
    assert found[1]["text"] == "a\0\ufffd\u2028"
    assert found[1]["explanation"][0]["text"] == "a"
    assert list(found[1]["explanation"][0]) == ["text", "start", "end", "contributions"]
    assert outcome.mark.windowed == 1
    cut, outcome = lines_of(clf, ["page " * 40], long_text="truncate")
    assert cut[0]["truncated"] is True
    assert outcome.mark.truncated == 1


def test_only_flagged(clf: Classifier) -> None:
    every, _ = lines_of(clf, TEXTS)
    flagged, outcome = lines_of(clf, TEXTS, only_flagged=True)
    assert flagged == [line for line in every if line["flagged"]]
    assert outcome.mark.scored == 23


def test_every_format_says_the_same(clf: Classifier, tmp_path: Path) -> None:
    source = breaking(TEXTS, 0, ids=True)
    for form in FORMATS:
        to_file(clf, tmp_path / f"out.{form}", source, text=True)
    expected = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == (tmp_path / "out.csv").read_bytes()
    with (tmp_path / "out.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    table = pq.read_table(tmp_path / "out.parquet")
    assert (
        table.column_names
        == list(records[0])
        == [*("row", "id", "text", "flagged", "flags", "windows", "truncated", "toxicity", "insult")]
    )
    for line, record, row in zip(expected, records, table.to_pylist(), strict=True):
        assert {"row": row["row"], "id": row["id"], "text": row["text"]}.items() <= line.items()
        assert row["flags"] == line["flags"]
        assert {label: row[label] for label in clf.labels} == line["scores"]
        assert {label: float(record[label]) for label in clf.labels} == line["scores"]
        assert record["flags"] == "|".join(line["flags"])
        assert record["flagged"] == str(line["flagged"]).lower()


def test_labels_named_like_columns_get_a_prefix(clf: Classifier) -> None:
    shape = Shape(("text", "row", "100%"), {})
    assert make_writer("csv", shape).header().decode().endswith("truncated,score_text,score_row,100%\n")
    make_writer("jsonl", shape)


def test_what_formats_cannot_hold(clf: Classifier) -> None:
    shape = Shape(clf.labels, clf.limits())
    with pytest.raises(SettingsError, match="cannot hold explanations"):
        make_writer("csv", shape, explain=True)
    with pytest.raises(SettingsError, match="packed by itself"):
        make_writer("parquet", shape, packed=True)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("row", [1, 2, 4, 5, 9, 20, 23])
def test_a_stopped_job_ends_with_the_bytes_of_an_unbroken_one(
    clf: Classifier, tmp_path: Path, form: str, row: int
) -> None:
    whole, stopped = tmp_path / f"whole.{form}", tmp_path / f"stopped.{form}"
    to_file(clf, whole, breaking(TEXTS, 0, ids=True))
    with pytest.raises(KilledError):
        to_file(clf, stopped, breaking(TEXTS, row, ids=True))
    assert not stopped.exists()
    with (tmp_path / f"stopped.{form}.partial").open("ab") as stream:
        stream.write(b'{"row": 99, torn')  # what was written after the journal
    outcome = to_file(clf, stopped, breaking(TEXTS, 0, ids=True), resume=True)
    assert stopped.read_bytes() == whole.read_bytes()
    assert outcome.resumed_at % 4 == 0
    assert outcome.mark.scored == 23
    assert sorted(path.name for path in tmp_path.iterdir()) == [stopped.name, whole.name]


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 9), st.booleans(), st.integers(0, 400))
@settings(max_examples=40)
def test_a_stream_goes_on_wherever_it_was_torn(
    onnx_model: Any, tmp_path_factory: pytest.TempPathFactory, first: Any, second: Any, chunk: Any, only: Any, torn: Any
) -> None:
    clf = loaded(onnx_model)
    folder = tmp_path_factory.mktemp("torn")
    changes = {"chunk_rows": chunk, "only_flagged": only}

    def append(path: Any, source: Any, resume: Any = True) -> None:
        work = job(clf, **changes)
        writer = make_writer("jsonl", work.shape)
        with path.open("ab") as stream:
            run(work, source, StreamSink(stream, writer, clf.labels, resume), writer)

    append(folder / "whole", breaking(TEXTS, 0), resume=False)
    whole = (folder / "whole").read_bytes()
    for row in (first, second):
        if row <= len(TEXTS):
            with pytest.raises(KilledError):
                append(folder / "torn", breaking(TEXTS, row))
    with (folder / "torn").open("ab+") as stream:
        stream.truncate(max(0, stream.seek(0, os.SEEK_END) - torn))
    append(folder / "torn", breaking(TEXTS, 0))
    assert (folder / "torn").read_bytes() == whole
    append(folder / "torn", breaking(TEXTS, 0))  # once more changes nothing
    assert (folder / "torn").read_bytes() == whole


LOADED: dict[Any, Any] = {}


def loaded(path: Path) -> Classifier:
    return LOADED.setdefault(path, load(path, threads=1))


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")), max_size=9), st.integers(1, 12))
def test_lines_backwards(lines: Any, block: Any) -> None:
    data = b"\n".join(lines)
    expected, start = [], 0
    for line in lines[:-1]:
        expected.append((start, line + b"\n"))
        start += len(line) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkiller.inference.bulk.sinks._LINE_BLOCK", block)
        assert list(whole_lines_backwards(io.BytesIO(data))) == expected[::-1]


def test_resume_refuses_another_input_model_or_flag(clf: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 10))
    with pytest.raises(ResumeError, match="not what the unfinished job read"):
        to_file(clf, path, breaking(["other", *TEXTS[1:]], 0), resume=True)
    with pytest.raises(ResumeError, match="not what the unfinished job read"):
        to_file(clf, path, breaking(TEXTS[:3], 0), resume=True)
    with pytest.raises(ResumeError, match="other settings: chunk_rows, only_flagged"):
        to_file(clf, path, breaking(TEXTS, 0), resume=True, only_flagged=True, chunk_rows=5)
    with pytest.raises(ResumeError, match="an unfinished job is there"):
        to_file(clf, path, breaking(TEXTS, 0))
    to_file(clf, path, breaking(TEXTS, 0), resume=True)
    assert path.read_bytes().count(b"\n") == 23


def test_a_job_that_a_bad_row_ended_goes_on_without_it(clf: Classifier, tmp_path: Path) -> None:
    def rows() -> Iterator[Any]:
        for number, text in enumerate(TEXTS, start=1):
            yield Row(number, text, None, RowError("broken") if number == 10 else None)

    path, source = tmp_path / "out.jsonl", Source("test", False, rows)
    to_file(clf, tmp_path / "whole.jsonl", source, on_error="skip")
    with pytest.raises(RowError):
        to_file(clf, path, source)
    outcome = to_file(clf, path, source, resume=True, on_error="skip")
    assert (outcome.resumed_at, outcome.mark.skipped) == (8, 1)  # both whole chunks before it
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
@pytest.mark.parametrize("form", FORMATS)
def test_a_job_that_a_full_disk_ended_goes_on(clf: Classifier, tmp_path: Path, form: str) -> None:
    texts, whole, stopped = TEXTS * 40, tmp_path / f"whole.{form}", tmp_path / f"stopped.{form}"
    to_file(clf, whole, breaking(texts, 0))
    # Other chunks were written since the journal was, and the one that fails is torn.
    with FileLimit(8000), pytest.raises(OutputError, match="File too large"):
        to_file(clf, stopped, breaking(texts, 0))
    assert (tmp_path / f"stopped.{form}.partial").stat().st_size == 8000
    outcome = to_file(clf, stopped, breaking(texts, 0), resume=True)
    assert outcome.resumed_at > 0
    assert stopped.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [stopped.name, whole.name]


def test_a_broken_journal_or_a_short_file(clf: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 10))
    journal = tmp_path / "out.jsonl.progress.json"
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(b"")
    with pytest.raises(ResumeError, match="fewer than"):
        to_file(clf, path, breaking(TEXTS, 0), resume=True)
    sound = json.loads(journal.read_text())
    broken = [{**sound, "version": 9}, {**sound, "bytes": -1}, {**sound, "settings": [1]}]
    broken.append({**sound, "mark": {**sound["mark"], "rows": "4"}})
    for content in map(json.dumps, broken):
        journal.write_text(content)
        with pytest.raises(ResumeError, match="cannot be used"):
            to_file(clf, path, breaking(TEXTS, 0), resume=True)
    to_file(clf, path, breaking(TEXTS, 0), force=True)
    assert path.read_bytes().count(b"\n") == 23


def test_a_file_that_is_there_stays(clf: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="there already"):
            to_file(clf, path, breaking(TEXTS, 0), resume=resume)
    assert path.read_text() == "mine"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 9), force=True)
    assert path.read_text() == "mine"  # until the new one is whole
    to_file(clf, path, breaking(TEXTS, 0), resume=True)
    assert path.read_bytes().count(b"\n") == 23


def test_a_kill_between_the_last_steps(clf: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 23))
    (tmp_path / "out.jsonl.partial").replace(path)
    with pytest.raises(OutputError, match="the job is finished"):
        to_file(clf, path, breaking(TEXTS, 0), resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_two_processes_at_one_file(clf: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with (tmp_path / "out.jsonl.partial").open("ab") as stream:
        sinks._lock(stream, tmp_path / "out.jsonl.partial")
        with pytest.raises(RunLockedError, match="another process"):
            to_file(clf, path, breaking(TEXTS, 0))


def test_places_that_cannot_be_written(clf: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        to_file(clf, tmp_path / "file" / "out.jsonl", breaking(TEXTS, 0))
    for length in (300, 250):  # too long itself, and with .partial
        with pytest.raises(OutputError, match="too long"):
            to_file(clf, tmp_path / f"{'a' * (length - 6)}.jsonl", breaking(TEXTS, 0))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OutputError, match="not a file"):
        to_file(clf, tmp_path / "folder.jsonl", breaking(TEXTS, 0))


@pytest.mark.skipif(os.name == "nt", reason="no named pipes there")
def test_what_is_no_file_is_not_replaced(clf: Classifier, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(OutputError, match="not a file"):
        to_file(clf, tmp_path / "pipe.jsonl", breaking(TEXTS, 0), force=True)
    assert (tmp_path / "pipe.jsonl").is_fifo()


def test_resume_refuses_what_is_no_output_of_ours(clf: Classifier, tmp_path: Path) -> None:
    work = job(clf)
    writer = make_writer("jsonl", work.shape)
    for content in (b"hello\n", b'{"row": 3}\n', b'{"row": 3, "scores": {"other": 1}}\n', b"[]\n"):
        path = tmp_path / "out"
        path.write_bytes(content)
        with path.open("ab") as stream, pytest.raises(ResumeError, match="was not written by"):
            run(work, breaking(TEXTS, 0), StreamSink(stream, writer, clf.labels, True), writer)
        assert path.read_bytes() == content
    path.write_bytes(b'{"row": 30, "scores": {"toxicity": 1, "insult": 0}}\n')
    with path.open("ab") as stream, pytest.raises(ResumeError, match="up to row 30, the input has 23"):
        run(work, breaking(TEXTS, 0), StreamSink(stream, writer, clf.labels, True), writer)


def test_bad_rows_are_skipped_and_counted_or_end_the_job(clf: Classifier, tmp_path: Path) -> None:
    def rows() -> Iterator[Any]:
        for number, text in enumerate(TEXTS, start=1):
            bad = number in (3, 4, 9)
            yield Row(number, text, None, RowError("broken", where=f"row {number}") if bad else None)

    source = Source("test", False, rows)
    outcome = to_file(clf, tmp_path / "a.jsonl", source, on_error="skip")
    assert (outcome.mark.rows, outcome.mark.scored, outcome.mark.skipped) == (23, 20, 3)
    assert outcome.examples == ("row 3: broken", "row 4: broken", "row 9: broken")
    numbers = [json.loads(line)["row"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert numbers == [n for n in range(1, 24) if n not in (3, 4, 9)]
    with pytest.raises(RowError):
        to_file(clf, tmp_path / "b.jsonl", source)
    assert not (tmp_path / "b.jsonl").exists()


def test_progress_is_told_after_every_chunk(clf: Classifier) -> None:
    work = job(clf)
    writer = make_writer("jsonl", work.shape)
    seen = []
    sink = StreamSink(io.BytesIO(), writer, clf.labels)
    run(work, from_texts(TEXTS), sink, writer, lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert seen == [(n, 23) for n in (4, 8, 12, 16, 20, 23)]


def test_parquet_has_large_row_groups_whatever_the_chunks(
    clf: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gkiller.inference.bulk.formats.Parquet._GROUP", 10)
    to_file(clf, tmp_path / "a.parquet", breaking(TEXTS, 0))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 3]
    assert file.read().column("row").to_pylist() == list(range(1, 24))
    to_file(clf, tmp_path / "b.parquet", breaking([], 0))
    assert pq.read_table(tmp_path / "b.parquet").num_rows == 0
