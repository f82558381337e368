"""``gkiller data``: prepare, augment, inspect and list labelled comments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, next_command, note, progress, results_table, show, warn
from gkiller.cli.options import JsonFlag, place, with_settings
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gkiller.data.dataset import DataManifest
    from gkiller.settings import Resolved

app = typer.Typer(
    help="Prepare, augment, inspect and list labelled comments.", no_args_is_help=True, rich_markup_mode="rich"
)

_SOURCES = (
    "Files (CSV, TSV, JSONL, Parquet, also .gz), folders of train.*/valid.*/test.* files, hub data sets as "
    "org/name:config, or 'sample'. Without any: the setting data.source."
)
SourcesArgument = Annotated[list[str] | None, typer.Argument(metavar="SOURCES...", help=_SOURCES)]
ValidOption = Annotated[list[str] | None, typer.Option("--valid", metavar="FILE", help="Validation rows; repeatable.")]
TestOption = Annotated[list[str] | None, typer.Option("--test", metavar="FILE", help="Test rows; repeatable.")]
OutOption = Annotated[Path, place("The directory to write.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace a directory of prepared data.")]
_SOURCE = "A prepared directory, or anything that 'prepare' reads. Without it: the setting data.source."
SourceArgument = Annotated[str | None, typer.Argument(metavar="SOURCE", help=_SOURCE)]
_SUITE = (
    "Write this split alone (train, valid or test), each comment replaced by its copies: a suite to measure robustness"
    " on."
)
SuiteOption = Annotated[str | None, typer.Option("--split", metavar="SPLIT", help=_SUITE)]
PlotOption = Annotated[
    Path | None, place("Also draw this file: .png, .svg or .pdf, in a folder there is.", "--plot", "FILE")
]
_RATES = ("split", "rows", "label", "positive", "%")


@app.command("prepare")
@with_settings("data", without=("data.source", "data.sample_size"))
def prepare_data(
    resolved: Resolved,
    out: OutOption,
    sources: SourcesArgument = None,
    valid: ValidOption = None,
    test: TestOption = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Validate, deduplicate and split comments into a directory to train on."""
    from gkiller.data.prepare import prepare

    valid, test = valid or [], test or []
    with progress() as advance:
        manifest = prepare(
            resolved.settings.data, out, sources=sources, valid=valid, test=test, overwrite=force, progress=advance
        )
    if json:
        emit_json({"directory": str(out), **manifest})
        return
    _tell(manifest)
    show(results_table(f"Prepared in {out}", _RATES, _rate_rows(manifest)))
    next_command(f"gkiller train --data {out}")


def _tell(manifest: DataManifest) -> None:
    """Report on stderr everything that was decided, renamed or dropped."""
    scored = [label for label, kind in manifest["label_kinds"].items() if kind == "score"]
    told = [*manifest["guesses"], *manifest["notes"]]
    told += [f"column {old!r} is the label {new!r}" for old, new in manifest["renames"].items()]
    told += [f"{label}: scores of {manifest['cutoff']} and above are positive" for label in scored]
    if classes := ", ".join(f"{name!r} is {code}" for name, code in manifest["class_names"].items()):
        told.append(f"class names: {classes}")
    told.append(f"rows read: {manifest['rows_read']:,}; dropped: " + (", ".join(_dropped(manifest)) or "none"))
    note(*told)
    if conflicts := manifest["conflicts"]:
        warn(f"{counted(conflicts, 'dropped duplicate')} had other labels than the row that was kept")
    note(*(f"bad row: {line}" for line in manifest["bad_row_examples"]))
    _warn(manifest)


def _warn(manifest: DataManifest) -> None:
    """Report on stderr what is wrong with prepared comments but can be lived with."""
    if manifest["synthetic"]:
        warn("these comments are synthetic: good for trying gkiller out, not for use")
    warn(*manifest["warnings"])


def _dropped(manifest: DataManifest) -> list[str]:
    """Return how many rows were dropped, a text per reason."""
    dropped = manifest["dropped"]
    exact, folded = dropped["exact_duplicates"], dropped["folded_duplicates"]
    told = [counted(exact, "exact duplicate")] if exact else []
    told += [counted(folded, "duplicate") + " but for case and white space"] if folded else []
    told += [f"{count:,} {pair} as well" for pair, count in dropped["overlap"].items() if count]
    return told + [f"{counted(count, 'bad row')} ({kind})" for kind, count in dropped["bad"].items() if count]


