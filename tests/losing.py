"""Stops ``gkiller predict`` at random moments, goes on, and compares with a job that nobody stopped."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toy import comment

INPUTS = ("txt", "csv", "tsv", "jsonl", "parquet", "txt.gz", "csv.gz", "tsv.gz", "jsonl.gz", "parquet.gz")
OUTPUTS = ("jsonl", "csv", "parquet", "jsonl.gz", "csv.gz", ">>")
WAYS = ("file", "stdin", "cat", "pipe", "fifo", "/dev/stdin", "/dev/fd")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_SECONDS = 120
_STARTING = (b"init_import_site", b"Could not import runpy")  # an interrupt before Python itself was ready


@dataclass(frozen=True)
class Case:
    """One job: what is read and how it comes in, what is written, and when it is stopped.

    Attributes:
        form: suffix of the input.
        way: how the input is handed over.
        output: suffix of the output, or ">>" for lines that are appended to a file.
        stops: signals, each with the share of an unbroken job's time after which it is sent.
    """

    form: str
    way: str
    output: str
    stops: tuple[tuple[signal.Signals, float], ...]


def draw(random_: random.Random) -> Case:
    """Draw a case."""
    form, output, way = random_.choice(INPUTS), random_.choice(OUTPUTS), random_.choice(WAYS)
    stops = tuple((random_.choice(SIGNALS), random_.random()) for _ in range(random_.randint(1, 3)))
    return Case(form, way, output, stops)


class Jobs:
    """Runs cases in a folder.

    Args:
        folder: empty.
        model: a model directory.
        rows: of each input.
        batch: rows of a chunk.
    """

    def __init__(self, folder: Path, model: Path, rows: int = 6000, batch: int = 200) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._rows = folder, rows
        self._command = [sys.executable, "-m", "gkiller", "predict", "--model", str(model), "--threads", "1"]
        self._command += ["--batch-size", str(batch)]
        self._whole: dict[tuple[str, str], tuple[bytes, float]] = {}

    def check(self, case: Case) -> int:
        """Stop a job as the case says, finish it, and return how many of the signals struck.

        Raises:
            AssertionError: rows or bytes differ from those of an unbroken job.
        """
        source = self._input(case.form)
        expected, seconds = self._unbroken(case, source)
        out = self._folder / f"stopped.{case.output.replace('>>', 'jsonl')}"
        struck = 0
        try:
            for number, share in case.stops:
                if out.exists() and case.output != ">>":
                    break  # the job came to its end before the signal
                struck += self._run(case, source, out, after=share * seconds, number=number) == -1
            if not (out.exists() and case.output != ">>"):
                assert self._run(case, source, out) == 0, case
            assert out.read_bytes() == expected, (case, _first_difference(out.read_bytes(), expected))
            left = [path.name for path in self._folder.glob("*stopped*") if path != out]
            assert not left, (case, left)
        finally:
            self._clear()
        return struck

    def _clear(self) -> None:
        """Remove what a case left."""
        for path in self._folder.glob("*stopped*"):
            path.unlink()

    def _unbroken(self, case: Case, source: Path) -> tuple[bytes, float]:
        """Return the output of a job that nobody stopped, and its seconds."""
        key = (case.form, case.output)
        if key not in self._whole:
            out = self._folder / f"whole.{case.output.replace('>>', 'jsonl')}"
            out.unlink(missing_ok=True)
            started = time.monotonic()
            assert self._run(Case(case.form, "file", case.output, ()), source, out) == 0, case
            data = out.read_bytes()
            assert row_numbers(out) == list(range(1, self._rows + 1)), case
            self._whole[key] = data, time.monotonic() - started
            out.unlink()
        return self._whole[key]

    def _run(
        self, case: Case, source: Path, out: Path, after: float | None = None, number: int = signal.SIGKILL
    ) -> int:
        """Run the job once; return 0 when it ended well, and -1 when the signal ended it."""
        with contextlib.ExitStack() as stack:
            arguments, stdin = self._way_in(case, source, stack)
            stdout = subprocess.DEVNULL
            if case.output == ">>":
                stdout = stack.enter_context(out.open("ab"))  # type: ignore[assignment]
            else:
                arguments += ["--output", str(out)]
            process = subprocess.Popen(
                [*self._command, *arguments, "--resume"],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                pass_fds=() if isinstance(stdin, int) and stdin < 0 else (stdin,),
            )
            try:
                said = process.communicate(timeout=_SECONDS if after is None else after)[1]
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                said = process.communicate(timeout=_SECONDS)[1]
        code = process.returncode
        if after is not None and code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143):
            return -1
        if after is not None and number == signal.SIGINT and any(mark in said for mark in _STARTING):
            return -1
        assert code == 0, (case, code, said[-2000:])
        return 0

    def _way_in(self, case: Case, source: Path, stack: contextlib.ExitStack) -> tuple[list[str], int]:
        """Return the flags that name the input, and what stdin is."""
        form = ["--input-format", case.form.removesuffix(".gz")]
        if case.way == "file":
            return ["--input", str(source)], subprocess.DEVNULL
        if case.way in ("stdin", "/dev/stdin"):
            stream = stack.enter_context(source.open("rb")).fileno()
            return form + (["--input", "/dev/stdin"] if case.way == "/dev/stdin" else []), stream
        if case.way == "fifo":
            fifo = self._folder / f"fifo.{case.form}"
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
            stack.callback(fifo.unlink)
            line = ["sh", "-c", 'exec cat "$0" > "$1"', str(source), str(fifo)]
            stack.enter_context(_feeding(line, subprocess.DEVNULL))
            return [*form, "--input", str(fifo)], subprocess.DEVNULL
        feeder = stack.enter_context(_feeding(["cat", str(source)], subprocess.PIPE))
        assert feeder.stdout is not None
        stream = feeder.stdout.fileno()
        if case.way == "/dev/fd":
            return [*form, "--input", f"/dev/fd/{stream}"], stream
        return form + (["--input", "/dev/stdin"] if case.way == "pipe" else []), stream

    def _input(self, form: str) -> Path:
        path = self._folder / f"input.{form}"
        if not path.exists():
            texts = [f"{comment(i, i % 4 == 0)} é" for i in range(self._rows)]
            data = _content(form.removesuffix(".gz"), texts)
            path.write_bytes(gzip.compress(data, mtime=0) if form.endswith(".gz") else data)
        return path


def _first_difference(found: bytes, expected: bytes) -> str:
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((i for i, (one, other) in pairs if one != other), min(len(found), len(expected)))
    near = slice(max(0, at - 60), at + 60)
    return f"{len(found)} bytes, not {len(expected)}; from {at}: {found[near]!r}, not {expected[near]!r}"


@contextlib.contextmanager
def _feeding(command: list[str], stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that feeds a pipe, and end it when nobody reads any more."""
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def _content(form: str, texts: list[str]) -> bytes:
    if form == "txt":
        return "".join(f"{text}\n" for text in texts).encode()
    if form == "jsonl":
        return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table({"text": texts}), sink)
        return sink.getvalue()
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
    writer.writerows([["text"], *([text] for text in texts)])
    return table.getvalue().encode()


def row_numbers(path: Path) -> list[int]:
    """Return the row numbers of an output."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        found: list[int] = pq.read_table(path).column("row").to_pylist()
        return found
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".csv" in path.suffixes:
        return [int(record["row"]) for record in csv.DictReader(io.StringIO(text, newline=""))]
    return [json.loads(line)["row"] for line in text.splitlines()]
