"""Make the embedded sample: hand-written frames in tools/sample become gkiller/assets/sample.jsonl.gz.

    python tools/make_sample.py          # writes the file
    python tools/make_sample.py --check  # exit code 1 when its content is not what the frames give

A seeded generator fills the frames, joins two of them now and then, puts situations around, and adds typing
noise. Every frame and every situation is used in one split only. The rows are the same on every machine and
Python version.

A frame is a sentence template. ``[this|that]`` is a choice, ``{slot}`` is a filler. A slot may carry forms:
``{a:insult}`` puts "a" or "an" in front, ``{insult:s}`` is the plural, ``{group:cap}`` begins with a
capital, ``{obf:insult}`` is disguised ("st*pid", "s t u p i d"). Draws use ``random.Random.random`` only,
whose sequence Python keeps the same across versions. The noise knows nothing of a comment's labels, so it
cannot leak them.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from gkiller.assets import asset_path
from gkiller.data.sample import SAMPLE_LABELS, SAMPLE_SEED, SampleRow, row_text, sample_rows
from gkiller.storage.files import write_bytes

FRAMES = Path(__file__).parent / "sample"

# Comments per kind. The rare classes are rare, as in real comments.
ROWS_PER_KIND: dict[str, int] = {
    "plain": 5300,
    "praise": 480,
    "complaint": 420,
    "heated_civil": 400,
    "friendly_profanity": 180,
    "quoted_insult": 140,
    "negated_insult": 100,
    "self_mockery": 70,
    "identity_neutral": 360,
    "figurative_violence": 170,
    "insult": 240,
    "profane_insult": 80,
    "severe": 90,
    "threat": 76,
    "identity_attack": 88,
    "hostility": 44,
    "sarcasm": 40,
    "condescension": 40,
    "implied_threat": 40,
    "obfuscated": 36,
}


_T = TypeVar("_T")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([a-z:]+)\}")
_DISGUISED = re.compile("\x01([^\x02]*)\x02")
_SENTENCE_START = re.compile(r"(^|[.!?]\s+)([a-z])")
_VOWEL_SOUND = re.compile(r"(?!uni|use|one\b|eu)(?:[aeiou]|hour|honest)", re.IGNORECASE)
_LOOKALIKE = {"i": "1", "o": "0", "e": "3", "a": "4", "s": "5"}
# What two frames of one comment have in common.
_TOPICS = frozenset(
    (
        *("name", "game", "map", "boss", "topic", "official", "public", "town", "team"),
        *("article", "section", "product", "food", "hobby", "group"),
    )
)
_FRAME_FILES = ("plain.toml", "hard_negatives.toml", "toxic.toml", "veiled.toml")


@dataclass(frozen=True)
class Frame:
    """A hand-written template, its category and its labels."""

    id: str
    text: str
    kind: str
    setting: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Situation:
    """A sentence put before or after a frame, whatever the frame's label."""

    text: str
    place: str
    setting: str


@dataclass(frozen=True)
class Grammar:
    """Everything hand-written that the sample is generated from."""

    frames: tuple[Frame, ...]
    situations: tuple[Situation, ...]
    fillers: dict[str, tuple[str, ...]]
    obscene: frozenset[str]


