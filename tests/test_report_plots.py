"""Plots: written, the same bytes each time, without warnings or global state."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkiller.drawing import DASHES, colour, dash, safe
from gkiller.evaluation.plots import write_evaluation_plots
from gkiller.training import report as training_plots
from gkiller.training.phases import phase_name
from gkiller.training.report import _name_phases, _spans, write_training_plots


def size(path: Path) -> tuple[int, int]:
    """Width and height out of a PNG's header."""
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:24])


def chunks(path: Path) -> list[bytes]:
    """Names of a PNG's chunks."""
    data, place, names = path.read_bytes(), 8, []
    while place < len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        names.append(name)
        place += length + 12
    return names


def scored(
    labels: tuple[Any, ...], n: int = 500
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], dict[str, float]]:
    rng = np.random.default_rng(0)
    truth = (rng.random((n, len(labels))) < 0.2).astype(float)
    scores = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 2 * truth - 1)))
    return truth, scores, rng.uniform(0.5, 2, n), dict.fromkeys(labels, 0.4)


def epochs(*phases: Any) -> list[dict[str, bool | float | str]]:
    rows: list[Any] = []
    for phase, count, dendrites in phases:
        for i in range(count):
            epoch = len(rows) + 1
            rows.append(
                {
                    "epoch": epoch,
                    "phase": phase,
                    "phase_epoch": i + 1,
                    "train_loss": 1 / epoch,
                    "valid_loss": 1.1 / epoch,
                    "valid_ap": 1 - 0.9 / epoch,
                    "valid_f1": 0.9 - 0.8 / epoch,
                    "lr": 1e-3 / (i + 1),
                    "rows_per_second": 500.0,
                    "seconds": 2.0,
                    "best": True,
                    "dendrites": dendrites,
                }
            )
    return rows


