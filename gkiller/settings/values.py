"""From what a user wrote to a value of the setting's type, and messages about what is wrong with it.

A text that cannot be converted stays text: the validation that follows refuses it, and names what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from gkiller.errors import SettingsError
from gkiller.settings.reference import plain_text, settings_by_key
from gkiller.wording import nearest, proposal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from gkiller.settings.reference import Reference


MOST_BITS = 8192
"""Of a whole number; Python refuses to print one of over 4,300 digits."""
_MISSING = object()
_TRUTH = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_LONGEST_VALUE = 80
_SPACE = "sweep.space"
"""The list of ``KEY=VALUE`` texts: a file may write it as a table, and a value may have commas."""


def from_text(entry: Reference, text: str, *, quotes: bool = False) -> Any:
    """Convert text from a flag or a variable; a list is written ``a,b`` or as a TOML array.

    Args:
        quotes: read ``"..."`` as a TOML string (as ``--set`` does), so that ``"none"`` can be a text.
    """
    bare = text.strip()
    if entry.optional and bare.lower() in ("", "none"):
        return None
    if entry.kind in ("str", "choice"):
        value = _toml_value(bare) if quotes else _MISSING
        return value if isinstance(value, str) else text
    if entry.kind in ("list", "numbers"):
        value = _toml_value(bare) if bare.startswith(("[", '"', "'")) else bare
        return from_value(entry, bare if value is _MISSING else value)
    if entry.kind == "bool":
        return _TRUTH.get(bare.lower(), bare)
    return _number(bare, whole=entry.kind == "int")


def from_value(entry: Reference, value: Any) -> Any:
    """Convert a typed value, from a TOML file or from Python."""
    if entry.optional and isinstance(value, str) and not value:
        return None  # TOML has no null
    if entry.key == _SPACE and isinstance(value, dict):
        return tuple(_pairs(value))
    if entry.kind in ("list", "numbers"):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
            value = [_number(part, whole=True) for part in value] if entry.kind == "numbers" else value
            if entry.key == _SPACE and value:  # a value's own commas split it too
                value = re.split(r",(?=[^,]*=)", ",".join(value))
        if isinstance(value, list):
            return tuple(value)
    if isinstance(value, PurePath):
        return str(value)
    return value


def _pairs(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield a table's entries as ``KEY=VALUE``; TOML reads a dotted key without quotes as inner tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{before}{name}.")
        else:
            text = plain_text(tuple(map(plain_text, value)) if isinstance(value, list) else value)
            yield f"{before}{name}={text}"


def nearest_keys(key: str) -> list[str]:
    """Return up to three valid dotted keys that look like ``key``, best first, those of its own section before all."""
    keys = list(settings_by_key())
    word = key.lower().replace("-", "_")
    section, _, name = word.rpartition(".")
    titles = dict.fromkeys(entry.section for entry in settings_by_key().values())
    meant = [section] if section in titles else nearest(section, titles, 1)
    inside = [entry for entry in keys if entry.partition(".")[0] in meant]
    return (_of_name(name, inside) or _of_name(name, keys) or nearest(word, keys))[:3]


def _of_name(name: str, keys: list[str]) -> list[str]:
    """Return the keys of that name, else of the nearest names; the owner of such a flag comes first."""
    entries = [settings_by_key()[key] for key in keys]
    names = dict.fromkeys(entry.name for entry in entries)
    hits = [name] if name in names else nearest(name, names)
    found = [entry for entry in entries if entry.name in hits]
    found.sort(key=lambda entry: (hits.index(entry.name), entry.flag != entry.plain_flag))
    return [entry.key for entry in found]


def key_advice(key: str) -> str:
    """Return a remedy for an unknown key: the nearest ones, or the section's keys."""
    if inside := [entry for entry in settings_by_key() if entry.startswith(key + ".")]:
        return f"{key!r} is a section; its settings are: " + ", ".join(inside)
    if hits := nearest_keys(key):
        return proposal(map(repr, hits))
    return "'gkiller config keys' lists every key"


def _toml_value(text: str) -> Any:
    """Return ``text`` read as one TOML string or array, else `_MISSING`."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, a number of thousands of digits, endless nesting
        return _MISSING
    value = parsed.get("value")
    # More than one key: a line break smuggled in a second assignment.
    usable = len(parsed) == 1 and isinstance(value, str | list) and not too_large(value)
    return value if usable else _MISSING


def too_large(value: Any) -> bool:
    """Whether a value read from TOML has a whole number of more than `MOST_BITS` bits in it."""
    if isinstance(value, dict | list):
        return any(map(too_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and value.bit_length() > MOST_BITS


def _number(text: str, *, whole: bool) -> int | float | str:
    """Return a number, or the text where it is not one; ``1e3`` is a whole number too."""
    for convert in (int, float):
        try:
            value = convert(text)
        except ValueError:
            continue
        return int(value) if whole and value % 1 == 0 else value
    return text


@dataclass(frozen=True)
class Given:
    """A value somebody gave, converted."""

    value: Any
    origin: str  # who gave it, such as --lr, GKILLER_TRAIN__LR or preset seed
    where: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, and what to do."""

    what: str
    where: str
    remedy: str


def unknown_key(key: str, where: str) -> Problem:
    """Return the problem of a key that no setting has."""
    return Problem(f"unknown setting {key!r}", where, key_advice(key))


def bad_value(key: str, given: Given) -> Problem:
    """Return the problem of a value outside the setting's type or range."""
    entry = settings_by_key()[key]
    text = repr(list(given.value) if isinstance(given.value, tuple) else given.value)
    text = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
    hits = nearest(str(given.value), entry.choices, 1) if entry.choices else []
    usual = f"{entry.description} The default is {entry.default_text or 'empty'}."
    remedy = proposal(map(repr, hits)) if hits else usual
    return Problem(f"{key} must be {entry.allowed}, not {text}", given.where, remedy)


def from_validation(errors: Sequence[ErrorDetails], section: str, given: Mapping[str, Given]) -> list[Problem]:
    """Translate pydantic's errors about a section (or about everything, when ``section`` is empty)."""
    problems: dict[str, Problem] = {}
    for error in errors:
        path = [section, *(str(part) for part in error["loc"])]
        key = ".".join([part for part in path if part][:2])
        if key in given:
            problems.setdefault(key, bad_value(key, given[key]))
        else:  # a rule over several settings
            what = error["msg"].removeprefix("Value error, ")
            problems.setdefault(what, _broken_rule(what, given))
    return list(problems.values())


def _broken_rule(what: str, given: Mapping[str, Given]) -> Problem:
    """Return the problem of a rule over several settings, which its message names."""
    keys = dict.fromkeys(re.findall(r"[a-z]+\.[a-z_]+", what))
    entries = [settings_by_key()[key] for key in keys if key in settings_by_key()]
    where = ", ".join(dict.fromkeys(given[entry.key].where for entry in entries if entry.key in given))
    ways = [entry.flag.partition("/")[0] or f"--set {entry.key}=..." for entry in entries]
    return Problem(what, where or "settings", f"change {' or '.join(ways) or 'one of them'}")


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one `SettingsError` for all problems, if there are any."""
    if not problems:
        return
    if len(problems) == 1:
        raise SettingsError(problems[0].what, where=problems[0].where, remedy=problems[0].remedy)
    lines = "".join(f"\n- {problem.where}: {problem.what} ({problem.remedy})" for problem in problems)
    remedy = "'gkiller config keys' lists every setting and its range"
    raise SettingsError(f"{len(problems)} settings are wrong{lines}", remedy=remedy)
