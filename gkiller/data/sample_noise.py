"""How people type: casing, punctuation, typos, emoji.

The noise knows nothing of a comment's labels or category, so it cannot leak them.
"""

from __future__ import annotations

import random
import re

from gkiller.data.sample_grammar import pick

_EMOJI = ("😂", "🙄", "😅", "🤷", "👍", "💀", "🔥", "🙏", "😭", "👀", "😬", "🙂")
_SHORT = {
    "you": "u",
    "are": "r",
    "your": "ur",
    "because": "cuz",
    "please": "pls",
    "people": "ppl",
    "though": "tho",
    "thanks": "thx",
    "tonight": "2nite",
    "you're": "ur",
    "going to": "gonna",
    "want to": "wanna",
}
_FULL = re.compile(r"\b(do|does|did|is|are|was|were|would|should|could|have|has)n't\b")
_SHORT_WORD = re.compile(r"\b(" + "|".join(sorted(_SHORT, key=len, reverse=True)) + r")\b")
_LONG_WORD = re.compile(r"\b[a-z]{4,}\b")


def add_noise(text: str, rng: random.Random) -> str:
    """Return ``text`` as a hurried or careless writer would have typed it, or as it is."""
    if rng.random() < 0.08:
        text = _SHORT_WORD.sub(lambda match: _SHORT[match[1]], text)
    if rng.random() < 0.1:
        text = _FULL.sub(r"\1 not", text)
    if rng.random() < 0.14:
        text = _typo(text, rng)
        if rng.random() < 0.2:
            text = _typo(text, rng)
    if rng.random() < 0.12:
        text = text.replace("'", "")
    if rng.random() < 0.08:
        text = text.replace(",", "")
    text = _ending(text, rng)
    casing = rng.random()
    if casing < 0.26:
        text = text.lower()
    elif casing < 0.275:
        text = text.upper()
    if rng.random() < 0.08:
        text = f"{text} {pick(rng, _EMOJI) * pick(rng, (1, 1, 1, 2, 3))}"
    return text


def _ending(text: str, rng: random.Random) -> str:
    if not text.endswith((".", "!")) or text.endswith(".."):
        return text
    draw = rng.random()
    if draw < 0.3:
        return text[:-1]
    if draw < 0.36:
        return text[:-1] + "!"
    if draw < 0.39:
        return text[:-1] + "!!!"
    if draw < 0.43:
        return text[:-1] + "..."
    return text


def _typo(text: str, rng: random.Random) -> str:
    """Swap, drop or double one letter inside one longer word."""
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    word = pick(rng, words)
    at = word.start() + 1 + int(rng.random() * (len(word[0]) - 2))
    way = int(rng.random() * 3)
    if way == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if way == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at] + text[at:]
