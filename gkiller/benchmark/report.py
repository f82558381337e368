"""A benchmark's report: Markdown, and the files beside it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.benchmark.plot import write_bench_plot
from gkiller.drawing import shown
from gkiller.storage.files import json_text, write_text, writing
from gkiller.storage.strict_json import plain
from gkiller.tokens.batches import reading_text
from gkiller.wording import markdown, visible

if TYPE_CHECKING:
    from gkiller.benchmark.bench import BenchResult, System
    from gkiller.benchmark.plan import Rate
    from gkiller.benchmark.quality import SetQuality
    from gkiller.evaluation.significance import Difference


STEM = "bench"


def write_bench(directory: Path, result: BenchResult) -> list[str]:
    """Write bench.json, bench.md and, where quality was measured, bench.png; return their paths."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    files = {"json": json_text(plain(result.as_dict())), "md": bench_markdown(result)}
    written = []
    for suffix, text in files.items():
        path = directory / f"{STEM}.{suffix}"
        write_text(path, text)
        written.append(str(path))
    if result.quality is not None:
        written.append(str(write_bench_plot(result, directory / f"{STEM}.png")))
    return written


def bench_markdown(result: BenchResult) -> str:
    """Return the report in Markdown."""
    return "\n".join([*_head(result), *_systems(result), *_ratios(result), *_quality(result), *_card(result)])


def _head(result: BenchResult) -> Iterator[str]:
    facts, here = result.facts, result.machine
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    load = ", ".join(shown(value, 2) for value in (here.load_before, here.load_after))
    yield f"# Benchmark of {markdown(result.systems[0].spec.name)}"
    yield ""
    yield f"- Machine: {here.cpu}, {here.cores} cores, {', '.join(here.flags) or 'no vector flags known'}."
    yield f"- Load average before and after the timing: {load}."
    yield (
        f"- Threads: {facts['threads']}. Batches of {facts['batch_size']}; {facts['padding']}; comments "
        f"{reading_text(facts['long_text'], facts['max_length'])}, the same rows for every system."
    )
    yield (
        f"- Timing: {facts['rows']:,} comments a pass, {facts['rounds']} rounds in turns, spread over "
        f"{facts['timing_processes']} fresh processes, each after {facts['warm_up']} of warm-up; in brackets "
        f"the {facts['confidence']:.0%} interval ({_interval(facts)}). Outliers: {facts['outliers']}."
    )
    yield (
        f"- Memory and cold start: {facts['processes']} fresh processes each, the first counted apart; "
        f"memory is the peak while {facts['memory_rows']} comments are scored."
    )
    yield f"- Versions: {versions}."
    for line in result.warnings:
        yield f"- **Warning:** {html.escape(visible(line, lines=False), quote=False)}."
    yield ""


def _interval(facts: Mapping[str, Any]) -> str:
    if facts["timing_processes"] == 1:
        return f"of this one process's median: bootstrap over its rounds, seed {facts['seed']}"
    return "Student's t over the processes' medians, on logarithms"


def _systems(result: BenchResult) -> Iterator[str]:
    lengths = result.facts["latency_tokens"]
    yield "## Size and speed"
    yield ""
    columns = ["system", "runtime", "parameters", "MB", "comments/s", "tokenizer alone", "network alone"]
    columns += [f"p50 / p95 / p99 ms, {n} tokens" for n in lengths]
    yield from _table(
        [*columns, "peak MB", "cold start s", "outliers"], (_speed_row(one, lengths) for one in result.systems)
    )
    yield ""
    for one in result.systems:
        if one.spec.note:
            yield f"- {one.spec.key}: {one.spec.note}."
    yield ""


def _speed_row(one: System, lengths: Sequence[int]) -> list[str]:
    spec, speed = one.spec, one.speed
    cells = [
        spec.name,
        spec.runtime,
        f"{spec.parameters:,}",
        f"{one.bytes / 1e6:.2f}",
        rate_text(speed.whole),
        f"{speed.preparing.value:,.0f}",
        f"{speed.network.value:,.0f}",
    ]
    for length in lengths:
        took = speed.latency[length]
        cells.append(" / ".join(f"{1e3 * value:.2f}" for value in (took.median, took.p95, took.p99)))
    peak = "-" if one.cold.peak_bytes is None else f"{one.cold.peak_bytes / 1e6:.0f}"
    return [*cells, peak, f"{one.cold.start.median:.2f}", str(speed.whole.outliers)]


