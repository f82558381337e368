"""Where output goes: what every sink does, and a file that appears when it is whole."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gkiller.errors import OutputError, ResumeError, RunLockedError, one_line
from gkiller.files import json_text, sync, write_text, writing
from gkiller.inference.bulk.formats import Writer
from gkiller.strict_json import parse_json

_VERSION = 1
_JOURNAL_SECONDS = 1.0


@dataclass(frozen=True)
class Mark:
    """How far a job is.

    Attributes:
        rows: input rows done, bad ones included.
        scored: rows with a score.
        skipped: bad rows left out.
        flagged: rows with a flag.
        windowed: comments read in several pieces.
        truncated: comments whose end was left unread.
        digest: of the input rows so far; empty when it is not known.
    """

    rows: int = 0
    scored: int = 0
    skipped: int = 0
    flagged: int = 0
    windowed: int = 0
    truncated: int = 0
    digest: str = ""


class Sink(Protocol):
    """Takes the output chunk by chunk."""

    def begin(self) -> Mark:
        """Return how far an earlier job came; chunks up to there are not written again."""

    def rewind(self, row: int) -> None:
        """Take back what an earlier job wrote from this input row on."""

    def write(self, data: bytes, mark: Mark) -> None:
        """Take a chunk, and how far the job is with it."""

    def finish(self) -> None:
        """Make the output whole."""

    def close(self) -> None:
        """Let go, whether the output is whole or not."""


@dataclass
class FileSink:
    """A file that is put in its place when it is whole.

    Until then ``NAME.partial`` holds what is written and ``NAME.progress.json`` says how far it is valid,
    renewed about once a second: after a kill, the rest is cut off and done again.

    Attributes:
        path: the file.
        writer: its format.
        settings: everything that the output depends on, beside the input.
        resume: whether to go on with an unfinished job.
        force: whether to replace a file, or an unfinished job.
    """

    path: Path
    writer: Writer
    settings: Mapping[str, Any]
    resume: bool = False
    force: bool = False
    _stream: BinaryIO | None = None
    # The bytes up to the end of the last whole chunk, and how far the job is with them. They change in one
    # step: a signal may come at any other.
    _done: tuple[int, Mark] = (0, Mark())
    _saved_at: float = float("-inf")
    _dirty: bool = False

    @property
    def partial(self) -> Path:
        """Where the output is while it grows."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def journal(self) -> Path:
        """Where it is written down how far it is."""
        return self.path.with_name(f"{self.path.name}.progress.json")

    @property
    def rows_kept(self) -> int:
        """Input rows that need not be done again if the job stops now."""
        return self._done[1].rows

    def begin(self) -> Mark:
        """Return how far an earlier job came.

        Raises:
            OutputError: the file is there already, or cannot be written.
            ResumeError: an unfinished job is there and is not to be gone on with, or had other settings.
            RunLockedError: another process works on it.
        """
        with writing(self.path):
            known = self._earlier()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.partial.open("ab", buffering=0)
            _lock(self._stream, self.partial)
            if known is None:
                self._stream.truncate(0)
                self._append(self.writer.header(), Mark())
                self._save()
                return Mark()
        return self._go_on(known)

    def _earlier(self) -> Mapping[str, Any] | None:
        """Return the journal of the job to go on with, None for a new job."""
        if self.path.exists() and not self.path.is_file():  # replacing a device would be fatal
            raise OutputError(
                "something that is no file has that name",
                where=str(self.path),
                remedy="name a file, or write to standard output",
            )
        started = self.journal.exists()
        if started and not self.resume and not self.force:
            raise ResumeError(
                "an unfinished job is there",
                where=str(self.journal),
                remedy="go on with it: --resume; or start anew: --force",
            )
        if self.path.exists() and not self.force and not (started and self.resume):
            raise OutputError("the file is there already", where=str(self.path), remedy="--force replaces it")
        known = self._read_journal() if started and self.resume else None
        if known is not None and self.path.exists() and not self.partial.exists():
            self.journal.unlink()  # a kill came between the file's last two steps
            raise OutputError("the job is finished", where=str(self.path), remedy="--force starts anew")
        return known

    def _go_on(self, known: Mapping[str, Any]) -> Mark:
        assert self._stream is not None
        size = self._stream.seek(0, os.SEEK_END)
        if size < known["bytes"]:
            raise ResumeError(
                f"the unfinished file has {size:,} bytes, fewer than the {known['bytes']:,} written down",
                where=str(self.partial),
                remedy="start anew: --force",
            )
        with writing(self.path):
            self._stream.truncate(known["bytes"])
        self._done = known["bytes"], Mark(**known["mark"])
        return self._done[1]

    def rewind(self, row: int) -> None:
        """Do nothing: the file was cut off where the journal says, which is the end of a chunk."""

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
        self._done = self._done[0] + len(data), mark

    def finish(self) -> None:
        """Put the file in its place."""
        assert self._stream is not None
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
            self._save()
        self._stream.close()
        self._stream = None

    def _save(self) -> None:
        assert self._stream is not None
        with writing(self.path):
            os.fsync(self._stream.fileno())
        valid, mark = self._done
        content = {
            "version": _VERSION,
            "settings": dict(self.settings),
            "bytes": valid,
            "mark": asdict(mark),
        }
        write_text(self.journal, json_text(content))
        self._saved_at = time.monotonic()
        self._dirty = False

    def _read_journal(self) -> Mapping[str, Any]:
        try:
            known: dict[str, Any] = parse_json(self.journal.read_bytes())
            if known["version"] != _VERSION:
                raise ValueError(f"version {known['version']!r}")
            settings, counts = dict(known["settings"]), asdict(Mark(**known["mark"]))
            fresh = asdict(Mark())
            if any(type(counts[key]) is not type(fresh[key]) for key in fresh):
                raise ValueError("a count is no number")
            if type(known["bytes"]) is not int or known["bytes"] < 0:
                raise ValueError("the number of bytes is none")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ResumeError(
                f"the journal cannot be read: {one_line(error)}",
                where=str(self.journal),
                remedy="start anew: --force",
            ) from error
        now = json.loads(json.dumps(dict(self.settings)))
        other = sorted(key for key in {*now, *settings} if now.get(key) != settings.get(key))
        if other:
            raise ResumeError(
                f"the unfinished job had other settings: {', '.join(other)}",
                where=str(self.journal),
                remedy="use the same model and flags, or start anew: --force",
            )
        return known


def _lock(stream: BinaryIO, path: Path) -> None:
    """Keep other processes off, where the system can: the lock ends with this process."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return  # a file system without locks
        stream.close()
        raise RunLockedError(
            "another process writes to this file", where=str(path), remedy="wait for it, or name another file"
        ) from error
