"""Which of the lean graph's rewrites make it faster? Each is timed alone, and left out of all.

    python experiments/export_steps.py runs/NAME --data prepared/ --report docs/performance.md

The rewrites are those of ``gkiller.deployment.lean.Rewrites``; a rewrite is on by default when it is faster
here. Every graph's logits are compared with those of the network as it is written before it is timed. Batches
of 16 comments of like length and single comments of 32 and 128 tokens are timed, graph alone, one thread.

Where a session's memory happens to lie makes the same graph a few per cent faster or slower for as long as
the session lives. So every round makes all sessions anew, in a drawn order, and times them in turns. How
many times as fast a graph is as its base (the network as written, or the default graph) is taken within
rounds, with the 95 % interval of the median over rounds. A rewrite that leaves a network as it is shows what
noise remains.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from document import insert

from gkiller.benchmark.plan import Ratio, in_turns, ratio
from gkiller.data.load import read_prepared
from gkiller.deployment.lean import NONE, Rewrites, Scheme, build
from gkiller.deployment.probes import score_tokens, session
from gkiller.deployment.quantize import find_ranges
from gkiller.deployment.weights import network_of
from gkiller.model.directory import load_model
from gkiller.tokens.batches import Tokens, scoring_batches, tokenize

BATCH = 16
LENGTHS = (32, 128)
TOLERANCE = {"fp32": 1e-5, "int8": 0.1}
WRITTEN, DEFAULT = "as written", "default"


def variants() -> dict[str, Rewrites]:
    """Return the graphs to time, by name."""
    names = [field.name for field in fields(Rewrites)]
    chosen = Rewrites()
    found = {WRITTEN: NONE}
    found |= {f"{name} alone": replace(NONE, **{name: True}) for name in names}
    found[DEFAULT] = chosen
    for name in names:
        on = getattr(chosen, name)
        found[f"{DEFAULT}, {'without' if on else 'with'} {name}"] = replace(chosen, **{name: not on})
    return found


def timed(path: str, tokens: Tokens, kind: str, rounds: int) -> list[dict[str, Any]]:
    """Return a row of the table for each graph of a kind."""
    loaded = load_model(path)
    network = network_of(loaded.model, loaded.max_length)
    scheme = Scheme(kind, kind)  # type: ignore[arg-type]
    ranges = find_ranges(network, tokens) if kind == "int8" else None
    expected = score_tokens(session(build(network)), tokens, BATCH)
    batches = [tokens.pad_batch(rows) for rows in scoring_batches(tokens.lengths, BATCH)]
    graphs = {}
    for name, rewrites in variants().items():
        graphs[name] = build(network, scheme, rewrites, ranges=ranges)
        difference = np.abs(score_tokens(session(graphs[name]), tokens, BATCH) - expected).max()
        if difference > TOLERANCE[kind]:
            raise SystemExit(f"{name} changes a score by {difference:.2g}")
        sys.stderr.write(f"{kind}, {name}: scores differ by {difference:.1e} at most\n")

    def many(running: Any) -> None:
        for ids, mask in batches:
            running.run(["logits"], {"input_ids": ids, "attention_mask": mask})

    def one(running: Any, length: int) -> None:
        ids = np.full((1, min(length, loaded.max_length)), 9, dtype=np.int64)
        running.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    measured: list[dict[str, list[float]]] = [{name: [] for name in graphs} for _ in range(1 + len(LENGTHS))]
    draw = np.random.default_rng(0)
    for _ in range(rounds):
        sessions = {name: session(graphs[name]) for name in draw.permutation(list(graphs)).tolist()}
        whole = in_turns({name: partial(many, running) for name, running in sessions.items()}, 1)
        single = [
            in_turns({name: partial(one, running, length) for name, running in sessions.items()}, 20, 5)
            for length in LENGTHS
        ]
        for kept, seconds in zip(measured, (whole, *single), strict=True):
            for name, values in seconds.items():
                kept[name].append(float(np.median(values)))
    rows = []
    for name in graphs:
        base = DEFAULT if name.startswith(f"{DEFAULT},") else WRITTEN
        times = [ratio(np.array(kept[base]), np.array(kept[name])) for kept in measured]
        rate = len(tokens) / float(np.median(measured[0][name]))
        rows.append({"name": name, "rate": rate, "base": base, "times": times})
    return rows


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """Return the rows in Markdown."""
    head = " | ".join(f"{length} tokens" for length in LENGTHS)
    lines = [
        f"{kind}; times as fast as the graph in brackets:",
        "",
        f"| graph | comments/s | batches | {head} |",
        "|---|---|---|" + "---|" * len(LENGTHS),
    ]
    for row in rows:
        name = row["name"] if row["name"] == WRITTEN else f"{row['name']} ({row['base']})"
        lines.append(f"| {name} | {row['rate']:,.0f} | {' | '.join(map(cell, row['times']))} |")
    return "\n".join(lines) + "\n"


def cell(times: Ratio) -> str:
    """Return a ratio with its interval."""
    return f"{times.value:.3f} ({times.low:.3f}-{times.high:.3f})"


def main() -> None:
    """Time what is asked for, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory or a run")
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kinds", default="fp32,int8")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables into FILE")
    arguments = parser.parse_args()
    texts = read_prepared(arguments.data).split("valid").texts[: arguments.rows]
    tokens = tokenize(load_model(arguments.model).tokenizer, texts)
    tables = [
        table(timed(arguments.model, tokens, kind, arguments.rounds), kind) for kind in arguments.kinds.split(",")
    ]
    text = f"{len(texts):,} comments, {tokens.lengths.mean():.0f} tokens on average.\n\n" + "\n".join(tables)
    if arguments.report:
        insert(arguments.report, text, "steps")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
