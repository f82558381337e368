"""Standard output as a sink, and how far an earlier job's lines in it go."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gkiller.errors import ResumeError
from gkiller.inference.bulk.formats import Writer
from gkiller.inference.bulk.sinks import Mark

_BLOCK = 1 << 16


@dataclass
class StreamSink:
    """Standard output, or any stream.

    Where an earlier job's JSON Lines are to be gone on with, the stream must be a file that was opened for
    appending, as the shell's ``>>`` does. Its last line says how far that job came.

    Attributes:
        stream: takes bytes.
        writer: for the header.
        labels: L names, to see that the lines there are of the same model.
        resume: whether to go on.
    """

    stream: BinaryIO
    writer: Writer
    labels: tuple[str, ...]
    resume: bool = False

    def begin(self) -> Mark:
        """Return how far the lines in the file go.

        Raises:
            ResumeError: the stream is no file, or what it holds was not written by such a job.
        """
        if not self.resume:
            self.stream.write(self.writer.header())
            return Mark()
        with self._reading() as reader:
            for _, line in whole_lines_backwards(reader):
                return Mark(rows=self._row(line))
        return Mark()

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

    def _row(self, line: bytes) -> int:
        try:
            value = json.loads(line)
            if list(value["scores"]) == list(self.labels):
                return int(value["row"])
        except (ValueError, TypeError, KeyError):
            pass
        raise ResumeError(
            "what is there was not written by 'gkiller predict --format jsonl' with this model",
            where="standard output",
            remedy="write to another file, or start anew with > instead of >>",
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[BinaryIO]:
        """Open the file behind the stream for reading."""
        try:
            with Path(f"/dev/fd/{self.stream.fileno()}").open("rb") as reader:
                if not reader.seekable():
                    raise OSError("it is no file")
                reader.seek(0)
                yield reader
        except OSError as error:
            raise ResumeError(
                f"there is no file to go on with: {error}",
                where="standard output",
                remedy="append to the file with >>, or name it with --output",
            ) from error


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
