"""A stopped training goes on as if nothing had been: the same bytes, wherever it was stopped."""

import json

import pytest
from training_helpers import toy_trainer, untimed

from gkiller.training.trainer import Trainer, Validation

SMALL = ("data.sample_size=32", "train.keep_checkpoints=2", "dendrites.init_std=0.2")

# Scores by epoch, so that every configuration takes the way it is here for.
CASES = {
    "two dendrites": (
        ("dendrites.count=2",),
        [0.1, 0.2, 0.25, 0.24, 0.3, 0.4, 0.39, 0.5],
    ),
    "correlation": (
        ("dendrites.objective=correlation", "dendrites.epochs=4", "dendrites.top_epochs=2"),
        [0.1, 0.2, 0.2, 0.2, 0.3, 0.25, 0.4],
    ),
    "history": (
        ("dendrites.switch=history", "dendrites.switch_patience=1", "train.epochs=6", "dendrites.epochs=1"),
        [0.1, 0.2, 0.2, 0.15, 0.4],
    ),
    "patience": (
        ("train.patience=1", "train.epochs=6"),
        [0.2, 0.3, 0.1, 0.4, 0.35, 0.5],
    ),
    "plain": (
        ("dendrites.enabled=false", "train.epochs=3"),
        [0.1, 0.3, 0.2],
    ),
}


class Stop(KeyboardInterrupt):
    """Somebody pressed Ctrl-C."""


class Session:
    """Trains in a folder, once whole or in pieces."""

    def __init__(self, settings, folder):
        self.settings, self.folder = settings, folder
        self.rows, self.events = [], []

    def run(self, stop=None, resume=False):
        """Train; ``stop`` is the number of the event (first steps, and all others) that raises."""
        count = 0

        def on_event(event):
            nonlocal count
            if event.kind == "step" and event.step != 1:
                return
            self.events.append((event.kind, event.phase, event.epoch))
            if count == stop:
                raise Stop
            count += 1

        with toy_trainer(self.settings, self.folder, on_event) as (trainer, rows):
            checkpoint = trainer.store.newest() if resume else None
            if checkpoint is not None:
                self.rows = [row for row in self.rows if row["epoch"] <= checkpoint.progress.epoch]
            try:
                return trainer.run(checkpoint)
            finally:
                self.rows += rows

    def result(self):
        """Everything that is left on the disk, but for the clock."""
        found = {}
        for path in sorted((self.folder / "checkpoints").rglob("*.*")):
            name = str(path.relative_to(self.folder))
            if path.name == "state.json":
                state = json.loads(path.read_text())
                state.get("progress", {}).pop("seconds", None)
                found[name] = state
            elif path.is_file():
                found[name] = path.read_bytes()
        return found


def script(monkeypatch, scores):
    monkeypatch.setattr(Trainer, "validate", lambda self: Validation(0.5, scores[self.progress.epoch], 0.5))


@pytest.mark.parametrize("case", list(CASES))
def test_wherever_it_was_stopped(case, tiny, tmp_path, monkeypatch):
    overrides, scores = CASES[case]
    settings = tiny(*SMALL, *overrides)
    script(monkeypatch, scores)
    whole = Session(settings, tmp_path / "whole")
    progress = whole.run()
    assert len(whole.rows) == len(scores)
    expected = whole.result()
    first = next(i for i, event in enumerate(whole.events) if event[0] == "epoch")
    stops = range(first + 1, len(whole.events))  # before, there is no checkpoint
    assert len(stops) >= 2 * (len(scores) - 1)
    for stop in stops:
        pieces = Session(settings, tmp_path / f"stop-{stop}")
        with pytest.raises(Stop):
            pieces.run(stop)
        again = pieces.run(resume=True)
        where = whole.events[stop]
        assert untimed(pieces.rows) == untimed(whole.rows), where
        assert pieces.result() == expected, where
        assert (again.best, again.best_epoch) == (progress.best, progress.best_epoch), where
        assert again.stopped_early == progress.stopped_early, where
        assert again.phase_number == progress.phase_number, where


def test_stopped_twice_and_damaged_in_between(tiny, tmp_path, monkeypatch):
    overrides, scores = CASES["two dendrites"]
    settings = tiny(*SMALL, *overrides)
    script(monkeypatch, scores)
    whole = Session(settings, tmp_path / "whole")
    whole.run()
    pieces = Session(settings, tmp_path / "pieces")
    with pytest.raises(Stop):
        pieces.run(9)
    newest = max((tmp_path / "pieces" / "checkpoints").glob("epoch-*"))
    (newest / "optimizer.safetensors").write_bytes(b"torn")
    with pytest.raises(Stop):
        pieces.run(5, resume=True)
    pieces.run(resume=True)
    assert pieces.result() == whole.result()
    assert untimed(pieces.rows) == untimed(whole.rows)


def test_a_finished_training_stays_as_it_is(tiny, tmp_path, monkeypatch):
    overrides, scores = CASES["correlation"]
    script(monkeypatch, scores)
    session = Session(tiny(*SMALL, *overrides), tmp_path)
    session.run()
    before, rows = session.result(), list(session.rows)
    progress = session.run(resume=True)
    assert progress.finished
    assert session.result() == before
    assert session.rows == rows
