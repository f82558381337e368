"""``gkiller bench``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from gkiller.cli.console import emit_json, note, progress, results_table, show, warn
from gkiller.cli.options import DATA_HELP, AnyModelArgument, JsonFlag, place, refuse_any, with_settings
from gkiller.cli.tables import signed, with_interval
from gkiller.errors import SettingsError
from gkiller.wording import Progress, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from gkiller.benchmark.bench import BenchResult
    from gkiller.benchmark.quality import SetQuality
    from gkiller.settings import Resolved
    from gkiller.training.phases import TrainingEvent

BASE_FLAG = "--compare-base"
DEFAULT_BASE = "google-bert/bert-base-uncased"


class _OptionalBase(TyperCommand):
    """Lets ``--compare-base`` stand without a value, which typer itself does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare flag its default: one at the end, or before another flag."""
        given = list(args)
        for after, word in reversed(list(enumerate(given, start=1))):
            if word == BASE_FLAG and (after == len(given) or given[after].startswith("-")):
                given.insert(after, DEFAULT_BASE)
        return super().parse_args(ctx, given)


app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_AGAINST = (
    "A trained rival: a run or model of gkiller, or a sequence classifier of transformers (directory or hub id). "
    "Repeatable."
)
AgainstOption = Annotated[list[str] | None, typer.Option("--against", metavar="PATH", help=_AGAINST)]
BaseOption = Annotated[
    str | None,
    typer.Option(
        BASE_FLAG,
        metavar="[MODEL]",
        help="The giant: a directory or a hub id; a bare encoder is first fine-tuned on the model's own "
        f"training data. Without MODEL it is {DEFAULT_BASE}.",
    ),
]
_PROBE = "Do not fine-tune the giant: frozen encoder and logistic head."
ProbeFlag = Annotated[bool, typer.Option("--giant-probe", help=_PROBE)]
BenchmarkOnlyFlag = Annotated[bool, typer.Option("--benchmark-only", help="Size and speed, without quality.")]
_SPEED_ONLY = "As --benchmark-only, and a giant that is not fine-tuned is timed with random weights."
SpeedOnlyFlag = Annotated[bool, typer.Option("--speed-only", help=_SPEED_ONLY)]
LinearFlag = Annotated[bool, typer.Option("--linear/--no-linear", help="TF-IDF with a logistic regression as a rival.")]
_STATIC = "A model2vec model as a rival, where model2vec is installed."
StaticOption = Annotated[str | None, typer.Option("--static", metavar="DIR", help=_STATIC)]
_ALSO = "More labelled comments to score. Repeatable."
AlsoOption = Annotated[list[str] | None, typer.Option("--also", metavar="NAME=PATH", help=_ALSO)]
_FAIL = (
    "End with 70 unless this share (0..1) of the criteria passed, or this one did. One that is not shown has not "
    "passed. Repeatable."
)
FailOption = Annotated[list[str] | None, typer.Option("--fail-under", metavar="SHARE|CRITERION", help=_FAIL)]
_CACHE = "Where giants, fitted rivals and scores are kept; .bench beside the model's run by default."
CacheOption = Annotated[Path | None, place(_CACHE, "--cache")]
MarkdownOption = Annotated[Path | None, place("Write the report as Markdown.", "--markdown", "FILE")]
PlotOption = Annotated[Path | None, place("Draw quality against speed as a PNG.", "--plot", "FILE")]
OutOption = Annotated[Path | None, place("Write bench.json, bench.md and bench.png there.")]


@app.command("bench", cls=_OptionalBase)
@with_settings(
    "data",
    "bench",
    "bench.threads",
    *(
        f"evaluation.{name}"
        for name in ("resamples", "min_precision", "min_recall", "threshold_rule", "f1_slack", "long_text")
    ),
    without=("data.sample_size",),
    helps={"data.source": DATA_HELP},
)
def bench(
    resolved: Resolved,
    asked: frozenset[str],
    model: AnyModelArgument,
    compare_base: BaseOption = None,
    against: AgainstOption = None,
    giant_probe: ProbeFlag = False,
    benchmark_only: BenchmarkOnlyFlag = False,
    speed_only: SpeedOnlyFlag = False,
    linear: LinearFlag = True,
    static: StaticOption = None,
    also: AlsoOption = None,
    fail_under: FailOption = None,
    cache: CacheOption = None,
    markdown: MarkdownOption = None,
    plot: PlotOption = None,
    out: OutOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure a model beside a giant and other rivals.

    Size, speed, quality, and a scorecard of criteria with PASS, FAIL or NOT SHOWN. All systems are timed in
    turns, in one process, on the same comments, with the same threads, batches, padding and limit. Each
    scores at its own thresholds, tuned on validation; differences are paired, with intervals. A criterion
    passes only when its interval shows it.
    """
    from gkiller.benchmark.bench import Request, run_bench
    from gkiller.benchmark.plot import write_bench_plot
    from gkiller.benchmark.report import bench_markdown, write_bench
    from gkiller.benchmark.scorecard import checked_demand, require
    from gkiller.storage.files import file_place, refuse_inputs, write_text

    quality = not (benchmark_only or speed_only)
    for demand in fail_under or ():
        checked_demand(demand)
    remedy = "leave out --plot, or --benchmark-only and --speed-only"
    probe, one_of_them = "--giant-probe", "leave one out"
    refuse_any(
        (plot is not None and not quality, "the plot needs quality", "--plot", remedy),
        (giant_probe and speed_only, "a probe is for quality, and --speed-only has none", probe, one_of_them),
        (giant_probe and compare_base is None, "there is no giant to probe", probe, f"name one with {BASE_FLAG}"),
    )
    inputs = [Path(resolved.settings.data.source).expanduser()]
    written_to = [file_place(place) for place in (markdown, plot) if place is not None]
    refuse_inputs([*written_to, *(out.glob("bench.*") if out is not None else ())], inputs)
    request = Request(
        model=model,
        settings=resolved.settings,
        asked=asked,
        against=tuple(against or ()),
        base=_base(compare_base, resolved, probe=giant_probe, speed_only=speed_only),
        also=_named(also or []),
        quality=quality,
        linear=linear and not speed_only,
        static=static,
        cache=cache,
    )
    with progress() as advance:
        result = run_bench(request, progress=advance, on_event=_told(advance))
    written = write_bench(out, result) if out is not None else []
    if markdown is not None:
        write_text(markdown, bench_markdown(result))
        written.append(str(markdown))
    if plot is not None:
        written.append(str(write_bench_plot(result, plot)))
    warn(*result.warnings)
    note(*(f"written: {path}" for path in written))
    facts = {**result.as_dict(), "files": written} if json else None
    if facts is None:
        _show(result)
    require(result.criteria, fail_under or (), facts)
    if facts is not None:
        emit_json(facts)


