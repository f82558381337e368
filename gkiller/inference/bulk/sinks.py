"""Where output goes: what every sink does, and a file that appears when it is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gkiller.errors import OutputError, ResumeError, RunLockedError
from gkiller.inference.bulk.formats import Writer
from gkiller.storage.files import file_place, json_text, refuse_inputs, remove_unfinished, sync, write_text, writing
from gkiller.storage.sealed import digest_of
from gkiller.storage.strict_json import parse_json
from gkiller.wording import one_line

_VERSION = 2
_KEYS = {"version", "settings", "replaces", "bytes", "sha256", "mark", "digest"}
_KEYS_1 = {"version", "settings", "bytes", "mark"}  # of earlier releases, which had no digests
_ANEW = "start anew: --force"
_JOURNAL_BYTES = _BLOCK = 1 << 20
_JOURNAL_SECONDS = 1.0


@dataclass(frozen=True)
class Mark:
    """How far a job is."""

    rows: int = 0
    scored: int = 0
    skipped: int = 0
    flagged: int = 0
    windowed: int = 0
    truncated: int = 0
    digest: str = ""  # of the input rows so far; empty when it is not known


@dataclass(frozen=True)
class _Done:
    """The end of the last whole chunk. One object, as a signal may come between any two steps."""

    bytes: int = 0
    mark: Mark = field(default_factory=Mark)
    found: Any = field(default_factory=hashlib.sha256)


class Sink:
    """Takes the output chunk by chunk; what a sink has no need to do it leaves as it is here: nothing."""

    def begin(self) -> Mark:
        """Return how far an earlier job came; chunks up to there are not written again."""
        return Mark()

    def rewind(self, row: int) -> None:
        """Take back what an earlier job wrote from this input row on."""

    def write(self, data: bytes, mark: Mark) -> None:
        """Take a chunk, and how far the job is with it."""

    def finish(self) -> None:
        """Make the output whole."""

    def close(self) -> None:
        """Let go, whether the output is whole or not."""


@dataclass
class FileSink(Sink):
    """A file that is put in its place when it is whole.

    Until then ``NAME.partial`` holds what is written and ``NAME.progress.json`` says how far it is valid,
    renewed about once a second: after a kill, the rest is cut off and done again. Digests of itself and of those
    bytes keep a job from going on with a file that somebody changed. A file of either name that no such job wrote
    is left alone, and so is one that has come to ``path`` meanwhile. Of a link, what it leads to is replaced.
    """

    path: Path
    writer: Writer
    settings: Mapping[str, Any]
    resume: bool = False  # whether to go on with an unfinished job
    force: bool = False  # whether to replace a file, or an unfinished job
    inputs: Sequence[Path | int] = ()
    _stream: BinaryIO | None = None
    _done: _Done = field(default_factory=_Done)
    rows_kept: int = 0  # input rows that the journal on the disk says are done: they are not done again
    _saved_at: float = float("-inf")
    _dirty: bool = False
    _replaces: bool = False  # what is at `path`: as the job began, also after it was gone on with

    @property
    def partial(self) -> Path:
        """Where the output is while it grows."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def journal(self) -> Path:
        """Where it is written down how far it is."""
        return self.path.with_name(f"{self.path.name}.progress.json")

    @property
    def _scratch(self) -> Path:
        """Where the Parquet writer makes the finished file."""
        return self.path.with_name(f".{self.path.name}.new")

    def begin(self) -> Mark:
        """Return how far an earlier job came.

        Raises:
            OutputError: the file is there already, is read, or cannot be written, or its helpers' names are taken.
            ResumeError: an unfinished job is there and is not to be gone on with, had other settings, or was changed.
            RunLockedError: another process works on it.
        """
        self.path = file_place(self.path)
        with writing(self.path):
            refuse_inputs((self.path, self.journal, self.partial, self._scratch), self.inputs)
            going_on = self._started()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.partial.open("a+b", buffering=0)
            _lock(self._stream, self.partial)
            remove_unfinished(self.journal)
            if going_on:
                self._go_on(self._read_journal())
            else:
                self._replaces = self.force
                self._stream.truncate(0)
                self._save()  # before the first byte: from now on the partial file is known as ours
            if not self._done.bytes:  # a kill may have come before the header was written down
                self._append(self.writer.header(), self._done.mark)
                self._save()
            return self._done.mark

    def _started(self) -> bool:
        """Return whether there is a job to go on with, and refuse what must not be replaced."""
        started = self.journal.exists()
        self._refuse_foreign()
        if started and not self.resume and not self.force:
            remedy = f"go on with it: --resume; or {_ANEW}"
            raise ResumeError("an unfinished job is there", where=str(self.journal), remedy=remedy)
        if self.path.exists() and not self.force and not (started and self.resume):
            raise OutputError("the file is there already", where=str(self.path), remedy="--force replaces it")
        if started and self.resume and self.path.exists() and not self.partial.exists():
            self.journal.unlink()  # a kill came between the file's last two steps
            raise OutputError("the job is finished", where=str(self.path), remedy="--force starts anew")
        return started and self.resume

    def _refuse_foreign(self) -> None:
        """Refuse files with the names of ours that no job of ours wrote; even --force would lose them."""
        ours = self.journal.exists() and _is_journal(self.journal)
        for place in (self._scratch, self.partial, self.journal):
            odd = place.is_symlink() or (place.exists() and not place.is_file())
            if odd or (not ours and place.exists() and place.stat().st_size):
                what = "a file that gkiller did not write has the name that this job needs while it runs"
                raise OutputError(what, where=str(place), remedy="move that file away, or give the output another name")

    def _go_on(self, known: Mapping[str, Any]) -> None:
        assert self._stream is not None
        size, valid = self._stream.seek(0, os.SEEK_END), known["bytes"]
        if size < valid:
            what = f"the unfinished file has {size:,} bytes, fewer than the {valid:,} written down"
            raise ResumeError(what, where=str(self.partial), remedy=_ANEW)
        found, left = hashlib.sha256(), valid
        self._stream.seek(0)
        while left and (block := self._stream.read(min(_BLOCK, left))):
            found.update(block)
            left -= len(block)
        if found.hexdigest() != known["sha256"]:
            what = "the unfinished file was changed since it was written"
            raise ResumeError(what, where=str(self.partial), remedy=_ANEW)
        self._replaces = known["replaces"]
        self._refuse_newcomer()
        self._stream.truncate(valid)
        self._done = _Done(valid, Mark(**known["mark"]), found)
        self.rows_kept = self._done.mark.rows

    def _refuse_newcomer(self) -> None:
        """Refuse to replace a file that was not there when the job began, unless it began with --force."""
        if self.path.exists() and not self._replaces:
            what = "the file was not there when the job began, and would be replaced"
            raise OutputError(what, where=str(self.path), remedy="move it away, and go on with --resume")

    def write(self, data: bytes, mark: Mark) -> None:
        """Append a chunk, and write down now and then how far the job is."""
        with writing(self.path):
            self._append(data, mark)
        self._dirty = True
        if time.monotonic() - self._saved_at >= _JOURNAL_SECONDS:
            self._save()

    def _append(self, data: bytes, mark: Mark) -> None:
        """Write all of it, or let none of it count: a full disk or a signal may cut it off."""
        assert self._stream is not None
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]
        found = self._done.found.copy()
        found.update(data)
        self._done = _Done(self._done.bytes + len(data), mark, found)

    def finish(self) -> None:
        """Put the file in its place."""
        assert self._stream is not None
        self._refuse_newcomer()
        self._replaces = True  # from now on the file there may be this job's own
        self._save()
        with writing(self.path):
            if os.name == "nt":  # which does not move an open file; elsewhere it stays, for its lock
                self._stream.close()
                self._stream = None
            self.writer.finish(self.partial, self.path)
            sync(self.path)
            self.journal.unlink()
            sync(self.path.parent)

    def close(self) -> None:
        """Write down how far the job is, if it is not done, and let others at it."""
        if self._stream is None:
            return
        if self._dirty and self.partial.exists():
            with contextlib.suppress(OutputError):  # the earlier journal holds, and rows_kept goes by it
                self._save()
        self._stream.close()
        self._stream = None

    def _save(self) -> None:
        assert self._stream is not None
        with writing(self.path):
            os.fsync(self._stream.fileno())
        done = self._done
        content = {
            "version": _VERSION,
            "settings": dict(self.settings),
            "replaces": self._replaces,
            "bytes": done.bytes,
            "sha256": done.found.hexdigest(),
            "mark": asdict(done.mark),
        }
        write_text(self.journal, json_text({**content, "digest": digest_of(content)}))
        self.rows_kept = done.mark.rows
        self._saved_at = time.monotonic()
        self._dirty = False

    def _read_journal(self) -> Mapping[str, Any]:
        try:
            known: dict[str, Any] = parse_json(self.journal.read_bytes())
            if known["version"] != _VERSION:
                raise ValueError(f"its version is {known['version']!r}, not {_VERSION}")
            if known["digest"] != digest_of(known):
                raise ValueError("it was changed since it was written")
            settings, counts = dict(known["settings"]), asdict(Mark(**known["mark"]))
            fresh = asdict(Mark())
            if any(type(counts[key]) is not type(fresh[key]) for key in fresh):
                raise ValueError("invalid count")
            if type(known["replaces"]) is not bool:
                raise ValueError("invalid mark of what is replaced")
            if type(known["bytes"]) is not int or known["bytes"] < 0:
                raise ValueError("invalid byte count")
        except (OSError, ValueError, TypeError, KeyError) as error:
            what = f"the journal cannot be used: {one_line(error)}"
            raise ResumeError(what, where=str(self.journal), remedy=_ANEW) from error
        now = json.loads(json.dumps(dict(self.settings)))
        other = sorted(key for key in {*now, *settings} if now.get(key) != settings.get(key))
        if other:
            what, remedy = f"the unfinished job had other settings: {', '.join(other)}", "use the same model and flags"
            raise ResumeError(what, where=str(self.journal), remedy=f"{remedy}, or {_ANEW}")
        return known


