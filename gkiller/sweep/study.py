"""What a sweep searches, and Optuna's study of it in an SQLite file. No other module imports Optuna.

Optuna stores numbers and JSON text, no pickles. The process that holds the sweep's lock is the only one that
opens the file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from gkiller.errors import OutputError, ResumeError, SettingsError
from gkiller.settings import key_advice, settings_by_key
from gkiller.settings.layers import value_problem
from gkiller.settings.values import Problem, from_text, refuse
from gkiller.sweep.pool import State, Trial
from gkiller.wording import one_line

if TYPE_CHECKING:
    from gkiller.settings import Reference, SweepSettings


FIXED_SECTIONS = ("data", "evaluation", "deployment", "bench", "sweep")

FIXED_KEYS = (
    "model.arch",  # it brings defaults of its own
    "train.metric",
    "train.device",
    "train.threads",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
)
"""With the sections above: settings that every trial shares, or else their scores could not be compared."""

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?:(log|int):)?\s*({_NUMBER})\s*\.\.\s*({_NUMBER})")
_FORMS = "write A..B, log:A..B, int:A..B or choices a,b,c"


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched: choices, or a range."""

    choices: tuple[Any, ...] = ()  # the values to choose among; empty for a range
    low: float = 0.0  # the range's lower end, which belongs to it
    high: float = 0.0
    log: bool = False  # whether its logarithm is drawn
    whole: bool = False  # whether its values are whole numbers


def parse_space(entries: Iterable[str], where: str) -> dict[str, Dimension]:
    """Return the dimensions that ``KEY=RANGE`` texts describe, by dotted key.

    Raises:
        SettingsError: an unknown key, a setting that trials must share, a value out of the setting's type or
            range, an empty space. One error names everything that is wrong.
    """
    space: dict[str, Dimension] = {}
    problems: list[Problem] = []
    for entry in entries:
        key, equals, text = (part.strip() for part in entry.partition("="))
        found = (
            _dimension(key, text, f"{where} {key}")
            if equals
            else Problem(f"{entry!r} is not KEY=RANGE", where, "write train.lr=log:1e-5..1e-3")
        )
        if isinstance(found, Dimension) and key in space:
            found = Problem(f"{key} is there twice", where, "name every setting once")
        if isinstance(found, Problem):
            problems.append(found)
        else:
            space[key] = found
    if not space and not problems:
        problems.append(Problem("there is nothing to search", where, "name a setting: train.lr=log:1e-5..1e-3"))
    refuse(problems)
    return space


def range_text(dimension: Dimension) -> str:
    """Return a dimension as one would type it."""
    from gkiller.settings import plain_text

    if dimension.choices:
        return ",".join(map(plain_text, dimension.choices))
    kind = "log:" if dimension.log else "int:" if dimension.whole else ""
    ends = (int(end) if dimension.whole else end for end in (dimension.low, dimension.high))
    return kind + "..".join(map(str, ends))


def shortest_names(keys: Iterable[str]) -> Mapping[str, str]:
    """Return each key's last part, or the whole key where two share it."""
    known = list(keys)
    names = [key.rpartition(".")[2] for key in known]
    return {key: name if names.count(name) == 1 else key for key, name in zip(known, names, strict=True)}


def _dimension(key: str, text: str, where: str) -> Dimension | Problem:
    entry = settings_by_key().get(key)
    if entry is None:
        return Problem(f"unknown setting {key!r}", where, key_advice(key))
    if entry.section in FIXED_SECTIONS or key in FIXED_KEYS:
        what = f"{key} cannot be searched: trials that differ in it cannot be compared"
        return Problem(what, where, f"leave it out, or set it for all trials with --set {key}=...")
    if entry.kind in ("list", "numbers"):
        return Problem(f"{key} is a list, which cannot be searched", where, "leave it out")
    match = _RANGE.fullmatch(text)
    if match is not None and entry.kind in ("int", "float"):
        return _range(entry, match, where)
    return _choices(entry, text, where)


