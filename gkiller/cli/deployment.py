"""``gkiller export`` and ``gkiller quantize``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gkiller.cli.console import emit_json, key_values, next_command, progress, results_table, show, warn
from gkiller.cli.options import DATA_HELP, JsonFlag, ModelArgument, ValidSplitOption, place, with_settings
from gkiller.errors import ParityError, SettingsError
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table

    from gkiller.data.load import Labelled
    from gkiller.deployment.deploy import Exported
    from gkiller.deployment.parity import ParityRows
    from gkiller.deployment.quantize import Tried
    from gkiller.model.directory import LoadedModel
    from gkiller.settings import Resolved

gated = with_settings("data", "deployment", without=("data.sample_size",), helps={"data.source": DATA_HELP})
"""Gives a command the gate's limits, and the data that it compares on."""

_COPY = "write a copy of the model there instead of adding to it"
FormatOption = Annotated[Literal["onnx", "safetensors", "wheel"], typer.Option("--format", help="What to make.")]
ExportOutOption = Annotated[
    Path | None,
    place(f"onnx: {_COPY}; safetensors: the new model directory; wheel: the folder for the wheel [default: dist]."),
]
PlainFlag = Annotated[bool, typer.Option("--plain", help="onnx: keep the graph of torch's exporter, not the lean one.")]
_NAME = "wheel: its name, for pip and for `load`; gkiller-model if not set."
NameOption = Annotated[str | None, typer.Option("--package-name", metavar="NAME", help=_NAME)]
_VERSION = "wheel: its version; gkiller's own if not set."
VersionOption = Annotated[str | None, typer.Option("--package-version", metavar="VERSION", help=_VERSION)]
_PRECISION = "wheel: which graph goes in; int8 if there, else fp32, else fp16."
PrecisionOption = Annotated[Literal["int8", "fp32", "fp16"] | None, typer.Option("--precision", help=_PRECISION)]
_STORAGE = "int8 arithmetic, or weights kept as fp16 and widened at load."
StorageOption = Annotated[Literal["int8", "fp16"], typer.Option("--storage", help=_STORAGE)]
QuantizeOutOption = Annotated[Path | None, place(f"{_COPY.capitalize()}.")]
_PORTABLE = "7-bit weights alone: they score the same on processors without VNNI."
PortableFlag = Annotated[bool, typer.Option("--portable", help=_PORTABLE)]
_VOCABULARY = "Also keep only the N pieces that the training comments use most; needs --out."
VocabularyOption = Annotated[int | None, typer.Option("--vocabulary", metavar="N", min=1, help=_VOCABULARY)]


@gated
def export(
    resolved: Resolved,
    asked: frozenset[str],
    model: ModelArgument,
    format_: FormatOption = "onnx",
    out: ExportOutOption = None,
    split: ValidSplitOption = None,
    plain: PlainFlag = False,
    package_name: NameOption = None,
    package_version: VersionOption = None,
    precision: PrecisionOption = None,
    json: JsonFlag = False,
) -> None:
    """Export a model: ONNX graph, plain weights, or a wheel to install.

    An ONNX graph must score validation comments as the model does (the deployment settings are the limits), or nothing
    is written and the command ends with 60. The comments are those of the model's own run, or of --data. A wheel holds
    the model alone; once it is installed, its name stands for it wherever a model is named.
    """
    from gkiller.deployment.deploy import copy_plain, export_onnx
    from gkiller.deployment.wheel import build_wheel
    from gkiller.model.directory import load_model
    from gkiller.scoring.models import load_any

    if format_ != "onnx":
        _refuse_unused({"--plain": plain, "--split": split}, "it is for --format onnx")
    if format_ != "wheel":
        wheel_flags = {"--package-name": package_name, "--package-version": package_version}
        _refuse_unused(wheel_flags, "it is for --format wheel")
        _refuse_unused({"--precision": precision}, "it is for --format wheel; 'gkiller quantize' makes int8 and fp16")
    if format_ == "wheel":
        wheel = build_wheel(
            load_any(model), out or Path("dist"), name=package_name, version=package_version, precision=precision
        )
        facts: dict[str, object] = {"wheel": wheel.path, "MB": f"{wheel.size / 1e6:.2f}", "graph": wheel.graph}
        facts["in Python"] = f"gkiller.load({wheel.name!r}).predict('you are kind')"
        why = "next, next to gkiller or gkiller-lite"
        _tell_made(wheel, facts, f"pip install {wheel.path}", why, as_json=json)
        return
    loaded = load_model(model)
    if format_ == "onnx":
        rows = _gate_rows(resolved, asked, loaded, split)
        limits = resolved.settings.deployment
        with _comparing(json) as advance:
            exported = export_onnx(loaded, rows, limits, out=out, plain=plain, progress=advance)
        _tell(exported, rows, f"gkiller quantize {exported.directory}", as_json=json)
    else:
        if out is None:
            raise SettingsError("it needs a place", where="--format safetensors", remedy="name one with --out DIR")
        size = copy_plain(loaded, out)
        facts = {"directory": out, "MB": f"{size / 1e6:.2f}"}
        _tell_made({"directory": out, "bytes": size}, facts, f"gkiller evaluate {out}", as_json=json)


