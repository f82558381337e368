"""The study: Optuna's sampler and pruner over an SQLite file. Nothing else of gkiller imports Optuna.

Optuna stores numbers and JSON text, no pickles. The process that holds the sweep's lock is the only one that
opens the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import OptunaError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from gkiller.errors import OutputError, ResumeError, SettingsError, one_line
from gkiller.sweep.trials import State, Trial

if TYPE_CHECKING:
    from gkiller.settings import SweepSettings
    from gkiller.sweep.space import Dimension

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
    """Proposes trials and keeps what became of them.

    Args:
        study: Optuna's.
        space: what is searched.
        settings: of the sweep.
        path: the SQLite file.
    """

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
        raise SettingsError(
            "a sweep's path must have no '?'", where=str(path), remedy="choose another --out or --name"
        )
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