def _range(entry: Reference, match: re.Match[str], where: str) -> Dimension | Problem:
    """Return the dimension of ``[log:|int:]A..B`` for a number."""
    kind, whole = match[1], entry.kind == "int"
    low, high = (from_text(entry, end) for end in match.group(2, 3))
    if kind == "int" and not whole:
        return Problem(f"{entry.key} is no whole number", where, f"write {match[2]}..{match[3]} without int:")
    for end in (low, high):
        problem = value_problem(entry.key, end, where)
        if problem is not None:
            return problem
    if not low < high:
        return Problem(f"the range {match[0]!r} is empty", where, "write the lower end first")
    if kind == "log" and low <= 0:
        return Problem("a logarithmic range begins above 0", where, "raise its lower end, or leave out log:")
    convert = int if whole else float
    return Dimension(low=convert(low), high=convert(high), log=kind == "log", whole=whole)


def _choices(entry: Reference, text: str, where: str) -> Dimension | Problem:
    if re.match(r"(log|int):", text) or (entry.kind in ("int", "float") and ".." in text):
        return Problem(f"{text!r} is no range for {entry.key}", where, _FORMS)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        return Problem(f"no range for {entry.key}", where, _FORMS)
    values = [from_text(entry, part) for part in parts]
    for value in values:
        problem = value_problem(entry.key, value, where)
        if problem is not None:
            return problem
    return Dimension(choices=tuple(dict.fromkeys(values)))


LEAST_FOR_IMPORTANCE = 10
"""Complete trials from which on the importance of settings is estimated."""