def _is_journal(path: Path) -> bool:
    """Whether a file is a journal of ours, be it of an earlier release or changed since."""
    try:
        content = parse_json(path.read_bytes()) if path.stat().st_size <= _JOURNAL_BYTES else {}
    except (OSError, ValueError):
        return False
    return set(content) in (_KEYS, _KEYS_1)


def _lock(stream: BinaryIO, path: Path) -> None:
    """Keep other processes off, where the system can.

    The lock is on the file itself and ends with this process: a lock file of its own would be left after a kill.
    """
    try:
        import fcntl
    except ImportError:
        return
    locked = True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        locked = error.errno not in (errno.EAGAIN, errno.EACCES)  # else a file system without locks
    # The file may have been finished, and moved to its place, before it was locked here.
    if not locked or not path.exists() or not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
        stream.close()
        remedy = "wait for it, or name another file"
        raise RunLockedError("another process writes to this file", where=str(path), remedy=remedy)


_LINE_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 28  # far more than a comment of the most characters that are read
_HEAD, _NEXT = b'{"row": ', (b', "id": ', b', "text": ', b', "flagged": ')


@dataclass
class StreamSink(Sink):
    """Standard output, or any stream.

    A job is gone on with where the stream is a file of JSON Lines that was opened for appending (``>>``): its last
    line says how far the job came. Nothing is cut off unless every line there is one that such a job writes.
    """

    stream: BinaryIO  # takes bytes
    writer: Writer
    labels: tuple[str, ...]
    resume: bool = False  # whether to go on
    inputs: Sequence[Path | int] = ()

    def begin(self) -> Mark:
        """Return how far the lines in the file go.

        Raises:
            ResumeError: the stream is no file, or no such job wrote what it holds.
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
            kept = (at + len(line) for at, line in whole_lines_backwards(reader) if self._row(line) < row)
            end = next(kept, 0)
            torn = reader.seek(0, os.SEEK_END) > end
        if torn:
            self.stream.truncate(end)
            self.stream.seek(0, os.SEEK_END)

    def write(self, data: bytes, mark: Mark) -> None:
        """Write a chunk."""
        self.stream.write(data)
        self.stream.flush()

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
            what, remedy = f"an earlier job's lines cannot be read: {error}", "append to the file with >>"
            raise ResumeError(what, where="standard output", remedy=f"{remedy}, or name it with --output") from error


def _foreign() -> ResumeError:
    what = "what is there was not written by 'gkiller predict --format jsonl' with this model"
    remedy = "write to another file: nothing was changed in this one"
    return ResumeError(what, where="standard output", remedy=remedy)


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
        size = min(_LINE_BLOCK, position)
        position -= size
        reader.seek(position)
        tail = reader.read(size) + tail
        end = len(tail)
        while (cut := tail.rfind(b"\n", 0, end - 1 if not torn else end)) >= 0:
            if not torn:
                yield position + cut + 1, tail[cut + 1 : end]
            torn, end = False, cut + 1
        tail = tail[:end]
    if tail and not torn:
        yield 0, tail
