"""Terms that name groups of people, and the operator that names another group of the same kind."""

from __future__ import annotations

import re
from typing import NamedTuple

from numpy.random import Generator

from gkiller.data.augment.edits import same_case


class IdentityClass(NamedTuple):
    """Neutral terms that stand for groups of one kind.

    Attributes:
        name: of the class.
        forms: for each grammatical form its terms, one per group and in the same order of groups.
        of_people: whether a term is swapped only before a word for people, as it has other meanings.
        unswapped: more groups of the class, which are measured and not swapped, each by its forms: their name
            has other meanings, or includes other groups of the class.
    """

    name: str
    forms: tuple[tuple[str, ...], ...]
    of_people: bool = False
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
        (
            ("men", "women"),
            ("boys", "girls"),
            ("husband", "wife"),
            ("fathers", "mothers"),
            ("brothers", "sisters"),
        ),
        unswapped=(
            ("male", "males"),
            ("female", "females"),
            ("transgender",),
            ("trans",),
            ("nonbinary", "non-binary"),
        ),
    ),
    IdentityClass("colour", (("black", "white", "brown"),), of_people=True),
    IdentityClass(
        "age",
        (("young", "old", "elderly", "middle-aged"),),
        of_people=True,
        unswapped=(("younger",), ("older",), ("teenage",), ("millennial", "millenial")),
    ),
    IdentityClass(
        "disability", (("deaf", "blind"),), of_people=True, unswapped=(("disabled",), ("paralyzed",))
    ),
)
"""Written for gkiller. No slur is among them, and none is ever swapped in or out."""


def identity_groups() -> dict[str, tuple[str, ...]]:
    """Return the forms of every group's term, in lower case, by the first of them."""
    groups = [forms for group in CLASSES for forms in (*zip(*group.forms, strict=True), *group.unswapped)]
    return {forms[0]: forms for forms in groups}


_PEOPLE = (
    "people|persons?|man|men|woman|women|guys?|folks?|boys?|girls?|kids?|children|adults?|communit(?:y|ies)"
)
_PLACES = {
    term: (number, position)
    for number, group in enumerate(CLASSES)
    for form in group.forms
    for position, term in enumerate(form)
}
_FORM_OF = {term: form for group in CLASSES for form in group.forms for term in form}
_SOUNDS_LIKE_A = ("european",)


def _terms(*, of_people: bool) -> str:
    return "|".join(
        re.escape(term)
        for group in CLASSES
        if group.of_people is of_people
        for form in group.forms
        for term in form
    )


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
        1 + int(draw * (len(group.forms[0]) - 1))
        for draw, group in zip(rng.random(len(CLASSES)), CLASSES, strict=True)
    ]

    def change(match: re.Match[str]) -> str:
        article, space, *found = match.groups()
        term = found[0] or found[1]
        if term.lower() not in _PLACES:  # without regard to case "ı" is an "i" too
            return match[0]
        number, position = _PLACES[term.lower()]
        form = _FORM_OF[term.lower()]
        new = form[(position + steps[number]) % len(form)]
        if article is None:
            return same_case(term, new)
        fitting = "an" if new[0] in "aeiou" and new not in _SOUNDS_LIKE_A else "a"
        fitting = fitting.upper() if article.isupper() and term.isupper() else same_case(article[:1], fitting)
        return fitting + space + same_case(term, new)

    return _TERM.sub(change, text)