def test_evaluation_plots_are_written_alike_twice(tmp_path: Path) -> None:
    labels = ("toxicity", "threat")
    truth, scores, weights, thresholds = scored(labels)
    first = write_evaluation_plots(labels, truth, scores, weights, thresholds, tmp_path / "a" / "plots")
    again = write_evaluation_plots(labels, truth, scores, weights, thresholds, tmp_path / "b")
    assert [path.name for path in first] == ["precision-recall.png", "roc.png", "reliability.png"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert min(size(one)) > 500
        assert not {b"tEXt", b"tIME", b"iTXt"} & set(chunks(one))


def test_a_changed_threshold_changes_the_plots(tmp_path: Path) -> None:
    truth, scores, weights, _ = scored(("toxicity",))
    one = write_evaluation_plots(("toxicity",), truth, scores, weights, {"toxicity": 0.2}, tmp_path / "a")
    two = write_evaluation_plots(("toxicity",), truth, scores, weights, {"toxicity": 0.8}, tmp_path / "b")
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() != second.read_bytes()


def test_awkward_labels_draw_without_warnings(tmp_path: Path) -> None:
    labels = ("_co$t$ ^{", "日本", "all unknown", "only negatives", "x" * 80)
    truth, scores, _, thresholds = scored(labels, 60)
    truth[:, 2], truth[:, 3], truth[:, 4] = np.nan, 0, 1
    scores[:, 0], scores[:, 1] = 0.0, 1.0
    paths = write_evaluation_plots(labels, truth, scores, None, thresholds, tmp_path)
    assert all(path.is_file() for path in paths)


def test_large_data_and_a_single_label(tmp_path: Path) -> None:
    truth, scores, _, thresholds = scored(("toxicity",), 20_000)
    for path in write_evaluation_plots(("toxicity",), truth, scores, None, thresholds, tmp_path):
        assert min(size(path)) > 400


def test_names_are_made_safe() -> None:
    assert safe("a$b") == r"a\$b"
    assert safe("日x") == "?x"
    assert len(safe("x" * 80)) == 26


def test_the_first_labels_all_look_different() -> None:
    looks = [(colour(i), repr(dash(i))) for i in range(7 * len(DASHES))]
    assert len(set(looks)) == len(looks)


def test_training_plots_are_written_alike_twice(tmp_path: Path) -> None:
    rows = epochs(("neuron", 4, 0), ("dendrite", 3, 1), ("joint", 1, 1))
    first = write_training_plots(rows, tmp_path / "a")
    again = write_training_plots(rows, tmp_path / "b")
    assert [path.name for path in first] == ["training.png", "schedule.png"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_phases_are_told_apart() -> None:
    rows = epochs(("neuron", 3, 0), ("dendrite", 2, 1), ("dendrite", 2, 2), ("joint", 1, 2))
    spans = _spans(rows)
    assert [(s.phase, s.dendrites, s.first, s.last) for s in spans] == [
        ("neuron", 0, 1, 3),
        ("dendrite", 1, 4, 5),
        ("dendrite", 2, 6, 7),
        ("joint", 2, 8, 8),
    ]


def correlated() -> list[dict[str, bool | float | str]]:
    """Epochs of a run by correlation: the second last one trains candidates, the last one top weights."""
    rows = epochs(("neuron", 2, 0), ("dendrite", 1, 1), ("dendrite", 1, 1))
    for row, trains in zip(rows, ("neurons", "neurons", "candidates", "tops"), strict=True):
        row["trains"] = trains
    rows[2]["train_loss"] = -0.036
    return rows


def test_candidates_correlation_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[Any, Any] = {}
    monkeypatch.setattr(training_plots, "save", lambda figure, path: figures.setdefault(path.name, figure))
    write_training_plots(correlated(), tmp_path)
    loss, _, correlation = figures["training.png"].axes
    training = loss.get_legend_handles_labels()[0][0].get_ydata()
    assert np.isnan(training[2])
    assert min(training[[0, 1, 3]]) > 0
    assert np.nanmin(correlation.lines[0].get_ydata()) == pytest.approx(0.036)
    names = [text.get_text() for text in loss.texts]
    assert names == ["neuron", "dendrite (candidates)", "dendrite (top weights)"]


def test_without_candidates_there_is_no_panel_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[Any, Any] = {}
    monkeypatch.setattr(training_plots, "save", lambda figure, path: figures.setdefault(path.name, figure))
    write_training_plots(epochs(("neuron", 2, 0), ("dendrite", 1, 1)), tmp_path)
    assert len(figures["training.png"].axes) == 2


def test_phase_names() -> None:
    assert phase_name("neuron", "neurons") == "neuron"
    assert phase_name("dendrite", "dendrites", 1) == "dendrite"
    assert phase_name("dendrite", "tops", 2) == "dendrite 2 (top weights)"
    assert phase_name("joint", "everything", 2) == "joint"


def test_phase_names_do_not_touch(tmp_path: Path) -> None:
    from gkiller.drawing import new_figure

    rows = epochs(("neuron", 40, 0), *((p, 1, d) for d in (1, 2, 3) for p in ("dendrite", "joint")))
    figure = new_figure(9, 5)
    axes = figure.subplots()
    axes.set_xlim(0.5, len(rows) + 0.5)
    _name_phases(figure, axes, _spans(rows))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 7
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_holes_and_repeated_epochs_are_drawn_around(tmp_path: Path) -> None:
    rows = epochs(("neuron", 3, 0), ("dendrite", 1, 1))
    rows[1]["valid_loss"], rows[1]["train_loss"], rows[2]["valid_ap"] = math.nan, math.inf, None
    del rows[0]["rows_per_second"]
    rows[3]["lr"] = 0.0
    repeated = [rows[0] | {"train_loss": 99.0}, *rows]
    paths = write_training_plots(repeated, tmp_path / "a")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in write_training_plots(rows, tmp_path / "b")]


def test_no_epochs_no_plots(tmp_path: Path) -> None:
    assert write_training_plots([], tmp_path) == []
    assert len(write_training_plots(epochs(("neuron", 1, 0)), tmp_path)) == 2
