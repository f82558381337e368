"""A dendrite stays where its gain on validation is beyond its paired interval."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import tiny_settings
from training_helpers import toy_trainer

from gkiller.evaluation.metrics import macro_score
from gkiller.evaluation.significance import Side, compare_sides
from gkiller.settings import resolve
from gkiller.training.checkpoint import load_checkpoint, save_checkpoint
from gkiller.training.phases import RESAMPLES, Gain, Position, gain_interval, gain_line, judge, kept_dendrites
from gkiller.training.train import train
from gkiller.training.trainer import Trainer

SMALL = ("data.sample_size=48", "dendrites.init_std=0.2")


def sides(rows: int, positives: int, shift: float, seed: int = 1) -> Any:
    """Truth, and scores before and after, which are higher on positives by ``shift``."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((rows, 1))
    truth[:positives] = 1
    before = rng.normal(0, 1, (rows, 1)) + 2.5 * truth
    after = before + rng.normal(0, 0.3, (rows, 1)) + shift * truth
    return truth, tuple(1 / (1 + np.exp(-side)) for side in (before, after))


def found(
    truth: np.ndarray[Any, Any],
    scores: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    *overrides: Any,
    metric: Any = "ap",
) -> Gain:
    own = tiny_settings(f"train.metric={metric}", *overrides)
    best = tuple(macro_score(metric, truth, side) for side in scores)
    return judge(own, best, truth, scores, np.ones(len(truth)))  # type: ignore[arg-type]


def test_a_gain_on_ten_positives_is_not_enough() -> None:
    truth, scores = sides(400, 10, 0.3)
    gain = found(truth, scores)
    assert gain.gain > 0
    assert gain.low < 0 < gain.high
    assert (gain.kept, gain.reason) == (False, "the gain's paired interval is not above 0")
    assert "taken off: the gain's paired interval" in gain_line(1, gain)


def test_the_same_gain_on_many_positives_is() -> None:
    truth, scores = sides(8000, 400, 0.3)
    gain = found(truth, scores)
    assert 0 < gain.low < gain.gain < gain.high
    assert (gain.kept, gain.reason) == (True, "the gain's paired interval is above 0")
    back = found(truth, scores[::-1])
    assert (back.kept, back.high < 0) == (False, True)
    assert (back.low, back.high) == pytest.approx((-gain.high, -gain.low))


@pytest.mark.parametrize(("least", "kept"), [("0", True), ("0.9", False), ("-1", True)])
def test_min_gain_decides_where_it_is_set(least: str, kept: bool) -> None:
    truth, scores = sides(400, 10, 0.3)
    gain = found(truth, scores, f"dendrites.min_gain={least}")
    assert gain.kept == kept
    assert gain.reason == f"{'above' if kept else 'not above'} dendrites.min_gain ({least})"
    assert gain.low < 0  # it is recorded all the same


def test_no_change_is_no_gain() -> None:
    truth, (before, _) = sides(400, 40, 0.3)
    assert not found(truth, (before, before)).kept
    assert not found(truth, (before, before), "dendrites.min_gain=0").kept
    assert found(truth, (before, before), "dendrites.min_gain=-1").kept


def test_by_default_the_interval_decides() -> None:
    assert resolve(environ={}).settings.dendrites.min_gain is None


@settings(max_examples=15)
@given(st.integers(0, 100), st.sampled_from([("ap", "ap"), ("f1", "f1")]), st.floats(0.5, 0.99))
def test_of_one_label_it_is_the_interval_of_compare(seed: Any, names: Any, confidence: Any) -> None:
    truth, (before, after) = sides(60, 12, 0.3, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 2, 60)
    own = gain_interval(names[0], truth, (before, after), weights, seed=seed, confidence=confidence)
    paired = compare_sides(
        truth[:, 0],
        Side(after[:, 0], 0.5),
        Side(before[:, 0], 0.5),
        weights,
        resamples=RESAMPLES,
        seed=seed,
        confidence=confidence,
    ).differences[names[1]]
    assert own == pytest.approx((paired.low, paired.high), abs=1e-9)


def test_of_several_labels_it_is_that_of_their_mean() -> None:
    truth, (before, after) = sides(300, 60, 0.3)
    one = gain_interval("ap", truth, (before, after), np.ones(300), seed=0, confidence=0.95)
    twice = [np.repeat(table, 2, axis=1) for table in (truth, before, after)]
    both = gain_interval("ap", twice[0], (twice[1], twice[2]), np.ones(300), seed=0, confidence=0.95)
    assert both == pytest.approx(one)
    twice[0][:, 1] = 0  # a label without positives says nothing
    assert gain_interval("ap", twice[0], (twice[1], twice[2]), np.ones(300), seed=0, confidence=0.95) == pytest.approx(
        one
    )
    twice[0][:, 1] = truth[:, 0]
    twice[2][:, 1] = before[:, 0]
    half = gain_interval("ap", twice[0], (twice[1], twice[2]), np.ones(300), seed=0, confidence=0.95)
    assert half == pytest.approx((one[0] / 2, one[1] / 2))


