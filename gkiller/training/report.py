"""What a run shows to its reader: the model card and the plots of its epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from gkiller.assets import asset_path
from gkiller.data.sources import public_source
from gkiller.drawing import COLOURS, GREY, finite, new_figure, plain, save
from gkiller.storage.files import write_text
from gkiller.training.phases import CANDIDATES, phase_name
from gkiller.wording import counted, markdown, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
_VALIDATION, _THRESHOLDS = "## On the validation split\n", "## Thresholds\n"
_WAYS = {"window": ", long comments read in windows", "truncate": ", long comments cut"}
_SHADES = {"neuron": "#E3EEF6", "dendrite": "#FBE9DC", "joint": "#E0F2EC"}
_LINE_PIXELS = 17.0  # height of a phase name's line
_BLUE, _VERMILLION, _GREEN, _PURPLE = COLOURS[:4]


@dataclass(frozen=True)
class CardFacts:
    """What a model card states."""

    labels: tuple[str, ...]
    parameters: int
    dendrites: Mapping[str, int]  # dendrites by module; empty when none were kept
    max_length: int
    manifest: Mapping[str, Any]
    thresholds: Mapping[str, Mapping[str, Any]]  # by label, with at least "value" and "target"
    evaluation: str
    confidence: float  # coverage of their intervals
    teachers: str = ""  # the teachers next to the model, as a section; empty without one


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
    """Return the card's row on a pretrained encoder; nothing where none was recorded."""
    if network is None:
        return ""
    kind = markdown(str(network["model_type"]))
    text = f"{kind}, {network['layers']} layers, hidden size {network['hidden_size']}"
    text += "; from gkiller's default model" if network.get("default") else ""
    frozen = network["frozen_layers"]
    tuned = f"its embeddings and lowest {counted(frozen, 'layer')} not" if frozen else "all of it"
    return f"| encoder | {text}; pretrained, {tuned} fine-tuned |\n"


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
    # A label is code, where it has no backtick that would end the code.
    names = {label: markdown(label) if "`" in label else f"`{visible(label, lines=False)}`" for label in thresholds}
    return "\n".join(f"- {names[label]}: {_threshold_text(entry)}" for label, entry in thresholds.items())


def _threshold_text(entry: Mapping[str, Any]) -> str:
    """Return a threshold, its target and, where it is recorded, what it was tuned on."""
    text = f"{entry['value']:.4f} ({markdown(entry.get('target', 'not stated'))})"
    on = entry.get("tuned_on")
    if on is None:
        return text
    which = "" if on["split"] == "all" else f"the {markdown(on['split'])} split of "
    used = ", which is no test any more" if on["split"] == "test" else ""
    read = _WAYS.get(on.get("long_text"), "")  # older models do not record it
    source = markdown(on["source"] or "unnamed data")
    return f"{text}, tuned on {which}{source} ({on['rows']:,} rows{read}){used}"


def with_thresholds(card: str, thresholds: Mapping[str, Mapping[str, Any]], flag_labels: Sequence[str] = ()) -> str:
    """Return a card for new thresholds; one without the sections of ours is returned as it is.

    The list of thresholds is replaced, and names the ``flag_labels`` where not all labels decide whether a comment is
    flagged. The validation figures stay, and say that those at a threshold are at the training's.
    """
    head, heading, rest = card.partition(_VALIDATION)
    if heading:
        section, following, tail = rest.partition("\n## ")
        section = section.replace(_TUNED, _RETUNED).replace("the stored threshold", "the training's threshold")
        card = f"{head}{heading}{section}{following}{tail}"
    head, heading, rest = card.partition(_THRESHOLDS)
    if not heading:
        return card
    _, following, tail = rest.partition("\n## ")
    names = " or ".join(f"`{label}`" for label in flag_labels)
    deciding = f"\nA comment is flagged when its score of {names} reaches the threshold.\n" if names else ""
    return f"{head}{heading}\n{threshold_list(thresholds)}\n{deciding}{following}{tail}"


def update_card(path: Path, thresholds: Mapping[str, Mapping[str, Any]], flag_labels: Sequence[str] = ()) -> None:
    """Bring the card of a run to new thresholds; nothing when it cannot be read as text."""
    try:
        card = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    write_text(path, with_thresholds(card, thresholds, flag_labels))


@dataclass(frozen=True)
class _Span:
    """Epochs first..last of one phase, or of one part of it."""

    phase: str
    dendrites: int
    first: int
    last: int
    trains: str = ""


def write_training_plots(metrics: Sequence[Mapping[str, Any]], directory: Path) -> list[Path]:
    """Write training.png (loss and score) and schedule.png (learning rate and speed), return their paths.

    Where dendrites were trained by correlation, training.png shows the candidates' correlation apart from the loss.

    Of ``metrics``, rows of metrics.jsonl, a repeated epoch (after a resume) counts by its last row, and a missing, null
    or infinite value leaves a gap. Without epochs nothing is drawn.
    """
    rows = sorted({int(row["epoch"]): row for row in metrics}.values(), key=lambda row: int(row["epoch"]))
    if not rows:
        return []
    spans = _spans(rows)
    return [_training(rows, spans, directory / "training.png"), _schedule(rows, spans, directory / "schedule.png")]


