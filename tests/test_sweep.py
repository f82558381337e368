"""The sweep, with workers that need no process: what it proposes, records, writes and takes up again."""

import csv
import json
import math
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest

from gkiller.errors import (
    DivergedError,
    InterruptedRunError,
    OutputError,
    ResumeError,
    RunExistsError,
    RunLockedError,
    SettingsError,
    SourceNotFoundError,
    SweepFailedError,
    TerminatedRunError,
)
from gkiller.settings import resolve
from gkiller.sweep.study import LEAST_FOR_IMPORTANCE
from gkiller.sweep.sweep import SweepResult, find_sweep, resumed_settings, sweep
from gkiller.training.phases import TrainingEvent
from gkiller.training.run import RunDirectory

SPACE = ("train.lr=log:1e-4..1e-1", "model.dropout=0..0.4", "model.pooling=mean,cls")


def quality(settings: dict[str, Any]) -> float:
    """A score whose best is at lr 1e-2, with little dropout."""
    return 0.9 - 0.2 * abs(math.log10(settings["train.lr"]) + 2) - 0.1 * settings["model.dropout"]


class FakeWorker:
    """Answers at once; ``plan`` gives the scores of a trial's epochs, an error, or None for a death."""

    def __init__(self, plan: Callable[..., Any], inbox: Any) -> None:
        self.plan, self.inbox, self.closed = plan, inbox, False

    def tell(self, **message: Any) -> None:
        self.inbox.put((self, json.loads(json.dumps(message))))

    def send(self, message: dict[str, Any]) -> None:
        message = json.loads(json.dumps(message))
        if message["do"] == "train":
            self.begin(message)
        elif message["do"] == "go":
            self.go_on()
        else:
            self.end({"prune": "pruned", "stop": "stopped"}[message["do"]])

    def begin(self, message: dict[str, Any]) -> None:
        run = RunDirectory.create(Path(message["out"]), message["name"])
        for folder in (run.model, run.checkpoints):
            folder.mkdir()
        planned = self.plan(message["number"], message["settings"])
        if planned is None:
            self.inbox.put((self, None))
        elif isinstance(planned, Exception):
            self.end("failed", error=planned.as_dict())  # type: ignore[attr-defined]
        else:
            self.scores, self.epoch = planned, 0
            self.go_on()

    def go_on(self) -> None:
        if self.epoch == len(self.scores):
            self.end("complete", score=max(self.scores), facts={"epochs": self.epoch})
            return
        score = self.scores[self.epoch]
        self.epoch += 1
        event = TrainingEvent("epoch", "neuron", epoch=self.epoch, epochs=len(self.scores), score=score, metric="ap")
        self.tell(tell="epoch", event=asdict(event), epoch=self.epoch, score=score)

    def end(
        self,
        state: str,
        score: float | None = None,
        facts: dict[str, int] | None = None,
        error: dict[str, int | str] | None = None,
    ) -> None:
        self.tell(tell="end", state=state, score=score, facts=facts or {}, error=error)

    def close(self) -> None:
        self.closed = True

    def complaint(self) -> str:
        return "its process ended with status -9"


