"""Figures of several seeds, and what they gain over those of another arm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

GAINS = "its mean, least and most over the seeds"


def figure(report: dict[str, Any], path: Sequence[str]) -> float:
    """Return the value of a figure of a report of ``gkiller evaluate``."""
    found: Any = report
    for key in path:
        found = found[key]
    return float(found["value"])


def gained(values: Sequence[float], before: Sequence[float] | None) -> str:
    """Write a mean, and in brackets the gain over an arm of the same seeds, where there is one."""
    cell = f"{mean(values):.4f}"
    if before is None:
        return cell
    gains = [own - other for own, other in zip(values, before, strict=True)]
    return f"{cell} ({mean(gains):+.4f}; {min(gains):+.4f} to {max(gains):+.4f})"