def _spans(rows: Sequence[Mapping[str, Any]]) -> list[_Span]:
    """Cut the epochs into phases; a second dendrite phase is a span of its own."""
    spans: list[_Span] = []
    before: Mapping[str, Any] | None = None
    for row in rows:
        epoch, dendrites = int(row["epoch"]), int(row.get("dendrites", 0))
        at = int(row.get("phase_epoch", epoch))
        if before and row["phase"] == before["phase"] and at > int(before.get("phase_epoch", epoch - 1)):
            spans[-1] = replace(spans[-1], dendrites=dendrites, last=epoch)
        else:
            spans.append(_Span(str(row["phase"]), dendrites, epoch, epoch, str(row.get("trains", ""))))
        before = row
    return spans


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, tint: str, label: str, mark: str) -> None:
    """Draw one column; an empty label stays out of the legend."""
    axes.plot(
        [int(row["epoch"]) for row in rows],
        finite(row.get(key) for row in rows),
        color=tint,
        label=label or None,
        marker=mark,
        markersize=5 if len(rows) <= 40 else 3,  # a lone epoch must show
        markeredgecolor="white",
        linewidth=1.8,
        linestyle="solid" if mark == "o" else (0, (5, 1.5)),
        zorder=3,
    )


def _training(rows: Sequence[Mapping[str, Any]], spans: Sequence[_Span], path: Path) -> Path:
    rows = [_apart(row) for row in rows]
    correlated = any("correlation" in row for row in rows)
    figure = new_figure(9.0, 8.0 if correlated else 6.4)
    heights = (2.0, 2.0, 1.0) if correlated else (1.0, 1.0)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    loss, score = panels[:2]
    _line(loss, rows, "train_loss", _BLUE, "training", "o")
    _line(loss, rows, "valid_loss", _VERMILLION, "validation", "s")
    plain(loss, "", "", "Loss")
    _line(score, rows, "valid_ap", _GREEN, "average precision", "o")
    _line(score, rows, "valid_f1", _PURPLE, "F1 at 0.5", "s")
    plain(score, "", "" if correlated else "Epoch", "Validation score (macro)")
    _mark_best(score, rows)
    if correlated:
        _line(panels[2], rows, "correlation", _BLUE, "candidates with\nthe neurons' error", "o")
        plain(panels[2], "", "Epoch", "Correlation")
    return _finish(figure, panels, spans, path)


def _apart(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose loss is the task's or none: candidates lower minus their mean correlation."""
    if row.get("trains") != CANDIDATES:
        return row
    loss = row.get("train_loss")
    return {**row, "train_loss": None, "correlation": None if loss is None else -loss}


def _schedule(rows: Sequence[Mapping[str, Any]], spans: Sequence[_Span], path: Path) -> Path:
    figure = new_figure(9.0, 5.2)
    rate, speed = figure.subplots(2, 1, sharex=True)
    # Apart by phase: the rate jumps at a switch, it does not glide.
    for i, span in enumerate(spans):
        part = [row for row in rows if span.first <= int(row["epoch"]) <= span.last]
        _line(rate, part, "lr", _BLUE, "" if i else "learning rate", "o")
    plain(rate, "", "", "Learning rate")
    if all(value > 0 for value in finite(row.get("lr") for row in rows)):
        rate.set_yscale("log")
    _line(speed, rows, "rows_per_second", _VERMILLION, "training speed", "s")
    plain(speed, "", "Epoch", "Rows per second")
    known = [value for value in finite(row.get("rows_per_second") for row in rows) if value > 0]
    speed.set_ylim(0, 1.15 * max(known, default=1.0))
    return _finish(figure, (rate, speed), spans, path)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put a star on the epoch that the run kept: the last row that was the best so far."""
    best = [row for row in rows if row.get("best") and finite([row.get("valid_ap")])[0] == row["valid_ap"]]
    if best:
        axes.plot(
            [int(best[-1]["epoch"])],
            [float(best[-1]["valid_ap"])],
            marker="*",
            markersize=15,
            color=_GREEN,
            markeredgecolor="black",
            markeredgewidth=0.8,
            linestyle="none",
            label=f"best, epoch {int(best[-1]['epoch'])}",
            zorder=5,
        )


def _finish(figure: Figure, panels: Sequence[Axes], spans: Sequence[_Span], path: Path) -> Path:
    """Shade the phases, mark the switches, name the phases above the first panel and save."""
    from matplotlib.ticker import MaxNLocator

    for axes in panels:
        for span in spans:
            shade = _SHADES.get(span.phase, "#F0F0F0")
            axes.axvspan(span.first - 0.5, span.last + 0.5, color=shade, linewidth=0, zorder=0)
        for span in spans[1:]:
            axes.axvline(span.first - 0.5, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)
        axes.set_xlim(spans[0].first - 0.5, spans[-1].last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, fontsize=9)
    _name_phases(figure, panels[0], spans)
    return save(figure, path)


def _name_phases(figure: Figure, axes: Axes, spans: Sequence[_Span]) -> None:
    """Write each phase's name above its band, a line higher where it would touch another name."""
    figure.draw_without_rendering()
    ends: list[float] = []
    for span in spans:
        text = axes.annotate(
            phase_name(span.phase, span.trains, span.dendrites),
            ((span.first + span.last) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color="#333333",
        )
        box = text.get_window_extent()
        level = next((i for i, end in enumerate(ends) if box.x0 > end + 6), len(ends))
        if level == len(ends):
            ends.append(box.x1)
        ends[level] = box.x1
        text.set_position((0, 4 + level * _LINE_PIXELS * 72 / figure.dpi))
