"""Operators that change a comment and keep its labels: on letters, on words, and on the names of groups.

Typing errors leave the first and the last letter of a word alone, and words of less than four letters, so
that a reader still sees the word (Rawlinson 1976; Belinkov and Bisk 2018 for machines). Numbers and scripts
other than Latin, Greek and Cyrillic stay as they are. All changes of letters have one limit: they can make
another real word of a harmless one, or of a rude one; with errors inside longer words that is rare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from numpy.random import Generator

Operator = Callable[[str, Generator, float], str]
"""``operator(text, rng, intensity)``: the changed comment, or the same where there is nothing to change.

It is a pure function: the same text, state of ``rng`` and intensity give the same answer. ``intensity`` is
the share of the places it could change, in (0, 1]; at least one place is changed where there is any.
"""

LETTERS = "A-Za-zÀ-ÖØ-öø-ɏͰ-ϿЀ-ӿ"
"""Latin, Greek and Cyrillic, for a character class. Elsewhere a letter more or less is another word."""

Place = TypeVar("Place")


def choose(rng: Generator, places: Sequence[Place]) -> Place:
    """Return one of the places, all equally likely."""
    return places[int(rng.integers(len(places)))]


def share(rng: Generator, places: Sequence[Place], intensity: float) -> list[Place]:
    """Return the share ``intensity`` of the places, rounded, but at least one, in their order."""
    if not places:
        return []
    count = max(1, round(intensity * len(places)))
    chosen = sorted(rng.choice(len(places), size=count, replace=False).tolist())
    return [places[index] for index in chosen]


def some(rng: Generator, places: Sequence[Place]) -> list[Place]:
    """Return each place with probability 1/2, but at least one, in their order."""
    picked = [place for place, draw in zip(places, rng.random(len(places)), strict=True) if draw < 0.5]
    return picked or [choose(rng, places)]


def rewrite(text: str, matches: Sequence[re.Match[str]], change: Callable[[str], str]) -> str:
    """Return the text with each match, in their order, replaced by what ``change`` makes of it."""
    parts, end = [], 0
    for match in matches:
        parts += [text[end : match.start()], change(match[0])]
        end = match.end()
    return "".join([*parts, text[end:]])


def same_case(pattern: str, text: str) -> str:
    """Return ``text``, which is in lower case, in capitals or with one in front where ``pattern`` is so."""
    if len(pattern) > 1 and pattern.isupper():
        return text.upper()
    return text[:1].upper() + text[1:] if pattern[:1].isupper() else text


LEET = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}
"""Letters and the digits and signs that look like them."""

HOMOGLYPHS = dict(zip("aceijopsxyhABCEHIKMOPSTXY", "асеіјорѕхуһАВСЕНІКМОРЅТХУ", strict=True))
"""Latin letters and the Cyrillic ones of the same shape."""

ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff")
"""Zero width space, word joiner, and zero width no-break space."""

SEPARATORS = (" ", ".", "-", "*", "_")
MOST_REPEATS = 4
LONGEST_SPACED = 20
_WORD = re.compile(f"[{LETTERS}]{{3,}}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

NEIGHBOURS = {
    key: "".join(row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)) for row in _ROWS for at, key in enumerate(row)
}
"""Each letter's neighbours in its row of a QWERTY keyboard."""


def swap(text: str, rng: Generator, intensity: float) -> str:
    """Swap two different neighbouring letters inside words: "stupid" becomes "stpuid"."""
    return _once_per_word(text, rng, intensity, swappable, swapped)


def swappable(word: str) -> list[int]:
    """Return the places of a word's inner letters that differ from the inner letter behind them."""
    return [at for at in _inner(word)[:-1] if word[at] != word[at + 1]]


def swapped(word: str, at: int) -> str:
    """Return a word with the letter at a place and the one behind it swapped."""
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def delete(text: str, rng: Generator, intensity: float) -> str:
    """Leave out a letter inside words: "stupid" becomes "stupd"."""
    return _once_per_word(text, rng, intensity, _inner, lambda word, at: word[:at] + word[at + 1 :])


