"""What the operators share: choosing places in a comment, and rewriting them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from numpy.random import Generator

Operator = Callable[[str, Generator, float], str]
"""``operator(text, rng, intensity)``: the changed comment, or the same where there is nothing to change.

It is a pure function: the same text, state of ``rng`` and intensity give the same answer. ``intensity`` is
the share of the places it could change, in (0, 1]; at least one place is changed where there is any.
"""

LETTERS = "A-Za-zÀ-ÖØ-öø-ɏͰ-ϿЀ-ӿ"
"""Latin, Greek and Cyrillic, for a character class. Elsewhere a letter more or less is another word."""

Place = TypeVar("Place")


def choose(rng: Generator, places: Sequence[Place]) -> Place:
    """Return one of the places, each as likely."""
    return places[int(rng.integers(len(places)))]


def share(rng: Generator, places: Sequence[Place], intensity: float) -> list[Place]:
    """Return the share ``intensity`` of the places, rounded, but at least one, in their order."""
    if not places:
        return []
    count = max(1, round(intensity * len(places)))
    chosen = sorted(rng.choice(len(places), size=count, replace=False).tolist())
    return [places[index] for index in chosen]


def some(rng: Generator, places: Sequence[Place]) -> list[Place]:
    """Return each place with probability 1/2, but at least one, in their order; there must be one."""
    picked = [place for place, draw in zip(places, rng.random(len(places)), strict=True) if draw < 0.5]
    return picked or [choose(rng, places)]


def rewrite(text: str, matches: Sequence[re.Match[str]], change: Callable[[str], str]) -> str:
    """Return the text with each match, in their order, replaced by what ``change`` makes of it."""
    parts, end = [], 0
    for match in matches:
        parts += [text[end : match.start()], change(match[0])]
        end = match.end()
    return "".join([*parts, text[end:]])


def same_case(pattern: str, text: str) -> str:
    """Return ``text``, which is in lower case, in capitals or with one in front where ``pattern`` is so."""
    if len(pattern) > 1 and pattern.isupper():
        return text.upper()
    return text[:1].upper() + text[1:] if pattern[:1].isupper() else text
