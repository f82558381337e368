"""``gkiller compare``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from gkiller.cli.console import progress, results_table
from gkiller.cli.options import DATA_HELP, NOT_TUNED, JsonFlag, SplitOption, labelled_numbers, place, with_settings
from gkiller.cli.tables import NO_ROOM, excerpt, fitting, read_how, report_text, signed, synthetic_warning, tell
from gkiller.errors import SettingsError
from gkiller.evaluation.significance import MARGIN
from gkiller.storage.strict_json import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.cli.tables import Blocks
    from gkiller.data.load import Labelled
    from gkiller.evaluation.comparison import Comparison, GivenThresholds, ScoredSide, SliceComparison
    from gkiller.evaluation.source import DataChoice
    from gkiller.scoring.models import AnyModel
    from gkiller.settings import Resolved
    from gkiller.settings.definition import DataSettings, EvaluationSettings

TITLES = {"f1": "F1", "ap": "AP", "roc_auc": "ROC-AUC"}
EXCERPT = 60
JSON_SUFFIX, TEXT_SUFFIXES = ".json", (".txt", ".md")


def _blocks(comparison: Comparison, sides: Mapping[str, ScoredSide], title: str, room: int) -> Iterator[RenderableType]:
    yield _sides(comparison, sides)
    yield fitting(room, (_figures(comparison, title, intervals=shown) for shown in (True, False)))
    yield from _verdicts(comparison)
    yield fitting(room, (_decisions(comparison, everything=shown) for shown in (True, False)))
    choices = (tuple(TITLES), ("f1", "ap"), ("f1",), ())
    yield fitting(room, (_slices(comparison, shown) for shown in choices))
    if comparison.examples:
        yield _examples(comparison)


def _sides(comparison: Comparison, sides: Mapping[str, ScoredSide]) -> Table:
    rows = [
        (letter, side.name, one.label, f"{side.thresholds[one.label]:.4f}", side.origins[one.label])
        for letter, side in sides.items()
        for one in comparison.labels
    ]
    caption = "\n".join(f"{letter}: {read_how(side.reading)}" for letter, side in sides.items())
    return results_table("Sides", ("", "scores of", "label", "cut", "which is"), rows, caption=caption)


def _figures(comparison: Comparison, title: str, *, intervals: bool) -> Table:
    rows = []
    for one in comparison.labels:
        for name, text in TITLES.items():
            d = one.paired.differences[name]
            delta = signed(d, "in brackets" if intervals else "nowhere", "{:+.4f}")
            rows.append((one.label, text, _number(d.a), _number(d.b), delta, _p(one.p_holm[name])))
    caption = (
        f"n = {comparison.rows:,}{', weighted' if comparison.weighted else ''}; "
        f"{'in brackets ' if intervals else 'below, '}{comparison.confidence:.0%} intervals "
        f"(paired bootstrap, {comparison.resamples:,} resamples); "
        f"p: of the same draws, at least {2 / (comparison.resamples + 1):.4f} each{_holm(comparison)}"
    )
    return results_table(title, ("label", "figure", "A", "B", "A - B", "p"), rows, caption=caption)


def _verdicts(comparison: Comparison) -> Iterator[RenderableType]:
    yield Text(f"\nDoes A keep within {100 * comparison.margin:g} % of B?")
    for one in comparison.labels:
        for name, text in TITLES.items():
            yield Text(f"  {one.label} {text}: {one.verdicts[name].text}")
    yield Text("")


def _holm(comparison: Comparison) -> str:
    return f", adjusted for {len(comparison.labels)} labels (Holm)" if len(comparison.labels) > 1 else ""


def _decisions(comparison: Comparison, *, everything: bool) -> Table:
    rows = []
    for one in comparison.labels:
        (neither, only_b), (only_a, both) = one.paired.agreement.tolist()
        share = (both + neither) / one.paired.n if one.paired.n else math.nan
        tests = one.paired.mcnemar
        right = (tests.only_a_right, tests.only_b_right, _p(one.p_holm["mcnemar"]))
        cells = (both, only_a, only_b, neither) if everything else ()
        rows.append((one.label, *cells, f"{share:.1%}", *right))
    cells = ("both +", "A +", "B +", "both -") if everything else ()
    header = ("label", *cells, "agree", "A right", "B right", "p")
    caption = "rows, unweighted; A right: A alone is; p: McNemar's exact test" + _holm(comparison)
    return results_table("Decisions", header, rows, caption=caption)


def _slices(comparison: Comparison, shown: Sequence[str]) -> Table:
    several = len(comparison.labels) > 1

    def row(one: SliceComparison) -> tuple[object, ...]:
        deltas = [signed(one.paired.differences[name], between=", ") for name in shown]
        tests = one.paired.mcnemar
        first = (f"{one.column}: {one.value}", *([one.label] if several else []), one.paired.n, one.paired.positives)
        return (*first, *deltas, tests.only_a_right, tests.only_b_right, _p(one.p_holm))

    deltas = [f"{TITLES[name]}, A - B" for name in shown]
    header = ["slice", *(["label"] if several else []), "n", "pos.", *deltas, "A right", "B right", "p"]
    caption = (
        f"length: in characters; p: McNemar's, adjusted for {len(comparison.slices)} slices (Holm); "
        "intervals: of one slice at a time"
    )
    if len(shown) < len(TITLES):
        caption += "\n" + NO_ROOM.format("all differences")
    return results_table("Slices", header, map(row, comparison.slices), caption=caption)


def _examples(comparison: Comparison) -> Table:
    rows = [
        (
            one.row,
            one.label,
            one.truth,
            f"{one.a:.3f}{'+' if one.flag_a else ''}",
            f"{one.b:.3f}{'+' if one.flag_b else ''}",
            excerpt(one.text, EXCERPT) or "(empty)",
        )
        for one in comparison.examples
    ]
    header = ("row", "label", "truth", "A", "B", "comment")
    caption = "decided differently, then by the difference of scores; +: at or above the side's cut"
    return results_table("Where they differ most", header, rows, caption=caption)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else _number(value)


SIDE = "a model directory, a run that has one, 'default', or a file of scores as gkiller predict writes it."
FirstArgument = Annotated[str, typer.Argument(metavar="A", help=f"The side that is to keep up: {SIDE}")]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help=f"The side it is compared with: {SIDE}")]

_SLICE = (
    "Also compare by this label of the data, or column of the file named with --data or --slice-data: by its values, "
    "or by quarters when it holds over 20 numbers; repeatable."
)
SliceOption = Annotated[list[str] | None, typer.Option("--slice", metavar="COLUMN", help=_SLICE)]
_SLICE_DATA = "A file of the same comments with the columns of --slice, which prepared data do not keep."
SliceDataOption = Annotated[str | None, typer.Option("--slice-data", metavar="FILE", help=_SLICE_DATA)]
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
    list[str] | None, typer.Option("--threshold-b", metavar="[LABEL=]X", help="The same for B.")
]
_EXAMPLES = "Comments to show on which the sides differ most."
ExamplesOption = Annotated[int, typer.Option("--examples", metavar="N", min=0, help=_EXAMPLES)]
_MARGIN = "What A may lose for the verdict 'within': 0.02 is 2 % of B's figure."
MarginOption = Annotated[float, typer.Option("--margin", metavar="NUMBER", min=0.0, max=1.0, help=_MARGIN)]
OutOption = Annotated[Path | None, place("Write the report there, too: .json, or text as .txt or .md.", metavar="FILE")]


@with_settings("data", "evaluation", without=NOT_TUNED, helps={"data.source": DATA_HELP})
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
    from gkiller.data.scorefiles import is_score_file
    from gkiller.data.sources import public_source
    from gkiller.evaluation.comparison import GivenThresholds, named_slices, other_reading
    from gkiller.evaluation.comparison import compare as compare_scored
    from gkiller.evaluation.source import comparing_warnings, load_chosen
    from gkiller.scoring.models import load_any

    settings = resolved.settings
    _check_out(out, [a, b, settings.data.source, slice_data])
    flags = {"--threshold-a": threshold_a, "--threshold-b": threshold_b}
    given = [GivenThresholds(flag, *labelled_numbers(values, flag)) for flag, values in flags.items()]
    models = [None if is_score_file(name) else load_any(name) for name in (a, b)]
    choice = chosen_data((model.path for model in models if model), settings.data, asked)
    with progress() as on_data:
        found = load_chosen(choice, split, on_data, default="test")
    first, second = (
        _side(name, model, found, settings.evaluation, own)
        for name, model, own in zip((a, b), models, given, strict=True)
    )
    single_file = Path(choice.data.source).expanduser().is_file()  # it has columns that the data do not keep
    slices, joined = named_slices(
        slice_ or [],
        found,
        slice_data or (choice.data.source if single_file else None),
        text_column=settings.data.text_column,
        id_column=settings.data.id_column,
    )
    with progress("comparing") as advance:
        comparison = compare_scored(
            found, first, second, settings.evaluation, margin=margin, slices=slices, examples=examples, progress=advance
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
    source = str(found.dataset.manifest.get("source", choice.data.source))
    report = {
        "a": _described(first),
        "b": _described(second),
        "source": source,
        "split": found.name,
        **comparison.as_dict(),
        "notes": [*first.notes, *second.notes, *joined],
        "warnings": [*warnings, *synthetic_warning(found)],
    }
    blocks = partial(_blocks, comparison, {"A": first, "B": second}, f"{public_source(source)}, {found.name}")
    if out is not None:
        _write(out, report, blocks)
    tell(report, blocks, f"report: {out}" if out else "", as_json=json)


def _check_out(out: Path | None, read: Sequence[str | None]) -> None:
    """Refuse a name that says no format, or that of a file which is read."""
    from gkiller.storage.files import file_place, refuse_inputs

    if out is None:
        return
    if out.suffix.lower() not in (JSON_SUFFIX, *TEXT_SUFFIXES):
        what = f"{out.name!r} does not say in which format"
        raise SettingsError(what, where="--out", remedy="name it .json, .txt or .md")
    refuse_inputs([file_place(out)], [Path(name).expanduser() for name in read if name is not None])


def chosen_data(paths: Iterable[Path | None], settings: DataSettings, asked: Collection[str]) -> DataChoice:
    """Return the data that were named, else those of the first model that has a run."""
    from gkiller.evaluation.source import DataChoice, choose_data, run_of

    if "data.source" in asked:
        return DataChoice(settings, None)
    owner = next((path for path in paths if path is not None and run_of(path)), None)
    if owner is None:
        what = "no model belongs to a run, so it is not known which comments to measure on"
        raise SettingsError(what, where="--data", remedy="name labelled comments with --data")
    return choose_data(owner, settings, asked)


def _side(
    name: str, model: AnyModel | None, found: Labelled, how: EvaluationSettings, given: GivenThresholds
) -> ScoredSide:
    from gkiller.evaluation.comparison import side_of_file, side_of_model

    if model is None:
        return side_of_file(name, found, given)
    with progress(f"scoring with {name}") as advance:
        return side_of_model(name, model, found, how.batch_size, given, advance, long_text=how.long_text)


def _described(side: ScoredSide) -> dict[str, Any]:
    stated = {"name": side.name, "kind": side.kind, "thresholds": side.thresholds, "threshold_origins": side.origins}
    return {**stated, **side.reading}


def _write(out: Path, report: dict[str, Any], blocks: Blocks) -> None:
    """Write the report as JSON or text, as its suffix says."""
    from gkiller.storage.files import json_text, write_text, writing

    text = json_text(plain(report)) if out.suffix.lower() == JSON_SUFFIX else report_text(report, blocks)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