def _tell_made(made: object, facts: Mapping[str, object], then: str, why: str = "next", *, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    show(key_values("Exported", facts))
    next_command(then, why)


@gated
def quantize(
    resolved: Resolved,
    asked: frozenset[str],
    model: ModelArgument,
    storage: StorageOption = "int8",
    out: QuantizeOutOption = None,
    split: ValidSplitOption = None,
    portable: PortableFlag = False,
    vocabulary: VocabularyOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a model's int8 graph: the best of several measured ways.

    Every way must score validation comments as the model does (the deployment settings are the limits);
    when none does, nothing is written and the command ends with 60. Of the static ones as fast as the
    fastest, the one that flips the fewest decisions is kept; a dynamic one, whose scores depend on the batch,
    only when no static one passed. The comments are those of the model's own run, or of --data.
    """
    from gkiller.deployment.deploy import export_onnx, quantize_trimmed
    from gkiller.deployment.deploy import quantize as quantize_model
    from gkiller.model.directory import load_model

    if storage == "fp16":
        _refuse_unused({"--portable": portable, "--vocabulary": vocabulary}, "it is for --storage int8")
    if vocabulary is not None and out is None:
        what = "it makes another model, and so needs a place"
        raise SettingsError(what, where="--vocabulary", remedy="name one with --out DIR")
    loaded = load_model(model)
    rows = _gate_rows(resolved, asked, loaded, split)
    # a vocabulary is trimmed by the training comments, all of a single file
    reference = [] if vocabulary is None else _rows(resolved, asked, loaded, None, "train").rows.texts
    settings = resolved.settings.deployment
    tried: list[Tried] = []
    with _comparing(json) as advance:
        if storage == "fp16":
            exported = export_onnx(loaded, rows, settings, out=out, precision="fp16", progress=advance)
        elif vocabulary is not None and out is not None:
            exported, tried = quantize_trimmed(
                loaded, rows, settings, out, reference=reference, pieces=vocabulary, portable=portable, progress=advance
            )
        else:
            exported, tried = quantize_model(loaded, rows, settings, out=out, portable=portable, progress=advance)
    _tell(exported, rows, f"gkiller export {exported.directory} --format wheel", tried, as_json=json)


def _rows(resolved: Resolved, asked: frozenset[str], loaded: LoadedModel, split: str | None, default: str) -> Labelled:
    from gkiller.evaluation.source import choose_data, load_chosen

    assert loaded.path is not None  # it was just read from there
    choice = choose_data(loaded.path, resolved.settings.data, asked)
    with progress() as on_data:
        return load_chosen(choice, split, on_data, default=default)


def _gate_rows(resolved: Resolved, asked: frozenset[str], loaded: LoadedModel, split: str | None) -> ParityRows:
    """Return validation comments with the trained model's scores: of --data, or of the model's own run."""
    from gkiller.deployment.parity import parity_rows

    found = _rows(resolved, asked, loaded, split, "valid")
    missing = [label for label in loaded.labels if label not in found.dataset.labels]
    if missing:
        warn(f"compared by score alone, as the data lack them: {', '.join(missing)}")
    with progress("scoring") as advance:
        return parity_rows(loaded, found, resolved.settings.deployment.parity_rows, advance)


def _refuse_unused(given: Mapping[str, object], remedy: str) -> None:
    """Refuse flags that would be ignored; None and False stand for one that was not given."""
    if unused := [flag for flag, value in given.items() if value is not None and value is not False]:
        raise SettingsError("the flag would be ignored", where=unused[0], remedy=remedy)


@contextmanager
def _comparing(as_json: bool) -> Iterator[Progress]:
    """Show how far the block is; and what was measured, before a refusal of the gate is reported."""
    try:
        with progress() as advance:
            yield advance
    except ParityError as error:
        if not as_json:
            show(_refused(error))
        raise


def _tell(
    exported: Exported, rows: ParityRows, then: str, tried: Sequence[Tried] | None = None, *, as_json: bool
) -> None:
    if as_json:
        candidates = {} if tried is None else {"candidates": [one.as_dict() for one in tried]}
        emit_json({**exported.as_dict(), **candidates})
        return
    show(*([_candidates(tried)] if tried else []), _exported(exported, rows))
    next_command(then)


def _refused(error: ParityError) -> Table:
    """Return the figures of a refused export, or of every refused candidate."""
    tried = error.report.get("candidates") or [{"name": "the export", "parity": error.report}]
    rows = [
        (one["name"], figures["max_difference"], flips, figures["ap_loss"], figures["f1_loss"])
        for one in tried
        for figures in [one["parity"]]
        for flips in [f"{figures['flips']} ({figures['flip_share']:.3%})"]
    ]
    return results_table("Refused", ("graph", "max |Δ score|", "flips", "AP lost", "F1 lost"), rows)


def _exported(exported: Exported, rows: ParityRows) -> Table:
    parity, limits = exported.parity, exported.limits
    lines = [(one.label, one.flips, one.f1_before, one.f1_after, one.ap_before, one.ap_after) for one in parity.labels]
    caption = (
        f"{parity.rows:,} rows of {rows.split}; max |Δ score| {parity.max_difference:.2g} "
        f"(limit {limits.score_difference:g}), flips {parity.flip_share:.3%} (limit {limits.flips:.3%})\n"
        f"{exported.graph_bytes / 1e6:.2f} MB; "
        f"{exported.total_bytes / 1e6:.2f} MB with all files needed to predict"
    )
    header = ("label", "flips", "F1", "F1 exported", "AP", "AP exported")
    return results_table(f"{exported.file} ({exported.precision})", header, lines, caption=caption)


def _candidates(tried: Sequence[Tried]) -> Table:
    from gkiller.deployment.quantize import choose

    best = choose(tried)
    rows = [
        (
            one.candidate.name,
            f"{len(one.graph) / 1e6:.2f}",
            f"{one.rate:,.0f}",
            f"{one.parity.max_difference:.4f}",
            f"{one.parity.flips} ({one.parity.flip_share:.3%})",
            f"{one.parity.ap_loss:.4f}",
            f"{one.parity.f1_loss:.4f}",
            "kept" if one is best else ("" if one.parity.passed else "refused"),
        )
        for one in tried
    ]
    header = ("int8", "MB", "comments/s", "max |Δ score|", "flips", "AP lost", "F1 lost", "")
    caption = "speed of the graph alone, one thread, measured in turns on this machine"
    return results_table("Candidates", header, rows, caption=caption)
