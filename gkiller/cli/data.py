"""``gkiller data``: prepare, augment, inspect and list labelled comments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, next_command, note, progress, results_table, show, warn
from gkiller.cli.options import JsonFlag, out_place, with_settings
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gkiller.data.dataset import DataManifest
    from gkiller.settings import Resolved

app = typer.Typer(
    help="Prepare, augment, inspect and list labelled comments.", no_args_is_help=True, rich_markup_mode="rich"
)

SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCES...",
        help="Files (CSV, TSV, JSONL, Parquet, also .gz), folders of train.*/valid.*/test.* files, hub data "
        "sets as org/name:config, or 'sample'. Without any: the setting data.source.",
    ),
]
ValidOption = Annotated[list[str] | None, typer.Option("--valid", metavar="FILE", help="Validation rows; repeatable.")]
TestOption = Annotated[list[str] | None, typer.Option("--test", metavar="FILE", help="Test rows; repeatable.")]
OutOption = Annotated[Path, typer.Option("--out", callback=out_place, metavar="DIR", help="The directory to write.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace a directory of prepared data.")]
SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        help="A prepared directory, or anything that 'prepare' reads. Without it: the setting data.source.",
    ),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="Write this split alone (train, valid or test), each comment replaced by its copies: a suite to "
        "measure robustness on.",
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        callback=out_place,
        metavar="FILE",
        help="Also draw this file: .png, .svg or .pdf, in a folder there is.",
    ),
]


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

    with progress() as advance:
        manifest = prepare(
            resolved.settings.data,
            out,
            sources=sources,
            valid=valid or (),
            test=test or (),
            overwrite=force,
            progress=advance,
        )
    if json:
        emit_json({"directory": str(out), **manifest})
        return
    _tell(manifest)
    show(results_table(f"Prepared in {out}", ("split", "rows", "label", "positive", "%"), _rate_rows(manifest)))
    next_command(f"gkiller train --data {out}")


def _tell(manifest: DataManifest) -> None:
    """Report on stderr everything that was decided, renamed or dropped."""
    for line in [*manifest["guesses"], *manifest["notes"]]:
        note(line)
    for old, new in manifest["renames"].items():
        note(f"column {old!r} is the label {new!r}")
    for label, kind in manifest["label_kinds"].items():
        if kind == "score":
            note(f"{label}: scores of {manifest['cutoff']} and above are positive")
    if manifest["class_names"]:
        pairs = ", ".join(f"{name!r} is {code}" for name, code in manifest["class_names"].items())
        note(f"class names: {pairs}")
    note(f"rows read: {manifest['rows_read']:,}; dropped: " + (", ".join(_dropped(manifest)) or "none"))
    if manifest["conflicts"]:
        conflicts = counted(manifest["conflicts"], "dropped duplicate")
        warn(f"{conflicts} had other labels than the row that was kept")
    for line in manifest["bad_row_examples"]:
        note(f"bad row: {line}")
    _warn(manifest)


def _warn(manifest: DataManifest) -> None:
    """Report on stderr what is wrong with prepared comments but can be lived with."""
    if manifest["synthetic"]:
        warn("these comments are synthetic: good for trying gkiller out, not for use")
    for line in manifest["warnings"]:
        warn(line)


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
    rows: list[tuple[object, ...]] = []
    for name, split in manifest["splits"].items():
        for position, (label, count) in enumerate(split["labels"].items()):
            first = (name, split["rows"]) if position == 0 else ("", None)
            rows.append((*first, label, count["positive"], _percent(count["rate"])))
    return rows


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
    if is_prepared(Path(wanted).expanduser()):
        _warn(manifest)
    else:
        _tell(manifest)
    report = manifest["augmentations"][-1]
    note(
        f"{report['split']}: {counted(report['changed'], 'comment')} of {report['rows']:,} changed; "
        f"{counted(report['duplicates'], 'copy', 'copies')} dropped, as another comment has that text"
    )
    show(
        results_table("Copies", ("kind", "rows"), list(report["kinds"].items())),
        results_table(f"Written to {out}", ("split", "rows", "label", "positive", "%"), _rate_rows(manifest)),
    )
    if split is None:
        next_command(f"gkiller train --data {out}")
    else:
        next_command(f"gkiller evaluate RUN --data {out} --split {split}")


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
    named = settings.model.tokenizer
    tokenizer = Path(named).expanduser() if named else tokenizer_path()
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
    for line in result["notes"]:
        note(line)
    for kind, count in result["bad_rows"].items():
        rows, them = counted(count, "bad row"), "it" if count == 1 else "them"
        warn(f"left out here: {rows} ({kind}); 'prepare' refuses {them} unless --on-error skip")
    if result["unit"] == "words":
        warn("no tokenizer: lengths are words, not tokens")
    for line in result["warnings"]:
        warn(line)
    splits, unit = result["splits"], result["unit"]
    show(
        results_table(f"Labels of {result['source']}", ("split", "rows", "label", "positive", "%"), _rate_rows(result)),
        results_table(
            f"Lengths in {unit}",
            ("split", "p5", "p50", "p95", "p99", "max", f"% over {result['max_length']}"),
            [
                (name, *(int(s["lengths"][key]) for key in ("p5", "p50", "p95", "p99", "max")), _truncated(s))
                for name, s in splits.items()
            ],
        ),
        results_table(
            "Duplicates within a split",
            ("split", "exact", "case or white space", "texts with conflicting labels"),
            [(name, *s["duplicates"].values()) for name, s in splits.items()],
        ),
    )
    if result["overlap"]:
        pairs = [(pair, count) for pair, count in result["overlap"].items()]
        show(results_table("Rows also in another split", ("rows of", "count"), pairs))
    show(f"texts with conflicting labels anywhere: {result['conflicting_texts']:,}")


def _truncated(split: dict[str, Any]) -> str:
    return _percent(split["lengths"]["truncated_share"])


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
    for source in KNOWN_SOURCES:
        if source.remedy:
            note(f"{source.name}: {source.remedy}")
    note("Besides: any file or folder, and any hub data set as org/name or org/name:config")
    next_command("gkiller data prepare sample --out prepared")
