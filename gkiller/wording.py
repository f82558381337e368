"""Text made safe to show on a terminal, in a plot or in Markdown; and how long work reports its progress."""

from __future__ import annotations

import re
from typing import Protocol

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
    r"""Return text with escapes such as ``\x1b`` and ``\u202e`` for what a terminal would obey.

    Args:
        lines: whether a line feed stays; a name that has one could pose as another message.
    """
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
