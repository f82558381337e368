"""An evaluation as plain text in aligned columns, for ``evaluation.txt`` and for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.evaluation.evaluate import ECE_NOTE
from gkiller.evaluation.metrics import POINT_FIGURES, RANK_FIGURES
from gkiller.evaluation.plots import write_evaluation_plots
from gkiller.storage.files import json_text, write_text
from gkiller.tokens.batches import reading_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gkiller.evaluation.models import Measured
    from gkiller.evaluation.results import Confusion, Evaluation, Figure, LabelResult, MacroResult, OperatingPoint
    from gkiller.settings.definition import EvaluationSettings


TITLES = {
    "roc_auc": "ROC-AUC",
    "ap": "AP",
    "brier": "Brier",
    "ece": "ECE",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "mcc": "MCC",
}

MACRO = "macro"
GAP = "  "


def evaluation_text(evaluation: Evaluation, *, heading: str = "") -> str:
    """Return the whole evaluation as text, lines ended by newlines."""
    blocks = [
        [line for line in (heading, _summary(evaluation)) if line],
        aligned("Rows", *_rows(evaluation)),
        aligned("Ranking and calibration (no threshold)", *_ranked(evaluation)),
        aligned("At the stored threshold", *_pointed(evaluation, "stored")),
        aligned("At the threshold 0.5", *_pointed(evaluation, "half")),
        aligned("Confusion at the stored threshold", *_confusions(evaluation, "stored")),
        aligned("Confusion at the threshold 0.5", *_confusions(evaluation, "half")),
        list(_notes(evaluation)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _summary(evaluation: Evaluation) -> str:
    weights = "sample weights honoured" if evaluation.weighted else "all rows weigh the same"
    return (
        f"{evaluation.rows:,} rows, {weights}.\n"
        f"Brackets: {100 * evaluation.confidence:g} % bootstrap intervals over rows "
        f"({evaluation.resamples:,} resamples, seed {evaluation.bootstrap_seed}). "
        f"ECE: {evaluation.ece_bins} equal bins."
    )


def aligned(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align a table: first column to the left, all others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    drawn = [
        GAP.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return [title, *drawn[:1], "-" * (sum(widths) + len(GAP) * (len(widths) - 1)), *drawn[1:]]


def _rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    header = ["label", "n", "unknown", "positives", "prior"]
    rows = [
        [
            result.label,
            f"{result.n:,}",
            f"{result.unknown:,}",
            f"{result.positives:,}",
            "-" if result.prior is None else f"{result.prior:.4f}",
        ]
        for result in evaluation.labels
    ]
    return header, rows


def _named(evaluation: Evaluation) -> list[tuple[str, LabelResult | MacroResult]]:
    """Return the rows of a table of figures; one label needs no mean."""
    named: list[tuple[str, LabelResult | MacroResult]] = [(one.label, one) for one in evaluation.labels]
    return [*named, (MACRO, evaluation.macro)] if len(named) > 1 else named


def _ranked(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    header = ["label", *(TITLES[name] for name in RANK_FIGURES)]
    rows = [
        [label, *(figure_text(getattr(result, name)) for name in RANK_FIGURES)] for label, result in _named(evaluation)
    ]
    return header, rows


def _pointed(evaluation: Evaluation, point: str) -> tuple[list[str], list[list[str]]]:
    """Return the figures at a threshold but accuracy, which stands beside the confusions."""
    names = [name for name in POINT_FIGURES if name != "accuracy"]
    header = ["label", "threshold", *(TITLES[name] for name in names)]
    rows = []
    for label, result in _named(evaluation):
        at: OperatingPoint = getattr(result, point)
        threshold = "-" if at.threshold is None else f"{at.threshold:.4f}"
        rows.append([label, threshold, *(figure_text(getattr(at, name)) for name in names)])
    return header, rows


def _confusions(evaluation: Evaluation, point: str) -> tuple[list[str], list[list[str]]]:
    """Return accuracy and rows, and weights beside them where rows weigh differently."""
    cells = ("tp", "fp", "fn", "tn")
    header = ["label", TITLES["accuracy"], *cells]
    if evaluation.weighted:
        header += [f"{cell} weight" for cell in cells]
    rows = []
    for label, result in _named(evaluation):
        at: OperatingPoint = getattr(result, point)
        row = [label, figure_text(at.accuracy), *_cells(at.counts, ",.0f")]
        rows.append(row + _cells(at.confusion, ",.1f") if evaluation.weighted else row)
    return header, rows


def _cells(confusion: Confusion | None, form: str) -> list[str]:
    if confusion is None:
        return ["-"] * 4
    return [format(value, form) for value in (confusion.tp, confusion.fp, confusion.fn, confusion.tn)]


def figure_text(figure: Figure) -> str:
    """Return a value and its interval, such as ``0.812 [0.790, 0.834]``; ``-`` where undefined."""
    if figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f} [-, -]"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _notes(evaluation: Evaluation) -> Iterator[str]:
    """Yield every note once, with the figures that it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for label, result in _named(evaluation):
        for name in RANK_FIGURES:
            _add(found, label, TITLES[name], getattr(result, name).note)
        for name in POINT_FIGURES:
            stored, half = getattr(result.stored, name).note, getattr(result.half, name).note
            if stored == half:
                _add(found, label, TITLES[name], stored)
            else:
                _add(found, label, f"{TITLES[name]} at the stored threshold", stored)
                _add(found, label, f"{TITLES[name]} at 0.5", half)
    if found:
        yield "Notes"
    for (label, note), names in found.items():
        yield textwrap.fill(f"{label}: {', '.join(names)}: {note}", width=110, subsequent_indent="    ")


def _add(found: dict[tuple[str, str], list[str]], label: str, name: str, notes: str) -> None:
    """File the notes of one figure, which semicolons part."""
    for note in filter(None, notes.split("; ")):
        # This one is the same for every label, so it stands once.
        names = found.setdefault(("all" if note == ECE_NOTE else label, note), [])
        if name not in names:
            names.append(name)


def write_evaluation(
    directory: Path,
    facts: Mapping[str, Any],
    measured: Measured,
    evaluation: Evaluation,
    settings: EvaluationSettings,
    *,
    stem: str = "evaluation",
) -> list[str]:
    """Write ``STEM.json``, ``STEM.txt`` and plots under ``plots/STEM``; return their paths.

    Args:
        facts: what was measured: model, source, split, and the reading (long_text, max_length).
    """
    directory.mkdir(parents=True, exist_ok=True)
    report, text = directory / f"{stem}.json", directory / f"{stem}.txt"
    write_text(report, json_text({**facts, **evaluation.as_dict()}))
    reading = reading_text(facts["long_text"], facts["max_length"])
    heading = f"{facts['source']}, {facts['split']}, {reading}"
    write_text(text, evaluation_text(evaluation, heading=heading))
    plots = write_evaluation_plots(
        measured.labels,
        measured.truth,
        measured.scores,
        measured.weights,
        measured.thresholds,
        directory / "plots" / stem,
        ece_bins=settings.ece_bins,
    )
    return [str(path) for path in (report, text, *plots)]
