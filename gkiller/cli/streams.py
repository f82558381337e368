"""Standard streams that are closed, or that nobody reads any more."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def replace_closed() -> None:
    """Put something in the place of each closed standard stream, so that no file gets its number.

    A closed stdout becomes a pipe that nobody reads, stdin and stderr become the null device.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            handle = _unread_pipe() if number == 1 else os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def silence(*streams: TextIO) -> None:
    """Point streams at the null device, so that flushing them at exit cannot fail."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(sink, stream.fileno())
    os.close(sink)


def _unread_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer
