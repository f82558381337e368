"""Search for settings: from a space to the best trial's settings."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from gkiller.data.load import load_dataset, split_fingerprint
from gkiller.errors import InterruptedRunError, OutputError, ResumeError, SweepFailedError, TerminatedRunError
from gkiller.settings import settings_of, settings_values
from gkiller.storage.environment import environment
from gkiller.storage.workers import Message
from gkiller.sweep.pool import Channel, Inbox, Start, SweepEvent, Trainer, Trial, best_of, ended
from gkiller.sweep.report import write_best, write_plot, write_trials
from gkiller.sweep.study import Study, open_study, parse_space
from gkiller.training.phases import TrainingEvent
from gkiller.training.run import RunDirectory
from gkiller.training.runtime import StopRequest, stop_signals
from gkiller.wording import counted

if TYPE_CHECKING:
    from gkiller.settings import Settings
    from gkiller.wording import Progress as DataProgress

MANIFEST, STUDY, RUNS = "sweep.json", "study.db", "runs"
FORMAT_VERSION = 1
CHANGEABLE = ("sweep.trials", "sweep.timeout", "sweep.jobs", "sweep.keep_models")
"""Settings that a resumed sweep may change: they do not change what a trial's score is."""

GIVE_UP = 5
"""Failed trials without any that came to its end, after which a sweep ends."""

_TURN_SECONDS = 0.2
_STOP_SECONDS = 120.0
"""How long a trial may take to its next step, or a finished one to save its model, when the sweep stops."""