def rate_text(rate: Rate) -> str:
    """Return comments per second with their interval."""
    digits = 0 if rate.value >= 100 else 1
    return f"{rate.value:,.{digits}f} ({rate.low:,.{digits}f}-{rate.high:,.{digits}f})"


def _ratios(result: BenchResult) -> Iterator[str]:
    if not result.ratios:
        return
    yield "## How many times as fast"
    yield ""
    yield "Taken within rounds. Rivals of another kind are compared with the model's main row."
    yield ""
    rows = (
        [
            one.system,
            one.other,
            one.what.replace("latency ", "latency, tokens: "),
            f"{one.times.value:.2f} ({one.times.low:.2f}-{one.times.high:.2f})",
        ]
        for one in result.ratios
    )
    yield from _table(["system", "against", "what", "times"], rows)
    yield ""


def _quality(result: BenchResult) -> Iterator[str]:
    if result.quality is None:
        return
    yield "## Quality"
    yield ""
    yield (
        f"Each system at its own thresholds, tuned on the validation split ({result.quality.rule}), whose "
        "own figures are therefore a little too good. Intervals and paired differences: "
        f"{result.facts['resamples']:,} bootstrap resamples of rows."
    )
    yield ""
    for one in result.quality.sets:
        yield from _set(one, result.label)


def _set(one: SetQuality, label: str) -> Iterator[str]:
    labels = [label, *sorted({duel.label for duel in one.duels} - {label})]
    yield f"### {one.name}, n = {one.rows:,}"
    yield ""
    rows = []
    for key, evaluation in one.systems.items():
        for found in evaluation.labels:
            figures = (found.stored.f1, found.ap, found.roc_auc)
            cut = "-" if found.stored.threshold is None else f"{found.stored.threshold:.3f}"
            rows.append([key, found.label, f"{found.positives:,}", cut, *(figure.text() for figure in figures)])
    yield from _table(["system", "label", "positives", "threshold", "F1", "AP", "ROC-AUC"], rows)
    yield ""
    duels = sorted(one.duels, key=lambda duel: labels.index(duel.label))
    if not duels:
        return
    yield "Paired differences, model minus rival:"
    yield ""
    rows = [
        [
            duel.model,
            duel.rival,
            duel.label,
            *(_difference(duel.paired.differences[name]) for name in ("f1", "ap", "roc_auc")),
            f"{duel.paired.mcnemar.only_a_right} / {duel.paired.mcnemar.only_b_right}, p = {duel.paired.mcnemar.p:.2g}",
        ]
        for duel in duels
    ]
    yield from _table(["model", "rival", "label", "ΔF1", "ΔAP", "ΔROC-AUC", "McNemar: only one right"], rows)
    yield ""
    for duel in duels:
        yield f"- F1 of {duel.label}, {duel.model} against {duel.rival}: {duel.verdict.text}."
    yield ""


def _difference(one: Difference) -> str:
    return f"{shown(one.delta)} ({shown(one.low)} to {shown(one.high)})"


def _card(result: BenchResult) -> Iterator[str]:
    passed = sum(one.status == "PASS" for one in result.criteria)
    yield "## Scorecard"
    yield ""
    yield f"{passed} of {len(result.criteria)} criteria passed."
    yield ""
    rows = ([one.name, one.target, one.measured, f"**{one.status}**", one.why] for one in result.criteria)
    yield from _table(["criterion", "target", "measured", "", "on what, or why not"], rows)
    yield ""


def _table(columns: Sequence[str], rows: Iterator[list[str]] | Sequence[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        cells = [html.escape(visible(" ".join(cell.split())), quote=False).replace("|", "\\|") for cell in row]
        yield f"| {' | '.join(cells)} |"