_STRIDE = 1_000_003  # a prime: the seeds of neighbouring sweeps and trials do not meet
_RETRY, _RUN, _FACTS, _ERROR = "retry_of", "run", "facts", "error"

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Study:
    """Proposes trials and keeps what became of them."""

    def __init__(
        self, study: optuna.Study, space: Mapping[str, Dimension], settings: SweepSettings, path: Path
    ) -> None:
        self._study = study
        self._space = {key: _distribution(dimension) for key, dimension in space.items()}
        self._settings = settings
        self._path = path
        self._running: dict[int, optuna.Trial] = {}

    def begin(self) -> Trial:
        """Propose the next trial: one to be tried again, else a new one.

        What the n-th new one is depends on the sampler's seed, n and the results so far alone: a sweep that
        was killed and goes on proposes what an unbroken one would have.
        """
        with _stored(self._path):
            drawn = sum(_RETRY not in trial.user_attrs for trial in self._study.get_trials(deepcopy=False))
            seed = (self._settings.seed * _STRIDE + drawn) % 2**32
            self._study.sampler = TPESampler(seed=seed, n_startup_trials=self._settings.startup_trials)
            trial = self._study.ask(self._space)
        self._running[trial.number] = trial
        return Trial(trial.number, "running", dict(trial.params), retry_of=trial.user_attrs.get(_RETRY))

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Take the score of an epoch; return whether the trial should end early."""
        trial = self._running[number]
        with _stored(self._path):
            trial.report(score, epoch)
            return self._settings.prune and trial.should_prune()

    def complete(self, number: int, score: float, run: str, facts: Mapping[str, Any]) -> None:
        """Close a trial that came to its end."""
        self._close(number, TrialState.COMPLETE, score, {_RUN: run, _FACTS: dict(facts)})

    def prune(self, number: int, run: str) -> None:
        """Close a trial that was ended early."""
        self._close(number, TrialState.PRUNED, None, {_RUN: run})

    def fail(self, number: int, error: str) -> None:
        """Close a trial that has no result."""
        self._close(number, TrialState.FAIL, None, {_ERROR: error})

    def _close(self, number: int, state: TrialState, score: float | None, facts: Mapping[str, Any]) -> None:
        trial = self._running.pop(number)
        with _stored(self._path):
            for key, value in facts.items():
                trial.set_user_attr(key, value)
            self._study.tell(trial, score, state=state)

    def recover(self) -> list[int]:
        """Mark trials that a dead process left running as failed, to be tried again; return their numbers.

        Only for the one process that holds the sweep's lock.
        """
        with _stored(self._path):
            trials = self._study.get_trials(deepcopy=False)
            again = {trial.user_attrs.get(_RETRY) for trial in trials}
            lost = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for trial in lost:
                if trial.number not in again:  # enqueued first: a kill between the two loses nothing
                    self._study.enqueue_trial(dict(trial.params), user_attrs={_RETRY: trial.number})
                self._study.tell(trial.number, state=TrialState.FAIL)
        return [trial.number for trial in lost]

    def trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        with _stored(self._path):
            trials = self._study.get_trials(deepcopy=False)
        lost = {trial.user_attrs.get(_RETRY) for trial in trials}
        return [_trial(trial, lost=trial.number in lost) for trial in trials]

    def importance(self) -> dict[str, float]:
        """Return the share of the score's variance that each setting explains, most important first.

        It is fANOVA's (Hutter, Hoos and Leyton-Brown 2014) over the complete trials; empty with fewer than
        `LEAST_FOR_IMPORTANCE` of them, or where all scores are equal.
        """
        with _stored(self._path):
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            scores = {trial.value for trial in trials}
            if len(trials) < LEAST_FOR_IMPORTANCE or len(scores) < 2:
                return {}
            found = get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=0))
        return {key: float(share) for key, share in found.items()}


@contextlib.contextmanager
def open_study(path: Path, space: Mapping[str, Dimension], settings: SweepSettings) -> Iterator[Study]:
    """Open a study, or begin one where there is none, for the block.

    Raises:
        OutputError: it cannot be written.
        ResumeError: the file is no study of this version of Optuna.
        SettingsError: the path cannot be written as an address of SQLite.
    """
    if "?" in str(path):
        raise SettingsError("a sweep's path must have no '?'", where=str(path), remedy="choose another --out or --name")
    pruner = MedianPruner(n_startup_trials=settings.prune_trials, n_warmup_steps=settings.prune_epochs)
    with _quiet(), contextlib.ExitStack() as stack:
        try:
            storage = RDBStorage(f"sqlite:///{path}")
            stack.callback(storage.engine.dispose)
            stack.callback(storage.remove_session)
            study = optuna.create_study(
                study_name="sweep", direction="maximize", storage=storage, pruner=pruner, load_if_exists=True
            )
        except (SQLAlchemyError, OptunaError, RuntimeError) as error:
            raise ResumeError(
                f"the study cannot be read: {one_line(error)}",
                where=str(path),
                remedy="start a new sweep; best.toml and trials.json hold the results so far",
            ) from error
        yield Study(study, space, settings, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna log errors only, for the block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def _stored(path: Path) -> Iterator[None]:
    """Turn a failure of the storage into an error that names it."""
    try:
        yield
    except (SQLAlchemyError, OptunaError) as error:
        raise OutputError(
            f"the study cannot be read or written: {one_line(error)}",
            where=str(path),
            remedy="check permissions and free space, then go on with --resume",
        ) from error


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _trial(trial: FrozenTrial, *, lost: bool) -> Trial:
    ended = trial.datetime_complete is not None and trial.datetime_start is not None
    return Trial(
        number=trial.number,
        state="lost" if lost and trial.state == TrialState.FAIL else _STATES[trial.state],
        params=dict(trial.params),
        score=trial.value,
        scores=dict(sorted(trial.intermediate_values.items())),
        seconds=trial.duration.total_seconds() if ended and trial.duration is not None else None,
        run=trial.user_attrs.get(_RUN, ""),
        facts=trial.user_attrs.get(_FACTS, {}),
        error=trial.user_attrs.get(_ERROR, ""),
        retry_of=trial.user_attrs.get(_RETRY),
    )
