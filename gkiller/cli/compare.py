"""``gkiller compare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.comparison_tables import comparison_blocks
from gkiller.cli.console import PIPED_WIDTH, as_text, emit_json, note, plain, progress, show, stages, warn
from gkiller.cli.evaluate import DATA_HELP, NOT_TUNED, SplitOption
from gkiller.cli.options import JsonFlag, labelled_numbers, out_place, with_settings
from gkiller.errors import SettingsError
from gkiller.evaluation.significance import MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from rich.console import RenderableType

    from gkiller.data.labelled import Labelled
    from gkiller.evaluation.deployed import AnyModel
    from gkiller.evaluation.sides import GivenThresholds, ScoredSide
    from gkiller.evaluation.source import DataChoice
    from gkiller.settings import Resolved
    from gkiller.settings.definition import DataSettings, EvaluationSettings

SIDE = "a model directory, a run that has one, 'default', or a file of scores as gkiller predict writes it."
JSON_SUFFIX, TEXT_SUFFIXES = ".json", (".txt", ".md")

FirstArgument = Annotated[str, typer.Argument(metavar="A", help=f"The side that is to keep up: {SIDE}")]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help=f"The side it is compared with: {SIDE}")]
SliceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="COLUMN",
        help="Also compare by this label of the data, or column of the file named with --data or "
        "--slice-data: by its values, or by quarters when it holds over 20 numbers; repeatable.",
    ),
]
SliceDataOption = Annotated[
    str | None,
    typer.Option(
        "--slice-data",
        metavar="FILE",
        help="A file of the same comments with the columns of --slice, which prepared data do not keep.",
    ),
]
FirstThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold-a",
        metavar="[LABEL=]X",
        help="A's threshold, for one label or all, tuned on other rows; else the stored one, or the one that "
        "the flags of a file of scores show; repeatable.",
    ),
]
SecondThresholdOption = Annotated[
    list[str] | None,
    typer.Option("--threshold-b", metavar="[LABEL=]X", help="The same for B."),
]
ExamplesOption = Annotated[
    int,
    typer.Option("--examples", metavar="N", min=0, help="Comments to show on which the sides differ most."),
]
MarginOption = Annotated[
    float,
    typer.Option(
        "--margin",
        metavar="NUMBER",
        min=0.0,
        max=1.0,
        help="What A may lose for the verdict 'within': 0.02 is 2 % of B's figure.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=out_place,
        metavar="FILE",
        help="Write the report there, too: .json, or text as .txt or .md.",
    ),
]


@with_settings(
    "data",
    "evaluation",
    without=NOT_TUNED,
    helps={"data.source": DATA_HELP},
)
def compare(
    resolved: Resolved,
    asked: frozenset[str],
    a: FirstArgument,
    b: SecondArgument,
    split: SplitOption = None,
    slice_: SliceOption = None,
    slice_data: SliceDataOption = None,
    threshold_a: FirstThresholdOption = None,
    threshold_b: SecondThresholdOption = None,
    examples: ExamplesOption = 10,
    margin: MarginOption = MARGIN,
    out: OutOption = None,
    json: JsonFlag = False,
) -> None:
    """Compare two models, or files of their scores.

    On the same labelled comments: F1 at each side's own threshold, average precision and ROC-AUC, with
    paired bootstrap intervals of the differences; the verdict whether A keeps within the margin of B;
    agreement and McNemar's test of the decisions; slices; and the comments they differ on. No threshold is
    tuned here. Without --data it reads the data of the first side's own run, or else of the second's.
    """
    from gkiller.data.sources import public_source
    from gkiller.evaluation.comparison import compare as compare_scored
    from gkiller.evaluation.sides import other_reading
    from gkiller.evaluation.slices import named_slices
    from gkiller.evaluation.source import comparing_warnings, load_chosen

    settings = resolved.settings
    _check_out(out, [a, b, settings.data.source, slice_data])
    given = [_given(threshold_a, "--threshold-a"), _given(threshold_b, "--threshold-b")]
    models = [_loaded(name) for name in (a, b)]
    choice = _choice(models, settings.data, asked)
    with stages() as on_data:
        found = load_chosen(choice, split, on_data, default="test")
    first, second = (
        _side(name, model, found, settings.evaluation, own)
        for name, model, own in zip((a, b), models, given, strict=True)
    )
    slices, joined = named_slices(
        slice_ or [],
        found,
        slice_data or _file_of(choice),
        text_column=settings.data.text_column,
        id_column=settings.data.id_column,
    )
    with progress("comparing") as advance:
        comparison = compare_scored(
            found,
            first,
            second,
            settings.evaluation,
            margin=margin,
            slices=slices,
            examples=examples,
            progress=advance,
        )
    warnings = [
        f"{letter}: {line}"
        for letter, model in zip("AB", models, strict=True)
        if model is not None and model.path is not None
        for line in comparing_warnings(model.path, choice, found, model.metadata["thresholds"])
    ]
    warnings += [*other_reading(first, second), *comparison.rough()]
    if comparison.missing:
        warnings.append(f"not compared, as a side lacks them: {', '.join(comparison.missing)}")
    if found.dataset.manifest.get("synthetic"):
        warnings.append("these comments are synthetic: the figures say nothing about real ones")
    source = str(found.dataset.manifest.get("source", choice.data.source))
    report = {
        "a": _described(first),
        "b": _described(second),
        "source": source,
        "split": found.name,
        **comparison.as_dict(),
        "notes": [*first.notes, *second.notes, *joined],
        "warnings": warnings,
    }
    title = f"{public_source(source)}, {found.name}"
    blocks = partial(comparison_blocks, comparison, first, second, title)
    if out is not None:
        _write(out, report, blocks)
    for line in warnings:
        warn(line)
    if json:
        emit_json(report)
        return
    for line in report["notes"]:
        note(line)
    show(*blocks())
    if out is not None:
        note(f"report: {out}")


def _check_out(out: Path | None, read: Sequence[str | None]) -> None:
    """Refuse a name that says no format, or that of a file which is read."""
    from gkiller.files import file_place, refuse_inputs

    if out is None:
        return
    if out.suffix.lower() not in (JSON_SUFFIX, *TEXT_SUFFIXES):
        raise SettingsError(
            f"{out.name!r} does not say in which format", where="--out", remedy="name it .json, .txt or .md"
        )
    refuse_inputs([file_place(out)], [Path(name).expanduser() for name in read if name is not None])


def _given(thresholds: list[str] | None, flag: str) -> GivenThresholds:
    from gkiller.evaluation.sides import GivenThresholds

    return GivenThresholds(flag, *labelled_numbers(thresholds or [], flag))


def _loaded(name: str) -> AnyModel | None:
    """Return the model of that name, or None when it is a file of scores."""
    from gkiller.evaluation.scorefiles import is_score_file

    if is_score_file(name):
        return None
    from gkiller.evaluation.deployed import load_any

    return load_any(name)


def _choice(models: Sequence[AnyModel | None], settings: DataSettings, asked: Collection[str]) -> DataChoice:
    """Return the data that were named, else those of the first model that has a run."""
    from gkiller.evaluation.source import DataChoice, choose_data, run_of

    if "data.source" in asked:
        return DataChoice(settings, None)
    paths = [model.path for model in models if model is not None and model.path is not None]
    if not paths:
        raise SettingsError(
            "two files of scores do not tell which comments they are of",
            where="--data",
            remedy="name the labelled comments with --data",
        )
    return choose_data(next(filter(run_of, paths), paths[0]), settings, asked)


def _side(
    name: str, model: AnyModel | None, found: Labelled, how: EvaluationSettings, given: GivenThresholds
) -> ScoredSide:
    from gkiller.evaluation.sides import side_of_file, side_of_model

    if model is None:
        return side_of_file(name, found, given)
    with progress(f"scoring with {name}") as advance:
        return side_of_model(name, model, found, how.batch_size, given, advance, long_text=how.long_text)


def _file_of(choice: DataChoice) -> str | None:
    """Return the source when it is a single file, which has columns that the data do not keep."""
    return choice.data.source if Path(choice.data.source).expanduser().is_file() else None


def _described(side: ScoredSide) -> dict[str, Any]:
    return {
        "name": side.name,
        "kind": side.kind,
        "thresholds": side.thresholds,
        "threshold_origins": side.origins,
        **side.reading,
    }


def _write(out: Path, report: dict[str, Any], blocks: Callable[..., Iterator[RenderableType]]) -> None:
    """Write the report as JSON or text, as its suffix says."""
    from gkiller.files import json_text, write_text, writing

    if out.suffix.lower() == JSON_SUFFIX:
        text = json_text(plain(report))
    else:
        told = [*(f"warning: {line}" for line in report["warnings"]), *report["notes"]]
        text = as_text(blocks(width=PIPED_WIDTH)) + "".join(f"{line}\n" for line in told)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
