"""Input from pipes: the same rows whatever way they come in, each answered when it has come."""

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import plain_text, write_csv, write_jsonl, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gkiller.data.readers import pipes as sniff
from gkiller.data.readers import text as replay
from gkiller.data.readers import text as textfile
from gkiller.data.readers.text import Replayable
from gkiller.inference.bulk.formats import chunked
from gkiller.inference.bulk.reading import Row, Source, from_file, from_stream

FORMATS = ("txt", "csv", "tsv", "jsonl", "json", "pretty", "parquet")
rows_of = st.lists(plain_text.filter(lambda text: "\n" not in text and "\r" not in text), min_size=1, max_size=30)


def write(folder: Path, form: str, texts: list[str]) -> Path:
    path = folder / f"a.{ {'json': 'json', 'pretty': 'json'}.get(form, form) }"
    if form == "txt":
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8", newline="")
    elif form in ("csv", "tsv"):
        rows = [(i, text) for i, text in enumerate(texts)]
        write_csv(path, rows, header=("id", "text"), delimiter="," if form == "csv" else "\t")
    elif form == "parquet":
        write_parquet(path, id=list(range(len(texts))), text=texts)
    else:
        rows = [{"id": i, "text": text} for i, text in enumerate(texts)]  # type: ignore[misc]
        if form == "jsonl":
            return write_jsonl(path, rows)
        path.write_text(json.dumps(rows, indent=1 if form == "pretty" else None), encoding="utf-8")
    return path


def feed(handle: int, content: bytes, size: int) -> None:
    with open(handle, "wb", buffering=0) as stream:  # a descriptor, too
        for start in range(0, len(content), size):
            stream.write(content[start : start + size])


def found(source: Source) -> list[Any]:
    return [(row.number, row.text, row.id) for row in source.rows() if row is not None]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=rows_of,
    form=st.sampled_from(FORMATS),
    way=st.sampled_from(["pipe", "fifo", "/dev/fd"]),
    packed=st.booleans(),
    size=st.integers(1, 300),
)
def test_rows_are_the_same_whatever_way_they_come_in(
    tmp_path_factory: pytest.TempPathFactory, texts: Any, form: Any, way: Any, packed: Any, size: Any
) -> None:
    folder = tmp_path_factory.mktemp("ways")
    path = write(folder, form, texts)
    expected = found(from_file(path, "a"))
    assert [text for _, text, _ in expected] == texts
    content = gzip.compress(path.read_bytes()) if packed else path.read_bytes()
    given_form = {"json": "jsonl", "pretty": "jsonl"}.get(form, form)
    if way == "fifo":
        fifo = folder / "fifo"
        os.mkfifo(fifo)
        target = fifo
    else:
        reading, target = os.pipe()  # type: ignore[assignment]
    writer = threading.Thread(target=feed, args=(target, content, size), daemon=True)
    writer.start()
    if way == "fifo":
        source = from_file(fifo, "fifo", given_form)
    elif way == "pipe":
        source = from_stream(os.fdopen(reading, "rb"), given_form, owned=True)
    else:
        source = from_file(Path(f"/dev/fd/{reading}"), "fd", given_form)
    assert found(source) == expected
    writer.join(60)
    if way == "/dev/fd":
        os.close(reading)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b'[{"text": "a"}]', "jsonl"),
        (b'[\n {\n  "text": "a"\n', "jsonl"),
        (b'\n{\n "text": "a"}', "jsonl"),
        (b'{"text": "a",\n"b": 1}', "jsonl"),
        (b'["a", "b"]', "jsonl"),
        (b'[{"text": "' + b"a" * 100_000, "jsonl"),
        (b"comment_text,toxic\na,1\n", "csv"),
        (b"\xef\xbb\xbfid;text\n1;a\n", "csv"),
        (b'"id","Comment"\n', "csv"),
        (b"id\ttext\n", "tsv"),
        (b"comment_text\na\n", "csv"),
        (b"text\n", "txt"),
        (b"comment, please\n", "txt"),
        (b"well, this text, is nice\n", "txt"),
        (b"[removed]\n", "txt"),
        (b"[\nfoo\n", "txt"),
        (b"{\nfoo\n", "txt"),
        (b'["a"] is a list\n', "txt"),
        (b"{smile}\n", "txt"),
        (b"PAR1 of it\n", "txt"),
        (b"", "txt"),
    ],
)
def test_the_first_line_tells_the_format(content: bytes, form: str) -> None:
    assert sniff.sniff(Replayable(io.BytesIO(content)), "stdin") == form  # type: ignore[arg-type]
    assert sniff.sniff(Replayable(io.BytesIO(gzip.compress(content))), "stdin") == form  # type: ignore[arg-type]


