"""Operators on whole words: casing, contractions, frames of negation, and EDA's two without a thesaurus."""

from __future__ import annotations

import re

from numpy.random import Generator

from gkiller.data.augment.edits import LETTERS, choose, rewrite, same_case, share

NEGATORS = frozenset(
    ("no", "not", "never", "nobody", "none", "nothing", "neither", "nor", "without", "cannot", "hardly")
)
"""Words that turn a sentence around, beside those in n't."""

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

_WORD = re.compile(f"[{LETTERS}]{{2,}}")
_VERBS = (
    *("do", "does", "did", "is", "are", "was", "were", "would", "should", "could", "have", "has", "had"),
    *("must", "need"),
)


def _forms() -> dict[str, tuple[str, ...]]:
    """Return each long or short form in lower case, with what can stand for it."""
    negated = {f"{verb} not": f"{verb}n't" for verb in _VERBS} | {
        "will not": "won't",
        "cannot": "can't",
    }
    short = {f"{who} are": f"{who}'re" for who in ("you", "we", "they")} | {"i am": "i'm"}
    short |= {f"{who} will": f"{who}'ll" for who in ("i", "you", "he", "she", "it", "we", "they")}
    forms: dict[str, tuple[str, ...]] = {
        long: (contracted,) for long, contracted in (negated | short).items()
    }
    forms["can not"] = ("can't", "cannot")
    forms |= {contracted: (long, contracted.replace("'", "")) for long, contracted in negated.items()}
    forms |= {contracted: (long,) for long, contracted in short.items()}
    forms |= {f"{who}'ve": (f"{who} have",) for who in ("i", "you", "we", "they")}
    return forms


FORMS = _forms()
_BARE_NEGATED = frozenset(form.replace("'", "") for form in FORMS if form.endswith("n't"))
_FORM = re.compile(
    r"\b(?:"
    + "|".join(re.escape(form).replace("'", "['’]") for form in sorted(FORMS, key=len, reverse=True))
    + r")\b",
    re.IGNORECASE,
)


def casing(text: str, rng: Generator, intensity: float) -> str:
    """Write all in small letters, all in capitals, or some words in capitals, capitalised or in mixed case.

    Why the label survives: the words are the same. Limits: capitals shout, which graded labels can depend on.
    A tokenizer that lowers the case, such as the one gkiller ships, sees no difference.
    """
    words = share(rng, list(_WORD.finditer(text)), intensity)
    odd = int(rng.integers(2))

    def mixed(word: str) -> str:
        return "".join(letter.upper() if at % 2 == odd else letter.lower() for at, letter in enumerate(word))

    changed = [
        text.lower(),
        text.upper(),
        rewrite(text, words, str.upper),
        rewrite(text, words, str.capitalize),
        rewrite(text, words, mixed),
    ]
    return choose(rng, [other for other in changed if other != text] or [text])


def contraction(text: str, rng: Generator, intensity: float) -> str:
    """Contract words, or write contracted ones out or without apostrophe: "don't", "do not", "dont".

    Why the label survives: both forms mean the same. Limits: forms of two meanings ("it's", "I'd") are left
    alone; a contraction at the end of a sentence ("yes, you're") is not what people write.
    """
    # Without regard to case "ı" is an "i" too, which no form in lower case has.
    forms = [match for match in _FORM.finditer(text) if _plain(match[0]) in FORMS]
    return rewrite(
        text,
        share(rng, forms, intensity),
        lambda form: same_case(form, choose(rng, FORMS[_plain(form)])),
    )


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
