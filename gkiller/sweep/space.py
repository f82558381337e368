"""The space of a sweep: which settings are searched, and among which values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gkiller.settings import key_advice, settings_by_key
from gkiller.settings.layers import value_problem
from gkiller.settings.problems import Problem, refuse
from gkiller.settings.values import from_text

if TYPE_CHECKING:
    from gkiller.settings import Reference

FIXED_SECTIONS = ("data", "evaluation", "deployment", "bench", "sweep")
FIXED_KEYS = (
    "model.arch",  # it brings defaults of its own
    "train.metric",
    "train.device",
    "train.threads",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
)
"""With the sections above: settings that every trial shares, or else their scores could not be compared."""

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?:(log|int):)?\s*({_NUMBER})\s*\.\.\s*({_NUMBER})")
_FORMS = "write A..B, log:A..B, int:A..B or choices a,b,c"


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched: choices, or a range.

    Attributes:
        choices: the values to choose among; empty for a range.
        low: the range's lower end, which belongs to it.
        high: its upper end, which belongs to it.
        log: whether its logarithm is drawn.
        whole: whether its values are whole numbers.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


def parse_space(entries: Iterable[str], where: str) -> dict[str, Dimension]:
    """Return the dimensions that ``KEY=RANGE`` texts describe, by dotted key.

    Args:
        entries: the texts.
        where: who gave them, for messages.

    Raises:
        SettingsError: an unknown key, a setting that trials must share, a value out of the setting's type or
            range, an empty space. One error names everything that is wrong.
    """
    space: dict[str, Dimension] = {}
    problems: list[Problem] = []
    for entry in entries:
        key, equals, text = (part.strip() for part in entry.partition("="))
        found = (
            _dimension(key, text, f"{where} {key}")
            if equals
            else Problem(f"{entry!r} is not KEY=RANGE", where, "write train.lr=log:1e-5..1e-3")
        )
        if isinstance(found, Dimension) and key in space:
            found = Problem(f"{key} is there twice", where, "name every setting once")
        if isinstance(found, Problem):
            problems.append(found)
        else:
            space[key] = found
    if not space and not problems:
        problems.append(
            Problem("there is nothing to search", where, "name a setting: train.lr=log:1e-5..1e-3")
        )
    refuse(problems)
    return space


def range_text(dimension: Dimension) -> str:
    """Return a dimension as one would type it."""
    from gkiller.settings import plain_text

    if dimension.choices:
        return ",".join(map(plain_text, dimension.choices))
    kind = "log:" if dimension.log else "int:" if dimension.whole else ""
    ends = (int(end) if dimension.whole else end for end in (dimension.low, dimension.high))
    return kind + "..".join(map(str, ends))


def shortest_names(keys: Iterable[str]) -> Mapping[str, str]:
    """Return each key's last part, or the whole key where two share it."""
    known = list(keys)
    names = [key.rpartition(".")[2] for key in known]
    return {key: name if names.count(name) == 1 else key for key, name in zip(known, names, strict=True)}


def _dimension(key: str, text: str, where: str) -> Dimension | Problem:
    entry = settings_by_key().get(key)
    if entry is None:
        return Problem(f"unknown setting {key!r}", where, key_advice(key))
    if entry.section in FIXED_SECTIONS or key in FIXED_KEYS:
        what = f"{key} cannot be searched: trials that differ in it cannot be compared"
        return Problem(what, where, f"leave it out, or set it for all trials with --set {key}=...")
    if entry.kind in ("list", "numbers"):
        return Problem(f"{key} is a list, which cannot be searched", where, "leave it out")
    match = _RANGE.fullmatch(text)
    if match is not None and entry.kind in ("int", "float"):
        return _range(entry, match, where)
    return _choices(entry, text, where)


def _range(entry: Reference, match: re.Match[str], where: str) -> Dimension | Problem:
    """Return the dimension of ``[log:|int:]A..B`` for a number."""
    kind, whole = match[1], entry.kind == "int"
    low, high = (from_text(entry, end) for end in match.group(2, 3))
    if kind == "int" and not whole:
        return Problem(f"{entry.key} is no whole number", where, f"write {match[2]}..{match[3]} without int:")
    for end in (low, high):
        problem = value_problem(entry.key, end, where)
        if problem is not None:
            return problem
    if not low < high:
        return Problem(f"the range {match[0]!r} is empty", where, "write the lower end first")
    if kind == "log" and low <= 0:
        return Problem("a logarithmic range begins above 0", where, "raise its lower end, or leave out log:")
    convert = int if whole else float
    return Dimension(low=convert(low), high=convert(high), log=kind == "log", whole=whole)


def _choices(entry: Reference, text: str, where: str) -> Dimension | Problem:
    if re.match(r"(log|int):", text) or (entry.kind in ("int", "float") and ".." in text):
        return Problem(f"{text!r} is no range for {entry.key}", where, _FORMS)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        return Problem(f"no range for {entry.key}", where, _FORMS)
    values = [from_text(entry, part) for part in parts]
    for value in values:
        problem = value_problem(entry.key, value, where)
        if problem is not None:
            return problem
    return Dimension(choices=tuple(dict.fromkeys(values)))
