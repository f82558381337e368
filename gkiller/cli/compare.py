"""``gkiller compare``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import (
    PIPED_WIDTH,
    as_text,
    emit_json,
    note,
    plain,
    progress,
    results_table,
    show,
    stdout,
    warn,
)
from gkiller.cli.evaluate import DATA_HELP, NOT_TUNED, SplitOption
from gkiller.cli.options import JsonFlag, labelled_numbers, out_place, with_settings
from gkiller.errors import SettingsError
from gkiller.evaluation.significance import MARGIN
from gkiller.wording import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.data.load import Labelled
    from gkiller.evaluation.comparison import Comparison, GivenThresholds, ScoredSide, SliceComparison
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.source import DataChoice
    from gkiller.scoring.models import AnyModel
    from gkiller.settings import Resolved
    from gkiller.settings.definition import DataSettings, EvaluationSettings


TITLES = {"f1": "F1", "ap": "AP", "roc_auc": "ROC-AUC"}
EXCERPT = 60


def comparison_blocks(
    comparison: Comparison, a: ScoredSide, b: ScoredSide, title: str, *, width: int | None = None
) -> Iterator[RenderableType]:
    """Yield the whole comparison, block by block."""
    room = stdout().width if width is None else width
    yield _sides(comparison, a, b)
    yield fitting(room, (_figures(comparison, title, intervals=shown) for shown in (True, False)))
    yield from _verdicts(comparison)
    yield fitting(room, (_decisions(comparison, everything=shown) for shown in (True, False)))
    choices = (tuple(TITLES), ("f1", "ap"), ("f1",), ())
    yield fitting(room, (_slices(comparison, shown) for shown in choices))
    if comparison.examples:
        yield _examples(comparison)


def fitting(room: int, tables: Iterable[Table]) -> Table:
    """Return the first table that is no wider than ``room``, else the last one."""
    from rich.console import Console

    ruler = Console(width=10_000)
    *wide, last = tables
    return next((table for table in wide if ruler.measure(table).maximum <= room), last)


def _sides(comparison: Comparison, a: ScoredSide, b: ScoredSide) -> Table:
    rows = [
        (letter, side.name, one.label, f"{side.thresholds[one.label]:.4f}", side.origins[one.label])
        for letter, side in (("A", a), ("B", b))
        for one in comparison.labels
    ]
    told = "\n".join(f"{letter}: {read_how(side.reading)}" for letter, side in (("A", a), ("B", b)))
    return results_table("Sides", ("", "scores of", "label", "cut", "which is"), rows, caption=told)


def read_how(reading: Mapping[str, Any]) -> str:
    """Return how a side's comments were read."""
    from gkiller.tokens.batches import reading_text

    if "max_length" in reading:
        return reading_text(reading["long_text"], reading["max_length"])
    known = {"window": "long comments read in windows", "truncate": "long comments read without their end"}
    unknown = "which does not say how long comments were read"
    return f"a file of scores, {known.get(str(reading.get('long_text')), unknown)}"


def _figures(comparison: Comparison, title: str, *, intervals: bool) -> Table:
    rows = []
    for one in comparison.labels:
        for name, text in TITLES.items():
            d = one.paired.differences[name]
            delta = signed(d, interval=intervals)
            rows.append((one.label, text, _number(d.a), _number(d.b), delta, _p(one.p_holm[name])))
    caption = (
        f"n = {comparison.rows:,}{', weighted' if comparison.weighted else ''}; "
        f"{'in brackets ' if intervals else 'below, '}{comparison.confidence:.0%} intervals "
        f"(paired bootstrap, {comparison.resamples:,} resamples); "
        f"p: of the same draws, at least {2 / (comparison.resamples + 1):.4f} each{_holm(comparison)}"
    )
    return results_table(title, ("label", "figure", "A", "B", "A - B", "p"), rows, caption=caption)


def _verdicts(comparison: Comparison) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"\nDoes A keep within {100 * comparison.margin:g} % of B?")
    for one in comparison.labels:
        for name, text in TITLES.items():
            yield Text(f"  {one.label} {text}: {one.verdicts[name].text}")
    yield Text("")


def _holm(comparison: Comparison) -> str:
    """Say that p-values are adjusted for the labels, where they are several."""
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
    header = ("label", *(("both +", "A +", "B +", "both -") if everything else ()), "agree")
    header = (*header, "A right", "B right", "p")
    caption = "rows, unweighted; A right: A alone is; p: McNemar's exact test" + _holm(comparison)
    return results_table("Decisions", header, rows, caption=caption)


