"""From frames to the rows of the embedded sample: splits, joined frames, situations, distinctness."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gkiller.data.sample_grammar import (
    Frame,
    Grammar,
    disguise,
    expand,
    is_obscene,
    load_grammar,
    pick,
    shuffled,
    stable_random,
)
from gkiller.data.sample_noise import add_noise

SAMPLE_LABELS: tuple[str, ...] = (
    "toxicity",
    "severe_toxicity",
    "obscene",
    "threat",
    "insult",
    "identity_attack",
)

# Five frames in seven train, one validates, one tests.
_SPLIT_CYCLE = ("train", "train", "valid", "train", "train", "test", "train")
_PAIR_SHARE = 0.3  # comments of two frames
_BEFORE_SHARE = 0.22
_AFTER_SHARE = 0.18
_SAME_CORE = 2  # at most this many comments share a filled frame, in different situations
_TRIES = 12
_WORDS = (3, 60)
_LITTLE_WORDS = frozenset(("The", "My", "A", "An"))


@dataclass(frozen=True)
class SampleRow:
    """One synthetic comment.

    Attributes:
        labels: 0 or 1 for each of ``SAMPLE_LABELS``.
        split: ``train``, ``valid`` or ``test``.
        frame: id of the hand-written template, used in this split only; two ids joined by "+" for a
            comment of two frames.
        kind: category, such as ``quoted_insult`` or ``sarcasm``.
    """

    id: str
    text: str
    labels: dict[str, int]
    split: str
    frame: str
    kind: str


def generate_rows(seed: int, rows_per_kind: Mapping[str, int]) -> list[SampleRow]:
    """Generate so many distinct comments of each kind, in a shuffled order."""
    grammar = load_grammar()
    world = _World(grammar, seed, _assign_frames(grammar, seed), _assign_situations(grammar, seed))
    seen: set[str] = set()
    rows: list[SampleRow] = []
    for kind, size in rows_per_kind.items():
        rows.extend(_draw(_makers(kind, world), size, seen))
    return shuffled(stable_random(seed, "order"), rows)


def fold(text: str) -> str:
    """Reduce a comment to what counts as the same comment: case and white space ignored."""
    return " ".join(text.casefold().split())


def _cycle(size: int, rng: random.Random) -> list[str]:
    start = int(rng.random() * len(_SPLIT_CYCLE))
    return [_SPLIT_CYCLE[(start + index) % len(_SPLIT_CYCLE)] for index in range(size)]


def _assign_frames(grammar: Grammar, seed: int) -> dict[str, str]:
    """Give every frame its split, stratified by kind, then by labels and setting."""
    splits: dict[str, str] = {}
    for kind in sorted({frame.kind for frame in grammar.frames}):
        rng = stable_random(seed, "frames", kind)
        mixed = shuffled(rng, [frame for frame in grammar.frames if frame.kind == kind])
        mixed.sort(key=lambda frame: (frame.labels, frame.setting))
        splits.update(zip((frame.id for frame in mixed), _cycle(len(mixed), rng), strict=True))
    return splits


def _assign_situations(grammar: Grammar, seed: int) -> dict[tuple[str, str, str], list[str]]:
    """Give every situation its split: (split, place, setting) → templates."""
    rng = stable_random(seed, "situations")
    places = sorted({(item.place, item.setting) for item in grammar.situations})
    pools: dict[tuple[str, str, str], list[str]] = {}
    for place, setting in places:
        lines = [item.text for item in grammar.situations if (item.place, item.setting) == (place, setting)]
        for line, split in zip(shuffled(rng, lines), _cycle(len(lines), rng), strict=True):
            pools.setdefault((split, place, setting), []).append(line)
    return pools


@dataclass(frozen=True)
class _World:
    """What all makers share: the split of each frame, and each split's situations."""

    grammar: Grammar
    seed: int
    splits: dict[str, str]
    around: dict[tuple[str, str, str], list[str]]


