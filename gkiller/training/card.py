"""The model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from gkiller.assets import asset_path
from gkiller.data.sources import public_source
from gkiller.errors import counted
from gkiller.storage.files import write_text
from gkiller.wording import markdown, visible

_SYNTHETIC = (
    "**Trained on the embedded sample, a synthetic corpus written for gkiller. It shows how training works; "
    "it is not fit to moderate real comments.**"
)

_TUNED = (
    "The threshold was tuned on these same rows, so figures at it are optimistic; "
    "`gkiller evaluate` measures\nthe test split."
)

_RETUNED = (
    "`gkiller threshold` has replaced the thresholds since: figures at the training's threshold, which was\n"
    "tuned on these same rows, are not those of the model as it is now. `gkiller evaluate` measures that."
)

_STORED, _REPLACED = "the stored threshold", "the training's threshold"
_VALIDATION, _THRESHOLDS = "## On the validation split\n", "## Thresholds\n"


@dataclass(frozen=True)
class CardFacts:
    """What a model card states.

    Attributes:
        dendrites: dendrites by module; empty when none were kept.
        thresholds: by label, with at least "value" and "target".
        confidence: coverage of their intervals.
        teachers: the teachers beside the model, as a section; empty without one.
    """

    labels: tuple[str, ...]
    parameters: int
    dendrites: Mapping[str, int]
    max_length: int
    manifest: Mapping[str, Any]
    thresholds: Mapping[str, Mapping[str, Any]]
    evaluation: str
    confidence: float
    teachers: str = ""


def model_card(facts: CardFacts) -> str:
    """Return the model card in Markdown."""
    data = facts.manifest["data"]
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    grown = f"{sum(facts.dendrites.values())} groups on {len(facts.dendrites)} layers"
    template = Template(asset_path("model_card.md").read_text("utf-8"))
    return template.substitute(
        synthetic_note=_SYNTHETIC if data["synthetic"] else "Trained with `gkiller train`.",
        labels=markdown(", ".join(facts.labels)),
        parameters=f"{facts.parameters:,}",
        dendrites=_dendrite_row(grown if facts.dendrites else "none kept", facts.manifest),
        encoder=_encoder_row(facts.manifest.get("network")),
        max_length=facts.max_length,
        source=markdown(public_source(str(data["source"]))),
        rows=rows,
        learnt_from=_teacher_row(facts.manifest.get("distill")),
        seed=facts.manifest["seed"],
        tuning=_TUNED,
        confidence=f"{facts.confidence:.0%}",
        evaluation=visible(facts.evaluation.strip()).replace("```", "'''"),  # which would end the block
        teachers=facts.teachers,
        thresholds=threshold_list(facts.thresholds),
        directory="path/to/this/directory",
    )


def _dendrite_row(text: str, manifest: Mapping[str, Any]) -> str:
    """Return the dendrites with what each gained on validation, where that was recorded."""
    for gain in manifest.get("dendrite_gains", {}).values():
        span = "no interval" if gain["low"] is None else f"{gain['low']:+.4f} to {gain['high']:+.4f}"
        text += f"; {gain['metric'].upper()} {gain['gain']:+.4f} ({span}), {gain['reason']}"
    return text


def _encoder_row(network: Mapping[str, Any] | None) -> str:
    """Return the card's row on a pretrained encoder; nothing where it was not recorded, or not pretrained."""
    if network is None:
        return ""
    kind = markdown(str(network["model_type"]))
    text = f"{kind}, {network['layers']} layers, hidden size {network['hidden_size']}"
    if network.get("default"):
        text += "; from gkiller's default model"
    if frozen := network["frozen_layers"]:
        text += f"; pretrained, its embeddings and lowest {counted(frozen, 'layer')} not fine-tuned"
    else:
        text += "; pretrained, all of it fine-tuned"
    return f"| encoder | {text} |\n"


def _teacher_row(distill: Mapping[str, Any] | None) -> str:
    """Return a taught model's row of the card; nothing for one that learnt from labels alone."""
    if distill is None:
        return ""
    text = markdown(", ".join(teacher["name"] for teacher in distill["teachers"]))
    if transfer := distill.get("transfer"):
        text += f", also on {counted(transfer['rows'], 'comment')} without labels"
    return f"| learnt from | {text} |\n"


def threshold_list(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the thresholds as a Markdown list."""
    return "\n".join(f"- {_code(label)}: {_threshold_text(entry)}" for label, entry in thresholds.items())


def _code(text: str) -> str:
    """Return text as code, where it has no backtick that would end the code."""
    return markdown(text) if "`" in text else f"`{visible(text, lines=False)}`"


def _threshold_text(entry: Mapping[str, Any]) -> str:
    """Return a threshold, its target and, where it is recorded, what it was tuned on."""
    text = f"{entry['value']:.4f} ({markdown(entry.get('target', 'not stated'))})"
    on = entry.get("tuned_on")
    if on is None:
        return text
    which = "" if on["split"] == "all" else f"the {markdown(on['split'])} split of "
    used = ", which is no test any more" if on["split"] == "test" else ""
    ways = {"window": ", long comments read in windows", "truncate": ", long comments cut"}
    read = ways.get(on.get("long_text"), "")  # older models do not record it
    source = markdown(on["source"] or "unnamed data")
    return f"{text}, tuned on {which}{source} ({on['rows']:,} rows{read}){used}"


def _deciding_text(flag_labels: Sequence[str]) -> str:
    """Return which labels decide whether a comment is flagged; nothing where all do."""
    names = " or ".join(f"`{label}`" for label in flag_labels)
    return f"\nA comment is flagged when its score of {names} reaches the threshold.\n" if names else ""


def with_thresholds(
    card: str, thresholds: Mapping[str, Mapping[str, Any]], flag_labels: Sequence[str] = ()
) -> str:
    """Return a card for new thresholds; one without the sections of ours is returned as it is.

    The list of thresholds is replaced, and names the ``flag_labels`` where not all labels decide whether a
    comment is flagged. The validation figures stay, and say that those at a threshold are
    at the training's.
    """
    head, heading, rest = card.partition(_VALIDATION)
    if heading:
        section, following, tail = rest.partition("\n## ")
        section = section.replace(_TUNED, _RETUNED).replace(_STORED, _REPLACED)
        card = f"{head}{heading}{section}{following}{tail}"
    head, heading, rest = card.partition(_THRESHOLDS)
    if not heading:
        return card
    _, following, tail = rest.partition("\n## ")
    return f"{head}{heading}\n{threshold_list(thresholds)}\n{_deciding_text(flag_labels)}{following}{tail}"


def update_card(
    path: Path, thresholds: Mapping[str, Mapping[str, Any]], flag_labels: Sequence[str] = ()
) -> None:
    """Bring the card of a run to new thresholds; nothing when it cannot be read as text."""
    try:
        card = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    write_text(path, with_thresholds(card, thresholds, flag_labels))