def insert(text: str, rng: Generator, intensity: float) -> str:
    """Hit a neighbouring key (QWERTY) as well as the right one inside words: "stupid" becomes "stuipid"."""
    return _hit(text, rng, intensity, kept=1)


def neighbour(text: str, rng: Generator, intensity: float) -> str:
    """Hit a neighbouring key (QWERTY) instead of the right one inside words: "stupid" becomes "stypid"."""
    return _hit(text, rng, intensity, kept=0)


def repeat(text: str, rng: Generator, intensity: float) -> str:
    """Draw words out by repeating a letter: "stupid" becomes "stupiiid".

    Why the label survives: the word is still read, only louder. Limit: it adds emphasis, which graded labels
    such as ``severe_toxicity`` can depend on.
    """

    def change(word: str, at: int) -> str:
        return word[:at] + word[at] * int(rng.integers(2, MOST_REPEATS + 1)) + word[at:]

    return _once_per_word(text, rng, intensity, lambda word: range(1, len(word)), change)


def leet(text: str, rng: Generator, intensity: float) -> str:
    """Write digits and signs for letters of like shape: "stupid" becomes "5tup1d".

    Why the label survives: the shape is read as the word; who disguises a word still says it. Limit: harmless
    words are disguised too, so a model learns the word behind it and not that a disguise is suspicious.
    """
    return _substitute(text, rng, intensity, {**LEET, **{key.upper(): to for key, to in LEET.items()}})


def homoglyph(text: str, rng: Generator, intensity: float) -> str:
    """Write Cyrillic letters for Latin ones of the same shape; the text looks as before.

    Why the label survives: a reader sees no difference. Limit: as `leet`.
    """
    return _substitute(text, rng, intensity, HOMOGLYPHS)


def spacing(text: str, rng: Generator, intensity: float) -> str:
    """Put spaces, dots or other signs between the letters of words: "idiot" becomes "i d i o t".

    Why the label survives: the letters are read in their order. Limit: with spaces and a high intensity the
    ends of words are lost to a reader; words of over 20 letters are left alone.
    """
    words = [match for match in _WORD.finditer(text) if len(match[0]) <= LONGEST_SPACED]
    return rewrite(text, share(rng, words, intensity), lambda word: choose(rng, SEPARATORS).join(word))


def zero_width(text: str, rng: Generator, intensity: float) -> str:
    """Put characters that are not drawn between letters of words; the text looks as before.

    Why the label survives: a reader sees no difference. Limit: BERT's normaliser drops these characters, so
    for a model with such a tokenizer, the default one among them, nothing changes; others see broken words.
    """

    def change(word: str) -> str:
        gaps = set(some(rng, range(1, len(word))))
        marks = (choose(rng, ZERO_WIDTH) if at in gaps else "" for at in range(len(word)))
        return "".join(mark + letter for mark, letter in zip(marks, word, strict=True))

    return rewrite(text, share(rng, list(_WORD.finditer(text)), intensity), change)


def _inner(word: str) -> Sequence[int]:
    return range(1, len(word) - 1) if len(word) > 3 else range(0)


def _hit(text: str, rng: Generator, intensity: float, *, kept: int) -> str:
    """Hit a neighbouring key; ``kept`` is 1 where the right one is hit too, else 0."""

    def keys(word: str) -> list[int]:
        return [at for at in _inner(word) if word[at].lower() in NEIGHBOURS]

    def change(word: str, at: int) -> str:
        key = choose(rng, NEIGHBOURS[word[at].lower()])
        return word[: at + kept] + (key.upper() if word[at].isupper() else key) + word[at + 1 :]

    return _once_per_word(text, rng, intensity, keys, change)


def _once_per_word(
    text: str,
    rng: Generator,
    intensity: float,
    places: Callable[[str], Sequence[int]],
    change: Callable[[str, int], str],
) -> str:
    """Change one of the places that a word has, in a share of the words that have any."""
    words = [match for match in _WORD.finditer(text) if places(match[0])]
    return rewrite(text, share(rng, words, intensity), lambda word: change(word, choose(rng, places(word))))


