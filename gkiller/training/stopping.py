"""Signals that ask a training to stop: it finishes its step and writes a checkpoint first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818 - a request that was met, not an error
    """The training stopped because it was asked to; its checkpoint is written.

    Attributes:
        number: the signal that asked.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by signal {number}")


class StopRequest:
    """Whether somebody asked the training to stop.

    Attributes:
        number: the signal that asked, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._interrupted = False

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal; a second interrupt stops at once.

        Raises:
            KeyboardInterrupt: this is the second interrupt.
        """
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or number == signal.SIGINT
        self.number = number


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM in a request while the block runs, instead of ending the process.

    Outside the main thread, where Python allows no handlers, nobody ever asks.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.ask) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
