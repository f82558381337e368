"""Misspelt words that a model reads as the words: two inner letters swapped, as in "stuipd".

    python recipes/misspellings.py default/runs/default --out default/spelt

WordPiece cuts "stuipd" into pieces that say nothing of "stupid", and short trainings with such errors among
their comments did not mend that (recipes/README.md). Here the misspellings of some words become pieces of
their own whose vectors are copies of the words', so that the network reads one as the other, in every program
that reads the tokenizer.json. What is written is a model directory with such a vocabulary, thresholds tuned
as those of the run, a card of its own, and its graphs, fp32 and int8, the latter of 7-bit weights.

Which misspellings: of the vocabulary's words of four Latin letters or more, those that the model itself finds
most toxic, alone, first; two neighbouring letters that differ, neither the first nor the last, are swapped
(`gkiller.data.augment.operators.swapped`). Left out is

* what is a piece already, or one of `WORDS`;
* what may be either of two words, unless one is `CLEARLY` times as frequent in the training comments;
* what stands in these comments itself, unless its word is `RARER` times as frequent: a word, not an error;
* what would change how another word of these comments is cut into pieces, which begins with it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from commands import export
from refine import save_tuned
from tokenizers import Tokenizer

from gkiller.data.augment.operators import swappable, swapped
from gkiller.data.load import load_dataset
from gkiller.deployment.deploy import with_pieces
from gkiller.model.directory import LoadedModel, load_model
from gkiller.scoring.models import score_texts
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.training.run import run_settings

WORDS: Final = frozenset({"cruse", "lair", "lairs", "salve", "salves", "silt", "tarp", "untie"})
"""English words that the training comments lack and that a swap makes of words in them."""
CLEARLY: Final = 10
RARER: Final = 20
TOXICITY: Final = "toxicity"

_WORD: Final = re.compile("[a-z]{4,}")


def misspellings(loaded: LoadedModel, comments: Iterable[str], most: int) -> dict[str, str]:
    """Return misspellings and the words that they are read as, those of the most toxic words first.

    Args:
        loaded: the model.
        comments: the training comments.
        most: misspellings to return.
    """
    counts = words_of(loaded.tokenizer, comments)
    meant = meanings(loaded.tokenizer.get_vocab(), counts)
    words = sorted(set(meant.values()))
    if not words:
        return {}
    scores = score_texts(loaded, words)[:, loaded.labels.index(TOXICITY)]
    toxicity = dict(zip(words, scores.tolist(), strict=True))
    chosen = sorted(meant, key=lambda error: (-toxicity[meant[error]], error))[:most]
    found = {error: meant[error] for error in chosen}
    while harm := harmful(loaded, found, [word for word in counts if word not in found]):
        found = {error: word for error, word in found.items() if error not in harm}
    return found


def words_of(tokenizer: Tokenizer, comments: Iterable[str]) -> Counter[str]:
    """Return how often the comments have each word, as the tokenizer tells words apart."""
    counts: Counter[str] = Counter()
    for comment in comments:
        text = tokenizer.normalizer.normalize_str(comment)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    return counts


def meanings(vocabulary: Iterable[str], counts: Mapping[str, int]) -> dict[str, str]:
    """Return the misspellings of a vocabulary's words that can only be misspellings, with their words."""
    known = set(vocabulary) | WORDS
    candidates: defaultdict[str, list[str]] = defaultdict(list)
    for word in sorted(filter(_WORD.fullmatch, known - WORDS)):
        for at in swappable(word):
            candidates[swapped(word, at)].append(word)
    meant = {}
    for error, words in candidates.items():
        best, *others = sorted(words, key=lambda word: (-counts.get(word, 0), word))
        often = counts.get(best, 0)
        clear = all(CLEARLY * counts.get(other, 0) <= often for other in others)
        if error not in known and clear and RARER * counts.get(error, 0) <= often:
            meant[error] = best
    return meant


def harmful(loaded: LoadedModel, alike: Mapping[str, str], words: Sequence[str]) -> set[str]:
    """Return the misspellings that change how one of other words is cut into pieces."""
    _, text = with_pieces(loaded, alike)
    other = parse_tokenizer(text, "the larger vocabulary", loaded.max_length)
    before, after = (one.encode_batch(words, add_special_tokens=False) for one in (loaded.tokenizer, other))
    changed = (new.tokens for old, new in zip(before, after, strict=True) if old.tokens != new.tokens)
    return {token for tokens in changed for token in tokens if token in alike}


def save_spelt(run: Path, out: Path, most: int) -> None:
    """Write a run's model with misspellings as a model directory."""
    own, loaded = run_settings(run), load_model(run)
    train = load_dataset(own.data, cache=out / "cache").split("train")
    alike = misspellings(loaded, train.texts, most)
    network, text = with_pieces(loaded, alike)
    sys.stderr.write(f"{len(alike):,} misspellings are read as {len(set(alike.values())):,} words\n")
    tokenizer = parse_tokenizer(text, str(run), loaded.max_length)
    save_tuned(replace(loaded, model=network, tokenizer=tokenizer), text, run, out, own.train.seed)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with its data")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the model")
    parser.add_argument("--most", type=int, default=2000, metavar="N", help="misspellings")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not (out / "model").is_dir():
        save_spelt(arguments.run, out, arguments.most)
    export(out, "--data", run_settings(arguments.run).data.source, int8=("--portable",))


if __name__ == "__main__":
    main()