@given(text=st.text(st.sampled_from('a"\r\n,é\x85\ufeff'), max_size=40), piece=st.integers(1, 9))
def test_lines_end_where_python_ends_them(tmp_path_factory: pytest.TempPathFactory, text: Any, piece: Any) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "_PIECE", piece)
        for newline in ("", "\n"):
            expected = list(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig", newline=newline))
            assert list(textfile.text_lines(path, "a", newline)) == expected


def test_chunks_end_early_only_for_live_rows() -> None:
    rows = [Row(1, "a", None), None, Row(2, "b", None), Row(3, "c", None), None, None]
    live = [(chunk.rows, chunk.due) for chunk in chunked(iter(rows), 2, "fail", live=True)]
    assert live == [([1], True), ([2, 3], False), ([], True), ([], True)]
    still = [(chunk.rows, chunk.due) for chunk in chunked(iter(rows), 2, "fail")]
    assert still == [([1, 2], False), ([3], False)]


HEADS = {
    "txt": ("", "you idiot\n"),
    "jsonl": ("", '{"text": "you idiot"}\n'),
    "csv": ("id,text\n", '7,"you\nidiot"\n'),
    "array": ("[\n", '{"text": "you idiot"},\n'),
    "pretty": ("", '{\n"text": "you idiot"\n}\n'),
}


@pytest.mark.parametrize("form", HEADS)
@pytest.mark.parametrize("extra", [(), ("--batch-size", "1"), ("--input", "-", "--threads", "2")])
def test_each_row_of_a_stream_is_answered_before_the_next_comes(
    onnx_model: Path, form: str, extra: tuple[Any, ...]
) -> None:
    command = [sys.executable, "-m", "gkiller", "predict", "--model", str(onnx_model), *extra]
    head, line = HEADS[form]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        watchdog = threading.Timer(60, job.kill)
        watchdog.start()
        job.stdin.write(head.encode())
        torn = line[:3].encode()
        job.stdin.write(line.encode() + torn)  # the next row has begun, and this one is answered all the same
        for row in range(1, 4):
            job.stdin.flush()
            assert json.loads(job.stdout.readline())["row"] == row
            job.stdin.write(line.encode()[3:] + torn)
        job.kill()
        watchdog.cancel()
        job.communicate()


def test_a_stream_without_a_descriptor_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Replayable(io.BytesIO(b"a")).blocked()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as target:
        pipe = Replayable(stream)
        assert pipe.blocked()
        target.write(b"a")
        assert not pipe.blocked()
        monkeypatch.setattr(replay.select, "select", refuse)
        assert not Replayable(stream).blocked()


def refuse(*_: Any) -> None:
    raise OSError("only sockets can be asked")


@pytest.mark.parametrize("insist", [("--text",), ("--",)])
def test_the_name_of_a_file_is_no_comment_unless_insisted_on(
    call: Callable[..., Any], onnx_model: Path, tmp_path: Path, insist: tuple[str]
) -> None:
    path = write_csv(tmp_path / "my comments.csv", [("a", 1)])
    code, out, err = call("predict", "--model", onnx_model, "thank you", path)
    assert (code, out) == (2, "")
    assert "--input" in err
    assert "--text" in err
    code, out, _ = call("predict", "--model", onnx_model, *insist, path)
    assert (code, len(out.splitlines())) == (0, 1)
    assert call("predict", "--model", onnx_model, tmp_path / "no such.csv")[0] == 0


@pytest.mark.parametrize("keep", [None, ["late"], ["a,late"]])
@pytest.mark.parametrize("layout", ["lines", "array"])
def test_a_pipe_keeps_the_columns_that_a_file_keeps(tmp_path: Path, keep: list[str] | None, layout: str) -> None:
    rows = [{"text": "x", "a": 1}, {"text": "y", "late": 2}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    if layout == "array":
        path.write_text(json.dumps(rows))
    of_file = from_file(path, "a", keep=keep)
    expected = [row.kept for row in of_file.rows()]
    reading, target = os.pipe()
    feed(target, path.read_bytes(), 1000)
    of_pipe = from_stream(os.fdopen(reading, "rb"), keep=keep, owned=True)
    assert of_pipe.kept == of_file.kept
    assert [row.kept for row in of_pipe.rows() if row is not None] == expected


def test_kept_columns_do_not_make_a_row_wait_for_the_next() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as target:
        target.write(b'{"text": "x", "a": 1}\n')
        source = from_stream(os.fdopen(reading, "rb"), keep=None, owned=True)
        assert next(source.rows()).kept == (1,)
