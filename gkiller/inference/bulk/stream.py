"""Standard output as a sink, and how far an earlier job's lines in it go."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gkiller.errors import ResumeError
from gkiller.files import refuse_inputs
from gkiller.inference.bulk.formats import Writer
from gkiller.inference.bulk.sinks import Mark

_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 28  # far more than a comment of the most characters that are read
_HEAD, _NEXT = b'{"row": ', (b', "id": ', b', "text": ', b', "flagged": ')


@dataclass
class StreamSink:
    """Standard output, or any stream.

    Where an earlier job's JSON Lines are to be gone on with, the stream must be a file that was opened for
    appending, as the shell's ``>>`` does. Its last line says how far that job came. Nothing is cut off
    unless every line there is one that such a job writes.

    Attributes:
        stream: takes bytes.
        writer: for the header.
        labels: L names, to see that the lines there are of the same model.
        resume: whether to go on.
        inputs: files that are read, as paths or descriptors, and so must not be written to.
    """

    stream: BinaryIO
    writer: Writer
    labels: tuple[str, ...]
    resume: bool = False
    inputs: Sequence[Path | int] = ()

    def begin(self) -> Mark:
        """Return how far the lines in the file go.

        Raises:
            ResumeError: the stream is no file, or what it holds was not written by such a job.
            OutputError: the stream is a file that is read.
        """
        if self.inputs:
            refuse_inputs((self.stream.fileno(),), self.inputs)
        if not self.resume:
            self.stream.write(self.writer.header())
            return Mark()
        with self._reading() as reader:
            return Mark(rows=self._last_row(reader))

    def rewind(self, row: int) -> None:
        """Cut the file off before the first line of ``row`` or a later one, and a torn last line with it."""
        if not self.resume:
            return
        with self._reading() as reader:
            end = 0
            for start, line in whole_lines_backwards(reader):
                if self._row(line) < row:
                    end = start + len(line)
                    break
            torn = reader.seek(0, os.SEEK_END) > end
        if torn:
            self.stream.truncate(end)
            self.stream.seek(0, os.SEEK_END)

    def write(self, data: bytes, mark: Mark) -> None:
        """Write a chunk."""
        self.stream.write(data)
        self.stream.flush()

    def finish(self) -> None:
        """Do nothing: what was written is whole."""

    def close(self) -> None:
        """Leave the stream open."""

    def _last_row(self, reader: BinaryIO) -> int:
        """Return the row of the last whole line. All lines must be ours, and a torn one after them, too."""
        last = 0
        while line := reader.readline(_LONGEST_LINE):
            whole = line.endswith(b"\n")
            row = self._row(line) if whole else _torn_row(line, last + 1)
            if row <= last or len(line) == _LONGEST_LINE:
                raise _foreign()
            last = row if whole else last
        return last

    def _row(self, line: bytes) -> int:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            value = json.loads(line)
            ours = line.startswith(b'{"row": ') and line.endswith(b"}\n")
            if ours and type(value["row"]) is int and list(value["scores"]) == list(self.labels):
                return int(value["row"])
        raise _foreign()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[BinaryIO]:
        """Open the file behind the stream for reading."""
        try:
            with Path(f"/dev/fd/{self.stream.fileno()}").open("rb") as reader:
                if not reader.seekable():
                    raise OSError("it is not a file")
                reader.seek(0)
                yield reader
        except OSError as error:
            raise ResumeError(
                f"an earlier job's lines cannot be read: {error}",
                where="standard output",
                remedy="append to the file with >>, or name it with --output",
            ) from error


def _foreign() -> ResumeError:
    return ResumeError(
        "what is there was not written by 'gkiller predict --format jsonl' with this model",
        where="standard output",
        remedy="write to another file: nothing was changed in this one",
    )


def _torn_row(line: bytes, fallback: int) -> int:
    """Return the row of a line that was cut off, or the fallback where its number is cut off, too."""
    if _HEAD.startswith(line):
        return fallback
    match = re.fullmatch(rb'\{"row": (\d{1,18})(.*)', line, re.DOTALL)
    whole = False
    with contextlib.suppress(ValueError, RecursionError):
        whole = json.loads(line) is not None and b'"scores": {' not in line
    if match and not whole and any(key.startswith(match[2]) or match[2].startswith(key) for key in _NEXT):
        return int(match[1]) if match[2] else fallback
    raise _foreign()


def whole_lines_backwards(reader: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield a file's lines from the last to the first, with their places; a torn last line is left out."""
    position = reader.seek(0, os.SEEK_END)
    tail = b""  # from `position` on, up to the end of the line that is put together
    torn = True
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        reader.seek(position)
        tail = reader.read(size) + tail
        end = len(tail)
        while (cut := tail.rfind(b"\n", 0, end - 1 if not torn else end)) >= 0:
            if torn:
                torn = False
            else:
                yield position + cut + 1, tail[cut + 1 : end]
            end = cut + 1
        tail = tail[:end]
    if tail and not torn:
        yield 0, tail