@pytest.fixture
def searched(prepared: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run a sweep; returns its result. ``plan`` is a worker's."""

    def run(*overrides: Any, plan: Any = None, space: Any = SPACE, **given: Any) -> Any:
        texts = [f"data.source={prepared}", "sweep.trials=8", "sweep.startup_trials=4", *overrides]
        settings = resolve(
            overrides=texts, flags={"sweep.space": tuple(space)}, environ={}, directory=tmp_path
        ).settings
        chosen = plan or (lambda number, values: [quality(values) - 0.1, quality(values)])
        given.setdefault("out", tmp_path / "sweeps")
        return sweep(settings, start=lambda jobs, inbox: FakeWorker(chosen, inbox), **given)

    return run


def proposals(result: SweepResult) -> list[tuple[dict[str, float | str], float, str]]:
    """What was tried, without what was lost."""
    return [(trial.params, trial.score, trial.state) for trial in result.trials if trial.state != "lost"]  # type: ignore[misc]


def test_the_same_command_proposes_the_same_trials(searched: Callable[..., Any]) -> None:
    first = searched()
    assert proposals(searched()) == proposals(first)
    assert proposals(searched("sweep.seed=1")) != proposals(first)
    assert len({json.dumps(trial.params) for trial in first.trials}) == 8
    assert [trial.number for trial in first.trials] == list(range(8))
    assert first.path.name == "sweep-1"


def test_the_best_is_found_and_written(searched: Callable[..., Any], tmp_path: Path) -> None:
    result = searched("sweep.trials=30", "sweep.prune=false")
    best = max(result.trials, key=lambda trial: trial.score)
    assert result.best == best
    drawn = [trial.score for trial in result.trials[:4]]
    assert best.score > max(drawn)  # it has learnt from them
    found = resolve(config=result.path / "best.toml", environ={}).settings
    assert found.train.lr == best.params["train.lr"]
    assert found.model.pooling == best.params["model.pooling"]
    assert found.data == result.settings.data
    record = json.loads((result.path / "trials.json").read_text())
    assert record["best"] == best.number
    assert record["metric"] == "ap"
    assert [trial["score"] for trial in record["trials"]] == [trial.score for trial in result.trials]
    rows = list(csv.DictReader((result.path / "trials.csv").read_text().splitlines()))
    assert [float(row["train.lr"]) for row in rows] == [trial.params["train.lr"] for trial in result.trials]
    assert (result.path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert next(iter(result.importance)) == "train.lr"
    assert sum(result.importance.values()) == pytest.approx(1)
    assert record["importance"] == result.importance


def test_importance_needs_trials(searched: Callable[..., Any]) -> None:
    few = searched(f"sweep.trials={LEAST_FOR_IMPORTANCE - 1}", "sweep.prune=false")
    assert few.importance == {}
    assert searched("sweep.trials=12", "sweep.prune=false", plan=lambda number, values: [0.5]).importance == {}


def test_a_poor_trial_is_ended_early(searched: Callable[..., Any]) -> None:
    def plan(number: Any, values: Any) -> Any:
        return [0.5 + 0.01 * epoch - 0.05 * number for epoch in range(6)]

    overrides = ("sweep.prune_trials=3", "sweep.prune_epochs=2", "sweep.trials=6")
    result = searched(*overrides, plan=plan)
    assert [trial.state for trial in result.trials] == ["complete"] * 3 + ["pruned"] * 3
    assert [len(trial.scores) for trial in result.trials] == [6, 6, 6, 2, 2, 2]
    assert result.trials[3].score == pytest.approx(0.51 - 0.15)  # that of its last epoch
    unpruned = searched(*overrides, "sweep.prune=false", plan=plan)
    assert {trial.state for trial in unpruned.trials} == {"complete"}


def test_failures_are_recorded_and_the_sweep_goes_on(searched: Callable[..., Any]) -> None:
    def plan(number: Any, values: Any) -> Any:
        planned = {1: DivergedError("the loss is nan", where="epoch 1"), 2: SettingsError("bad"), 3: None}
        return planned.get(number, [0.5])

    result = searched("sweep.trials=6", plan=plan)
    assert [trial.state for trial in result.trials] == ["complete", *["failed"] * 3, "complete", "complete"]
    assert result.trials[1].error == "DivergedError: epoch 1: the loss is nan"
    assert "status -9" in result.trials[3].error


def test_a_sweep_without_any_result_gives_up(searched: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(SweepFailedError) as caught:
        searched("sweep.trials=50", plan=lambda number, values: DivergedError("the loss is nan"))
    assert "5 trials failed" in str(caught.value)
    assert "the loss is nan" in str(caught.value)
    assert caught.value.exit_code == 45
    assert not (tmp_path / "sweeps" / "sweep-1" / "best.toml").exists()


class Killed(BaseException):
    """The sweep's process dies here."""


@pytest.mark.parametrize("moment", ["begin", "training", "end"])
def test_a_killed_sweep_goes_on_as_if_it_had_not_been(
    searched: Callable[..., Any], tmp_path: Path, moment: str
) -> None:
    whole = searched("sweep.trials=10", name="whole")

    def kill(event: Any) -> None:
        if event.kind == moment and event.trial == 5:
            raise Killed

    with pytest.raises(Killed):
        searched("sweep.trials=10", name="x", on_event=kill)
    path = tmp_path / "sweeps" / "x"
    left = path / "runs" / "trial-5"
    assert left.is_dir()
    notes = []
    result = searched("sweep.trials=10", resume=path, on_event=lambda event: notes.append(event.message))
    assert proposals(result) == proposals(whole)
    lost = [trial.number for trial in result.trials if trial.state == "lost"]
    if moment == "end":  # its result was recorded already
        assert lost == []
        return
    assert lost == [5]
    assert not left.exists()
    assert any("trial 5 was left unfinished" in note for note in notes)
    (again,) = [trial for trial in result.trials if trial.retry_of == 5]
    assert again.params == result.trials[5].params
    assert again.score == whole.trials[5].score


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, InterruptedRunError), (signal.SIGTERM, TerminatedRunError)]
)
def test_a_signal_stops_the_running_trial_and_the_sweep_goes_on(
    searched: Callable[..., Any], tmp_path: Path, number: Any, error: type[Any]
) -> None:
    whole = searched("sweep.trials=6", name="whole")

    def ask(event: Any) -> None:
        if event.kind == "training" and event.trial == 3 and event.training.epoch == 1:
            signal.raise_signal(number)

    handler = signal.getsignal(number)
    with pytest.raises(error) as caught:
        searched("sweep.trials=6", name="x", on_event=ask, signals=True)
    assert signal.getsignal(number) == handler
    path = tmp_path / "sweeps" / "x"
    assert f"gkiller sweep --resume {path}" in caught.value.remedy
    assert "after 3 of 6 trials" in str(caught.value)
    assert len(json.loads((path / "trials.json").read_text())["trials"]) == 4
    assert proposals(searched("sweep.trials=6", resume=path)) == proposals(whole)


