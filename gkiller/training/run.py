"""A run directory: one execution's settings, manifest, metrics and results; and what may change when it goes on."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from filelock import FileLock, Timeout

from gkiller.data.load import split_fingerprint
from gkiller.data.sources import local_path
from gkiller.errors import GkillerError, ResumeError, RunExistsError, RunLockedError, SettingsError
from gkiller.settings import resolve, settings_by_key
from gkiller.storage.environment import environment
from gkiller.storage.files import append_line, json_text, make_directory, remove_leftovers, sync, write_text, writing
from gkiller.training.runtime import local_processes, thread_count
from gkiller.wording import did_you_mean

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from gkiller.data.dataset import Dataset
    from gkiller.settings.definition import Settings
    from gkiller.training.phases import Phase
    from gkiller.training.runtime import Ranks


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOCK, _CARD = ".lock", "README.md"


class ManifestData(TypedDict):
    """What a manifest records of the data."""

    source: str
    path: str | None
    synthetic: bool
    labels: list[str]
    rows: dict[str, int]
    fingerprints: dict[str, str]


class RunManifest(TypedDict, total=False):
    """``manifest.json``: how a run began, and from "ended" on how it ended."""

    argv: list[str]
    started: str
    seed: int
    threads: int
    processes: int
    device: str
    data: ManifestData
    tokenizer_sha256: str
    environment: dict[str, Any]
    distill: dict[str, Any]
    network: dict[str, Any]
    resumed: list[dict[str, Any]]
    ended: str
    training_seconds: float
    epochs: int
    stopped_early: list[str]
    best: dict[str, dict[str, Any]]
    dendrites_kept: int
    dendrite_gains: dict[str, dict[str, Any]]
    dendrites: dict[str, Any]
    parameters: int
    fold_difference: float


class RunDirectory:
    """The files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.plots = path / "plots"
        self._lock = FileLock(path / _LOCK)

    @classmethod
    def create(cls, out: Path, name: str | None, kind: str = "train") -> RunDirectory:
        """Make a new run directory ``out/name``; without a name, the first free ``kind-N``.

        Raises:
            OutputError: it cannot be written there.
            RunExistsError: a run of that name is there.
            SettingsError: the name is not a plain file name.
        """
        if name is not None and not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name!r} cannot name a run",
                where="--name",
                remedy="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
        make_directory(out)
        if name is not None and _stillborn(out / name):
            return cls(out / name)
        numbered = (out / f"{kind}-{number}" for number in itertools.count(1))
        while True:
            path = next(numbered) if name is None else out / name
            with writing(path):
                try:
                    path.mkdir()
                except FileExistsError as error:
                    if name is None:
                        continue
                    remedy = f"choose another --name, or go on with --resume {path}"
                    raise RunExistsError("a run of that name is there", where=str(path), remedy=remedy) from error
                sync(path.parent)
            return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return an existing run directory; a ResumeError where it is not one."""
        if not _is_run(path):
            remedy = "name a directory under runs/"
            raise ResumeError("not a run: settings.toml is missing", where=str(path), remedy=remedy)
        return cls(path)

    @classmethod
    def find(cls, out: Path, name: str) -> RunDirectory:
        """Return an existing run by its directory, or its name under ``out``; else a ResumeError with the nearest."""
        path = Path(name).expanduser()
        if _is_run(path):
            return cls(path)
        if _NAME.fullmatch(name) and _is_run(out / name):
            return cls(out / name)
        runs = [run.parent.name for run in out.glob("*/settings.toml")]
        remedy = did_you_mean(path.name, runs) if runs else "start one with 'gkiller train'"
        raise ResumeError("not a run: settings.toml is missing", where=name, remedy=remedy)

    @classmethod
    def newest(cls, out: Path) -> RunDirectory:
        """Return the run under ``out`` that was written last; a ResumeError where there is none."""
        runs = [settings.parent for settings in out.glob("*/settings.toml")]
        if not runs:
            raise ResumeError("there is no run", where=str(out), remedy="start one with 'gkiller train'")
        return cls.open(max(runs, key=lambda run: (run / "settings.toml").stat().st_mtime_ns))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's lock for the block, or raise `RunLockedError`. A dead process does not keep it."""
        with writing(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise RunLockedError(
                    "another process writes to this run", where=str(self.path), remedy="wait for it to end"
                ) from error
        try:
            yield
        finally:
            self._lock.release()

    def tidy(self) -> None:
        """Remove what a killed process left half-written; call it only while holding the lock."""
        remove_leftovers(self.path, keep=(_LOCK,))

    @contextlib.contextmanager
    def discarded_when_refused(self) -> Iterator[None]:
        """Remove the run when the block is refused before the first checkpoint: a mistyped encoder takes no name."""
        try:
            yield
        except GkillerError:
            if not self.checkpoints.exists():
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def write_settings(self, settings: Settings) -> None:
        """Write ``settings.toml``: complete, so that ``--config`` on it repeats the run."""
        from gkiller.settings import settings_toml

        write_text(self.path / "settings.toml", settings_toml(settings))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        write_text(self.path / name, json_text(value))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run; a ResumeError where it is missing or damaged."""
        try:
            value: dict[str, Any] = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ResumeError(f"not readable: {error}", where=str(self.path / name)) from error
        return value

    def close(self, card: str) -> None:
        """Write the model card: the last file of a run, which says that it is complete."""
        write_text(self.path / _CARD, card)

    def reopen(self) -> None:
        """Take back that the run is complete."""
        with writing(self.path):
            (self.path / _CARD).unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end, and its model is there."""
        return (self.path / _CARD).is_file() and (self.model / "gkiller.json").is_file()

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``, down to the disk."""
        append_line(self.path / "metrics.jsonl", json.dumps(row, allow_nan=False))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``; none when it is not there. A ResumeError where a line is not JSON.

        A last line without its end is left out: its writer was killed, and the epoch will be trained again.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        rows = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), start=1):
            if not line.endswith("\n"):
                break
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ResumeError(f"not JSON: {error}", where=f"{path}, line {number}") from error
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write ``metrics.jsonl`` anew: a resumed training goes on after the rows of its checkpoint."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        write_text(self.path / "metrics.jsonl", text)


def _is_run(path: Path) -> bool:
    return (path / "settings.toml").is_file()


def _stillborn(path: Path) -> bool:
    """Whether a run was killed before it had written anything but hidden files and its manifest."""
    return path.is_dir() and all(p.name.startswith(".") or p.name == "manifest.json" for p in path.iterdir())


HARMLESS = (
    *("train.device", "train.threads", "train.keep_checkpoints", "train.checkpoint_seconds", "train.checkpoint_steps"),
)
"""Settings that a resumed run may change: they do not change what is computed, but for rounding."""
LONGER = {"train.epochs": "neuron", "dendrites.epochs": "dendrite", "dendrites.joint_epochs": "joint"}
"""Lengths that a resumed run may raise, with the phase that has each, in their order in a training."""
_SAME = {"data": "data", "tokenizer_sha256": "tokenizer", "distill": "teachers or transfer comments"}
"""What of a manifest must be the same when a run goes on, and what it is called."""


def resume_command(run: Path, processes: int) -> str:
    """Return the command that goes on with a run, in as many processes of this machine as now."""
    launcher = f"torchrun --nproc-per-node {local_processes()} -m " if processes > 1 else ""
    return f"{launcher}gkiller train --resume {shlex.quote(run.as_posix())}"


def run_settings(run: Path) -> Settings:
    """Return the settings that a run directory records."""
    return resolve(config=run / "settings.toml", environ={}).settings


def resumed_settings(run: Path, asked: Settings, keys: Iterable[str]) -> Settings:
    """Return a run's own settings with the changes of ``keys`` asked for.

    Raises:
        ResumeError: one of them differs and is neither among `HARMLESS` nor a length that grows.
    """
    kept = run_settings(run)
    changes: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for key, (ours, theirs) in changed(kept, asked, keys).items():
        longer = key in LONGER and theirs is not None and (ours is None or theirs > ours)
        if key in HARMLESS or longer:
            section, field = key.split(".")
            changes.setdefault(section, {})[field] = theirs
        else:
            refused.append(f"{key} is {ours!r} in the run and {theirs!r} now")
    if refused:
        raise ResumeError(
            "a resumed run keeps its settings: " + "; ".join(refused),
            where=str(run),
            remedy="leave these settings out, or start a new training; "
            f"{', '.join(HARMLESS)} may change, and {', '.join(LONGER)} may grow",
        )
    sections = {name: getattr(kept, name).model_copy(update=fields) for name, fields in changes.items()}
    return kept.model_copy(update=sections)


def changed(before: Settings, after: Settings, keys: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the settings among ``keys`` that differ, each with both values."""
    pairs = {key: (attrgetter(key)(before), attrgetter(key)(after)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check_lengths(keys: Iterable[str], phase: Phase) -> None:
    """Raise `ResumeError` where one of the changed settings is the length of a phase that is over."""
    order = list(LONGER.values())
    over = [key for key in keys if key in LONGER and order.index(LONGER[key]) < order.index(phase.name)]
    if over:
        what = f"the run is in its {phase.name} phase: {', '.join(over)} cannot change any more"
        raise ResumeError(what, remedy="leave it out, or start a new training")


def new_manifest(
    settings: Settings,
    source: str,
    dataset: Dataset,
    tokenizer: Tokenizer,
    argv: Sequence[str],
    device: torch.device,
    ranks: Ranks,
) -> RunManifest:
    """Return how a run begins: command line, seed, threads, device, fingerprints and environment.

    ``source`` is where the data were read from; it may have moved since the settings named it.
    """
    return {
        "argv": list(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": settings.train.seed,
        "threads": thread_count(settings.train),
        "processes": ranks.size,
        "device": str(device),
        "data": {
            "source": dataset.manifest.get("source", settings.data.source),
            "path": local_path(source),
            "synthetic": bool(dataset.manifest.get("synthetic", False)),
            "labels": list(dataset.labels),
            "rows": {name: len(split) for name, split in dataset.splits.items()},
            "fingerprints": {name: split_fingerprint(split, dataset.labels) for name, split in dataset.splits.items()},
        },
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "environment": environment(),
    }


def open_run(run: RunDirectory, settings: Settings, before: Settings | None, manifest: RunManifest) -> None:
    """Write manifest and settings: those of a new run, or what has changed since ``before``, a resumed run's."""
    if before is not None:
        began = run.read_json("manifest.json")
        changes = {k: list(pair) for k, pair in changed(before, settings, settings_by_key()).items()}
        entry = {"started": manifest["started"], "changed": changes}
        manifest["resumed"] = [*began.get("resumed", []), entry]
        manifest["started"], manifest["argv"] = began["started"], began["argv"]
        manifest["data"]["source"] = began["data"]["source"]
    run.tidy()
    run.reopen()
    run.write_json("manifest.json", manifest)
    if before != settings:
        run.write_settings(settings)  # last: they make the directory a run


def compare_runs(run: RunDirectory, now: Mapping[str, Any]) -> str:
    """Return what differs from how a run began and may change the result a little, for the reader; "" for nothing.

    Raises:
        ResumeError: the data, the tokenizer or the teachers are others.
    """
    began = run.read_json("manifest.json")
    for key, name in _SAME.items():
        if _content(began.get(key)) != _content(now.get(key)):
            remedy = "put them back, or start a new training"
            raise ResumeError(f"the {name} of this run have changed since it began", where=str(run.path), remedy=remedy)
    then, this = (
        {**{k: m.get(k) for k in ("threads", "processes", "device")}, **m.get("environment", {})} for m in (began, now)
    )
    different = [key for key in this if key != "git_commit" and then.get(key) != this[key]]
    if not different:
        return ""
    return (
        f"{', '.join(different)} differ from when the run began: it goes on, but its weights may differ "
        "in the last digits from an uninterrupted run's"
    )


def _content(value: Any) -> Any:
    """Return what must be the same: where the data lie may change, what they are may not."""
    return {k: v for k, v in value.items() if k not in ("path", "source")} if isinstance(value, dict) else value
