"""Teachers beside their student, as plain text for the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gkiller.report.evaluation_text import aligned, figure_text

if TYPE_CHECKING:
    from gkiller.evaluation.agreement import Taught
    from gkiller.evaluation.results import Evaluation

HEADER = ("label", "teacher's F1", "student's F1", "teacher's AP", "student's AP", "equal", "r of logits")
NOTE = (
    "Each model at its own threshold, tuned on these rows. Equal: the share of equal decisions; r: Pearson's "
    "correlation\nof the logits."
)


def distillation_text(taught: Sequence[Taught], student: Evaluation) -> str:
    """Return a section of the model card: a table per teacher; nothing without one."""
    if not taught:
        return ""
    blocks = []
    for one in taught:
        rows = []
        for same in one.agreement:
            sides = [evaluation.label(same.label) for evaluation in (one.evaluation, student)]
            figures = [*(side.stored.f1 for side in sides), *(side.ap for side in sides)]
            rows.append([same.label, *map(figure_text, (*figures, same.decisions, same.logits))])
        blocks.append("\n".join(aligned(one.name, HEADER, rows)))
    tables = "\n\n".join(blocks)
    return f"\n### Teachers\n\n{NOTE}\n\n```text\n{tables}\n```\n"
