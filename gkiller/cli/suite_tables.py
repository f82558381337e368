"""What ``gkiller suite`` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from gkiller.cli.comparison_tables import fitting, read_how, signed
from gkiller.cli.console import results_table, stdout
from gkiller.cli.tables import below, figure_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.evaluation.results import Figure
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.suites.identity import IdentityBias, ModelIdentity
    from gkiller.evaluation.suites.robustness import ModelRobustness, Robustness
    from gkiller.evaluation.suites.scorers import Contestant

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


def identity_blocks(
    result: IdentityBias, title: str, *, width: int | None = None
) -> Iterator[RenderableType]:
    """Yield the identity suite block by block.

    Args:
        result: what to show.
        title: what was measured on.
        width: the columns that there are to draw in; the console's by default.
    """
    room = stdout().width if width is None else width
    yield _thresholds([one.model for one in result.models])
    yield fitting(room, (_identity_headline(result, title, way) for way in _WAYS))
    for one in result.models:
        yield _terms(result, one)
    if result.differences:
        yield fitting(room, (_identity_differences(result, way) for way in _WAYS))


def robustness_blocks(
    result: Robustness, title: str, *, width: int | None = None
) -> Iterator[RenderableType]:
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
    rows = [
        (one.model.name, *(_figure(one.headline[name], way) for name in IDENTITY_TITLES))
        for one in result.models
    ]
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
    rows = [
        (one.name, *(_delta(one.headline[name], way) for name in IDENTITY_TITLES))
        for one in result.differences
    ]
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
    caption = (
        f"share: of the first model's loss; -: the first one's may be none\npaired; {_told(result, way)}"
    )
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
