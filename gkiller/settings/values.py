"""From what a user wrote to a value of the setting's type, and which key was meant.

Nothing here refuses: a text that cannot be converted stays text, and the validation that follows names
what is allowed.
"""

from __future__ import annotations

import tomllib
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from gkiller.errors import nearest
from gkiller.settings.reference import settings_by_key

if TYPE_CHECKING:
    from gkiller.settings.reference import Reference

_YES = frozenset({"true", "yes", "on", "1"})
_NO = frozenset({"false", "no", "off", "0"})
_MISSING = object()


def from_text(entry: Reference, text: str, *, quotes: bool = False) -> Any:
    """Convert text from a flag or a variable.

    Args:
        entry: the setting it is for.
        text: what the user wrote.
        quotes: read ``"..."`` as a TOML string (as ``--set`` does), so that ``"none"`` can be a text.

    Returns:
        None for ``none`` or nothing where a setting may be unset; a tuple where it is a list (from
        ``a,b`` or a TOML array); a bool or a number where the text is one; else the text.
    """
    bare = text.strip()
    if entry.optional and bare.lower() in ("", "none"):
        return None
    if entry.kind in ("str", "choice"):
        value = _toml_value(bare) if quotes else _MISSING
        return value if isinstance(value, str) else text
    if entry.kind == "list":
        value = _toml_value(bare) if bare.startswith(("[", '"', "'")) else bare
        return from_value(entry, bare if value is _MISSING else value)
    if entry.kind == "bool":
        return _bool(bare)
    return _number(bare, whole=entry.kind == "int")


def from_value(entry: Reference, value: Any) -> Any:
    """Convert a typed value, from a TOML file or from Python."""
    if entry.optional and isinstance(value, str) and not value:
        return None  # TOML has no null
    if entry.kind == "list":
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list):
            return tuple(value)
    if isinstance(value, PurePath):
        return str(value)
    return value


def nearest_keys(key: str) -> list[str]:
    """Return up to three valid dotted keys that look like ``key``, best first.

    A misspelt name in a right section finds that section's settings; a right name without its section,
    or in a wrong one, finds the settings of that name.
    """
    keys = list(settings_by_key())
    word = key.lower().replace("-", "_")
    section, _, name = word.rpartition(".")
    siblings = nearest(word, [entry for entry in keys if entry.startswith(section + ".")], 2)
    if section and siblings:
        return siblings
    same_name = [entry for entry in keys if entry.rpartition(".")[2] == name]
    if same_name:
        return same_name[:3]
    names = {entry.rpartition(".")[2]: entry for entry in reversed(keys)}
    similar = nearest(word, keys) + [names[hit] for hit in nearest(name, names)]
    return list(dict.fromkeys(similar))[:3]


def key_advice(key: str) -> str:
    """Return a sentence that helps with an unknown key: the nearest ones, or the section's keys."""
    inside = [entry for entry in settings_by_key() if entry.startswith(key + ".")]
    if inside:
        return f"{key!r} is a section; its settings are: " + ", ".join(inside)
    hits = nearest_keys(key)
    if hits:
        return "did you mean " + " or ".join(repr(hit) for hit in hits) + "?"
    return "'gkiller config keys' lists every key"


def _toml_value(text: str) -> Any:
    """Return ``text`` read as one TOML scalar or array, or a mark when it is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return _MISSING
    value = parsed.get("value")
    # More than one key: a line break smuggled in a second assignment.
    return value if len(parsed) == 1 and isinstance(value, str | list) else _MISSING


def _bool(text: str) -> bool | str:
    word = text.lower()
    if word in _YES:
        return True
    return False if word in _NO else text


def _number(text: str, *, whole: bool) -> int | float | str:
    """Return a number, or the text when it is none; ``1e3`` is a whole number too."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if whole and value.is_integer() else value