def _makers(kind: str, world: _World) -> list[_Maker]:
    """One maker per frame; its partners are of the same kind, split and setting."""
    frames = [frame for frame in world.grammar.frames if frame.kind == kind]
    return [
        _Maker(
            frame,
            [
                other
                for other in frames
                if other is not frame
                and world.splits[other.id] == world.splits[frame.id]
                and other.setting in (frame.setting, "any")
            ],
            world,
        )
        for frame in frames
    ]


class _Maker:
    """Makes the comments of one frame, from its own random stream."""

    def __init__(self, frame: Frame, partners: Sequence[Frame], world: _World) -> None:
        self._frame = frame
        self._partners = partners
        self._world = world
        self._rng = stable_random(world.seed, "rows", frame.id)
        self._cores: Counter[str] = Counter()
        self._made = 0

    def make(self, seen: set[str]) -> SampleRow | None:
        """Make one more comment, or None when the frame has no more to give."""
        for _ in range(_TRIES):
            frames = self._choose_frames()
            core = expand([frame.text for frame in frames], self._world.grammar, self._rng)
            clear = self._surround(core)
            text = add_noise(disguise(clear, self._rng), self._rng)
            folded = fold(text)
            length = len(folded.split())
            if self._cores[core] < _SAME_CORE and folded not in seen and _WORDS[0] <= length <= _WORDS[1]:
                self._cores[core] += 1
                seen.add(folded)
                return self._row(text, frames, is_obscene(clear, self._world.grammar.obscene))
        return None

    def _choose_frames(self) -> list[Frame]:
        if self._partners and self._rng.random() < _PAIR_SHARE:
            return [self._frame, pick(self._rng, self._partners)]
        return [self._frame]

    def _surround(self, core: str) -> str:
        text = core
        if self._rng.random() < _BEFORE_SHARE:
            text = _join(self._situation("before"), text, self._frame.text)
        if self._rng.random() < _AFTER_SHARE:
            text = f"{_stopped(text)} {self._situation('after')}"
        return text

    def _situation(self, place: str) -> str:
        settings = dict.fromkeys(("any", self._frame.setting))
        split = self._world.splits[self._frame.id]
        pool = [line for setting in settings for line in self._world.around[split, place, setting]]
        return expand([pick(self._rng, pool)], self._world.grammar, self._rng)

    def _row(self, text: str, frames: Sequence[Frame], obscene: bool) -> SampleRow:
        self._made += 1
        named = {label for frame in frames for label in frame.labels}
        labels = {label: int(label in named) for label in SAMPLE_LABELS}
        labels["obscene"] = int(obscene)
        return SampleRow(
            id=f"{self._frame.id}-{self._made:02d}",
            text=text,
            labels=labels,
            split=self._world.splits[self._frame.id],
            frame="+".join(frame.id for frame in frames),
            kind=self._frame.kind,
        )


def _stopped(text: str) -> str:
    return text if text.endswith((".", "!", "?", '"', ")")) else f"{text}."


def _join(before: str, core: str, template: str) -> str:
    """Put a situation before a frame; after a comma the frame goes on in lower case."""
    if not before.endswith((",", " and")):
        return f"{before} {core}"
    first = core.split(" ", 1)[0]
    own_word = template.startswith(first) and first.split("'")[0].rstrip(",") != "I"
    return f"{before} {core[0].lower() + core[1:] if own_word or first in _LITTLE_WORDS else core}"


def _draw(makers: Sequence[_Maker], size: int, seen: set[str]) -> list[SampleRow]:
    """Draw ``size`` comments, one from each frame in turn, until the frames run dry."""
    rows: list[SampleRow] = []
    live = list(makers)
    while live and len(rows) < size:
        for maker in list(live):
            row = maker.make(seen)
            if row is None:
                live.remove(maker)
            else:
                rows.append(row)
            if len(rows) == size:
                break
    return rows
