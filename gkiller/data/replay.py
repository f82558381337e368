"""A pipe as something that a reader can open twice: its beginning is kept until it is released."""

from __future__ import annotations

import io
import select
import time
import weakref
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


_GRACE = 0.02
"""Seconds for which a busy writer is waited for, so that a bulk job is not cut into small chunks."""


class Replayable:
    """Stands for a path where a reader looks at a file's beginning before it reads the whole.

    Args:
        stream: what can be read only once.
        owned: whether it is closed when nothing reads from it any more.
    """

    suffix = ""

    def __init__(self, stream: BinaryIO, *, owned: bool = False) -> None:
        self._stream = stream
        if owned:
            weakref.finalize(self, stream.close)
        self._head = bytearray()
        self._keep = True
        self._handle = _pollable(stream)
        self._asked = self._until = 0.0

    def blocked(self) -> bool:
        """Whether reading on would wait: nothing has come, and the stream has not ended.

        A stream without a file descriptor never blocks, and neither does one on Windows, where only sockets
        can be asked: rows from there are answered in full batches.
        """
        if self._handle is None:
            return False
        now = time.monotonic()
        if now - self._asked > 2 * _GRACE:
            self._until = now + _GRACE
        blocked = not select.select([self._handle], [], [], max(0.0, self._until - now))[0]
        self._asked = 0.0 if blocked else time.monotonic()
        return blocked

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return a stream from the beginning.

        Raises:
            ValueError: the beginning was released.
        """
        if not self._keep:
            raise ValueError("the stream's beginning is not kept any more")
        return cast(BinaryIO, io.BufferedReader(_Replay(self)))

    def release(self) -> None:
        """Keep nothing any more: the streams that are open go on, and no other can be opened."""
        self._keep = False

    def take(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``position`` on, fresh ones when it is past what is kept."""
        if position < len(self._head):
            return bytes(self._head[position : position + size])
        data = cast(io.BufferedReader, self._stream).read1(size)
        if self._keep:
            self._head += data
        elif self._head:
            self._head.clear()
        return data


def replayable(path: object) -> Replayable | None:
    """Return what stands for a path if it is a pipe, else None."""
    return path if isinstance(path, Replayable) else None


def _pollable(stream: BinaryIO) -> int | None:
    try:
        handle = stream.fileno()
        select.select([handle], [], [], 0)
    except (OSError, ValueError):  # no file descriptor, one too large for select, or Windows
        return None
    return handle


class _Replay(io.RawIOBase):
    def __init__(self, source: Replayable) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._source.take(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
