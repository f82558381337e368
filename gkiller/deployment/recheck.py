"""The gate again, on the machine that is to use a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gkiller.deployment.probes import Probes, Scores, read_probes
from gkiller.deployment.runtime import sigmoid
from gkiller.errors import ExportError, ModelFormatError
from gkiller.inference.session import Session
from gkiller.model.layout import (
    FORMAT_VERSION,
    LIMITS,
    META,
    PROBES,
    find_model,
    read_labels,
    read_thresholds,
    unbroken,
)
from gkiller.report.environment import CPU_FLAGS, read_cpu
from gkiller.sealed import Sealed, unseal


@dataclass(frozen=True)
class Recheck:
    """How a graph scores here.

    Attributes:
        file: the graph.
        probes: token sequences scored.
        max_difference: from the scores that it gave where it was exported.
        from_reference: from the trained model's scores, where it was exported.
        flips: decisions that differ from those where it was exported, at the stored thresholds.
        score_difference: the limit that it was exported under.
        flip_share: the same for flips.
        missing_flags: vector instructions that were there and are not here.
    """

    file: str
    probes: int
    max_difference: float
    from_reference: float
    flips: int
    score_difference: float
    flip_share: float
    missing_flags: tuple[str, ...]
    decisions: int

    @property
    def passed(self) -> bool:
        """Whether both limits are kept."""
        return self.max_difference <= self.score_difference and self.flips <= self.flip_share * self.decisions


def recheck(path: str | Path) -> list[Recheck]:
    """Score the probes with every graph that is there; the weights and the other graphs need not be.

    Args:
        path: the model directory, or the run that it is in.

    Raises:
        ModelNotFoundError: there is no model.
        ExportError: the model has no graph.
        ModelTamperedError: a graph or the probes are not what was written.
        ModelFormatError: its probes, or what it says of a graph, are not readable; a graph does not run here.
    """
    directory = find_model(path)
    content = _unseal(directory, {}).content
    exports: dict[str, Any] = content.get("exports") or {}
    files = sorted(file for file in exports if (directory / file).is_file())
    if not files:
        raise ExportError(
            "the model has no graph yet", where=str(directory), remedy=f"run: gkiller export {directory}"
        )
    stored = _unseal(directory, {name: LIMITS[name] for name in (PROBES, *files)}).kept
    probes = read_probes(stored[PROBES], str(directory / PROBES))
    labels = read_labels(content["labels"])
    thresholds = read_thresholds(content["thresholds"], labels)
    cuts = np.array([thresholds[label] for label in labels])
    here = read_cpu()[1]
    found = []
    for file in files:
        facts, there = exports[file], probes.scores[file]
        where = str(directory / file)
        scores = _scores(probes, stored[file], where, len(labels), str(facts["onnxruntime"]))
        if not scores.shape == there.shape == probes.reference.shape:
            what = f"the stored scores are not of the {len(labels)} labels"
            raise ModelFormatError(what, where=where, remedy="export the model again")
        limits = facts["gate"]["limits"]
        found.append(
            Recheck(
                file=file,
                probes=len(scores),
                max_difference=float(np.abs(scores - there).max()),
                from_reference=float(np.abs(scores - probes.reference).max()),
                flips=int(((scores >= cuts) != (there >= cuts)).sum()),
                score_difference=float(limits["score_difference"]),
                flip_share=float(limits["flips"]),
                missing_flags=tuple(
                    flag for flag in CPU_FLAGS if flag in facts["cpu_flags"] and flag not in here
                ),
                decisions=int(scores.size),
            )
        )
    return found


def _scores(probes: Probes, graph: bytes, where: str, labels: int, made_with: str) -> Scores:
    """Score each window alone, as `gkiller.load` does; of each sequence the highest, (n, L)."""
    read = probes.read
    try:
        running = Session(graph, where, labels, [])
        rows = np.arange(len(read.tokens.lengths))[:, None]
        logits = [running.run(*read.tokens.pad_batch(row)) for row in rows]
    except ModelFormatError as error:
        error.what = f"onnxruntime {version('onnxruntime')} cannot run the graph here: {error.what}"
        error.remedy = (
            f"it was exported with onnxruntime {made_with}: install that, or export the model again"
        )
        raise
    found: Scores = read.highest(sigmoid(np.concatenate(logits)))
    return found


def _unseal(directory: Path, keep: Mapping[str, int]) -> Sealed:
    with unbroken():
        return unseal(directory, META, version=FORMAT_VERSION, keep=keep, check="kept")
