"""``gkiller suite``: identity bias, and robustness to obfuscation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from gkiller.cli.compare import fitting, read_how, signed
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
from gkiller.cli.tables import below, figure_text
from gkiller.errors import SettingsError
from gkiller.evaluation.identity import LEAST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.data.dataset import IntArray
    from gkiller.data.load import Labelled
    from gkiller.evaluation.identity import IdentityBias, ModelIdentity
    from gkiller.evaluation.results import Figure
    from gkiller.evaluation.robustness import ModelRobustness, Robustness
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.source import DataChoice
    from gkiller.evaluation.suites import Contestant
    from gkiller.scoring.scorers import Scorer
    from gkiller.settings import Resolved
    from gkiller.settings.definition import DataSettings, Settings


IDENTITY_TITLES = {
    "auc": "overall AUC",
    "subgroup": "subgroup AUC",
    "bpsn": "BPSN AUC",
    "bnsp": "BNSP AUC",
    "fpr": "FPR",
}


Intervals: TypeAlias = Literal["in brackets", "below the figures", "nowhere"]
_WAYS: tuple[Intervals, ...] = ("in brackets", "below the figures", "nowhere")
"""From the widest to the narrowest."""


def identity_blocks(result: IdentityBias, title: str, *, width: int | None = None) -> Iterator[RenderableType]:
    """Yield the identity suite block by block."""
    room = stdout().width if width is None else width
    yield _thresholds([one.model for one in result.models])
    yield fitting(room, (_identity_headline(result, title, way) for way in _WAYS))
    for one in result.models:
        yield _terms(result, one)
    if result.differences:
        yield fitting(room, (_identity_differences(result, way) for way in _WAYS))


def robustness_blocks(result: Robustness, title: str, *, width: int | None = None) -> Iterator[RenderableType]:
    """Yield the robustness suite block by block; arguments as in `identity_blocks`."""
    room = stdout().width if width is None else width
    yield _thresholds([one.model for one in result.models])
    for one in result.models:
        yield fitting(room, (_lost(result, one, title, way) for way in _WAYS))
    if result.differences:
        yield fitting(room, (_robustness_differences(result, way) for way in _WAYS))


def _thresholds(models: Sequence[Contestant]) -> Table:
    rows = [(one.name, f"{one.threshold:.4f}", one.origin) for one in models]
    told = "\n".join(f"{one.name}: {read_how(one.scorer.reading)}" for one in models)
    return results_table("Models", ("model", "cut", "which is"), rows, caption=told)


def _told(result: IdentityBias | Robustness, way: Intervals) -> str:
    if way == "nowhere":
        return "no room for intervals: see --json"
    return f"{way} {result.confidence:.0%} intervals (bootstrap over rows, {result.resamples:,} resamples)"


def _identity_headline(result: IdentityBias, title: str, way: Intervals) -> Table:
    rows = [(one.model.name, *(_figure(one.headline[name], way) for name in IDENTITY_TITLES)) for one in result.models]
    caption = (
        f"n = {result.rows:,}, {result.positives:,} positive; subgroup, BPSN, BNSP: power means (p = -5) "
        f"over {len(result.groups)} terms\n{_told(result, way)}"
    )
    return results_table(title, ("model", *IDENTITY_TITLES.values()), rows, caption=caption)


def _terms(result: IdentityBias, model: ModelIdentity) -> Table:
    rows = []
    for group in result.groups:
        figures = model.terms[group.term]
        shown = [_figure(figures[name], "nowhere") for name in ("subgroup", "bpsn", "bnsp", "fpr")]
        rows.append((group.term, len(group.rows), group.positives, *shown))
    header = ("term", "n", "pos.", "subgroup AUC", "BPSN AUC", "BNSP AUC", "FPR")
    caption = "those with the lowest AUC of the first model first"
    return results_table(f"Terms: {model.model.name}", header, rows, caption=caption)


def _identity_differences(result: IdentityBias, way: Intervals) -> Table:
    rows = [(one.name, *(_delta(one.headline[name], way) for name in IDENTITY_TITLES)) for one in result.differences]
    title = f"Differences from {result.models[0].model.name}"
    caption = f"paired; {_told(result, way)}"
    return results_table(title, ("model", *IDENTITY_TITLES.values()), rows, caption=caption)


def _lost(result: Robustness, model: ModelRobustness, title: str, way: Intervals) -> Table:
    shown = _figure(model.recall, way), "", _figure(model.fpr, way), "", ""
    rows: list[tuple[object, ...]] = [("(as they are)", None, *shown)]
    for kind in model.hidden:
        columns = model.hidden, model.lost, model.alarms, model.added, model.price
        rows.append((kind, result.changed.get(kind), *(_figure(figures[kind], way) for figures in columns)))
    caption = (
        f"F1 of all comments as they are {figure_text(model.f1)}\n"
        f"n = {result.rows:,}, of them {result.positives:,} positive and {result.negatives:,} negative ones "
        f"disguised, {result.rate:.0%} of these drawn; intensity {result.intensity:g}, seed {result.seed}\n"
        "changed: of the positives; FPR: of the negatives; "
        f"at equal FPR: lost without more false alarms than as they are\n{_told(result, way)}"
    )
    header = ("comments", "changed", "recall", "lost", "FPR", "added", "at equal FPR")
    return results_table(f"{model.model.name}: {title}", header, rows, caption=caption)


def _robustness_differences(result: Robustness, way: Intervals) -> Table:
    rows: list[tuple[object, ...]] = []
    for one in result.differences:
        rows.append((one.name, "F1", _delta(one.f1, way), ""))
        rows.append((one.name, "recall", _delta(one.recall, way), ""))
        for kind, figure in one.lost.items():
            rows.append((one.name, f"lost: {kind}", _delta(figure, way), _share(figure, way)))
        rows.append((one.name, "FPR", _delta(one.fpr, way), ""))
        rows += [(one.name, f"added: {kind}", _delta(figure, way), "") for kind, figure in one.added.items()]
        for kind, figure in one.price.items():
            rows.append((one.name, f"at equal FPR: {kind}", _delta(figure, way), _share(figure, way)))
    title = f"Differences from {result.models[0].model.name}"
    caption = f"share: of the first model's loss; -: the first one's may be none\npaired; {_told(result, way)}"
    return results_table(title, ("model", "figure", "difference", "share"), rows, caption=caption)


def _figure(figure: Figure, way: Intervals) -> str:
    text = figure_text(figure, interval=way != "nowhere")
    return below(text) if way == "below the figures" else text


def _delta(figure: Difference, way: Intervals) -> str:
    text = signed(figure, "{:+.3f}", interval=way != "nowhere")
    return below(text) if way == "below the figures" else text


def _share(figure: Difference, way: Intervals) -> str:
    """Return a / b of what is lost, with its interval where there is one."""
    value, low, high = (figure.as_dict()[name] for name in ("relative", "relative_low", "relative_high"))
    if value is None:
        return "-"
    if low is None or high is None or way == "nowhere":
        return f"{value:.2f}"
    text = f"{value:.2f} ({low:.2f} to {high:.2f})"
    return below(text) if way == "below the figures" else text


Blocks = Callable[[int | None], "Iterator[RenderableType]"]

app = typer.Typer(
    help="Measure identity bias, and robustness to obfuscation.", no_args_is_help=True, rich_markup_mode="rich"
)

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Runs or models of gkiller, or sequence classifiers of transformers (directories or hub ids), "
        "on the same comments; differences are from the first.",
    ),
]

SidesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Runs or models of gkiller, sequence classifiers of transformers (directories or hub ids), or "
        "files of scores as 'gkiller predict' writes them; differences are from the first.",
    ),
]

LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="LABEL", help="What to measure; the first label of the data that all models have by default."
    ),
]

ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="[MODEL=]X",
        help="The threshold of a model, named as above, or of all, tuned on other rows; else the stored one, "
        "and 0.5 for a classifier of transformers, which has none; repeatable.",
    ),
]

OutOption = Annotated[
    Path | None,
    typer.Option("--out", callback=out_place, metavar="DIR", help="Write the report there, as JSON and as text."),
]

TermOption = Annotated[
    list[str] | None,
    typer.Option(
        "--term",
        metavar="TERM",
        help="An identity term to look for in the comments, instead of gkiller's own list; repeatable.",
    ),
]

TermColumnOption = Annotated[
    str | None,
    typer.Option(
        "--term-column",
        metavar="COLUMN",
        help="Take each comment's identity term from this column of the file named with --data.",
    ),
]

LeastOption = Annotated[
    int,
    typer.Option("--least", metavar="N", min=1, help="Leave terms of fewer positive or fewer negative comments out."),
]

MAX_LENGTH_HELP = (
    "Tokens of a comment that a classifier of transformers reads at once; a gkiller model has its own limit. "
    "[tokens; default: 128]"
)

KINDS_HELP = (
    "Kinds of change, or families of them (noise, obfuscation, eda, style), comma-separated, each measured "
    "alone. [default: noise,obfuscation,casing]"
)


@dataclass(frozen=True)
class _Frame:
    """What both suites need."""

    choice: DataChoice
    found: Labelled
    label: str
    models: list[Contestant]
    warnings: list[str]

    def facts(self, suite: str) -> dict[str, Any]:
        """Return what a report begins with."""
        source = str(self.found.dataset.manifest.get("source", self.choice.data.source))
        return {"suite": suite, "source": source, "split": self.found.name}

    @property
    def title(self) -> str:
        """Heading of the first table."""
        from gkiller.data.sources import public_source

        return f"{public_source(str(self.facts('')['source']))}, {self.found.name}, {self.label}"


@app.command("identity")
@with_settings(
    "data",
    "evaluation",
    "model.max_length",
    without=NOT_TUNED,
    helps={"data.source": DATA_HELP, "model.max_length": MAX_LENGTH_HELP},
)
def identity(
    resolved: Resolved,
    asked: frozenset[str],
    models: SidesArgument,
    label: LabelOption = None,
    term: TermOption = None,
    term_column: TermColumnOption = None,
    least: LeastOption = LEAST,
    threshold: ThresholdOption = None,
    split: SplitOption = None,
    out: OutOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure how models treat comments that name a group of people.

    For each identity term: subgroup AUC, BPSN AUC (comments of the group that are harmless against toxic ones
    of the background) and BNSP AUC (toxic ones against harmless ones of the background), and the
    false-positive rate at the model's threshold. Over all terms: the power means (p = -5) of the AUCs and the
    overall AUC, with bootstrap intervals, and paired differences from the first model.
    """
    from gkiller.evaluation.identity import measure_identity

    if term and term_column is not None:
        raise SettingsError(
            "terms are looked for in the comments or taken from a column, not both",
            where="--term, --term-column",
            remedy="leave one of them out",
        )
    settings = resolved.settings
    _check_out(out, [settings.data.source, *models])
    frame = _frame(models, settings, asked, split, label, threshold, files=True)
    members, notes = _members(frame, settings.data, term or [], term_column)
    notes += [line for model in frame.models for line in model.scorer.notes]
    scores = []
    for model in frame.models:
        with progress(f"scoring with {model.name}") as advance:
            scores.append(model.scores(frame.found.rows.texts, advance))
    with progress("resampling") as advance:
        result = measure_identity(
            frame.found, frame.label, frame.models, scores, members, settings.evaluation, least=least, progress=advance
        )
    if result.left_out:
        names = ", ".join(f"{name} ({rows})" for name, rows in result.left_out.items())
        notes.append(f"left out, with fewer than {least} positive or negative comments: {names}")
    report = {**frame.facts("identity"), **result.as_dict(), "notes": notes, "warnings": frame.warnings}
    _finish(report, lambda width: identity_blocks(result, frame.title, width=width), out, as_json=json)


