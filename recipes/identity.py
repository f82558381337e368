"""Comments about groups of people, kind, plain and unkind, so that a group's name alone decides nothing.

    python recipes/identity.py --out groups.parquet
    gkiller suite identity MODEL --data groups.parquet --label-columns toxicity --term-column term

In the public corpora most comments that name some groups attack them, so that a model learns to flag the
name. Here every group stands in the same frames of ``identity.toml``, most of them harmless. They are filled
as those of gkiller's sample are, with its fillers. The command writes comments to measure with: their frames
are not among those that are trained on, and some of their groups are not either.
"""

from __future__ import annotations

import argparse
import random
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gkiller.data.augment.operators import CLASSES

sys.path.append(str(Path(__file__).parents[1] / "tools"))

from make_sample import Grammar, expand, load_grammar, pick, stable_random

Use = Literal["train", "more", "measure"]
ROWS: dict[Use, int] = {"train": 60, "more": 150, "measure": 60}
"""Comments about each group."""
HARMLESS = 0.6
"""Share of them without any label."""
LOWER = 0.4
"""Share written without capitals and full stop, as many are."""
AMID = 0.3
"""Share with a situation of the sample before or after."""


def identity_comments(labels: Sequence[str], seed: int = 0, use: Use = "train") -> pa.Table:
    """Return comments: columns "text" and "term" and one of 0 and 1 for each label; no text twice."""
    written = _written()
    grammar = load_grammar()
    own = {name: tuple(items) for name, items in written["fillers"].items()}
    terms = adjectives(written["groups"], use)
    found: dict[str, tuple[str, list[str]]] = {}
    for term in terms:
        others = tuple(other for other in terms if other != term)
        words = replace(grammar, fillers={**grammar.fillers, **own, "adj": (term,), "other": others})
        rng = stable_random("identity", use, seed, term)
        for _ in range(ROWS[use]):
            frame, true = _frame(written[use], rng)
            found.setdefault(_comment(frame, words, rng), (term.lower(), true))
    columns = {label: [int(label in true) for _, true in found.values()] for label in labels}
    return pa.table(
        {
            "text": list(found),
            "term": [term for term, _ in found.values()],
            **{name: pa.array(ones, pa.int8()) for name, ones in columns.items()},
        }
    )


def adjectives(groups: dict[str, list[str]], use: str) -> list[str]:
    """Return the groups' adjectives: of gkiller's list, and for measuring those that are not on it."""
    found = []
    for one in CLASSES:
        terms = [*one.forms[0], *(forms[0] for forms in one.unswapped)]
        proper = one.name in groups["proper"]
        found += [term.title() if proper else term for term in terms if term not in groups["nouns"]]
    return found + (groups["unlisted"] if use == "measure" else [])


def unlisted() -> frozenset[str]:
    """Return the terms that are not trained on."""
    return frozenset(term.lower() for term in _written()["groups"]["unlisted"])


def _written() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def _frame(groups: Sequence[dict[str, Any]], rng: random.Random) -> tuple[str, list[str]]:
    """Draw a frame and its labels, harmless at its share."""
    harmless = rng.random() < HARMLESS
    return pick(
        rng,
        [
            (frame, group["labels"])
            for group in groups
            if bool(group["labels"]) != harmless
            for frame in group["frames"].strip().splitlines()
        ],
    )


def _comment(frame: str, words: Grammar, rng: random.Random) -> str:
    """Fill a frame."""
    templates = [frame]
    if rng.random() < AMID:
        situation = pick(rng, [one for one in words.situations if one.setting == "any"])
        templates.insert(0 if situation.place == "before" else 1, situation.text)
    text = expand(templates, words, rng)
    return text.lower().rstrip(".") if rng.random() < LOWER else text


def main() -> None:
    """Write the comments to measure with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pq.write_table(identity_comments(["toxicity"], arguments.seed, "measure"), arguments.out)


if __name__ == "__main__":
    main()
