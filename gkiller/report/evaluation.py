"""The files of an evaluation: JSON, text and plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.files import json_text, write_text
from gkiller.model.reading import reading_text
from gkiller.report.evaluation_plots import write_evaluation_plots
from gkiller.report.evaluation_text import evaluation_text

if TYPE_CHECKING:
    from gkiller.evaluation.models import Measured
    from gkiller.evaluation.results import Evaluation
    from gkiller.settings.definition import EvaluationSettings


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
        directory: where; made when it is not there.
        facts: what was measured: model, source, split, and the reading (long_text, max_length).
        measured: the scores.
        evaluation: their figures.
        settings: for the bins of the reliability plot.
        stem: names the files.
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