@app.command("robustness")
@with_settings(
    "data",
    "evaluation",
    "augment.kinds",
    "augment.rate",
    "augment.intensity",
    "augment.seed",
    "model.max_length",
    without=NOT_TUNED,
    helps={"data.source": DATA_HELP, "augment.kinds": KINDS_HELP, "model.max_length": MAX_LENGTH_HELP},
)
def robustness(
    resolved: Resolved,
    asked: frozenset[str],
    models: ModelsArgument,
    label: LabelOption = None,
    threshold: ThresholdOption = None,
    split: SplitOption = None,
    out: OutOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure how much recall models lose, and what they flag falsely, when comments are disguised.

    The positive comments, and as many negative ones, are changed by the seeded operators of 'gkiller data augment',
    each kind alone. Recall at each model's threshold as they are and disguised, and what is lost; the false-positive
    rate likewise, and what is added; and F1 of the comments as they are, with bootstrap intervals; of each further
    model paired differences from the first, and the share of the first one's loss that it loses.
    """
    from gkiller.evaluation.robustness import measure_robustness

    settings = resolved.settings
    _check_out(out, [settings.data.source, *models])
    frame = _frame(models, settings, asked, split, label, threshold)
    with progress() as advance:
        result = measure_robustness(
            frame.found, frame.label, frame.models, settings.augment, settings.evaluation, advance
        )
    warnings = [*frame.warnings, *result.blind()]
    report = {**frame.facts("robustness"), **result.as_dict(), "notes": [], "warnings": warnings}
    _finish(report, lambda width: robustness_blocks(result, frame.title, width=width), out, as_json=json)


def _check_out(out: Path | None, read: list[str]) -> None:
    """Refuse reports that would replace what is read."""
    from gkiller.storage.files import refuse_inputs

    if out is not None:
        refuse_inputs(out.glob("*"), [Path(name).expanduser() for name in read])


def _frame(
    names: list[str],
    settings: Settings,
    asked: frozenset[str],
    split: str | None,
    label: str | None,
    thresholds: list[str] | None,
    *,
    files: bool = False,
) -> _Frame:
    """Read the comments, open the models (and ``files`` of scores), and settle label and thresholds."""
    from gkiller.data.scorefiles import is_score_file
    from gkiller.evaluation.source import load_chosen
    from gkiller.evaluation.suites import choose_label, contestants
    from gkiller.scoring.scorers import open_scorer, scorer_of_file

    scored = [name for name in names if is_score_file(name)]
    if scored and not files:
        raise SettingsError(
            "the comments are changed, and a file has no scores of changed ones",
            where=scored[0],
            remedy="name the model itself",
        )
    overall, single = labelled_numbers(thresholds or [], "--threshold")
    models_alone = [name for name in names if name not in scored]
    choice = _choice(models_alone, settings.data, asked)
    with progress() as on_data:
        found = load_chosen(choice, split, on_data, default="test")
    scorers = [
        scorer_of_file(name, found) if name in scored else open_scorer(name, found.dataset.labels, settings)
        for name in names
    ]
    chosen = choose_label(label, found.dataset.labels, scorers)
    models = contestants(scorers, chosen, overall, single)
    return _Frame(choice, found, chosen, models, _warnings(choice, found, scorers, chosen))


def _choice(names: list[str], settings: DataSettings, asked: frozenset[str]) -> DataChoice:
    """Return the data that were named, else those of the first model that has a run."""
    from gkiller.evaluation.source import DataChoice, choose_data, run_of
    from gkiller.model.layout import find_model
    from gkiller.model.sequence import is_gkiller
    from gkiller.scoring.scorers import names_nothing

    if "data.source" in asked:
        return DataChoice(settings, None)
    paths = [find_model(name) for name in names if is_gkiller(name) or names_nothing(name)]
    owner = next(filter(run_of, paths), None)
    if owner is None:
        raise SettingsError(
            "no model belongs to a run, so it is not known which comments to measure on",
            where="--data",
            remedy="name labelled comments with --data",
        )
    return choose_data(owner, settings, asked)


def _warnings(choice: DataChoice, found: Labelled, scorers: list[Scorer], label: str) -> list[str]:
    from gkiller.evaluation.results import few_rows
    from gkiller.evaluation.source import comparing_warnings

    warnings = [
        f"{scorer.name}: {line}"
        for scorer in scorers
        if scorer.path is not None
        for line in comparing_warnings(scorer.path, choice, found, scorer.tuned)
    ]
    truth = found.rows.labels[:, found.dataset.labels.index(label)]
    warnings += few_rows({label: (int((truth == 1).sum()), int((truth >= 0).sum()))})
    if found.dataset.manifest.get("synthetic"):
        warnings.append("these comments are synthetic: the figures say nothing about real ones")
    return warnings


def _members(
    frame: _Frame, data: DataSettings, terms: list[str], column: str | None
) -> tuple[dict[str, IntArray], list[str]]:
    """Return which rows name which group, and how a column was joined."""
    from gkiller.data.scorefiles import join, read_column
    from gkiller.errors import ColumnError
    from gkiller.evaluation.identity import column_terms, find_terms, named_groups

    if column is None:
        return find_terms(frame.found.rows.texts, named_groups(terms)), []
    file = frame.choice.data.source
    if not Path(file).expanduser().is_file():
        raise ColumnError(
            f"{column!r} cannot be read: only a single file keeps other columns than text and labels",
            where="--term-column",
            remedy="name the file of the comments with --data",
        )
    records, values = read_column(
        file, column, text_column=data.text_column, id_column=data.id_column, flag="--term-column"
    )
    places, how = join(records, frame.found.rows)
    return column_terms(column, [values[place] for place in places.tolist()]), [how]


def _finish(report: Mapping[str, Any], blocks: Blocks, out: Path | None, *, as_json: bool) -> None:
    """Warn, write the report where wanted, and print it."""
    if out is not None:
        _write(out, report, blocks)
    for line in report["warnings"]:
        warn(line)
    if as_json:
        emit_json(report)
        return
    for line in report["notes"]:
        note(line)
    show(*blocks(None))
    if out is not None:
        note(f"reports: {out}")


def _write(out: Path, report: Mapping[str, Any], blocks: Blocks) -> None:
    """Write the report as JSON and as text, named after the suite."""
    from gkiller.storage.files import json_text, make_directory, write_text

    make_directory(out)
    told = [*(f"warning: {line}" for line in report["warnings"]), *report["notes"]]
    write_text(out / f"{report['suite']}.json", json_text(plain(report)))
    text = as_text(blocks(PIPED_WIDTH)) + "".join(f"{line}\n" for line in told)
    write_text(out / f"{report['suite']}.txt", text)