def stable_random(*parts: object) -> random.Random:
    """A generator that depends on ``parts`` alone, on every machine and Python version."""
    digest = sha256("/".join(str(part) for part in parts).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def pick(rng: random.Random, items: Sequence[_T]) -> _T:
    """Draw one of ``items`` uniformly."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: Sequence[_T]) -> list[_T]:
    """Return ``items`` in a drawn order (Fisher and Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def load_grammar() -> Grammar:
    """Read the hand-written frames, situations and fillers from the package."""
    fillers = _read("fillers.toml")
    return Grammar(
        frames=tuple(_frames()),
        situations=tuple(
            Situation(line, group["place"], group["setting"])
            for group in _read("situations.toml")["situation"]
            for line in group["lines"].splitlines()
        ),
        fillers={name: tuple(items) for name, items in fillers["fillers"].items()},
        obscene=frozenset(fillers["obscene"]["words"]),
    )


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((FRAMES / name).read_text("utf-8"))


def _frames() -> list[Frame]:
    counts: dict[str, int] = {}
    frames = []
    for name in _FRAME_FILES:
        for group in _read(name)["group"]:
            kind = group["kind"]
            for line in group["frames"].splitlines():
                counts[kind] = counts.get(kind, 0) + 1
                frame_id = f"{kind}-{counts[kind]:03d}"
                frames.append(Frame(frame_id, line, kind, group["setting"], tuple(group["labels"])))
    return frames


def expand(templates: Sequence[str], grammar: Grammar, rng: random.Random) -> str:
    """Fill templates that make one comment; disguised words stay marked until :func:`disguise`.

    Within a template a slot never draws the same filler twice. A later template speaks of the same
    game, product, person and so on as the one before.
    """
    topics: dict[str, str] = {}
    return " ".join(_expand_one(template, grammar, rng, topics) for template in templates)


def _expand_one(template: str, grammar: Grammar, rng: random.Random, topics: dict[str, str]) -> str:
    used: dict[str, list[str]] = {}

    def draw(name: str) -> str:
        before = used.setdefault(name, [])
        if not before and name in topics:
            item = topics[name]
        else:
            item = pick(rng, [item for item in grammar.fillers[name] if item not in before])
        before.append(item)
        if name in _TOPICS:
            topics.setdefault(name, item)
        return item

    def fill(match: re.Match[str]) -> str:
        parts = match[1].split(":")
        item = draw(next(part for part in parts if part in grammar.fillers))
        return _inflect(_SLOT.sub(fill, item), parts)

    text = _CHOICE.sub(lambda match: pick(rng, match[1].split("|")), template)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), _SLOT.sub(fill, text))


def _inflect(item: str, forms: Sequence[str]) -> str:
    singular, _, plural = item.partition("/")
    word = (plural or _plural(singular)) if "s" in forms else singular
    if "cap" in forms:
        word = word[0].upper() + word[1:]
    article = "an" if _VOWEL_SOUND.match(word) else "a"
    if "obf" in forms:
        word = f"\x01{word}\x02"
    return f"{article} {word}" if "a" in forms else word


def _plural(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if re.search(r"(s|sh|ch|x)$", word):
        return word + "es"
    return word + "s"


def is_obscene(text: str, words: frozenset[str]) -> bool:
    """Whether a word of ``text``, undisguised, is on the list of profanity."""
    tokens = text.replace("\x01", " ").replace("\x02", " ").lower().split()
    return any(token.strip(".,!?;:\"'()@").removesuffix("'s") in words for token in tokens)


def disguise(text: str, rng: random.Random) -> str:
    """Disguise the marked words as people do to slip past a filter."""

    def hide(match: re.Match[str]) -> str:
        words = match[1].split(" ")
        longest = max(range(len(words)), key=lambda index: len(words[index]))
        words[longest] = _hide_word(words[longest], rng)
        return " ".join(words)

    return _DISGUISED.sub(hide, text)


def _hide_word(word: str, rng: random.Random) -> str:
    inner = [index for index, char in enumerate(word) if index and char in "aeiou"]
    spot = pick(rng, inner or [len(word) // 2])
    way = int(rng.random() * 6)
    if way == 0:
        return " ".join(word)
    if way == 1:
        return ".".join(word)
    if way == 2:
        return word[0] + "".join(_LOOKALIKE.get(char, char) for char in word[1:])
    if way == 3:
        return word[:spot] + word[spot] * 4 + word[spot + 1 :]
    return word[:spot] + ("*" if way == 4 else "_") + word[spot + 1 :]


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


# Five frames in seven train, one validates, one tests.
_SPLIT_CYCLE = ("train", "train", "valid", "train", "train", "test", "train")
_PAIR_SHARE = 0.3  # comments of two frames
_BEFORE_SHARE = 0.22
_AFTER_SHARE = 0.18
_SAME_CORE = 2  # at most this many comments share a filled frame, in different situations
_TRIES = 12
_WORDS = (3, 60)
_LITTLE_WORDS = frozenset(("The", "My", "A", "An"))


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


def made(seed: int = SAMPLE_SEED) -> list[SampleRow]:
    """Generate the sample: about 8,400 distinct comments in a shuffled order."""
    return generate_rows(seed, ROWS_PER_KIND)


def main() -> int:
    """Write the sample, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    rows = made()
    if parser.parse_args().check:
        same = rows == sample_rows()
        sys.stdout.write("the sample is up to date\n" if same else "the sample differs: make it again\n")
        return 0 if same else 1
    text = "".join(f"{row_text(row)}\n" for row in rows)
    write_bytes(asset_path("sample.jsonl.gz"), gzip.compress(text.encode(), mtime=0))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
