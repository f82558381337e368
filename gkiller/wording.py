"""Nearest matches, counts and plurals; text made safe for a terminal, a plot or Markdown; the progress of long work."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

# Control characters (C0 without tab and line feed, DEL, C1), line separators, marks and overrides of the writing
# direction, deprecated format characters, and lone surrogates, which no stream can encode.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_MARKDOWN = re.compile(r"([\\`*\[\]|])")


class Progress(Protocol):
    """Called by every function that takes long: ``progress(done, total, stage)``.

    ``total`` is None where it is not known; ``stage`` names a part of the work, "" where there is only one.
    """

    def __call__(self, done: int, total: int | None = None, stage: str = "", /) -> None: ...  # noqa: D102


def silent(done: int, total: int | None = None, stage: str = "", /) -> None:
    """Show nothing: the `Progress` where none is asked for."""


def staged(progress: Progress | None, stage: str) -> Progress:
    """Return a `Progress` for one stage of a longer work."""
    return silent if progress is None else lambda done, total=None, _="", /: progress(done, total, stage)


def visible(text: str, *, lines: bool = True) -> str:
    r"""Return text with escapes such as ``\x1b`` for what a terminal obeys, and without ``lines`` for line feeds."""
    shown = _UNSAFE.sub(_escape, text)
    return shown if lines else shown.replace("\n", "\\n")


def visible_json(text: str, *, surrogates_only: bool = False) -> str:
    r"""Return JSON of the same value, with the escapes ``\u001b`` and so on for what `visible` escapes."""
    unsafe = _SURROGATES if surrogates_only else _UNSAFE
    return unsafe.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is within a line, HTML included."""
    shown = visible(text, lines=False).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\1", shown)


CLOSE = 0.7  # closeness below which a proposal would only confuse
_PART = 0.9  # what a likeness to one part of a name is worth
_LONG, _SHORT = 4, 3  # letters of a part, and of a word cut short, that can be told from chance


def nearest(word: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Return up to ``count`` of the ``valid`` words that look like ``word``, in any case, best first."""
    found = [(closeness(word.lower(), one.lower()), one) for one in valid]
    found = sorted((pair for pair in found if pair[0] >= CLOSE), key=lambda pair: -pair[0])
    return [one for _, one in found[:count]]


def closeness(word: str, valid: str) -> float:
    """Return how much ``word`` looks like ``valid``, 0..1.

    It is the share of letters that both have in the same order (difflib's ratio). A word that looks like one part of a
    name ("coment" for "comment_text"), or is cut short ("eval" for "evaluate"), counts nearly as much as the whole.
    """
    ratio = SequenceMatcher(None, valid, word).ratio()
    parts = [part for part in re.split(r"[\W_]+", valid) if len(part) >= _LONG and part != valid]
    by_part = max((SequenceMatcher(None, part, word).ratio() for part in parts), default=0.0)
    short, long = sorted((word, valid), key=len)
    cut = _PART if len(short) >= _SHORT and long.startswith(short) else 0.0
    return max(ratio, cut, _PART * by_part)


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return a sentence that proposes the nearest valid words, or lists what is valid."""
    words = list(valid)
    if hits := nearest(word, words):
        return proposal(map(repr, hits))
    return "valid are: " + ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")


def proposal(hits: Iterable[str]) -> str:
    """Return the sentence that proposes these instead of what was written."""
    return f"did you mean {' or '.join(hits)}?"


def one_line(error: BaseException) -> str:
    """Return what an exception says on one short line, safe to show."""
    return visible(" ".join(str(error).split())[:300] or type(error).__name__)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as "1 epoch" or "1,200 bad rows"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
