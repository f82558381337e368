"""The kinds of change by their names."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from gkiller.data.augment import letters, words
from gkiller.data.augment.edits import Operator
from gkiller.data.augment.identity import identity
from gkiller.errors import SettingsError, did_you_mean

KINDS: MappingProxyType[str, Operator] = MappingProxyType(
    {
        "swap": letters.swap,
        "delete": letters.delete,
        "insert": letters.insert,
        "neighbour": letters.neighbour,
        "repeat": letters.repeat,
        "leet": letters.leet,
        "homoglyph": letters.homoglyph,
        "spacing": letters.spacing,
        "zero_width": letters.zero_width,
        "casing": words.casing,
        "contraction": words.contraction,
        "negation": words.negation,
        "word_swap": words.word_swap,
        "word_delete": words.word_delete,
        "identity": identity,
    }
)
"""Every operator by the name of its kind."""

FAMILIES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("swap", "delete", "insert", "neighbour", "repeat"),
        "obfuscation": ("leet", "homoglyph", "spacing", "zero_width"),
        "eda": ("word_swap", "word_delete"),
        "style": ("casing", "contraction", "negation"),
    }
)
"""Names for several kinds."""


def resolve_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds that are meant, each once, in the order of `KINDS`.

    Args:
        names: kinds and families; every kind when there is none.

    Raises:
        SettingsError: there is no such kind or family.
    """
    wanted: set[str] = set()
    for name in names:
        if name not in KINDS and name not in FAMILIES:
            raise SettingsError(
                f"there is no kind of augmentation {name!r}",
                where="augment.kinds",
                remedy=did_you_mean(name, [*FAMILIES, *KINDS]),
            )
        wanted |= set(FAMILIES.get(name, (name,)))
    return tuple(kind for kind in KINDS if kind in wanted or not wanted)
