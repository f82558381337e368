"""The frames of the embedded sample and how a frame becomes a comment.

A frame is a hand-written sentence template. ``[this|that]`` is a choice, ``{slot}`` is a filler.
A slot may carry forms: ``{a:insult}`` puts "a" or "an" in front, ``{insult:s}`` is the plural,
``{group:cap}`` begins with a capital, ``{obf:insult}`` is disguised ("st*pid", "s t u p i d").
Draws use ``random.Random.random`` only, whose sequence Python keeps the same across versions.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Any, TypeVar

_T = TypeVar("_T")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([a-z:]+)\}")
_DISGUISED = re.compile("\x01([^\x02]*)\x02")
_SENTENCE_START = re.compile(r"(^|[.!?]\s+)([a-z])")
_VOWEL_SOUND = re.compile(r"(?!uni|use|one\b|eu)(?:[aeiou]|hour|honest)", re.IGNORECASE)
_LOOKALIKE = {"i": "1", "o": "0", "e": "3", "a": "4", "s": "5"}
# What two frames of one comment have in common.
_TOPICS = frozenset(
    (
        *("name", "game", "map", "boss", "topic", "official", "public", "town", "team"),
        *("article", "section", "product", "food", "hobby", "group"),
    )
)
_FRAME_FILES = ("plain.toml", "hard_negatives.toml", "toxic.toml", "veiled.toml")


@dataclass(frozen=True)
class Frame:
    """A hand-written template, its category and its labels."""

    id: str
    text: str
    kind: str
    setting: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Situation:
    """A sentence put before or after a frame, whatever the frame's label."""

    text: str
    place: str
    setting: str


@dataclass(frozen=True)
class Grammar:
    """Everything hand-written that the sample is generated from."""

    frames: tuple[Frame, ...]
    situations: tuple[Situation, ...]
    fillers: dict[str, tuple[str, ...]]
    obscene: frozenset[str]


def stable_random(*parts: object) -> random.Random:
    """A generator that depends on ``parts`` alone, on every machine and Python version."""
    digest = sha256("/".join(str(part) for part in parts).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def pick(rng: random.Random, items: Sequence[_T]) -> _T:
    """Draw one of ``items`` uniformly."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: Sequence[_T]) -> list[_T]:
    """Return ``items`` in a drawn order (Fisher and Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def load_grammar() -> Grammar:
    """Read the hand-written frames, situations and fillers from the package."""
    fillers = _read("fillers.toml")
    return Grammar(
        frames=tuple(_frames()),
        situations=tuple(
            Situation(line, group["place"], group["setting"])
            for group in _read("situations.toml")["situation"]
            for line in group["lines"].splitlines()
        ),
        fillers={name: tuple(items) for name, items in fillers["fillers"].items()},
        obscene=frozenset(fillers["obscene"]["words"]),
    )


def _read(name: str) -> dict[str, Any]:
    asset = resources.files("gkiller.assets").joinpath("sample", name)
    return tomllib.loads(asset.read_text(encoding="utf-8"))


def _frames() -> list[Frame]:
    counts: dict[str, int] = {}
    frames = []
    for name in _FRAME_FILES:
        for group in _read(name)["group"]:
            kind = group["kind"]
            for line in group["frames"].splitlines():
                counts[kind] = counts.get(kind, 0) + 1
                frame_id = f"{kind}-{counts[kind]:03d}"
                frames.append(Frame(frame_id, line, kind, group["setting"], tuple(group["labels"])))
    return frames


def expand(templates: Sequence[str], grammar: Grammar, rng: random.Random) -> str:
    """Fill templates that make one comment; disguised words stay marked until :func:`disguise`.

    Within a template a slot never draws the same filler twice. A later template speaks of the same
    game, product, person and so on as the one before.
    """
    topics: dict[str, str] = {}
    return " ".join(_expand_one(template, grammar, rng, topics) for template in templates)


def _expand_one(template: str, grammar: Grammar, rng: random.Random, topics: dict[str, str]) -> str:
    used: dict[str, list[str]] = {}

    def draw(name: str) -> str:
        before = used.setdefault(name, [])
        if not before and name in topics:
            item = topics[name]
        else:
            item = pick(rng, [item for item in grammar.fillers[name] if item not in before])
        before.append(item)
        if name in _TOPICS:
            topics.setdefault(name, item)
        return item

    def fill(match: re.Match[str]) -> str:
        parts = match[1].split(":")
        item = draw(next(part for part in parts if part in grammar.fillers))
        return _inflect(_SLOT.sub(fill, item), parts)

    text = _CHOICE.sub(lambda match: pick(rng, match[1].split("|")), template)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), _SLOT.sub(fill, text))


def _inflect(item: str, forms: Sequence[str]) -> str:
    singular, _, plural = item.partition("/")
    word = (plural or _plural(singular)) if "s" in forms else singular
    if "cap" in forms:
        word = word[0].upper() + word[1:]
    article = "an" if _VOWEL_SOUND.match(word) else "a"
    if "obf" in forms:
        word = f"\x01{word}\x02"
    return f"{article} {word}" if "a" in forms else word


def _plural(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if re.search(r"(s|sh|ch|x)$", word):
        return word + "es"
    return word + "s"


def is_obscene(text: str, words: frozenset[str]) -> bool:
    """Whether a word of ``text``, undisguised, is on the list of profanity."""
    tokens = text.replace("\x01", " ").replace("\x02", " ").lower().split()
    return any(token.strip(".,!?;:\"'()@").removesuffix("'s") in words for token in tokens)


def disguise(text: str, rng: random.Random) -> str:
    """Disguise the marked words as people do to slip past a filter."""

    def hide(match: re.Match[str]) -> str:
        words = match[1].split(" ")
        longest = max(range(len(words)), key=lambda index: len(words[index]))
        words[longest] = _hide_word(words[longest], rng)
        return " ".join(words)

    return _DISGUISED.sub(hide, text)


def _hide_word(word: str, rng: random.Random) -> str:
    inner = [index for index, char in enumerate(word) if index and char in "aeiou"]
    spot = pick(rng, inner or [len(word) // 2])
    way = int(rng.random() * 6)
    if way == 0:
        return " ".join(word)
    if way == 1:
        return ".".join(word)
    if way == 2:
        return word[0] + "".join(_LOOKALIKE.get(char, char) for char in word[1:])
    if way == 3:
        return word[:spot] + word[spot] * 4 + word[spot + 1 :]
    return word[:spot] + ("*" if way == 4 else "_") + word[spot + 1 :]