def _slices(comparison: Comparison, shown: Sequence[str]) -> Table:
    several = len(comparison.labels) > 1

    def row(one: SliceComparison) -> tuple[object, ...]:
        deltas = [signed(one.paired.differences[name], "{:+.3f}", ", ") for name in shown]
        tests = one.paired.mcnemar
        name = f"{one.column}: {one.value}"
        first = (name, one.label) if several else (name,)
        sizes = (one.paired.n, one.paired.positives)
        return (*first, *sizes, *deltas, tests.only_a_right, tests.only_b_right, _p(one.p_holm))

    header = ["slice", *(["label"] if several else []), "n", "pos."]
    header += [f"{TITLES[name]}, A - B" for name in shown] + ["A right", "B right", "p"]
    caption = (
        f"length: in characters; p: McNemar's, adjusted for {len(comparison.slices)} slices (Holm); "
        "intervals: of one slice at a time"
    )
    if len(shown) < len(TITLES):
        caption += "\nno room for all differences: see --json"
    return results_table("Slices", header, [row(one) for one in comparison.slices], caption=caption)


def _examples(comparison: Comparison) -> Table:
    rows = [
        (
            one.row,
            one.label,
            one.truth,
            f"{one.a:.3f}{'+' if one.flag_a else ''}",
            f"{one.b:.3f}{'+' if one.flag_b else ''}",
            _excerpt(one.text),
        )
        for one in comparison.examples
    ]
    header = ("row", "label", "truth", "A", "B", "comment")
    caption = "decided differently, then by the difference of scores; +: at or above the side's cut"
    return results_table("Where they differ most", header, rows, caption=caption)


def _excerpt(text: str) -> str:
    flat = one_line(ValueError(text)) if text.strip() else "(empty)"
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 3] + "..."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def signed(d: Difference, form: str = "{:+.4f}", between: str = " to ", *, interval: bool = True) -> str:
    """Return a difference, with its interval when wanted, such as "-0.0031 (-0.0102 to +0.0040)"."""
    if math.isnan(d.delta):
        return "-"
    text = form.format(d.delta)
    return text if math.isnan(d.low) or not interval else f"{text} ({form.format(d.low)}{between}{form.format(d.high)})"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else ("< 0.0001" if value < 1e-4 else f"{value:.4f}")


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
    list[str] | None, typer.Option("--threshold-b", metavar="[LABEL=]X", help="The same for B.")
]

ExamplesOption = Annotated[
    int, typer.Option("--examples", metavar="N", min=0, help="Comments to show on which the sides differ most.")
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
        "--out", callback=out_place, metavar="FILE", help="Write the report there, too: .json, or text as .txt or .md."
    ),
]


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
    from gkiller.data.sources import public_source
    from gkiller.evaluation.comparison import compare as compare_scored
    from gkiller.evaluation.comparison import named_slices, other_reading
    from gkiller.evaluation.source import comparing_warnings, load_chosen

    settings = resolved.settings
    _check_out(out, [a, b, settings.data.source, slice_data])
    given = [_given(threshold_a, "--threshold-a"), _given(threshold_b, "--threshold-b")]
    models = [_loaded(name) for name in (a, b)]
    choice = _choice(models, settings.data, asked)
    with progress() as on_data:
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
    from gkiller.storage.files import file_place, refuse_inputs

    if out is None:
        return
    if out.suffix.lower() not in (JSON_SUFFIX, *TEXT_SUFFIXES):
        raise SettingsError(
            f"{out.name!r} does not say in which format", where="--out", remedy="name it .json, .txt or .md"
        )
    refuse_inputs([file_place(out)], [Path(name).expanduser() for name in read if name is not None])


def _given(thresholds: list[str] | None, flag: str) -> GivenThresholds:
    from gkiller.evaluation.comparison import GivenThresholds

    return GivenThresholds(flag, *labelled_numbers(thresholds or [], flag))


def _loaded(name: str) -> AnyModel | None:
    """Return the model of that name, or None when it is a file of scores."""
    from gkiller.data.scorefiles import is_score_file

    if is_score_file(name):
        return None
    from gkiller.scoring.models import load_any

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
    from gkiller.evaluation.comparison import side_of_file, side_of_model

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
    from gkiller.storage.files import json_text, write_text, writing

    if out.suffix.lower() == JSON_SUFFIX:
        text = json_text(plain(report))
    else:
        told = [*(f"warning: {line}" for line in report["warnings"]), *report["notes"]]
        text = as_text(blocks(width=PIPED_WIDTH)) + "".join(f"{line}\n" for line in told)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
