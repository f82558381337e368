"""Label-preserving changes of comments: for more training data, and for suites that measure robustness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from gkiller.data.augment import operators
from gkiller.data.augment.operators import Operator
from gkiller.data.readers import MAX_FIELD_CHARACTERS
from gkiller.errors import SettingsError
from gkiller.settings import AugmentSettings
from gkiller.wording import did_you_mean

FAMILIES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("swap", "delete", "insert", "neighbour", "repeat"),
        "obfuscation": ("leet", "homoglyph", "spacing", "zero_width"),
        "eda": ("word_swap", "word_delete"),
        "style": ("casing", "contraction", "negation"),
    }
)
"""Names for several kinds."""

_NAMES = (
    *("swap", "delete", "insert", "neighbour", "repeat", "leet", "homoglyph", "spacing", "zero_width"),
    *("casing", "contraction", "negation", "word_swap", "word_delete", "identity"),
)
KINDS: MappingProxyType[str, Operator] = MappingProxyType({name: getattr(operators, name) for name in _NAMES})
"""Every operator by the name of its kind."""

DEFAULT_INTENSITY: float = AugmentSettings().intensity


class Variant(NamedTuple):
    """A changed copy of a comment."""

    kind: str
    number: int
    text: str


def resolve_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds that are meant, each once, in the order of `KINDS`; all without any name.

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


def augment(
    texts: Iterable[str], kinds: Iterable[str], rate: float, seed: int, *, intensity: float = DEFAULT_INTENSITY
) -> list[str]:
    """Return the comments, a share of them changed, in their order; nothing is dropped.

    What becomes of a comment depends on it, the kinds, the intensity and the seed, not on the other
    comments. The comments changed at one rate are among those changed at a higher one.

    Args:
        rate: share of the comments that are changed, 0 to 1; each is drawn by itself.
        intensity: share of the places in a comment that a change touches, over 0 and up to 1.

    Raises:
        SettingsError: there is no such kind.
        ValueError: rate or intensity is out of its range.
    """
    chosen = resolve_kinds(kinds)
    if not 0 <= rate <= 1 or not 0 < intensity <= 1:
        raise ValueError(f"rate must be in 0..1 and intensity in (0, 1], not {rate} and {intensity}")
    changed = []
    for text in texts:
        made = variants(text, chosen, rate, seed, intensity=intensity)
        changed.append(made[0].text if made else text)
    return changed


def variants(
    text: str, kinds: Sequence[str], rate: float, seed: int, *, intensity: float = DEFAULT_INTENSITY, copies: int = 1
) -> list[Variant]:
    """Return the changed copies of one comment, all different; none where it is not drawn.

    For each copy the kinds are tried in a random order until one changes the comment; the next copy begins
    with the next kind.

    Args:
        kinds: as of `resolve_kinds`; no copies without any.
        intensity: share of the places that a change touches, over 0 and up to 1.
    """
    rng = _generator(text, seed)
    if rng.random() >= rate or not kinds:
        return []
    order = [kinds[index] for index in rng.permutation(len(kinds)).tolist()]
    found: list[Variant] = []
    for number in range(1, copies + 1):
        first = (number - 1) % len(order)
        known = {text, *(variant.text for variant in found)}
        for kind in (*order[first:], *order[:first]):
            changed = KINDS[kind](text, rng, intensity)
            if changed not in known and len(changed) <= MAX_FIELD_CHARACTERS:
                found.append(Variant(kind, number, changed))
                break
    return found


def is_drawn(text: str, rate: float, seed: int) -> bool:
    """Whether `variants` changes this comment at this rate."""
    return bool(_generator(text, seed).random() < rate)


def _generator(text: str, seed: int) -> Generator:
    """Return the generator that belongs to a comment and a seed."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest, "little")]))