EventCallback = Callable[[SweepEvent], None]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves."""

    path: Path
    settings: Settings  # that its trials share
    trials: tuple[Trial, ...]
    # share of the score's variance that each setting explains; empty with few trials
    importance: dict[str, float]
    files: tuple[Path, ...]
    out_of_time: bool  # whether it ended by its time limit

    @property
    def best(self) -> Trial:
        """The best complete trial; there is one."""
        found = best_of(self.trials)
        assert found is not None
        return found


def _ignore(event: SweepEvent) -> None:
    """Drop an event."""


def sweep(
    settings: Settings,
    *,
    out: Path = Path("sweeps"),
    name: str | None = None,
    resume: Path | None = None,
    argv: Sequence[str] = (),
    on_event: EventCallback = _ignore,
    on_data: DataProgress | None = None,
    signals: bool = False,
    start: Start = Trainer,
    space_from: str = "sweep.space",
) -> SweepResult:
    """Train trials whose settings are drawn from a space, and compare them on the validation split.

    Args:
        settings: what the trials share, and in ``sweep`` what is searched and how long.
        name: of the sweep; "sweep-N" when None.
        resume: an existing sweep to go on with; ``settings`` are its own but for `CHANGEABLE`.
        signals: whether an interrupt or a termination signal lets the running trials finish their step first;
            for a program whose main thread this is.

    Raises:
        GkillerError: bad settings, space or data; an existing sweep; a sweep that is in use.
        SweepFailedError: no trial came to its end.
        InterruptedRunError, TerminatedRunError: a signal stopped it, with ``signals``.
    """
    space = parse_space(settings.sweep.space, space_from)
    if resume is not None:
        resumed_settings(resume, settings, settings_values(settings))
    directory = RunDirectory(resume) if resume is not None else RunDirectory.create(out, name, "sweep")
    with directory.lock():
        with contextlib.nullcontext() if resume is not None else directory.discarded_when_refused():
            fingerprints = _fingerprints(settings, directory.path / RUNS / ".data", on_data)
            manifest = _manifest(settings, fingerprints, argv, None if resume is None else _read(resume))
        directory.tidy()
        directory.write_json(MANIFEST, manifest)
        with open_study(directory.path / STUDY, space, settings.sweep) as study:
            work = _Sweep(settings, directory, study, argv, on_event, start)
            return work.do(signals=signals)


def find_sweep(out: Path, name: str) -> Path:
    """Return an existing sweep by its directory, or by its name under ``out``.

    Raises:
        ResumeError: there is none.
    """
    for path in (Path(name).expanduser(), out / name):
        if (path / MANIFEST).is_file():
            return path
    raise ResumeError(f"not a sweep: {MANIFEST} is missing", where=name, remedy=f"name a directory under {out}")


def resumed_settings(path: Path, asked: Settings, keys: Iterable[str]) -> Settings:
    """Return a sweep's own settings with the changes asked for, as far as they are allowed.

    Args:
        keys: the dotted keys of ``asked`` that count; the others are taken from the sweep.

    Raises:
        ResumeError: one of the keys differs and is not among `CHANGEABLE`.
    """
    ours, theirs = (settings_values(settings_of(_read(path)["settings"], str(path / MANIFEST))), settings_values(asked))
    changes = {key: theirs[key] for key in keys if theirs[key] != ours[key]}
    refused = [f"{k} is {ours[k]!r} in the sweep and {v!r} now" for k, v in changes.items() if k not in CHANGEABLE]
    if refused:
        raise ResumeError(
            "a resumed sweep keeps its settings: " + "; ".join(refused),
            where=str(path),
            remedy=f"leave these settings out, or start a new sweep; {', '.join(CHANGEABLE)} may change",
        )
    return settings_of({**ours, **changes}, str(path))


def resume_command(path: Path) -> str:
    """Return the command that goes on with a sweep."""
    return f"gkiller sweep --resume {shlex.quote(path.as_posix())}"


def _read(path: Path) -> dict[str, Any]:
    """Return a sweep's manifest.

    Raises:
        ResumeError: it is missing or damaged.
    """
    file = path / MANIFEST
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResumeError(f"not readable: {error}", where=str(file), remedy="name a sweep's directory") from error
    known = isinstance(found, dict) and found.get("format_version") == FORMAT_VERSION
    if not (known and isinstance(found.get("settings"), dict) and isinstance(found.get("fingerprints"), dict)):
        raise ResumeError(
            "this is no manifest of a sweep, or one of another version",
            where=str(file),
            remedy="use the gkiller that wrote it, or start a new sweep",
        )
    return dict(found)


def _fingerprints(settings: Settings, cache: Path, on_data: DataProgress | None) -> dict[str, str]:
    """Prepare the data where that is needed; return what tells whether they change. Trials read them anew."""
    dataset = load_dataset(settings.data, cache=cache, progress=on_data)
    return {name: split_fingerprint(dataset.split(name), dataset.labels) for name in ("train", "valid")}


def _manifest(
    settings: Settings, fingerprints: dict[str, str], argv: Sequence[str], before: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what a sweep begins with; a resumed one takes over how it began.

    Raises:
        ResumeError: the training or validation rows are not those of the sweep that goes on.
    """
    if before is not None and before["fingerprints"] != fingerprints:
        raise ResumeError(
            "the data of this sweep have changed since it began: its trials could not be compared",
            where=settings.data.source,
            remedy="put them back, or start a new sweep",
        )
    began = before or {
        "argv": list(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    kept = {key: began.get(key) for key in ("argv", "started", "environment")}
    values = settings_values(settings)
    return {"format_version": FORMAT_VERSION, **kept, "fingerprints": fingerprints, "settings": values}


@dataclass
class _Sweep:
    """A sweep that runs."""

    settings: Settings  # that its trials share
    directory: RunDirectory
    study: Study
    argv: Sequence[str]
    on_event: EventCallback
    start: Start
    inbox: Inbox = field(default_factory=SimpleQueue)
    idle: list[Channel] = field(default_factory=list)
    running: dict[Channel, Trial] = field(default_factory=dict)
    done: int = 0
    best: Trial | None = None

    def do(self, *, signals: bool) -> SweepResult:
        """Train what is left of the trials; write the report, however it ends."""
        self._recover()
        with stop_signals() if signals else contextlib.nullcontext(StopRequest()) as stop:
            try:
                out_of_time = self._train(stop)
                if stop.number:
                    self._drain()
            finally:
                for channel in (*self.idle, *self.running):
                    channel.close()
        result = self._report(out_of_time=out_of_time)
        if stop.number:
            kind = TerminatedRunError if stop.number == signal.SIGTERM else InterruptedRunError
            raise kind(
                f"stopped after {self._progress()}",
                where=str(self.directory.path),
                remedy=f"go on with: {resume_command(self.directory.path)}",
            )
        if self.best is None:
            self._refuse(result)
        return result

    def _recover(self) -> None:
        """Take up what an earlier process left: its results, and its trials that must be tried again."""
        for number in self.study.recover():
            shutil.rmtree(self._run(number), ignore_errors=True)
            self._note(f"trial {number} was left unfinished: it is tried again")
        trials = self.study.trials()
        self.done, self.best = len(ended(trials)), best_of(trials)

    # -- the loop -------------------------------------------------------------------------------

    def _train(self, stop: StopRequest) -> bool:
        """Run trials until enough have ended, or there is no time; return whether that was the reason."""
        own, began = self.settings.sweep, time.monotonic()
        while not stop.number:
            late = own.timeout is not None and time.monotonic() - began >= own.timeout
            while not late and len(self.running) < own.jobs and self.done + len(self.running) < own.trials:
                self._begin()
            if not self.running:
                return late and self.done < own.trials
            self._turn()
            if self.best is None and self.done >= GIVE_UP and not self._any_hope():
                return False
        return False

    def _any_hope(self) -> bool:
        return any(trial.state != "failed" for trial in ended(self.study.trials()))

    def _begin(self) -> None:
        """Hand the next trial to a worker."""
        trial = self.study.begin()
        channel = self.idle.pop() if self.idle else self.start(self.settings.sweep.jobs, self.inbox)
        self.running[channel] = trial
        channel.send(
            {
                "do": "train",
                "number": trial.number,
                "settings": {**settings_values(self.settings), **trial.params},
                "out": str(self.directory.path / RUNS),
                "name": self._run(trial.number).name,
                "argv": list(self.argv),
            }
        )
        self._tell(SweepEvent("begin", trial.number, params=trial.params))

    def _turn(self) -> None:
        """Take one message, if there is one soon."""
        try:
            channel, message = self.inbox.get(timeout=_TURN_SECONDS)
        except Empty:
            return
        if message is None:
            self._died(channel)
        elif channel in self.running:
            self._heard(channel, self.running[channel], message)

    def _drain(self) -> None:
        """Let the running trials come to their next step; what they did is lost, unless they just ended."""
        if self.running:
            self._note(f"stopping {counted(len(self.running), 'trial')} after the step")
        for channel in self.running:
            channel.send({"do": "stop"})
        deadline = time.monotonic() + _STOP_SECONDS
        while self.running and time.monotonic() < deadline:
            self._turn()

    # -- messages -------------------------------------------------------------------------------

    def _heard(self, channel: Channel, trial: Trial, message: Message) -> None:
        if message["tell"] == "end":
            self.idle.append(channel)
            del self.running[channel]
            self._ended(trial.number, message)
            return
        event = TrainingEvent(**message["event"])
        if message["tell"] == "epoch":
            prune = self.study.report(trial.number, message["epoch"], message["score"])
            channel.send({"do": "prune" if prune else "go"})
        self._tell(SweepEvent("training", trial.number, training=event))

    def _ended(self, number: int, message: Message) -> None:
        """Record how a trial ended. One that was stopped stays open: a resumed sweep tries it again."""
        state, run = message["state"], self._run(number).name
        if state == "stopped":
            return
        if state == "complete":
            self.study.complete(number, message["score"], run, message["facts"])
        elif state == "pruned":
            self.study.prune(number, run)
        else:
            error = message["error"]
            if error["error"] == OutputError.__name__:  # the next trial could not write either
                raise OutputError(error["what"], where=error["where"], remedy=error["remedy"])
            place = f"{error['where']}: " if error["where"] else ""
            self.study.fail(number, f"{error['error']}: {place}{error['what']}")
        self._closed(number)

    def _died(self, channel: Channel) -> None:
        """Record that a worker's process has ended by itself: its trial has failed."""
        trial, why = self.running.pop(channel, None), channel.complaint()
        channel.close()
        if channel in self.idle:
            self.idle.remove(channel)
        if trial is not None:
            self.study.fail(trial.number, why)
            self._closed(trial.number)

    def _closed(self, number: int) -> None:
        """Tell that a trial has ended, and write what is known now: a kill later takes nothing of it."""
        trials = self.study.trials()
        self.done, before, self.best = len(ended(trials)), self.best, best_of(trials)
        self._tell(SweepEvent("end", number, ended=trials[number]))
        write_trials(self.directory.path, self.settings, trials, {})
        if self.best is not None and self.best != before:
            write_best(self.directory.path, self._settings(self.best))
        if self.settings.sweep.keep_models == "best":
            self._tidy(trials)

    def _tidy(self, trials: Sequence[Trial]) -> None:
        """Remove the weights of all ended trials but the best; settings, metrics and reports stay."""
        for trial in ended(trials):
            if self.best is None or trial.number != self.best.number:
                run = RunDirectory(self._run(trial.number))
                shutil.rmtree(run.model, ignore_errors=True)
                shutil.rmtree(run.checkpoints, ignore_errors=True)

    # -- the report -----------------------------------------------------------------------------

    def _report(self, *, out_of_time: bool) -> SweepResult:
        path, trials = self.directory.path, self.study.trials()
        importance = self.study.importance()
        files = [*write_trials(path, self.settings, trials, importance)]
        if self.best is not None:
            files.append(write_best(path, self._settings(self.best)))
            files.append(write_plot(path, self.settings, trials, importance))
        return SweepResult(path, self.settings, tuple(trials), importance, tuple(files), out_of_time)

    def _refuse(self, result: SweepResult) -> None:
        """Say why there is no result.

        Raises:
            SweepFailedError: always.
        """
        failed = [trial for trial in result.trials if trial.state == "failed"]
        if not failed:
            raise SweepFailedError(
                "the time was up before a trial came to its end",
                where=str(result.path),
                remedy=f"go on with: {resume_command(result.path)}",
            )
        raise SweepFailedError(
            f"{counted(len(failed), 'trial')} failed and none came to its end; the last: {failed[-1].error}",
            where=str(result.path),
            remedy="try 'gkiller train' with these settings, then narrow the space",
        )

    def _settings(self, trial: Trial) -> Settings:
        """Return a trial's settings, complete."""
        return settings_of({**settings_values(self.settings), **trial.params}, f"trial {trial.number}")

    def _run(self, number: int) -> Path:
        return self.directory.path / RUNS / f"trial-{number}"

    def _progress(self) -> str:
        return f"{self.done:,} of {counted(self.settings.sweep.trials, 'trial')}"

    def _note(self, message: str) -> None:
        self._tell(SweepEvent("note", message=message))

    def _tell(self, event: SweepEvent) -> None:
        best = None if self.best is None else self.best.score
        self.on_event(replace(event, best=best, done=self.done, total=self.settings.sweep.trials))
