"""The gate again, on the machine that is to use a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.deployment.probes import read_probes, score_probes
from gkiller.errors import ExportError
from gkiller.model.directory import stored_files
from gkiller.model.layout import PROBES
from gkiller.report.environment import CPU_FLAGS, read_cpu

if TYPE_CHECKING:
    from gkiller.model.directory import LoadedModel


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


def recheck(loaded: LoadedModel) -> list[Recheck]:
    """Score the probes with every graph of a model.

    Raises:
        ExportError: the model has no graph.
        ModelFormatError: its probes or what it says of a graph are not readable.
    """
    exports: dict[str, Any] = loaded.metadata.get("exports") or {}
    if loaded.path is None or not exports:
        raise ExportError(
            "the model has no graph yet",
            where=str(loaded.path or ""),
            remedy=f"run: gkiller export {loaded.path}",
        )
    stored = stored_files(loaded, [PROBES, *exports])
    probes = read_probes(stored[PROBES], str(loaded.path / PROBES))
    cuts = np.array([loaded.thresholds[label] for label in loaded.labels])
    here = read_cpu()[1]
    found = []
    for file, facts in sorted(exports.items()):
        there = probes.scores[file]
        scores = score_probes(probes, stored[file])
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