def test_where_the_interval_is_undefined_the_dendrite_goes() -> None:
    truth, scores = sides(3, 1, 5.0)
    truth[2] = np.nan
    gain = found(truth, scores)
    if gain.low is None:
        assert "interval none" in gain.text()
    assert not gain.kept


def test_dendrites_are_kept_one_after_the_other() -> None:
    def gain(kept: Any) -> Any:
        return Gain("ap", 0.5, 0.6, 0.01, 0.2, 0.95, kept, "")

    assert kept_dendrites({}) == 0
    assert kept_dendrites({1: gain(True)}) == 1
    assert kept_dendrites({1: gain(True), 2: gain(False)}) == 1
    assert kept_dendrites({1: gain(False), 2: gain(True)}) == 0
    assert kept_dendrites({1: gain(True), 2: gain(True)}) == 2
    assert kept_dendrites({2: gain(True)}) == 0


# -- in a training ------------------------------------------------------------------------------


def test_the_weights_that_are_judged_are_the_best_ones(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    own = Trainer._best_scores

    def watched(self: Any, count: Any) -> Any:
        seen.append((count, own(self, count)))
        return seen[-1][1]

    monkeypatch.setattr(Trainer, "_best_scores", watched)
    notes = []
    overrides = ("dendrites.count=2", "dendrites.min_gain=-1")
    with toy_trainer(tiny(*SMALL, *overrides), tmp_path, lambda e: notes.append(e.message)) as (trainer, _):
        progress = trainer.run()
        truth = trainer.valid_split.labels
    assert [count for count, _ in seen] == [0, 1, 1, 2]
    for count, scores in seen:
        assert macro_score("ap", truth, scores) == pytest.approx(progress.best[count], abs=1e-9)
    assert sorted(progress.gains) == [1, 2]
    for count, gain in progress.gains.items():
        assert (gain.before, gain.after) == (progress.best[count - 1], progress.best[count])
        assert gain_line(count, gain) in notes


def test_a_second_dendrite_is_grown_only_on_one_that_stays(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(*SMALL, "dendrites.count=2", "dendrites.min_gain=1"), tmp_path) as (trainer, rows):
        progress = trainer.run()
    assert max(row["dendrites"] for row in rows) == 1
    assert list(progress.gains) == [1]
    assert not progress.gains[1].kept


def test_what_was_judged_is_in_the_checkpoints(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(*SMALL, "dendrites.count=2", "dendrites.min_gain=-1"), tmp_path) as (trainer, _):
        progress = trainer.run()
        checkpoint = trainer.store.newest()
    assert checkpoint.progress.gains == {1: progress.gains[1]}
    save_checkpoint(tmp_path / "again", checkpoint)
    assert load_checkpoint(tmp_path / "again").progress == checkpoint.progress
    values = json.loads(json.dumps(checkpoint.progress.as_dict()))
    values["gains"]["3"] = values["gains"]["1"]
    with pytest.raises(ValueError, match="judged without a score"):
        Position.from_dict(values)


def test_a_checkpoint_of_before_there_were_gains_is_judged_anew(tiny: Callable[..., Any], tmp_path: Path) -> None:
    own = tiny(*SMALL, "dendrites.count=2", "dendrites.min_gain=-1")
    with toy_trainer(own, tmp_path) as (trainer, _):
        progress = trainer.run()
        checkpoint = trainer.store.newest()
    checkpoint.progress.gains.clear()
    with toy_trainer(own, tmp_path) as (trainer, _):
        trainer.resume(checkpoint)
        assert trainer.run().gains == progress.gains


def test_dendrites_without_a_clear_gain_are_taken_off(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """On four positives no gain is clear: the saved model is the best one without dendrites."""
    overrides = ("train.lr=1e-7", "dendrites.lr=0.1", "dendrites.epochs=12", "dendrites.init_std=0.5")
    result = train(tiny(*overrides), out=tmp_path)
    assert result.progress.best[1] > result.progress.best[0]
    assert result.finished.dendrites == 0
    gain = result.manifest["dendrite_gains"]["1"]
    assert gain["low"] <= 0 < gain["gain"] < gain["high"] + 1e-9
    assert (gain["kept"], gain["reason"]) == (False, "the gain's paired interval is not above 0")
    ap = result.finished.evaluation.labels[0].ap.value
    assert ap == pytest.approx(result.progress.best[0], abs=1e-6)
    assert json.loads((result.run.path / "manifest.json").read_text())["dendrite_gains"]["1"] == gain
    card = (result.run.path / "model" / "README.md").read_text()
    assert "none kept; AP +0." in card
    assert "the gain's paired interval is not above 0" in card