def test_a_finished_sweep_goes_on_with_more_trials_and_no_other_change(
    searched: Callable[..., Any], tmp_path: Path
) -> None:
    whole = searched("sweep.trials=9", name="whole")
    first = searched("sweep.trials=6", name="x")
    again = searched("sweep.trials=6", resume=first.path)
    assert proposals(again) == proposals(first)
    assert proposals(searched("sweep.trials=9", "sweep.jobs=1", resume=first.path)) == proposals(whole)
    for other in ("train.batch_size=8", "sweep.seed=3", "sweep.prune=false"):
        with pytest.raises(ResumeError, match=other.partition("=")[0]):
            searched("sweep.trials=9", other, resume=first.path)
    with pytest.raises(ResumeError, match=r"sweep\.space"):
        searched("sweep.trials=9", space=SPACE[:2], resume=first.path)
    asked = resolve(overrides=["sweep.jobs=2", "train.lr=0.5"], environ={}, directory=tmp_path).settings
    kept = resumed_settings(first.path, asked, ["sweep.jobs"])
    assert (kept.sweep.jobs, kept.sweep.trials, kept.train.lr) == (2, 9, 1e-3)


def test_a_full_disk_stops_the_sweep_and_its_trial_is_tried_again(searched: Callable[..., Any], tmp_path: Path) -> None:
    def plan(number: Any, values: Any) -> Any:
        return OutputError("cannot write there: full", where="x") if number == 2 else [0.5]

    with pytest.raises(OutputError, match="full"):
        searched("sweep.trials=4", plan=plan)
    result = searched("sweep.trials=4", resume=tmp_path / "sweeps" / "sweep-1")
    assert [trial.state for trial in result.trials] == ["complete", "complete", "lost", "complete", "complete"]


