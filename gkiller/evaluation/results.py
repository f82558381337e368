"""What an evaluation returns: frozen values, and the same as plain ones for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping


FEW = 50
"""Positives or negatives below which figures are rough, and percentile intervals too narrow to lean on."""


def few_rows(labels: Mapping[str, tuple[int, int]], rows: str = "") -> list[str]:
    """Return a warning that names the labels with fewer than `FEW` positives or negatives; else nothing."""
    least = {label: min((p, "positive"), (n - p, "negative")) for label, (p, n) in labels.items()}
    few = [f"{label} ({counted(*found)})" for label, found in least.items() if found[0] < FEW]
    if not few:
        return []
    where = f" in {rows}" if rows else ""
    names = ", ".join(few)
    return [f"fewer than {FEW} positives or negatives{where}: {names}: figures and intervals are rough"]


def learnt_nothing(evaluation: Evaluation) -> list[str]:
    """Return the labels for which nothing shows that the model has learnt them.

    Scores drawn by lot have an average precision near the share of positives, as have equal scores. A label
    is returned when the interval of its average precision does not lie above that share. On few rows a weak
    model looks like this too. A label with one class only is left out: there it cannot be told.
    """
    found = []
    for result in evaluation.labels:
        least = result.ap.value if result.ap.low is None else result.ap.low
        if least is not None and result.prior is not None and least <= result.prior < 1:
            found.append(result.label)
    return found


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    value: float | None  # the figure on the data as they are, or None where it is undefined
    low: float | None = None  # lower end of its bootstrap interval, or None
    high: float | None = None  # upper end, or None
    defined: int = 0
    note: str = ""  # why something is None, or what else to know; else empty

    def text(self) -> str:
        """Return the value and its interval, such as "0.812 (0.790-0.834)", or "-"."""
        if self.value is None:
            return "-"
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3f}-{self.high:.3f})"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True)
class Confusion:
    """True and false, positives and negatives: rows, or their weights."""

    tp: float
    fp: float
    fn: float
    tn: float


@dataclass(frozen=True)
class OperatingPoint:
    """The figures at one threshold; a score at or above it is positive."""

    threshold: float | None  # None in the macro row, where every label has its own
    f1: Figure
    precision: Figure
    recall: Figure
    accuracy: Figure
    mcc: Figure
    confusion: Confusion | None = None  # weights, None in the macro row
    # rows (whole numbers, rows of weight 0 among them), None in the macro row
    counts: Confusion | None = None


@dataclass(frozen=True)
class LabelResult:
    """Everything measured for one label."""

    label: str
    n: int
    unknown: int
    positives: int
    prior: float | None  # weighted share of positives, None when no known row has weight
    roc_auc: Figure
    ap: Figure
    brier: Figure
    ece: Figure
    stored: OperatingPoint
    half: OperatingPoint


@dataclass(frozen=True)
class MacroResult:
    """Plain means over the labels in which a figure is defined; each note says over how many."""

    roc_auc: Figure
    ap: Figure
    brier: Figure
    ece: Figure
    stored: OperatingPoint
    half: OperatingPoint


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on one set of rows."""

    labels: tuple[LabelResult, ...]
    macro: MacroResult  # means over labels
    rows: int
    weighted: bool  # whether the sample weights differ from each other
    confidence: float
    resamples: int
    bootstrap_seed: int
    ece_bins: int

    def label(self, name: str) -> LabelResult:
        """Return the result of a label; KeyError when it was not evaluated."""
        for result in self.labels:
            if result.label == name:
                return result
        raise KeyError(name)

    def undefined(self) -> list[str]:
        """Return a line for each label of one class only, which says what it leaves undefined."""
        lines = []
        for result in self.labels:
            if result.roc_auc.value is None:
                names = ["ROC-AUC", "AP", *([] if result.half.recall.value is not None else ["F1"])]
                lines.append(f"{result.label}: {result.roc_auc.note}: {', '.join(names)} are undefined")
        return lines

    def rough(self, rows: str = "") -> list[str]:
        """Return a warning of the labels with few positives or negatives; see `few_rows`."""
        return few_rows({result.label: (result.positives, result.n) for result in self.labels}, rows)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: no NaN, so strict JSON takes them; labels by name."""
        plain = asdict(self)
        plain["labels"] = {row.pop("label"): row for row in plain["labels"]}
        return plain


def number(value: float) -> float | None:
    """Return a Python float, or None for NaN."""
    return None if math.isnan(value) else float(value)