def _rate_rows(manifest: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return the rows of a table: each split's labels with positives and their share of the known."""
    return [
        (*(("", None) if position else (name, split["rows"])), label, count["positive"], _percent(count["rate"]))
        for name, split in manifest["splits"].items()
        for position, (label, count) in enumerate(split["labels"].items())
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


@app.command("augment")
@with_settings("data", "augment", without=("data.source", "data.sample_size"))
def augment_data(
    resolved: Resolved,
    out: OutOption,
    source: SourceArgument = None,
    split: SuiteOption = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Add changed copies of train comments that keep their labels: noise, disguises, other wordings."""
    from gkiller.data.augment.prepared import augment_source
    from gkiller.data.dataset import is_prepared

    settings = resolved.settings
    wanted = source or settings.data.source
    with progress() as advance:
        manifest = augment_source(
            wanted, out, settings.data, settings.augment, split=split, overwrite=force, progress=advance
        )
    if json:
        emit_json({"directory": str(out), **manifest})
        return
    tell = _warn if is_prepared(Path(wanted).expanduser()) else _tell
    tell(manifest)
    report = manifest["augmentations"][-1]
    note(
        f"{report['split']}: {counted(report['changed'], 'comment')} of {report['rows']:,} changed; "
        f"{counted(report['duplicates'], 'copy', 'copies')} dropped, as another comment has that text"
    )
    show(results_table("Copies", ("kind", "rows"), list(report["kinds"].items())))
    show(results_table(f"Written to {out}", _RATES, _rate_rows(manifest)))
    then = f"train --data {out}" if split is None else f"evaluate RUN --data {out} --split {split}"
    next_command(f"gkiller {then}")


@app.command("inspect")
@with_settings(
    "data", "model.tokenizer", "model.max_length", without=("data.source", "data.sample_size", "data.on_error")
)
def inspect_data(
    resolved: Resolved, source: SourceArgument = None, plot: PlotOption = None, json: JsonFlag = False
) -> None:
    """Show label rates, lengths, duplicates, label conflicts and overlap of splits."""
    from gkiller.assets import tokenizer_path
    from gkiller.data.inspect import check_plot, inspect, plot_inspection

    if plot is not None:
        check_plot(plot)
    settings = resolved.settings
    tokenizer = Path(settings.model.tokenizer).expanduser() if settings.model.tokenizer else tokenizer_path()
    wanted = source or settings.data.source
    with progress() as advance:
        result = inspect(wanted, tokenizer, settings.model.max_length, settings=settings.data, progress=advance)
    if plot is not None:
        plot_inspection(result, plot)
    if json:
        emit_json({**result, "plot": str(plot) if plot is not None else None})
        return
    _show_inspection(result)
    if plot is not None:
        note(f"plot: {plot}")
    next_command(f"gkiller data prepare {wanted} --out prepared")


def _show_inspection(result: dict[str, Any]) -> None:
    note(*result["notes"])
    for kind, count in result["bad_rows"].items():
        rows, them = counted(count, "bad row"), "it" if count == 1 else "them"
        warn(f"left out here: {rows} ({kind}); 'prepare' refuses {them} unless --on-error skip")
    if result["unit"] == "words":
        warn("no tokenizer: lengths are words, not tokens")
    warn(*result["warnings"])
    unit, quantiles = result["unit"], ("p5", "p50", "p95", "p99", "max")
    lengths, duplicates = [], []
    for name, split in result["splits"].items():
        measured = split["lengths"]
        lengths.append((name, *(int(measured[key]) for key in quantiles), _percent(measured["truncated_share"])))
        duplicates.append((name, *split["duplicates"].values()))
    show(results_table(f"Labels of {result['source']}", _RATES, _rate_rows(result)))
    over = f"% over {result['max_length']}"
    show(results_table(f"Lengths in {unit}", ("split", *quantiles, over), lengths))
    header = ("split", "exact", "case or white space", "texts with conflicting labels")
    show(results_table("Duplicates within a split", header, duplicates))
    if result["overlap"]:
        show(results_table("Rows also in another split", ("rows of", "count"), list(result["overlap"].items())))
    show(f"texts with conflicting labels anywhere: {result['conflicting_texts']:,}")


@app.command("list")
def list_sources(json: JsonFlag = False) -> None:
    """List the data sets that gkiller knows by name."""
    from gkiller.data.hub import KNOWN_SOURCES

    if json:
        emit_json({"sources": KNOWN_SOURCES})
        return
    rows = [
        (source.name, source.access, source.rows, ", ".join(source.label_columns), source.licence, source.description)
        for source in KNOWN_SOURCES
    ]
    show(results_table("Known data sets", ("name", "access", "rows", "labels", "licence", "what it is"), rows))
    note(*(f"{source.name}: {source.remedy}" for source in KNOWN_SOURCES if source.remedy))
    note("Besides: any file or folder, and any hub data set as org/name or org/name:config")
    next_command("gkiller data prepare sample --out prepared")
