"""A worker's trainings, in this process: how they end, and that nothing is left locked."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from training_helpers import untimed

from gkiller.settings import settings_values
from gkiller.sweep.worker import Desk, run_trial
from gkiller.training.run import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots")


class FakeDesk:
    """Records what is told; answers epochs from ``answers``, then with "go"."""

    def __init__(self, *answers: Any, stop_at: Any = None) -> None:
        self.answers, self.stop_at = list(answers), stop_at
        self.told, self.stopped = [], Event()  # type: ignore[var-annotated]

    def next(self) -> dict[str, str]:
        return {"do": self.answers.pop(0) if self.answers else "go"}

    def tell(self, kind: str, **values: Any) -> None:
        self.told.append(json.loads(json.dumps({"tell": kind, **values})))
        if self.stop_at is not None and len(self.told) == self.stop_at:
            self.stopped.set()

    @property
    def end(self) -> dict[str, Any]:
        assert [message["tell"] == "end" for message in self.told].index(True) == len(self.told) - 1
        return self.told[-1]


@pytest.fixture
def trial(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(desk: Any, *overrides: Any, name: Any = "trial-0", **changes: Any) -> Any:
        values = {**settings_values(tiny("data.sample_size=48", *overrides)), **changes}
        message = {"number": 0, "settings": values, "out": str(tmp_path), "name": name, "argv": []}
        run_trial(json.loads(json.dumps(message)), desk)
        return RunDirectory(tmp_path / name)

    return run


def test_a_trial_to_its_end(trial: Callable[..., Any]) -> None:
    desk = FakeDesk()
    run = trial(desk, "dendrites.min_gain=-1")
    epochs = [message for message in desk.told if message["tell"] == "epoch"]
    assert [message["epoch"] for message in epochs] == [1, 2, 3, 4, 5]  # over all phases
    assert [message["score"] for message in epochs] == [row["valid_ap"] for row in run.read_metrics()]
    assert desk.end["state"] == "complete"
    best = json.loads((run.path / "manifest.json").read_text())["best"]
    assert desk.end["score"] == best["1"]["score"]  # of the weights that were kept, with their dendrite
    assert desk.end["facts"]["dendrites"] == 1
    assert run.complete


@pytest.mark.parametrize("answers", [("prune",), ("go", "go", "prune")])
def test_an_answer_ends_it_early(trial: Callable[..., Any], answers: tuple[Any, ...]) -> None:
    desk = FakeDesk(*answers)
    run = trial(desk)
    assert desk.end["state"] == "pruned"
    assert len(run.read_metrics()) == len(answers)
    assert not run.complete
    with run.lock():  # nobody holds it
        pass


def test_the_next_trial_of_a_worker_is_as_if_it_were_the_first(trial: Callable[..., Any]) -> None:
    first = trial(FakeDesk(), name="first")
    trial(FakeDesk("go", "go", "prune"), name="pruned")  # in the dendrite phase
    after = trial(FakeDesk(), name="after")
    assert untimed(after.read_metrics()) == untimed(first.read_metrics())


def test_a_stop_ends_it_after_a_step(trial: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.sweep.worker._STEP_SECONDS", 0)  # else few steps are told
    desk = FakeDesk(stop_at=2)
    run = trial(desk)
    assert desk.end["state"] == "stopped"
    assert desk.told[1]["event"]["kind"] == "step"
    assert run.read_metrics() == []
    with run.lock():
        pass


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"train.lr": 5.0}, "SettingsError"),
        ({"model.heads": 3}, "SettingsError"),
        ({"model.encoder": "/nowhere/encoder"}, "ModelNotFoundError"),
    ],
)
def test_what_is_wrong_with_its_settings_is_told(
    trial: Callable[..., Any], changes: dict[str, Any], error: str
) -> None:
    desk = FakeDesk()
    trial(desk, **changes)
    assert desk.end["state"] == "failed"
    assert desk.end["error"]["error"] == error


def test_a_desk_reads_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr("gkiller.sweep.worker.os._exit", ended.append)
    sink = io.StringIO()
    desk = Desk(io.StringIO('{"do": "go"}\n{"do": "stop"}\n'), sink)
    desk.read()
    assert [desk.next()["do"], desk.next()["do"]] == ["go", "stop"]
    assert desk.stopped.is_set()
    assert ended == [0]
    desk.tell("end", state="complete")
    assert json.loads(sink.getvalue()) == {"tell": "end", "state": "complete"}