def _substitute(text: str, rng: Generator, intensity: float, table: dict[str, str]) -> str:
    """Replace about half of the letters in the table, in a share of the words that have any."""

    def places(word: str) -> list[int]:
        return [at for at, letter in enumerate(word) if letter in table]

    def change(word: str) -> str:
        letters = list(word)
        for at in some(rng, places(word)):
            letters[at] = choose(rng, table[word[at]])
        return "".join(letters)

    words = [match for match in _WORD.finditer(text) if places(match[0])]
    return rewrite(text, share(rng, words, intensity), change)


NEGATORS = frozenset(
    ("no", "not", "never", "nobody", "none", "nothing", "neither", "nor", "without", "cannot", "hardly")
)
"""Words that turn a sentence around, with those in n't."""

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "very", "really", "just", "so", "quite", "rather", "too", "also", "then", "well"),
        *("of", "to", "in", "on", "at", "for", "by", "with", "from", "as", "that", "and"),
        *("am", "is", "are", "was", "were", "be", "been", "being", "do", "does", "did", "have", "has", "had"),
    )
)
"""Words that a reader supplies where they are missing; no pronouns, negators or modal verbs."""

BEFORE = (
    "Not to change the subject, but ",
    "Not that anyone asked, but ",
    "I cannot put it differently: ",
    "It is no secret: ",
    "I have not said this before: ",
    "There is no need to reply: ",
    "I do not know who reads this: ",
)

AFTER = (
    "Not that it matters.",
    "No more, no less.",
    "No need to reply.",
    "Not everybody has to agree.",
    "I have nothing to add.",
)

_SHORT_WORD = re.compile(f"[{LETTERS}]{{2,}}")

_VERBS = (
    *("do", "does", "did", "is", "are", "was", "were", "would", "should", "could", "have", "has", "had"),
    *("must", "need"),
)


def _forms() -> dict[str, tuple[str, ...]]:
    """Return each long or short form in lower case, with what can stand for it."""
    negated = {f"{verb} not": f"{verb}n't" for verb in _VERBS} | {"will not": "won't", "cannot": "can't"}
    short = {f"{who} are": f"{who}'re" for who in ("you", "we", "they")} | {"i am": "i'm"}
    short |= {f"{who} will": f"{who}'ll" for who in ("i", "you", "he", "she", "it", "we", "they")}
    forms: dict[str, tuple[str, ...]] = {long: (contracted,) for long, contracted in (negated | short).items()}
    forms["can not"] = ("can't", "cannot")
    forms |= {contracted: (long, contracted.replace("'", "")) for long, contracted in negated.items()}
    forms |= {contracted: (long,) for long, contracted in short.items()}
    forms |= {f"{who}'ve": (f"{who} have",) for who in ("i", "you", "we", "they")}
    return forms


FORMS = _forms()
_BARE_NEGATED = frozenset(form.replace("'", "") for form in FORMS if form.endswith("n't"))

