"""``gkiller suite``: identity bias, and robustness to obfuscation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.compare import chosen_data
from gkiller.cli.console import progress, results_table
from gkiller.cli.options import DATA_HELP, NOT_TUNED, JsonFlag, SplitOption, labelled_numbers, place, with_settings
from gkiller.cli.tables import (
    NO_ROOM,
    WAYS,
    Intervals,
    figure_text,
    fitting,
    read_how,
    report_text,
    signed,
    synthetic_warning,
    tell,
    with_interval,
)
from gkiller.errors import SettingsError
from gkiller.evaluation.identity import LEAST
from gkiller.storage.strict_json import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.cli.tables import Blocks
    from gkiller.data.dataset import IntArray
    from gkiller.data.load import Labelled
    from gkiller.evaluation.identity import IdentityBias, ModelIdentity
    from gkiller.evaluation.robustness import ModelRobustness, Robustness
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.source import DataChoice
    from gkiller.evaluation.suites import Contestant
    from gkiller.scoring.scorers import Scorer
    from gkiller.settings import Resolved
    from gkiller.settings.definition import DataSettings

TITLES = {"auc": "overall AUC", "subgroup": "subgroup AUC", "bpsn": "BPSN AUC", "bnsp": "BNSP AUC", "fpr": "FPR"}


def _identity_blocks(result: IdentityBias, title: str, room: int) -> Iterator[RenderableType]:
    yield _thresholds([one.model for one in result.models])
    yield fitting(room, (_identity_headline(result, title, way) for way in WAYS))
    for one in result.models:
        yield _terms(result, one)
    if result.differences:
        yield fitting(room, (_identity_differences(result, way) for way in WAYS))


def _robustness_blocks(result: Robustness, title: str, room: int) -> Iterator[RenderableType]:
    yield _thresholds([one.model for one in result.models])
    for one in result.models:
        yield fitting(room, (_lost(result, one, title, way) for way in WAYS))
    if result.differences:
        yield fitting(room, (_robustness_differences(result, way) for way in WAYS))


def _thresholds(models: Sequence[Contestant]) -> Table:
    rows = [(one.name, f"{one.threshold:.4f}", one.origin) for one in models]
    caption = "\n".join(f"{one.name}: {read_how(one.scorer.reading)}" for one in models)
    return results_table("Models", ("model", "cut", "which is"), rows, caption=caption)


def _intervals(result: IdentityBias | Robustness, way: Intervals) -> str:
    if way == "nowhere":
        return NO_ROOM.format("intervals")
    return f"{way} {result.confidence:.0%} intervals (bootstrap over rows, {result.resamples:,} resamples)"


def _identity_headline(result: IdentityBias, title: str, way: Intervals) -> Table:
    rows = [(one.model.name, *(figure_text(one.headline[name], way) for name in TITLES)) for one in result.models]
    caption = (
        f"n = {result.rows:,}, {result.positives:,} positive; subgroup, BPSN, BNSP: power means (p = -5) "
        f"over {len(result.groups)} terms\n{_intervals(result, way)}"
    )
    return results_table(title, ("model", *TITLES.values()), rows, caption=caption)


def _terms(result: IdentityBias, model: ModelIdentity) -> Table:
    shown = {name: title for name, title in TITLES.items() if name != "auc"}
    rows = [
        (
            group.term,
            len(group.rows),
            group.positives,
            *(figure_text(model.terms[group.term][name], "nowhere") for name in shown),
        )
        for group in result.groups
    ]
    caption = "those with the lowest AUC of the first model first"
    header = ("term", "n", "pos.", *shown.values())
    return results_table(f"Terms: {model.model.name}", header, rows, caption=caption)


def _identity_differences(result: IdentityBias, way: Intervals) -> Table:
    rows = [(one.name, *(signed(one.headline[name], way) for name in TITLES)) for one in result.differences]
    title = f"Differences from {result.models[0].model.name}"
    caption = f"paired; {_intervals(result, way)}"
    return results_table(title, ("model", *TITLES.values()), rows, caption=caption)


def _lost(result: Robustness, model: ModelRobustness, title: str, way: Intervals) -> Table:
    shown = figure_text(model.recall, way), "", figure_text(model.fpr, way), "", ""
    rows: list[tuple[object, ...]] = [("(as they are)", None, *shown)]
    columns = model.hidden, model.lost, model.alarms, model.added, model.price
    for kind in model.hidden:
        rows.append((kind, result.changed.get(kind), *(figure_text(figures[kind], way) for figures in columns)))
    caption = (
        f"F1 of all comments as they are {figure_text(model.f1)}\n"
        f"n = {result.rows:,}, of them {result.positives:,} positive and {result.negatives:,} negative ones "
        f"disguised, {result.rate:.0%} of these drawn; intensity {result.intensity:g}, seed {result.seed}\n"
        "changed: of the positives; FPR: of the negatives; "
        f"at equal FPR: lost without more false alarms than as they are\n{_intervals(result, way)}"
    )
    header = ("comments", "changed", "recall", "lost", "FPR", "added", "at equal FPR")
    return results_table(f"{model.model.name}: {title}", header, rows, caption=caption)


def _robustness_differences(result: Robustness, way: Intervals) -> Table:
    rows: list[tuple[object, ...]] = []
    for one in result.differences:
        figures = [("F1", one.f1, False), ("recall", one.recall, False)]
        figures += [(f"lost: {kind}", figure, True) for kind, figure in one.lost.items()]
        figures += [("FPR", one.fpr, False)]
        figures += [(f"added: {kind}", figure, False) for kind, figure in one.added.items()]
        figures += [(f"at equal FPR: {kind}", figure, True) for kind, figure in one.price.items()]
        rows += [
            (one.name, name, signed(figure, way), _share(figure, way) if shared else "")
            for name, figure, shared in figures
        ]
    title = f"Differences from {result.models[0].model.name}"
    caption = f"share: of the first model's loss; -: the first one's may be none\npaired; {_intervals(result, way)}"
    return results_table(title, ("model", "figure", "difference", "share"), rows, caption=caption)


def _share(figure: Difference, way: Intervals) -> str:
    return with_interval(figure.relative, figure.relative_low, figure.relative_high, way, "{:.2f}", " to ")


app = typer.Typer(
    help="Measure identity bias, and robustness to obfuscation.", no_args_is_help=True, rich_markup_mode="rich"
)
_MODELS = (
    "Runs or models of gkiller, or sequence classifiers of transformers (directories or hub ids), on the same "
    "comments; differences are from the first."
)
ModelsArgument = Annotated[list[str], typer.Argument(metavar="MODEL...", help=_MODELS)]

_SIDES = (
    "Runs or models of gkiller, sequence classifiers of transformers (directories or hub ids), or files of scores as "
    "'gkiller predict' writes them; differences are from the first."
)
SidesArgument = Annotated[list[str], typer.Argument(metavar="MODEL...", help=_SIDES)]

_LABEL = "What to measure; the first label of the data that all models have by default."
LabelOption = Annotated[str | None, typer.Option("--label", metavar="LABEL", help=_LABEL)]
_THRESHOLD = (
    "The threshold of a model, named as above, or of all, tuned on other rows; else the stored one, and 0.5 for a "
    "classifier of transformers, which has none; repeatable."
)
ThresholdOption = Annotated[list[str] | None, typer.Option("--threshold", metavar="[MODEL=]X", help=_THRESHOLD)]
OutOption = Annotated[Path | None, place("Write the report there, as JSON and as text.")]
_TERM = "An identity term to look for in the comments, instead of gkiller's own list; repeatable."
TermOption = Annotated[list[str] | None, typer.Option("--term", metavar="TERM", help=_TERM)]
_TERM_COLUMN = "Take each comment's identity term from this column of the file named with --data."
TermColumnOption = Annotated[str | None, typer.Option("--term-column", metavar="COLUMN", help=_TERM_COLUMN)]
_LEAST = "Leave terms of fewer positive or fewer negative comments out."
LeastOption = Annotated[int, typer.Option("--least", metavar="N", min=1, help=_LEAST)]
HELPS = {
    "data.source": DATA_HELP,
    "augment.kinds": "Kinds of change, or families of them (noise, obfuscation, eda, style), comma-separated, each "
    "measured alone. [default: noise,obfuscation,casing]",
    "model.max_length": "Tokens of a comment that a classifier of transformers reads at once; a gkiller model has its "
    "own limit. [tokens; default: 128]",
}


@dataclass(frozen=True)
class _Frame:
    """What both suites need."""

    choice: DataChoice
    found: Labelled
    label: str
    models: list[Contestant]
    warnings: list[str]

    @property
    def source(self) -> str:
        """Where the comments come from."""
        return str(self.found.dataset.manifest.get("source", self.choice.data.source))

    @property
    def title(self) -> str:
        """Heading of the first table."""
        from gkiller.data.sources import public_source

        return f"{public_source(self.source)}, {self.found.name}, {self.label}"


@app.command("identity")
@with_settings("data", "evaluation", "model.max_length", without=NOT_TUNED, helps=HELPS)
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
        what = "terms are looked for in the comments or taken from a column, not both"
        raise SettingsError(what, where="--term, --term-column", remedy="leave one of them out")
    settings = resolved.settings
    thresholds = labelled_numbers(threshold, "--threshold")
    frame = _frame(resolved, asked, models, split, label, thresholds, out, files=True)
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
    report = {**result.as_dict(), "notes": notes, "warnings": frame.warnings}
    _finish("identity", frame, report, partial(_identity_blocks, result, frame.title), out, as_json=json)


@app.command("robustness")
@with_settings(
    "data",
    "evaluation",
    *(f"augment.{name}" for name in ("kinds", "rate", "intensity", "seed")),
    "model.max_length",
    without=NOT_TUNED,
    helps=HELPS,
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
    frame = _frame(resolved, asked, models, split, label, labelled_numbers(threshold, "--threshold"), out)
    with progress() as advance:
        result = measure_robustness(
            frame.found, frame.label, frame.models, settings.augment, settings.evaluation, advance
        )
    report = {**result.as_dict(), "notes": [], "warnings": [*frame.warnings, *result.blind()]}
    _finish("robustness", frame, report, partial(_robustness_blocks, result, frame.title), out, as_json=json)


def _frame(
    resolved: Resolved,
    asked: frozenset[str],
    names: list[str],
    split: str | None,
    label: str | None,
    thresholds: tuple[float | None, dict[str, float]],
    out: Path | None,
    *,
    files: bool = False,
) -> _Frame:
    """Read the comments, open the models (and ``files`` of scores), and settle label and thresholds."""
    from gkiller.data.scorefiles import is_score_file
    from gkiller.evaluation.source import load_chosen
    from gkiller.evaluation.suites import choose_label, contestants
    from gkiller.model.layout import find_model
    from gkiller.model.sequence import is_gkiller
    from gkiller.scoring.scorers import names_nothing, open_scorer, scorer_of_file
    from gkiller.storage.files import refuse_inputs

    if out is not None:
        refuse_inputs(out.glob("*"), [Path(name).expanduser() for name in (resolved.settings.data.source, *names)])
    scored = [name for name in names if is_score_file(name)]
    if scored and not files:
        what = "the comments are changed, and a file has no scores of changed ones"
        raise SettingsError(what, where=scored[0], remedy="name the model itself")
    own = (find_model(name) for name in names if name not in scored and (is_gkiller(name) or names_nothing(name)))
    choice = chosen_data(own, resolved.settings.data, asked)
    with progress() as on_data:
        found = load_chosen(choice, split, on_data, default="test")
    scorers = [
        scorer_of_file(name, found) if name in scored else open_scorer(name, found.dataset.labels, resolved.settings)
        for name in names
    ]
    chosen = choose_label(label, found.dataset.labels, scorers)
    models = contestants(scorers, chosen, *thresholds)
    return _Frame(choice, found, chosen, models, _warnings(choice, found, scorers, chosen))


def _warnings(choice: DataChoice, found: Labelled, scorers: list[Scorer], label: str) -> list[str]:
    from gkiller.evaluation.results import few_rows
    from gkiller.evaluation.source import comparing_warnings

    learnt = [
        f"{scorer.name}: {line}"
        for scorer in scorers
        if scorer.path is not None
        for line in comparing_warnings(scorer.path, choice, found, scorer.tuned)
    ]
    truth = found.rows.labels[:, found.dataset.labels.index(label)]
    few = few_rows({label: (int((truth == 1).sum()), int((truth >= 0).sum()))})
    return [*learnt, *few, *synthetic_warning(found)]


def _members(
    frame: _Frame, data: DataSettings, terms: list[str], column: str | None
) -> tuple[dict[str, IntArray], list[str]]:
    """Return which rows name which group, and how a column was joined."""
    from gkiller.data.scorefiles import join, read_column
    from gkiller.errors import ColumnError
    from gkiller.evaluation.identity import column_terms, find_terms, named_groups

    if column is None:
        return find_terms(frame.found.rows.texts, named_groups(terms)), []
    file, flag = frame.choice.data.source, "--term-column"
    if not Path(file).expanduser().is_file():
        what = f"{column!r} cannot be read: only a single file keeps other columns than text and labels"
        raise ColumnError(what, where=flag, remedy="name the file of the comments with --data")
    columns = {"text_column": data.text_column, "id_column": data.id_column}
    records, values = read_column(file, column, **columns, flag=flag)
    places, how = join(records, frame.found.rows)
    return column_terms(column, [values[place] for place in places.tolist()]), [how]


def _finish(
    suite: str, frame: _Frame, measured: Mapping[str, Any], blocks: Blocks, out: Path | None, *, as_json: bool
) -> None:
    """Write the report where wanted, as JSON and as text, and print it."""
    from gkiller.storage.files import json_text, make_directory, write_text

    report = {"suite": suite, "source": frame.source, "split": frame.found.name, **measured}
    if out is not None:
        make_directory(out)
        write_text(out / f"{suite}.json", json_text(plain(report)))
        write_text(out / f"{suite}.txt", report_text(report, blocks))
    tell(report, blocks, f"reports: {out}" if out else "", as_json=as_json)
