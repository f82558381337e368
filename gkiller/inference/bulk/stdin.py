"""What can be read only once, as something that a reader can open twice: its beginning is kept at first."""

from __future__ import annotations

import gzip
import io
import os
import select
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP = b"\x1f\x8b"


class Replayable:
    """Stands for a path where a reader looks at a file's beginning before it reads the whole.

    Data packed with gzip are unpacked, whatever the stream is called.

    Args:
        stream: what can be read only once; nothing of it was read yet.
    """

    suffix = ""

    def __init__(self, stream: BinaryIO) -> None:
        self._owner = stream  # which closes what is below it when it goes
        # Past a buffer, or one could not tell what waits in it.
        self._stream = cast(BinaryIO, getattr(stream, "raw", stream))
        self._head = bytearray()
        self._keep = True

    @classmethod
    def unpacked(cls, stream: BinaryIO) -> Replayable:
        """Return a stream's content, without gzip where the stream begins as its data do."""
        plain = cls(stream)
        start = plain.open()
        head = start.read(1)
        if head == _GZIP[:1]:  # no text in UTF-8 begins so, so the next byte may be waited for
            head += start.read(1)
        if head != _GZIP:
            return plain
        packed = plain.open()
        plain.release()
        return cls(cast(BinaryIO, gzip.GzipFile(fileobj=packed)))

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return a stream from the beginning.

        Raises:
            ValueError: the beginning was released.
        """
        if not self._keep:
            raise ValueError("the stream's beginning is not kept any more")
        return cast(BinaryIO, _Reader(_Replay(self)))

    def release(self) -> None:
        """Keep nothing any more: the streams that are open go on, and no other can be opened."""
        self._keep = False

    def take(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``position`` on, fresh ones when it is past what is kept."""
        if position < len(self._head):
            return bytes(self._head[position : position + size])
        read = getattr(self._stream, "read1", self._stream.read)
        data: bytes = read(size)
        if self._keep:
            self._head += data
        elif self._head:
            self._head.clear()
        return data

    def waits(self, position: int) -> bool:
        """Whether whoever sends the stream must be waited for; False where the system cannot tell."""
        if position < len(self._head) or os.name == "nt":  # Windows knows it of sockets alone
            return False
        try:
            return not select.select([self._stream], [], [], 0)[0]
        except (OSError, ValueError):  # no file of the system, as a gzip stream
            return False


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

    def waits(self) -> bool:
        return self._source.waits(self._position)


class _Reader(io.BufferedReader):
    def waits(self) -> bool:
        """Whether more must be waited for; ``read1`` leaves nothing in the buffer."""
        return cast(_Replay, self.raw).waits()
