"""Nothing is lost: whose files an output may replace, and what a resumed job believes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from full_disk import FileLimit
from inference_helpers import TEXTS, KilledError, breaking, job, to_file
from toy import write_toy_csv

from gkiller.data.prepare import prepare
from gkiller.errors import OutputError, ResumeError
from gkiller.inference import load
from gkiller.inference.bulk import sinks
from gkiller.inference.bulk.job import make_writer, run
from gkiller.inference.bulk.reading import Source
from gkiller.inference.bulk.sinks import StreamSink
from gkiller.inference.classifier import Classifier
from gkiller.settings import DataSettings
from gkiller.storage.files import write_text

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, descriptors and limits of POSIX")
LINE = b'{"row": %d, "flagged": false, "flags": [], "scores": {"toxicity": 0.1, "insult": 0.2}}\n'


@pytest.fixture(scope="module")
def clf(onnx_model: Path) -> Classifier:
    return load(onnx_model, threads=1)


@pytest.fixture
def shell(onnx_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run a shell command in an empty folder; PREDICT stands for the command with a tiny model."""

    def run_it(line: Any) -> Any:
        program = f"'{sys.executable}' -m gkiller"
        predict = f"{program} predict --model '{onnx_model}' --threads 1"
        return subprocess.run(
            ["bash", "-c", line.replace("PREDICT", predict).replace("GKILLER", program)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run_it


FOREIGN = [
    b'{"row":1,"all":[1,2,3]}',  # no final newline
    b'{"row": 1, "name": "x"}',
    b'{"row": 1}',
    b'{"row": 1, "text": "hi"}',
    b"hello",
    b"\n",
    b"mine\n" + LINE % 1,
    b"\xef\xbb\xbf" + LINE % 1,
    (LINE % 1).replace(b"\n", b"\r\n"),
    LINE % 1 + b"mine",
    LINE % 1 + b"mine\n" + LINE % 2,
    LINE % 1 + b'{"id": 3, "na',
    LINE % 2 + LINE % 1,
    LINE % 1 + LINE % 1,
    LINE % 5 + b'{"row": 3, "flagged": t',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_appending_never_cuts_off_what_is_not_ours(clf: Classifier, tmp_path: Path, content: bytes) -> None:
    work, path = job(clf), tmp_path / "out"
    writer = make_writer("jsonl", work.shape)
    path.write_bytes(content)
    with path.open("ab") as stream, pytest.raises(ResumeError, match="was not written by"):
        run(work, breaking(TEXTS, 0), StreamSink(stream, writer, clf.labels, True), writer)
    assert path.read_bytes() == content


@pytest.mark.parametrize("text", [False, True])
def test_appending_goes_on_after_a_line_torn_anywhere(clf: Classifier, tmp_path: Path, text: bool) -> None:
    work, path = job(clf, text=text, chunk_rows=12), tmp_path / "out"
    writer = make_writer("jsonl", work.shape)

    def append(resume: Any) -> None:
        with path.open("ab") as stream:
            run(work, breaking(TEXTS, 0), StreamSink(stream, writer, clf.labels, resume), writer)

    append(resume=False)
    whole = path.read_bytes()
    start = whole.index(b'{"row": 12')
    for end in (0, 1, *range(start, whole.index(b"\n", start) + 2, 3), whole.index(b"\n", start)):
        path.write_bytes(whole[:end])
        append(resume=True)
        assert path.read_bytes() == whole, end


@pytest.mark.parametrize("name", ["x.csv", "hard.csv", "soft.csv"])
def test_an_output_never_replaces_the_input(shell: Callable[..., Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_text("text,label\nhello,1\n")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "x.csv")
    (tmp_path / "soft.csv").symlink_to("x.csv")
    for line in (
        f"PREDICT --input x.csv --output {name}",
        f"PREDICT --input hard.csv --output {name} --force",
        f"PREDICT --input-format csv --output {name} --force < x.csv",
    ):
        done = shell(line)
        assert (done.returncode, done.stdout) == (19, "")
        assert "--force" not in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "x.csv").read_text() == "text,label\nhello,1\n"
    assert (tmp_path / "soft.csv").is_symlink()


def test_neither_the_names_while_it_runs_nor_appending_nor_the_model(
    shell: Callable[..., Any], tmp_path: Path, onnx_model: Path
) -> None:
    for name in ("y.csv.partial", "y.csv.progress.json", "x.jsonl"):
        (tmp_path / name).write_text('{"text": "hello"}\n')
    graph = onnx_model / "onnx" / "model.int8.onnx"
    before = graph.read_bytes()
    for line in (
        "PREDICT --input y.csv.partial --input-format jsonl --output y.csv --force",
        "PREDICT --input y.csv.progress.json --input-format jsonl --output y.csv --force",
        "PREDICT < x.jsonl >> x.jsonl",
        "PREDICT --input x.jsonl >> x.jsonl",
        f"PREDICT hello --output '{graph}' --format csv --force",
    ):
        assert shell(line).returncode == 19, line
    assert {p.read_text() for p in tmp_path.iterdir()} == {'{"text": "hello"}\n'}
    assert graph.read_bytes() == before


def test_a_link_as_output_stays(clf: Classifier, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text("mine")
    for name, target in (("a.jsonl", "there.jsonl"), ("b.jsonl", "nothing.jsonl")):
        (tmp_path / name).symlink_to(target)
        to_file(clf, tmp_path / name, breaking(TEXTS, 0), force=True)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes().count(b"\n") == 23
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(OutputError, match="not a file"):
        to_file(clf, tmp_path / "loop.jsonl", breaking(TEXTS, 0), force=True)
    (tmp_path / "c.txt").symlink_to("there.jsonl")
    write_text(tmp_path / "c.txt", "new")
    assert (tmp_path / "there.jsonl").read_text() == "new"
    assert (tmp_path / "c.txt").is_symlink()
    with pytest.raises(OutputError, match="not a file"):
        write_text(tmp_path, "new")


@pytest.mark.parametrize("name", ["out.jsonl.partial", "out.jsonl.progress.json", ".out.jsonl.new"])
@pytest.mark.parametrize("content", ["mine", "{}", '{"bytes": 1, "mark": {}}'])
def test_a_file_with_the_name_of_ours_stays(clf: Classifier, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for flags in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(OutputError, match="did not write") as caught:
            to_file(clf, tmp_path / "out.jsonl", breaking(TEXTS, 0), **flags)
        assert "--force" not in str(caught.value)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, content)]


def test_a_link_with_the_name_of_ours_is_not_followed(clf: Classifier, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    (tmp_path / "out.jsonl.partial").symlink_to("mine")
    with pytest.raises(OutputError, match="did not write"):
        to_file(clf, tmp_path / "out.jsonl", breaking(TEXTS, 0), force=True)
    assert (tmp_path / "mine").read_text() == ""


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "csv.gz"])
def test_a_changed_journal_or_partial_file_is_found(clf: Classifier, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"out.{form}"
    journal, partial = tmp_path / f"out.{form}.progress.json", tmp_path / f"out.{form}.partial"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 10))
    sound, written = journal.read_text(), partial.read_bytes()
    known = json.loads(sound)
    changes = [
        {"bytes": known["bytes"] - 37},
        {"mark": {**known["mark"], "rows": known["mark"]["rows"] - 4}},
        {"mark": {**known["mark"], "flagged": 99}},
        {"sha256": "0" * 64},
        {"version": 1},
    ]
    for change in changes:
        edited(journal, **change)
        with pytest.raises(ResumeError, match="cannot be used") as caught:
            to_file(clf, path, breaking(TEXTS, 0), resume=True)
        assert caught.value.remedy == "start anew: --force"
    journal.write_text(sound)
    partial.write_bytes(written[:5] + b"#" + written[6:])
    with pytest.raises(ResumeError, match="was changed"):
        to_file(clf, path, breaking(TEXTS, 0), resume=True)
    partial.write_bytes(written)
    assert to_file(clf, path, breaking(TEXTS, 0), resume=True).resumed_at == known["mark"]["rows"] > 0
    to_file(clf, tmp_path / f"whole.{form}", breaking(TEXTS, 0))
    assert path.read_bytes() == (tmp_path / f"whole.{form}").read_bytes()


def test_what_a_full_disk_leaves_is_what_is_said(
    clf: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_JOURNAL_SECONDS", float("inf"))
    work, path = job(clf), tmp_path / "out.jsonl"
    writer = make_writer("jsonl", work.shape)
    sink = sinks.FileSink(path, writer, work.settings("jsonl", packed=False))

    def full(place: Any, text: Any) -> None:
        raise OutputError("full", where=str(place))

    mark = sink.begin()
    monkeypatch.setattr(sink, "begin", lambda: mark)
    with monkeypatch.context() as patch, FileLimit(2000):
        patch.setattr(sinks, "write_text", full)  # not even the journal can be written any more
        with pytest.raises(OutputError, match="File too large"):
            run(work, breaking(TEXTS, 0), sink, writer)
    outcome = to_file(clf, path, breaking(TEXTS, 0), resume=True)
    assert outcome.resumed_at == sink.rows_kept == 0


def test_prepared_data_never_replace_their_source(tmp_path: Path) -> None:
    settings, out = DataSettings(), tmp_path / "prepared"
    csv = write_toy_csv(tmp_path / "toy.csv")
    prepare(settings, out, sources=[str(csv)])
    inside = write_toy_csv(out / "more.csv")
    (tmp_path / "link").symlink_to(out)
    before = sorted(p.name for p in out.iterdir())
    for sources, valid in (([out], []), ([inside], []), ([csv], [inside]), ([tmp_path / "link"], [])):
        for place in (out, tmp_path / "link"):
            with pytest.raises(OutputError, match="would replace what is read"):
                prepare(settings, place, sources=[*map(str, sources)], valid=[*map(str, valid)], overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == before


def test_a_dash_is_standard_output_or_refused(shell: Callable[..., Any], tmp_path: Path) -> None:
    plain = shell("PREDICT hello there")
    assert plain.returncode == 0
    assert shell("PREDICT hello there --output -").stdout == plain.stdout
    assert shell("PREDICT hello there --output /dev/stdout | cat").stdout == plain.stdout
    (tmp_path / "a.csv").write_text("text,toxicity\nhello,0\nidiot,1\n")
    assert shell("PREDICT --input a.csv -o - -f csv").stdout.startswith("row,flagged")
    assert shell("PREDICT --input a.csv --output - --format parquet").returncode == 2
    for line in ("data prepare a.csv --out -", "evaluate default --data a.csv --out -", "train --out -"):
        done = shell(f"GKILLER {line}")
        assert (done.returncode, "standard output" in done.stderr) == (2, True), line
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("arguments", ["predict hello", "", "data prepare --help", "config keys --json"])
def test_a_closed_standard_output_is_quiet(shell: Callable[..., Any], arguments: str) -> None:
    left = f"(sleep 0.2; GKILLER {arguments}) | exec true; exit ${{PIPESTATUS[0]}}"  # nobody reads any more
    for line in (f"GKILLER {arguments} >&-", left):
        done = shell(line)
        assert (done.returncode, done.stdout, done.stderr) == (141, "", ""), line


def test_an_error_that_nobody_reads_and_other_closed_streams(shell: Callable[..., Any], tmp_path: Path) -> None:
    done = shell("PREDICT --nope 2>&1 | exec true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, "")
    done = shell("PREDICT <&-")
    assert (done.returncode, "nothing to score" in done.stderr) == (2, True)
    done = shell("PREDICT hello 2>&-")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    done = shell("PREDICT hello there --output out.jsonl <&- >&- 2>&-")
    assert (done.returncode, (tmp_path / "out.jsonl").read_text().count("\n")) == (0, 2)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_file_that_has_come_to_the_name_meanwhile_stays(clf: Classifier, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"out.{form}"
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 10))
    path.write_text("mine")
    with pytest.raises(OutputError, match="was not there when the job began"):
        to_file(clf, path, breaking(TEXTS, 0), resume=True)
    assert path.read_text() == "mine"
    path.unlink()

    def rows() -> Iterator[Any]:
        yield from breaking(TEXTS, 0).rows()
        path.write_text("mine")

    with pytest.raises(OutputError, match="was not there when the job began"):
        to_file(clf, path, Source("test", False, rows), resume=True)
    assert path.read_text() == "mine"
    path.unlink()
    assert to_file(clf, path, breaking(TEXTS, 0), resume=True).mark.rows == 23
    with pytest.raises(KilledError):
        to_file(clf, path, breaking(TEXTS, 10), force=True)
    assert to_file(clf, path, breaking(TEXTS, 0), resume=True).mark.rows == 23  # it began with force
