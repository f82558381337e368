"""Mixtures: new comments out of pieces of others, for teachers to label.

    python recipes/mixtures.py train/jigsaw.parquet train/civil.parquet --rows 150000 --out mixtures.parquet

A student learns from its teachers on any text, and there is never enough of the domain's own. A mixture is a
piece of one comment, or of two one after the other; a piece is one to three of its sentences in a row, or a
run of words of a single sentence. No label survives that, so that a teacher has to score what came out.
Others let a language model fill masked words in (Jiao et al. 2020, TinyBERT, arXiv:1909.10351), or draw
n-grams of a sentence (Tang et al. 2019, arXiv:1903.12136).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gkiller.data.rows import fold_text

sys.path.append(str(Path(__file__).parents[1] / "tools"))

from make_sample import pick, stable_random

PAIRS = 0.7
"""Share of mixtures of two comments; the others are a piece of one."""
SENTENCES = 3
"""Sentences of a piece, at most."""
FEWEST = 2
"""Words of a piece of a single sentence, at least."""

_BETWEEN = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


def sentences(text: str) -> list[str]:
    """Split a comment where a sentence or a line ends."""
    return [one for one in _BETWEEN.split(text.strip()) if one]


def piece(parts: Sequence[str], rng: random.Random) -> str:
    """Draw a piece of a comment of at least one sentence."""
    if len(parts) > 1:
        count = 1 + int(rng.random() * min(SENTENCES, len(parts) - 1))
        start = int(rng.random() * (len(parts) - count + 1))
        return " ".join(parts[start : start + count])
    words = parts[0].split()
    count = min(len(words), FEWEST) + int(rng.random() * max(len(words) - FEWEST, 1))
    start = int(rng.random() * (len(words) - count + 1))
    return " ".join(words[start : start + count])


def mixtures(texts: Sequence[str], rows: int, seed: int = 0) -> list[str]:
    """Return new comments, none of them twice or, in whatever case and spacing, one of ``texts``.

    Fewer than ``rows`` where drawing ten times as often does not find that many.
    """
    rng = stable_random("mixtures", seed)
    comments = [parts for parts in map(sentences, texts) if parts]
    seen = set(map(fold_text, texts))
    found: list[str] = []
    for _ in range(10 * rows if comments else 0):
        if len(found) == rows:
            break
        pieces = 2 if rng.random() < PAIRS else 1
        mixture = " ".join(piece(pick(rng, comments), rng) for _ in range(pieces))
        folded = fold_text(mixture)
        if folded not in seen:
            seen.add(folded)
            found.append(mixture)
    return found


def main() -> None:
    """Write mixtures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+", help="Parquet files with a column text")
    parser.add_argument("--rows", type=int, required=True, help="mixtures to write")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    texts = pa.concat_tables([pq.read_table(path, columns=["text"]) for path in arguments.corpora])
    mixed = mixtures(texts["text"].to_pylist(), arguments.rows, arguments.seed)
    pq.write_table(pa.table({"text": pa.array(mixed, pa.string())}), arguments.out)


if __name__ == "__main__":
    main()
