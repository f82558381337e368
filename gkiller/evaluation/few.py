"""A warning where figures rest on few rows of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkiller.errors import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

FEW = 50
"""Positives or negatives below which figures are rough, and percentile intervals too narrow to lean on."""


def few_rows(labels: Mapping[str, tuple[int, int]], rows: str = "") -> list[str]:
    """Return a warning that names the labels with fewer than `FEW` positives or negatives; else nothing.

    Args:
        labels: by label, its positives and its known rows.
        rows: the rows' name, such as "validation".
    """
    least = {label: min((p, "positive"), (n - p, "negative")) for label, (p, n) in labels.items()}
    few = [f"{label} ({counted(*found)})" for label, found in least.items() if found[0] < FEW]
    if not few:
        return []
    where = f" in {rows}" if rows else ""
    names = ", ".join(few)
    return [f"fewer than {FEW} positives or negatives{where}: {names}: figures and intervals are rough"]