def _base(reference: str | None, resolved: Resolved, *, probe: bool, speed_only: bool) -> Any:
    if reference is None:
        return None
    from gkiller.benchmark.giants import Base
    from gkiller.settings import plain_text, settings_by_key, settings_values

    # What the command line says of training and the gate is for the giant; the model has both behind it.
    values = settings_values(resolved.settings)
    overrides = [
        f"{key}={plain_text(values[key])}"
        for key, origin in resolved.origins.items()
        if origin.startswith("--") and settings_by_key()[key].section in ("train", "model", "deployment")
    ]
    way = "random" if speed_only else "probe" if probe else "fine-tune"
    return Base(reference, way, tuple(overrides))


def _named(pairs: list[str]) -> dict[str, str]:
    """Return the sets of ``--also`` by name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path) or name in found:
            what = f"a set {name!r} is there already" if name in found else f"{pair!r} is not NAME=PATH"
            raise SettingsError(what, where="--also", remedy="write --also ood=comments.parquet")
        found[name] = path
    return found


def _told(advance: Progress) -> Callable[[TrainingEvent], None]:
    """Return a listener of a giant's training: a bar for its steps, a line for its epochs."""
    from gkiller.cli.train import event_line

    def listen(event: TrainingEvent) -> None:
        if event.kind == "step":
            advance(event.step, event.steps, f"fine-tuning the giant, epoch {event.epoch}")
        else:
            note(event_line(event))

    return listen


def _duels(one: SetQuality) -> Table:
    """Return the paired differences of F1 on a set, of the labels that it knows; the report has all."""
    rows = []
    for duel in one.duels:
        f1 = duel.paired.differences["f1"]
        if math.isnan(f1.delta):
            continue
        relative, low, high = f1.relative - 1, f1.relative_low - 1, f1.relative_high - 1
        change = with_interval(relative, low, high, form="{:+.1%}", between=" to ")
        needed = f", about {duel.verdict.needed_n:,} rows needed" if duel.verdict.needed_n else ""
        rows.append((duel.model, duel.rival, duel.label, signed(f1), change, duel.verdict.kind + needed))
    header = ("system", "against", "label", "ΔF1", "relative", "within the margin?")
    return results_table(f"Paired on {one.name}", header, rows)


def _show(result: BenchResult) -> None:
    """Draw the main columns; ``--markdown`` and ``--json`` have all."""
    from gkiller.benchmark.report import rate_text
    from gkiller.tokens.batches import reading_text

    speed = [
        (
            one.spec.key + (f" ({one.spec.note})" if one.spec.note else ""),
            f"{one.spec.parameters / 1e6:.1f}M",
            f"{one.bytes / 1e6:.1f}",
            rate_text(one.speed.whole),
            " / ".join(f"{1e3 * took.median:.1f}" for took in one.speed.latency.values()),
            "-" if one.cold.peak_bytes is None else f"{one.cold.peak_bytes / 1e6:.0f}",
            f"{one.cold.start.median:.2f}",
        )
        for one in result.systems
    ]
    facts = result.facts
    lengths = " / ".join(str(length) for length in facts["latency_tokens"])
    header = ("system", "params", "MB", "comments/s", f"ms at {lengths} tokens", "peak MB", "cold s")
    caption = (
        f"{counted(facts['threads'], 'thread')}, {facts['rounds']} rounds in turns of {facts['rows']:,} comments, "
        + reading_text(facts["long_text"], facts["max_length"])
    )
    show(results_table("Size and speed", header, speed, caption=caption))
    times = [
        (one.system, one.other, with_interval(one.times.value, one.times.low, one.times.high, form="{:.2f}"))
        for one in result.ratios
        if one.what == "throughput"
    ]
    if times:
        show(results_table("Throughput", ("system", "against", "times as fast"), times))
    for one in result.quality.sets if result.quality is not None else ():
        rows = [
            (key, found.label, *(figure.text() for figure in (found.stored.f1, found.ap, found.roc_auc)))
            for key, evaluation in one.systems.items()
            for found in evaluation.labels
        ]
        title = f"Quality on {one.name}, n = {one.rows:,}"
        show(results_table(title, ("system", "label", "F1", "AP", "ROC-AUC"), rows))
        if one.duels:
            show(_duels(one))
    card = [(one.name, one.target, one.measured, one.status, one.why) for one in result.criteria]
    show(results_table("Scorecard", ("criterion", "target", "measured", "", "on what, or why not"), card))
