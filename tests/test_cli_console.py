"""Output: what goes to which stream, plain JSON, and the training display."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gkiller.cli import console
from gkiller.cli.train import TrainingDisplay, event_line
from gkiller.settings import resolve
from gkiller.storage import strict_json
from gkiller.training.phases import TrainingEvent


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    where: Path


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Point(1.5, Path("p")), {"x": 1.5, "where": "p"}),
        ((1, "a", None, True), [1, "a", None, True]),
        ({"b", "a"}, ["a", "b"]),
        ({1: {"x": math.inf}}, {"1": {"x": None}}),
    ],
)
def test_values_become_plain(value: Any, plain: Any) -> None:
    found = strict_json.plain(value)
    assert found == plain
    json.dumps(found, allow_nan=False)


def test_settings_become_plain_and_the_unknown_is_refused() -> None:
    assert strict_json.plain(resolve(environ={}).settings)["train"]["batch_size"] >= 1
    with pytest.raises(TypeError, match="object"):
        strict_json.plain({"a": object()})


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.floats(), st.text()), st.lists))
def test_json_is_one_line_when_piped(value: Any) -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        console.emit_json({"value": value})
    text = stream.getvalue()
    assert text.endswith("}\n")
    assert len(text.split("\n")) == 2
    assert json.loads(text)["value"] == strict_json.plain(value)


def test_results_go_to_stdout_and_the_rest_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(console.results_table("scores", ("label", "f1"), [("toxic [b]", 0.5), ("threat", None)]))
    console.note("note [b] " + "x" * 300)
    console.warn("careful")
    console.next_command("gkiller evaluate")
    with console.progress("reading") as advance:
        advance(1, 2)
    with console.progress() as callback:
        callback("a", 1, None)  # type: ignore[arg-type]
    streams = capsys.readouterr()
    assert "toxic [b]" in streams.out
    assert "0.5000" in streams.out
    assert "note" not in streams.out
    assert streams.err == "note [b] " + "x" * 300 + "\nwarning: careful\n"  # one line each, no bar, no next


def test_long_cells_fold_and_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(console.results_table("", ("a", "b"), [("x" * 150, "y" * 150)]))
    out = capsys.readouterr().out
    assert (out.count("x"), out.count("y")) == (150, 150)


def events() -> Iterator[TrainingEvent]:
    yield TrainingEvent("phase", phase="neurons", epochs=2, steps=4)
    for step in range(1, 5):
        yield TrainingEvent("step", "neurons", 1, 1, 2, step, 4, loss=0.7)
    yield TrainingEvent("epoch", "neurons", 1, 1, 2, 4, 4, loss=0.5, score=0.25, metric="ap", rows_per_second=1234.5)
    yield TrainingEvent("note", message="kept [the] dendrites")


def test_training_display_writes_a_line_per_event_without_a_terminal() -> None:
    stream = io.StringIO()
    with TrainingDisplay(Console(file=stream, markup=False, highlight=False, width=200)) as display:
        for event in events():
            display(event)
    assert stream.getvalue().splitlines() == [
        "phase 1: neurons, up to 2 epochs",
        "neurons phase, epoch 1/2, loss 0.5000, ap 0.2500, 1,234 rows/s",
        "kept [the] dendrites",
    ]


def test_training_display_draws_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=150, markup=False, highlight=False)
    with TrainingDisplay(terminal) as display:
        for event in events():
            display(event)
    text = stream.getvalue()
    for part in ("neurons", "epoch 1/2", "loss 0.5000", "ap 0.2500", "1,234 rows/s", "kept [the] dendrites"):
        assert part in text


def test_event_line_says_what_is_known() -> None:
    assert event_line(TrainingEvent("epoch", "dendrites", epoch=1, epochs=3)) == "dendrites phase, epoch 1/3"


def test_event_line_tells_the_parts_of_a_correlation_phase_apart() -> None:
    start = TrainingEvent("phase", "dendrite", 2, epochs=1, trains="candidates")
    assert event_line(start) == "phase 2: dendrite (candidates), up to 1 epoch"
    epoch = TrainingEvent("epoch", "dendrite", 2, 1, 1, loss=-0.036, trains="candidates")
    assert event_line(epoch) == "dendrite (candidates) phase, epoch 1/1, correlation 0.0360"
    tops = TrainingEvent("epoch", "dendrite", 3, 1, 1, loss=0.4, trains="tops")
    assert event_line(tops) == "dendrite (top weights) phase, epoch 1/1, loss 0.4000"
