"""The model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from gkiller.assets import asset_path

_SYNTHETIC = (
    "**Trained on the embedded sample, a synthetic corpus written for gkiller. It shows how training works; "
    "it is not fit to moderate real comments.**"
)


@dataclass(frozen=True)
class CardFacts:
    """What a model card states.

    Attributes:
        labels: the labels.
        parameters: numbers that inference uses.
        dendrites: dendrites by module; empty when none were kept.
        max_length: tokens read of a comment.
        manifest: the run's manifest.
        thresholds: by label, with at least "value" and "target".
        evaluation: the validation figures as text.
        confidence: coverage of their intervals.
    """

    labels: tuple[str, ...]
    parameters: int
    dendrites: Mapping[str, int]
    max_length: int
    manifest: Mapping[str, Any]
    thresholds: Mapping[str, Mapping[str, Any]]
    evaluation: str
    confidence: float


def model_card(facts: CardFacts) -> str:
    """Return the model card in Markdown."""
    data = facts.manifest["data"]
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    grown = f"{sum(facts.dendrites.values())} groups on {len(facts.dendrites)} layers"
    template = Template(asset_path("model_card.md").read_text("utf-8"))
    return template.substitute(
        synthetic_note=_SYNTHETIC if data["synthetic"] else "Trained with `gkiller train`.",
        labels=", ".join(facts.labels),
        parameters=f"{facts.parameters:,}",
        dendrites=grown if facts.dendrites else "none kept",
        max_length=facts.max_length,
        source=data["source"],
        rows=rows,
        seed=facts.manifest["seed"],
        confidence=f"{facts.confidence:.0%}",
        evaluation=facts.evaluation.strip(),
        thresholds=threshold_list(facts.thresholds),
        directory="path/to/this/directory",
    )


def threshold_list(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the thresholds as a Markdown list."""
    lines = {label: f"{t['value']:.4f} ({t.get('target', 'not stated')})" for label, t in thresholds.items()}
    return "\n".join(f"- `{label}`: {line}" for label, line in lines.items())


def with_thresholds(card: str, thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a card with its list of thresholds replaced; a card without one is returned as it is."""
    head, heading, rest = card.partition("## Thresholds\n")
    if not heading:
        return card
    _, following, tail = rest.partition("\n## ")
    return f"{head}{heading}\n{threshold_list(thresholds)}\n{following}{tail}"
