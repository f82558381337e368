"""What is wrong with settings, gathered so that one error names everything at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gkiller.errors import SettingsError, nearest
from gkiller.settings.reference import settings_by_key
from gkiller.settings.values import key_advice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

LONGEST_VALUE = 80


@dataclass(frozen=True)
class Given:
    """A value somebody gave.

    Attributes:
        value: it, converted.
        origin: who gave it, such as ``--lr``, ``GKILLER_TRAIN__LR`` or ``preset seed``.
        where: the origin with a line number where there is one.
    """

    value: Any
    origin: str
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
    text = shown(given.value)
    hits = nearest(str(given.value), entry.choices, 1) if entry.choices else []
    if hits:
        remedy = f"did you mean {hits[0]!r}?"
    else:
        remedy = f"{entry.description} The default is {entry.default_text or 'empty'}."
    return Problem(f"{key} must be {entry.allowed}, not {text}", given.where, remedy)


def from_validation(
    errors: Sequence[ErrorDetails], section: str, given: Mapping[str, Given]
) -> list[Problem]:
    """Translate pydantic's errors about a section (or about everything, when ``section`` is empty)."""
    problems: dict[str, Problem] = {}
    for error in errors:
        path = [section, *(str(part) for part in error["loc"])]
        key = ".".join([part for part in path if part][:2])
        if key in given:
            problems.setdefault(key, bad_value(key, given[key]))
        else:  # a rule over several settings
            what = error["msg"].removeprefix("Value error, ")
            problems.setdefault(what, Problem(what, _givers(what, given), _ways(what)))
    return list(problems.values())


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one error for all problems; do nothing when there are none.

    Raises:
        SettingsError: there is at least one problem.
    """
    if not problems:
        return
    if len(problems) == 1:
        (only,) = problems
        raise SettingsError(only.what, where=only.where, remedy=only.remedy)
    lines = [f"{problem.where}: {problem.what} ({problem.remedy})" for problem in problems]
    raise SettingsError(
        f"{len(problems)} settings are wrong\n" + "\n".join("- " + line for line in lines),
        remedy="'gkiller config keys' lists every setting and its range",
    )


def shown(value: Any) -> str:
    """Return a value for a message, cut when it is very long."""
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _named(message: str) -> list[str]:
    """Return the settings that a message names, each once."""
    keys = re.findall(r"[a-z]+\.[a-z_]+", message)
    return [key for key in dict.fromkeys(keys) if key in settings_by_key()]


def _givers(message: str, given: Mapping[str, Given]) -> str:
    """Return where the settings that a message names were given."""
    keys = [key for key in _named(message) if key in given]
    return ", ".join(dict.fromkeys(given[key].where for key in keys)) or "settings"


def _ways(message: str) -> str:
    """Return the flags that change what a message names; ``--set`` for a setting that has none."""
    entries = [settings_by_key()[key] for key in _named(message)]
    ways = [entry.flag.partition("/")[0] or f"--set {entry.key}=..." for entry in entries]
    return "change " + " or ".join(ways) if ways else "change one of them"
