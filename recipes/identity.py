"""Comments about groups of people, kind, plain and unkind, so that a group's name alone decides nothing.

In the public corpora most comments that name some groups attack them, so that a model learns to flag the
name. Here every group of ``identity.toml`` stands in the same frames, most of them harmless. They are filled
as those of gkiller's sample are, with its fillers.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from gkiller.data.sample_grammar import Grammar, expand, load_grammar, pick, stable_random

ROWS = 60
"""Comments about each group."""
HARMLESS = 0.6
"""Share of them without any label."""
LOWER = 0.4
"""Share written without capitals and full stop, as many are."""
AMID = 0.3
"""Share with a situation of the sample before or after."""


def identity_comments(labels: Sequence[str], seed: int = 0) -> pa.Table:
    """Return comments: a column "text" and one of 0 and 1 for each label; no text twice."""
    frames = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    grammar = load_grammar()
    own = {name: tuple(items) for name, items in frames["fillers"].items()}
    found: dict[str, list[str]] = {}
    for term in frames["adjectives"]:
        others = tuple(other for other in frames["adjectives"] if other != term)
        words = replace(grammar, fillers={**grammar.fillers, **own, "adj": (term,), "other": others})
        rng = stable_random("identity", seed, term)
        for _ in range(ROWS):
            group = _group(frames["group"], rng)
            text = _comment(pick(rng, group["frames"].strip().splitlines()), words, rng)
            if not any(held in text.lower() for held in frames["held_out"]):
                found.setdefault(text, group["labels"])
    columns = {label: [int(label in true) for true in found.values()] for label in labels}
    return pa.table(
        {"text": list(found), **{name: pa.array(ones, pa.int8()) for name, ones in columns.items()}}
    )


def _group(groups: Sequence[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    """Draw a group of frames, harmless at its share, the longer ones more often."""
    harmless = rng.random() < HARMLESS
    among = [group for group in groups if bool(group["labels"]) != harmless]
    return pick(rng, [group for group in among for _ in group["frames"].strip().splitlines()])


def _comment(frame: str, words: Grammar, rng: random.Random) -> str:
    """Fill a frame."""
    templates = [frame]
    if rng.random() < AMID:
        situation = pick(rng, [one for one in words.situations if one.setting == "any"])
        templates.insert(0 if situation.place == "before" else 1, situation.text)
    text = expand(templates, words, rng)
    return text.lower().rstrip(".") if rng.random() < LOWER else text