_FORM = re.compile(
    r"\b(?:" + "|".join(re.escape(form).replace("'", "['’]") for form in sorted(FORMS, key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def casing(text: str, rng: Generator, intensity: float) -> str:
    """Write all in small letters, all in capitals, or some words in capitals, capitalised or in mixed case.

    Why the label survives: the words are the same. Limits: capitals shout, which graded labels can depend on.
    A tokenizer that lowers the case, such as the default one, sees no difference.
    """
    words = share(rng, list(_SHORT_WORD.finditer(text)), intensity)
    odd = int(rng.integers(2))

    def mixed(word: str) -> str:
        return "".join(letter.upper() if at % 2 == odd else letter.lower() for at, letter in enumerate(word))

    changed = [text.lower(), text.upper()]
    changed += [rewrite(text, words, change) for change in (str.upper, str.capitalize, mixed)]
    return choose(rng, [other for other in changed if other != text] or [text])


def contraction(text: str, rng: Generator, intensity: float) -> str:
    """Contract words, or write contracted ones out or without apostrophe: "don't", "do not", "dont".

    Why the label survives: both forms mean the same. Limits: forms of two meanings ("it's", "I'd") are left
    alone; a contraction at the end of a sentence ("yes, you're") is not what people write.
    """
    # Without regard to case "ı" is an "i" too, which no form in lower case has.
    forms = [match for match in _FORM.finditer(text) if _plain(match[0]) in FORMS]
    chosen = share(rng, forms, intensity)
    return rewrite(text, chosen, lambda form: same_case(form, choose(rng, FORMS[_plain(form)])))


def negation(text: str, rng: Generator, intensity: float) -> str:
    """Put a sentence with a negation before or after the comment, which stays whole: "It is no secret: ...".

    Why the label survives: the negation is of something else, so the comment says what it said. A model
    learns that a negation near by does not by itself turn a comment around. Limits: it teaches nothing about
    comments that are themselves negated ("you are not a fool"); a frame takes up to 15 tokens of what a model
    reads of a long comment; ``intensity`` has no meaning here.
    """
    frame = choose(rng, (*BEFORE, *AFTER))
    if not text.strip():
        return text
    if frame in BEFORE:
        return frame + text
    body = text.rstrip()
    return f"{body}{'.' if body[-1:].isalnum() else ''} {frame}"


def word_swap(text: str, rng: Generator, intensity: float) -> str:
    """Swap neighbouring words (EDA's random swap, Wei and Zou 2019, for neighbours alone).

    Why the label survives: the words are all there, near where they were. Negators stay where they are.
    Limits: who does what to whom can be turned around ("I hate you" becomes "you hate I"), and the result is
    not grammatical.
    """
    parts = re.split(r"(\s+)", text)  # words at even places, white space between
    places = [
        at
        for at in range(0, len(parts) - 2, 2)
        if parts[at].casefold() != parts[at + 2].casefold()
        and all(parts[i] and not _negates(parts[i]) for i in (at, at + 2))
    ]
    last = -4
    for at in share(rng, places, intensity):
        if at >= last + 4:  # no word is moved twice
            parts[at], parts[at + 2] = parts[at + 2], parts[at]
            last = at
    return "".join(parts)


def word_delete(text: str, rng: Generator, intensity: float) -> str:
    """Leave out function words (EDA's random deletion, Wei and Zou 2019, for words that carry no label).

    Why the label survives: only articles, intensifiers, prepositions, "that", "and" and forms of be, do and
    have can go; EDA's own deletion can take the one word that makes a comment toxic, or a "not". Limits: an
    intensifier less can matter to graded labels; English only.
    """
    parts = re.split(r"(\s+)", text)
    places = [at for at in range(0, len(parts), 2) if parts[at].lower() in FUNCTION_WORDS]
    gone = set(share(rng, places, intensity))
    gone |= {at + 1 for at in gone}  # the white space behind
    left = "".join(part for at, part in enumerate(parts) if at not in gone)
    return left if left.strip() else text


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


def _negates(word: str) -> bool:
    bare = _plain(word).strip(".,;:!?\"'()")
    return bare in NEGATORS or bare in _BARE_NEGATED or bare.endswith("n't")


class IdentityClass(NamedTuple):
    """Neutral terms that stand for groups of one kind."""

    name: str
    # for each grammatical form its terms, one per group and in the same order of groups
    forms: tuple[tuple[str, ...], ...]
    # whether a term is swapped only before a word for people, as it has other meanings
    of_people: bool = False
    # more groups of the class, which are measured and not swapped, each by its forms: their name has other meanings, or
    # includes other groups of the class
    unswapped: tuple[tuple[str, ...], ...] = ()


CLASSES = (
    IdentityClass(
        "religion",
        (
            ("christian", "muslim", "jewish", "hindu", "buddhist", "sikh", "catholic"),
            ("christians", "muslims", "jews", "hindus", "buddhists", "sikhs", "catholics"),
        ),
        unswapped=(("protestant", "protestants"), ("taoist", "taoists"), ("atheist", "atheists")),
    ),
    IdentityClass(
        "origin",
        (
            (
                *("american", "british", "french", "german", "italian", "spanish", "irish", "canadian"),
                *("mexican", "african", "european", "asian", "indian", "chinese", "japanese", "russian"),
                *("turkish", "arab"),
            ),
        ),
        unswapped=(
            ("african american", "african americans"),
            ("middle eastern",),
            ("hispanic", "hispanics"),
            ("latino", "latinos"),
            ("latina", "latinas"),
            ("latinx",),
        ),
    ),
    IdentityClass(
        "orientation",
        (("gay", "lesbian", "bisexual", "heterosexual"),),
        unswapped=(("homosexual", "homosexuals"), ("straight",), ("queer",), ("lgbt",), ("lgbtq",)),
    ),
    IdentityClass(
        "gender",
        (("men", "women"), ("boys", "girls"), ("husband", "wife"), ("fathers", "mothers"), ("brothers", "sisters")),
        unswapped=(("male", "males"), ("female", "females"), ("transgender",), ("trans",), ("nonbinary", "non-binary")),
    ),
    IdentityClass("colour", (("black", "white", "brown"),), of_people=True),
    IdentityClass(
        "age",
        (("young", "old", "elderly", "middle-aged"),),
        of_people=True,
        unswapped=(("younger",), ("older",), ("teenage",), ("millennial", "millenial")),
    ),
    IdentityClass("disability", (("deaf", "blind"),), of_people=True, unswapped=(("disabled",), ("paralyzed",))),
)
"""No slur is among them, and none is ever swapped in or out."""


def identity_groups() -> dict[str, tuple[str, ...]]:
    """Return the forms of every group's term, in lower case, by the first of them."""
    groups = [forms for group in CLASSES for forms in (*zip(*group.forms, strict=True), *group.unswapped)]
    return {forms[0]: forms for forms in groups}


_PEOPLE = "people|persons?|man|men|woman|women|guys?|folks?|boys?|girls?|kids?|children|adults?|communit(?:y|ies)"

_PLACES = {
    term: (number, position, form)
    for number, group in enumerate(CLASSES)
    for form in group.forms
    for position, term in enumerate(form)
}
"""Of each term that is swapped its class, and its place in a form."""


def _terms(*, of_people: bool) -> str:
    terms = (term for term, (number, _, _) in _PLACES.items() if CLASSES[number].of_people is of_people)
    return "|".join(map(re.escape, terms))


_TERM = re.compile(
    rf"\b(?:(an?)(\s+))?(?:({_terms(of_people=False)})|({_terms(of_people=True)})(?=\s+(?:{_PEOPLE})\b))\b",
    re.IGNORECASE,
)


def identity(text: str, rng: Generator, intensity: float) -> str:
    """Name other groups of the same class: "Muslims" become "Hindus", "gay" becomes "lesbian".

    Every term of a class moves by the same number of places in the class's list, so that groups that differ
    stay different, in singular and plural alike; "a" and "an" follow.

    Why the label survives: praise stays praise, and an attack on a group stays an attack on a group, with the
    same words around it (counterfactual token fairness: Garg et al. 2019). A model learns that naming a group
    is not toxic, whichever it is. What it cannot preserve: facts ("Muslims fast in Ramadan"), and a term's
    use as an insult ("that is so gay") or in a name ("French fries"); whether people would have rated both
    sentences alike; agreement with pronouns, which stay, and grammar here and there ("he is a jewish").
    "man", "woman" and other words that are also used to address somebody are left alone. ``intensity`` has no
    meaning here: half a swap would mix groups up.
    """
    steps = [
        1 + int(draw * (len(group.forms[0]) - 1)) for draw, group in zip(rng.random(len(CLASSES)), CLASSES, strict=True)
    ]

    def change(match: re.Match[str]) -> str:
        article, space, *found = match.groups()
        term = found[0] or found[1]
        if term.lower() not in _PLACES:  # without regard to case "ı" is an "i" too
            return match[0]
        number, position, form = _PLACES[term.lower()]
        new = form[(position + steps[number]) % len(form)]
        if article is None:
            return same_case(term, new)
        fitting = "an" if new[0] in "aeiou" and new != "european" else "a"
        fitting = fitting.upper() if article.isupper() and term.isupper() else same_case(article[:1], fitting)
        return fitting + space + same_case(term, new)

    return _TERM.sub(change, text)
