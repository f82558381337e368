"""A stopped training goes on as if nothing had been: the same bytes, wherever it was stopped."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import toy_trainer, untimed, untimed_state

from gkiller.errors import ResumeError
from gkiller.settings.definition import Settings
from gkiller.training.checkpoint import Checkpoint
from gkiller.training.learner import Validation
from gkiller.training.phases import Position
from gkiller.training.trainer import Trainer

SMALL = ("data.sample_size=48", "train.keep_checkpoints=2", "train.checkpoint_steps=1", "dendrites.init_std=0.2")

# Scores by epoch, so that every configuration takes the way it is here for.
CASES = {
    "two dendrites": (("dendrites.count=2", "dendrites.min_gain=0"), [0.1, 0.2, 0.25, 0.24, 0.3, 0.4, 0.39, 0.5]),
    "correlation": (
        ("dendrites.objective=correlation", "dendrites.epochs=4", "dendrites.top_epochs=2"),
        [0.1, 0.2, 0.2, 0.2, 0.3, 0.25, 0.4],
    ),
    "history": (
        ("dendrites.switch=history", "dendrites.switch_patience=1", "train.epochs=6", "dendrites.epochs=1"),
        [0.1, 0.2, 0.2, 0.15, 0.4],
    ),
    "patience": (("train.patience=1", "train.epochs=6"), [0.2, 0.3, 0.1, 0.4, 0.35, 0.5]),
    "plain": (("dendrites.enabled=false", "train.epochs=3"), [0.1, 0.3, 0.2]),
}


class Session:
    """A training in a folder, and what its folder looked like on the way."""

    def __init__(self, settings: Settings, folder: Path, rows: list[Any] | tuple[Any, ...] = ()) -> None:
        self.settings, self.folder = settings, folder
        self.rows = list(rows)
        self.moments: list[Any] = []

    def run(self, *, resume: Any = False, photograph: Any = False) -> Position:
        """Train; ``photograph`` keeps a copy of the folder within each epoch and at its end."""

        def on_event(event: Any) -> None:
            checkpoints = self.folder / "checkpoints"
            moment = event.kind == "epoch" or (event.kind == "step" and event.step == 2)
            if photograph and moment and checkpoints.exists():
                copy = self.folder.parent / f"{self.folder.name}-{len(self.moments)}"
                shutil.copytree(checkpoints, copy / "checkpoints")
                self.moments.append((copy, list(rows), (event.kind, event.phase, event.epoch, event.step)))

        with toy_trainer(self.settings, self.folder, on_event) as (trainer, rows):
            checkpoint = trainer.store.newest() if resume else None
            if resume:
                self.rows = list(checkpoint.progress.metrics) if checkpoint else []
            if checkpoint:
                trainer.resume(checkpoint)
            progress = trainer.run()
            self.rows += rows
        return progress

    def result(self) -> Any:
        """The newest checkpoint and the best weights: all that decides the model, but for the clock."""
        found = {}
        newest = max((self.folder / "checkpoints").glob("checkpoint-*"))
        for folder in [newest, *sorted((self.folder / "checkpoints").glob("best-*"))]:
            name = folder.name.partition("-0")[0]
            for path in sorted(folder.iterdir()):
                content = path.read_bytes()
                if path.name == "state.json":
                    content = untimed_state(json.loads(content)) if folder == newest else json.loads(content)  # type: ignore[assignment]
                found[name, path.name] = content
        return found


def script(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda self: Validation(0.5, scores[self.progress.epoch], 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_wherever_it_was_killed(
    case: str, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, scores = CASES[case]
    settings = tiny(*SMALL, *overrides)
    script(monkeypatch, scores)
    whole = Session(settings, tmp_path / "whole")
    progress = whole.run(photograph=True)
    assert len(whole.rows) == len(scores)
    expected = whole.result()
    moments = [moment for moment in whole.moments if list(moment[0].rglob("checkpoint-*"))]
    assert len(moments) == 2 * len(scores)
    within, between = moments[::2], moments[1::2]
    for folder, rows, where in [*within, *between[::4]]:
        killed = Session(settings, folder, rows)
        again = killed.run(resume=True)
        assert untimed(killed.rows) == untimed(whole.rows), where
        assert killed.result() == expected, where
        assert (again.best, again.best_epoch) == (progress.best, progress.best_epoch), where
        assert again.gains == progress.gains, where
        assert again.stopped_early == progress.stopped_early, where
        assert again.phase_number == progress.phase_number, where


def test_killed_and_damaged(tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides, scores = CASES["two dendrites"]
    settings = tiny(*SMALL, *overrides)
    script(monkeypatch, scores)
    whole = Session(settings, tmp_path / "whole")
    whole.run(photograph=True)
    folder, rows, _ = whole.moments[9]
    newest = max((folder / "checkpoints").glob("checkpoint-*"))
    (newest / "optimizer.safetensors").write_bytes(b"torn")
    killed = Session(settings, folder, rows)
    killed.run(resume=True)
    assert killed.result() == whole.result()
    assert untimed(killed.rows) == untimed(whole.rows)


def test_a_finished_training_stays_as_it_is(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, scores = CASES["correlation"]
    script(monkeypatch, scores)
    session = Session(tiny(*SMALL, *overrides), tmp_path)
    session.run()
    before, rows = session.result(), list(session.rows)
    assert session.run(resume=True).finished
    assert session.result() == before
    assert session.rows == rows


def test_a_checkpoint_of_another_training_is_refused(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(*SMALL)
    with toy_trainer(settings, tmp_path / "a") as (trainer, _):
        trainer.run()
        whole = trainer.store.newest()
    odd = {
        "another place": replace(whole, progress=changed_place(whole, step=99)),
        "more dendrites": replace(whole, progress=changed_place(whole, dendrites=2)),
        "another shape": replace(whole, weights={n: t[..., :1] for n, t in whole.weights.items()}),
        "a name too many": replace(whole, weights={**whole.weights, "extra": torch.ones(1)}),
        "a name too few": replace(whole, weights=dict(list(whole.weights.items())[1:])),
        "no random state": replace(whole, rng=[{}]),
        "a torn random state": replace(whole, rng=[{**whole.rng[0], "torch": "AAAA"}]),
    }
    for checkpoint in odd.values():
        with toy_trainer(settings, tmp_path / "b") as (trainer, _), pytest.raises(ResumeError):
            trainer.resume(checkpoint)


def changed_place(checkpoint: Checkpoint, *, dendrites: Any = 1, **values: Any) -> Position:
    progress = checkpoint.progress
    return replace(progress, phase=replace(progress.phase, dendrites=dendrites), **values)