def test_no_trial_begins_after_the_time(searched: Callable[..., Any]) -> None:
    def plan(number: Any, values: Any) -> Any:
        time.sleep(0.05)
        return [0.5]

    result = searched("sweep.trials=1000", "sweep.timeout=0.01", plan=plan)
    assert len(result.trials) == 1
    assert result.out_of_time
    whole = searched("sweep.trials=2", "sweep.timeout=60")
    assert not whole.out_of_time


def test_jobs_train_at_a_time(searched: Callable[..., Any], tmp_path: Path) -> None:
    running, most, workers = set(), [], []

    def watch(event: Any) -> None:
        if event.kind == "begin":
            running.add(event.trial)
        if event.kind == "end":
            running.discard(event.trial)
        most.append(len(running))

    def start(jobs: Any, inbox: Any) -> Any:
        assert jobs == 3
        workers.append(FakeWorker(lambda number, values: [quality(values)], inbox))
        return workers[-1]

    settings = searched("sweep.trials=1").settings
    sweep_of = settings.sweep.model_copy(update={"trials": 8, "jobs": 3})
    result = sweep(settings.model_copy(update={"sweep": sweep_of}), start=start, on_event=watch, out=tmp_path / "y")
    assert max(most) == 3
    assert len(workers) == 3
    assert all(worker.closed for worker in workers)
    assert {trial.state for trial in result.trials} == {"complete"}


@pytest.mark.parametrize("keep", ["best", "all"])
def test_models_are_kept(searched: Callable[..., Any], keep: str) -> None:
    result = searched(f"sweep.keep_models={keep}")
    models = {path.parent.name for path in (result.path / "runs").glob("*/model")}
    assert models == {path.parent.name for path in (result.path / "runs").glob("*/checkpoints")}
    every = {f"trial-{number}" for number in range(8)}
    assert models == (every if keep == "all" else {result.best.run})


def test_refusals_leave_nothing_behind(searched: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        searched("data.source=nowhere.csv")
    assert not list((tmp_path / "sweeps").iterdir())
    first = searched("sweep.trials=1", name="x")
    with pytest.raises(RunExistsError):
        searched(name="x")
    with RunDirectory(first.path).lock(), pytest.raises(RunLockedError):
        searched("sweep.trials=1", resume=first.path)
    with pytest.raises(ResumeError, match="not a sweep"):
        find_sweep(tmp_path / "sweeps", "y")
    assert find_sweep(tmp_path / "sweeps", "x") == tmp_path / "sweeps" / "x"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("study.db", b"no database" * 100),
        ("sweep.json", b"{"),
        ("sweep.json", b"[]"),
        ("sweep.json", b'{"format_version": 99, "settings": {}, "fingerprints": {}}'),
    ],
)
def test_damaged_files_are_refused(searched: Callable[..., Any], file: str, content: bytes) -> None:
    path = searched("sweep.trials=1").path
    (path / file).write_bytes(content)
    with pytest.raises(ResumeError) as caught:
        searched("sweep.trials=1", resume=path)
    assert file in caught.value.where


def test_changed_data_are_refused(searched: Callable[..., Any]) -> None:
    path = searched("sweep.trials=1").path
    manifest = json.loads((path / "sweep.json").read_text())
    manifest["fingerprints"]["valid"] = "0"
    (path / "sweep.json").write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match="have changed"):
        searched("sweep.trials=1", resume=path)


def test_the_database_holds_no_binary_values_and_optuna_stays_as_it_was(
    searched: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    path = searched("sweep.trials=3").path
    assert optuna.logging.get_verbosity() == before
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    connection = sqlite3.connect(path / "study.db")
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    values = [value for table in tables for row in connection.execute(f"select * from {table}") for value in row]
    connection.close()
    assert len(values) > 50
    assert not [value for value in values if isinstance(value, bytes)]
