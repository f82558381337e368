"""The process that trains trials: ``python -m gkiller.sweep.worker JOBS``.

It reads JSON lines from standard input and writes JSON lines to standard output::

    {"do": "train", "number", "settings", "out", "name", "argv"}    begin a trial {"do": "go"}, {"do": "prune"}
    the answer to an epoch {"do": "stop"}                                                  end the trial after its step

    {"tell": "training", "event"}                                   steps (not all), phases and notes
    {"tell": "epoch", "event", "epoch", "score"}                    waits for the answer
    {"tell": "end", "state", "score", "facts", "error"}             state: complete, pruned, failed, stopped

When its standard input ends it ends at once: a sweep that was killed leaves no process behind.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TextIO

from gkiller.errors import GkillerError
from gkiller.settings import TrainSettings, settings_of
from gkiller.storage.workers import tell
from gkiller.training.runtime import thread_count
from gkiller.training.train import TrainResult, train

if TYPE_CHECKING:
    from gkiller.training.phases import TrainingEvent

_STEP_SECONDS = 0.2
"""Least time between two steps that are told."""


class Halted(Exception):  # noqa: N818 - a request that was met, not an error
    """The training was left because the sweep asked for it.

    Attributes:
        state: "pruned" or "stopped".
    """

    def __init__(self, state: str) -> None:
        self.state = state
        super().__init__(state)


class Desk:
    """Where a worker's messages come in and go out."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source, self._sink = source, sink
        self._inbox: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.stopped = threading.Event()

    def read(self) -> None:
        """Take messages until there are no more, then end the process; for a thread of its own."""
        for line in self._source:
            message = json.loads(line)
            if message["do"] == "stop":
                self.stopped.set()
            self._inbox.put(message)
        os._exit(0)

    def next(self) -> dict[str, Any]:
        """Wait for the next message."""
        return self._inbox.get()

    def tell(self, kind: str, **values: Any) -> None:
        """Send a message."""
        tell(self._sink, tell=kind, **values)


class Listener:
    """Passes a training's events on, and leaves the training when the sweep asks for it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._epochs = 0
        self._told = -math.inf

    def __call__(self, event: TrainingEvent) -> None:
        """Take one event.

        Raises:
            Halted: the trial is to end here.
        """
        if event.kind == "epoch" and event.score is not None:
            self._epochs += 1
            self._desk.tell("epoch", event=asdict(event), epoch=self._epochs, score=event.score)
            if self._desk.next()["do"] == "prune":
                raise Halted("pruned")
        elif event.kind != "step" or time.monotonic() - self._told >= _STEP_SECONDS:
            self._told = time.monotonic()
            self._desk.tell("training", event=asdict(event))
        if self._desk.stopped.is_set():
            raise Halted("stopped")


def run_trial(message: dict[str, Any], desk: Desk) -> None:
    """Train one trial, and tell how it ended."""
    end: dict[str, Any] = {"state": "complete", "score": None, "facts": {}, "error": None}
    try:
        result = train(
            settings_of(message["settings"], f"trial {message['number']}"),
            out=Path(message["out"]),
            name=message["name"],
            argv=message["argv"],
            on_event=Listener(desk),
        )
        end["score"], end["facts"] = _score(result), _facts(result)
    except Halted as halted:
        end["state"] = halted.state
    except GkillerError as error:
        end["state"], end["error"] = "failed", error.as_dict()
    desk.tell("end", **end)


def _score(result: TrainResult) -> float:
    """Return the validation metric of the weights that were chosen."""
    return result.progress.best[result.finished.dendrites]


def _facts(result: TrainResult) -> dict[str, Any]:
    return {
        "epochs": result.progress.epoch,
        "dendrites": result.finished.dendrites,
        "parameters": result.finished.parameters,
        "training_seconds": round(result.progress.seconds, 3),
    }


def main() -> None:
    """Train what standard input says, with this worker's part of the threads."""
    jobs = int(sys.argv[1])
    os.environ["OMP_NUM_THREADS"] = str(max(1, thread_count(TrainSettings()) // jobs))
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no message
    desk = Desk(sys.stdin, sink)
    threading.Thread(target=desk.read, daemon=True).start()
    while True:
        message = desk.next()
        if message["do"] == "train":
            run_trial(message, desk)


if __name__ == "__main__":
    main()
