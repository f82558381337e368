"""Processes that work for this one and talk with it in JSON lines: the parent's side, and the process's own.

A worker is a module that is run with ``python -m``. It reads a message a line from its standard input and writes one a
line to its standard output; standard error is kept for its parent, which reads it when the worker has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Final, Self, TextIO

from gkiller.wording import one_line

Message = dict[str, Any]

_PATIENCE: Final = 10.0
"""Seconds that a worker may take to end when its input does."""


class Worker:
    """A running process of a module, as its parent sees it.

    Args:
        variables: the process's environment; this process's if None.
        apart: whether it is no member of the terminal's process group, so that Ctrl-C reaches its parent alone.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        variables: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        self._errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            start_new_session=apart and os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if apart else 0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; one to a worker that has ended is lost."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def messages(self) -> Iterator[Message]:
        """Yield what it tells until it ends."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # else its writer was killed
                    yield json.loads(line)

    def wait(self) -> int:
        """Return its exit status, once it has ended."""
        return self._process.wait()

    def complaint(self) -> str:
        """Return the last line that it wrote on standard error, short and safe to show; empty where there is none."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return one_line(ValueError(lines[-1])) if lines else ""

    def close(self) -> None:
        """End the process: its input ends, and it with it; else it is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def tell(sink: TextIO, **message: Any) -> None:
    """Send a message to the parent, in the worker."""
    sink.write(json.dumps(message) + "\n")
    sink.flush()
