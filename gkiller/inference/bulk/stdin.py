"""Standard input as something that a reader can open twice: its beginning is kept until it is released."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Replayable:
    """Stands for a path where a reader looks at a file's beginning before it reads the whole.

    Args:
        stream: what can be read only once.
    """

    suffix = ""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._head = bytearray()
        self._keep = True

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
