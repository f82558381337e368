"""The operators, and `augment`, which applies them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from giants import roberta_tokenizer
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.data.augment import FAMILIES, KINDS, augment, resolve_kinds, variants
from gkiller.data.augment.operators import (
    AFTER,
    BEFORE,
    CLASSES,
    FORMS,
    FUNCTION_WORDS,
    HOMOGLYPHS,
    LEET,
    MOST_REPEATS,
    NEGATORS,
    SEPARATORS,
    ZERO_WIDTH,
    IdentityClass,
    identity,
    same_case,
)
from gkiller.data.augment.prepared import DigestSet
from gkiller.data.readers import MAX_FIELD_CHARACTERS
from gkiller.data.sample import sample_rows
from gkiller.errors import SettingsError

DOCS = Path(__file__).parent.parent / "docs" / "augment.md"
EXAMPLE = "You really are not the smartest of the old men, and I don't like your stupid idea."
PER_WORD = {"swap": 2, "delete": 1, "insert": 1, "neighbour": 1, "repeat": MOST_REPEATS}
"""The largest edit distance that a change to one word may make."""
INVISIBLE = {"zero_width", "casing"}
"""What the tokenizer that gkiller ships does not see."""

words = st.sampled_from(
    (
        *("stupid", "IDIOT", "don't", "can not", "I'm", "you’re", "Muslims", "an", "American", "the", "never"),
        *("old people", "ıdıot", "İstanbul", "ﬁne", "ß", "e\u0301te\u0301", "привет", "傻瓜", "חבר", "\ud800"),
        *("\U0001f469\u200d\U0001f467",),
        *("chriſtian", "TUR\u212aISH", "\u200bid\u200biot", "\0", "1234", "@home", "...", "\n", "\u3000", "gay,"),
    )
)
texts = st.one_of(st.lists(words, max_size=12).map(" ".join), st.text(st.characters(), max_size=60))


def rng(seed: int = 0) -> Any:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def comments() -> list[str]:
    rows = [row.text for row in sample_rows()[:400]]
    return [text for text in rows if re.search(r"[a-z]{5}", text)]


def distance(one: str, other: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts, seed=st.integers(0, 2**32 - 1), intensity=st.floats(0.01, 1))
@hypothesis_settings(max_examples=60)
def test_an_operator_is_a_pure_function_on_any_text(kind: Any, text: Any, seed: Any, intensity: Any) -> None:
    changed = KINDS[kind](text, rng(seed), intensity)
    assert changed == KINDS[kind](text, rng(seed), intensity)
    assert len(text) // 2 - 40 <= len(changed) <= 5 * len(text) + 60
    assert bool(changed.strip()) == bool(text.strip())
    for odd in ("\ud800", "\0"):
        assert changed.count(odd) == text.count(odd)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_a_comment_that_has_what_it_changes(kind: str) -> None:
    for seed in range(20):
        assert KINDS[kind](EXAMPLE, rng(seed), 0.2) != EXAMPLE


@given(st.lists(texts, max_size=6), st.integers(0, 2**32 - 1), st.sampled_from([(), ("noise",), ("identity",)]))
@hypothesis_settings(max_examples=50)
def test_augment_is_deterministic_and_rate_0_is_the_identity(given_texts: Any, seed: Any, kinds: Any) -> None:
    assert augment(given_texts, kinds, 0.0, seed) == given_texts
    changed = augment(given_texts, kinds, 1.0, seed)
    assert changed == augment(iter(given_texts), kinds, 1.0, seed)
    assert changed == [augment([text], kinds, 1.0, seed)[0] for text in given_texts]


def test_rate_is_a_share_and_a_higher_one_changes_the_same_comments_too(comments: list[str]) -> None:
    texts = [f"{text} {number}" for number in range(5) for text in comments]
    shares = {}
    for rate in (0.1, 0.3, 1.0):
        changed = augment(texts, ("noise",), rate, 7)
        shares[rate] = {i for i, (a, b) in enumerate(zip(texts, changed, strict=True)) if a != b}
        spread = 4 * (rate * (1 - rate) * len(texts)) ** 0.5
        assert abs(len(shares[rate]) - rate * len(texts)) <= spread
    assert shares[0.1] < shares[0.3] < shares[1.0]
    assert augment(texts, ("noise",), 0.3, 7) != augment(texts, ("noise",), 0.3, 8)


def test_what_no_kind_can_change_stays(comments: list[str]) -> None:
    assert augment(["傻瓜", "12 34", ""], ("noise", "identity", "contraction"), 1.0, 0) == ["傻瓜", "12 34", ""]
    found = [variants("nobody says a word", ("identity", "swap"), 1.0, seed)[0].kind for seed in range(10)]
    assert set(found) == {"swap"}


def test_copies_differ_and_are_of_different_kinds() -> None:
    kinds = resolve_kinds(["noise"])
    for seed in range(20):
        made = variants(EXAMPLE, kinds, 1.0, seed, copies=5)
        assert [copy.number for copy in made] == [1, 2, 3, 4, 5]
        assert {copy.kind for copy in made} == set(kinds)
        assert len({EXAMPLE, *(copy.text for copy in made)}) == 6
    assert variants(EXAMPLE, (), 1.0, 0) == []


def test_a_copy_is_never_longer_than_a_comment_may_be() -> None:
    text = "shout " * (MAX_FIELD_CHARACTERS // 6)
    assert variants(text, ("negation",), 1.0, 0) == []
    assert augment([text], ("negation",), 1.0, 0) == [text]


def test_kinds_and_families() -> None:
    assert resolve_kinds(()) == tuple(KINDS)
    assert resolve_kinds(("leet", "noise", "swap")) == (*FAMILIES["noise"], "leet")
    assert {kind for family in FAMILIES.values() for kind in family} | {"identity"} == set(KINDS)
    with pytest.raises(SettingsError, match="homoglyf") as caught:
        resolve_kinds(["homoglyf"])
    assert "'homoglyph'" in caught.value.remedy
    for rate, intensity in ((-0.1, 0.2), (1.1, 0.2), (0.5, 0.0), (float("nan"), 0.2)):
        with pytest.raises(ValueError, match="rate must be"):
            augment(["a"], (), rate, 0, intensity=intensity)


@pytest.mark.parametrize("kind", PER_WORD)
@pytest.mark.parametrize("intensity", [0.2, 1.0])
def test_noise_stays_readable(comments: list[str], kind: str, intensity: float) -> None:
    """A share of the words is changed, each by a bounded edit distance, its first letter never."""
    for number, text in enumerate(comments):
        changed = KINDS[kind](text, rng(number), intensity)
        pairs = list(zip(text.split(), changed.split(), strict=True))
        touched = [(a, b) for a, b in pairs if a != b]
        assert 1 <= len(touched) <= max(1, round(intensity * len(re.findall(r"[^\W\d_]{3,}", text))))
        for before, after in touched:
            bound = PER_WORD[kind] * len(re.findall(r"[^\W\d_]{3,}", before))
            assert 1 <= distance(before, after) <= bound, (before, after)
            assert re.sub(r"\W", "", before)[0] == re.sub(r"\W", "", after)[0]


def test_disguises_can_be_read_back(comments: list[str]) -> None:
    shapes = {sign: letter for letter, signs in LEET.items() for sign in signs}
    back = {cyrillic: latin for latin, cyrillic in HOMOGLYPHS.items()}
    assert all("\u0400" <= cyrillic <= "\u052f" and latin.isascii() for cyrillic, latin in back.items())
    for number, text in enumerate(comments):
        leet = KINDS["leet"](text, rng(number), 0.5)
        assert len(leet) == len(text)
        assert all(a == b or shapes.get(b) == a.lower() for a, b in zip(text, leet, strict=True))
        homoglyph = KINDS["homoglyph"](text, rng(number), 0.5)
        assert homoglyph != text
        assert "".join(back.get(letter, letter) for letter in homoglyph) == text
        spaced = KINDS["spacing"](text, rng(number), 0.5)
        signs = str.maketrans("", "", "".join(SEPARATORS))
        assert spaced != text
        assert spaced.translate(signs) == text.translate(signs)
        hidden = KINDS["zero_width"](text, rng(number), 0.5)
        assert hidden != text
        assert hidden.translate(str.maketrans("", "", "".join(ZERO_WIDTH))) == text


@pytest.mark.parametrize("kind", [*FAMILIES["noise"], *FAMILIES["obfuscation"], "casing"])
def test_a_tokenizer_sees_the_change(comments: list[str], kind: str) -> None:
    """The shipped tokenizer drops zero-width characters and case, as docs/augment.md says; others do not."""
    shipped, bytewise = Tokenizer.from_file(str(tokenizer_path())), roberta_tokenizer()
    for number, text in enumerate(comments):
        changed = KINDS[kind](text, rng(number), 0.2)
        assert bytewise.encode(changed).ids != bytewise.encode(text).ids
        seen = shipped.encode(changed).ids != shipped.encode(text).ids
        assert seen is (kind not in INVISIBLE), (text, changed)


def canonical(text: str) -> str:
    """Return the text with every short form written out."""
    for form, others in sorted(FORMS.items(), key=lambda pair: -len(pair[0])):
        if "'" in form:
            for short in {form, *(other for other in others if " " not in other and other != "cannot")}:
                text = re.sub(rf"\b{re.escape(short)}\b", others[0], text, flags=re.IGNORECASE)
    return text.lower().replace("can not", "cannot")


def test_contractions_mean_the_same() -> None:
    text = "I am sure you don't, we will not, they can not, I've seen that you are, IT WILL, he cannot"
    seen = set()
    for seed in range(100):
        changed = KINDS["contraction"](text, rng(seed), 0.5)
        seen.add(changed)
        assert canonical(changed) == canonical(text)
    assert len(seen) > 50
    assert KINDS["contraction"]("I'd say it's well, we were ill", rng(), 1.0) == "I'd say it's well, we were ill"
    assert KINDS["contraction"]("You’re", rng(), 1.0) == "You are"
    assert KINDS["contraction"]("THEY WILL", rng(), 1.0) == "THEY'LL"


def test_a_frame_leaves_the_comment_whole_and_negates_something_else() -> None:
    frames = set()
    for seed in range(200):
        changed = KINDS["negation"]("you fool", rng(seed), 0.2)
        assert "you fool" in changed
        frames.add(changed.replace("you fool", "").removeprefix(". "))
    assert frames == {*BEFORE, *AFTER}
    assert any(KINDS["negation"]("why?", rng(seed), 0.2).startswith("why? N") for seed in range(20))
    assert KINDS["negation"](" ", rng(), 0.2) == " "


@pytest.mark.parametrize("intensity", [0.2, 1.0])
def test_swapped_words_are_the_same_words_and_negators_stay(comments: list[str], intensity: float) -> None:
    moved = 0
    for number, text in enumerate([*comments, *[EXAMPLE] * 20]):
        before = text.split()
        after = KINDS["word_swap"](text, rng(number), intensity).split()
        moved += before != after
        assert sorted(before) == sorted(after)
        for a, b in zip(before, after, strict=True):
            if a.lower() in NEGATORS or a.lower().endswith("n't"):
                assert a == b
    assert moved > len(comments) / 2


def test_only_function_words_are_deleted(comments: list[str]) -> None:
    assert not FUNCTION_WORDS & NEGATORS
    shorter = 0
    for number, text in enumerate([*comments, *[EXAMPLE] * 20]):
        before = text.split()
        after = KINDS["word_delete"](text, rng(number), 0.5).split()
        shorter += len(after) < len(before)
        left = iter(before)
        for word in after:
            skipped = next(up_to(left, word))
            assert all(gone.lower() in FUNCTION_WORDS for gone in skipped)
        assert all(gone.lower() in FUNCTION_WORDS for gone in left)
    assert shorter > len(comments) / 2
    assert KINDS["word_delete"]("the", rng(), 1.0) == "the"


def up_to(words: Any, wanted: Any) -> Iterator[Any]:
    """Yield once, with the words before the wanted one."""
    skipped: list[Any] = []
    for word in words:
        if word == wanted:
            yield skipped
            return
        skipped.append(word)
    raise AssertionError(f"{wanted!r} was not among the words")


def class_of(term: str) -> IdentityClass:
    return next(group for group in CLASSES if any(term in form for form in group.forms))


def test_identity_terms_stay_in_their_class_and_apart() -> None:
    text = "Christians and Muslims, a Muslim and an American: gay or lesbian, black men, OLD PEOPLE"
    seen = set()
    for seed in range(200):
        changed = identity(text, rng(seed), 0.2)
        before, after = (re.findall(r"[\w-]+", part) for part in (text, changed))
        for a, b in zip(before, after, strict=True):
            if a.lower() in ("and", "or", "people", "a", "an"):
                assert b.lower() in ("and", "or", "people", "a", "an")
            else:
                assert a != b
                assert class_of(a.lower()) is class_of(b.lower())
                assert a.isupper() == b.isupper()
                assert a[0].isupper() == b[0].isupper()
        assert after[0].lower().removesuffix("s") != after[2].lower().removesuffix("s")
        plural, singular = after[2].lower(), after[4].lower()
        religions = CLASSES[0].forms
        assert religions[1].index(plural) == religions[0].index(singular)
        for article, term in re.findall(r"\b(an?) (\w+)", changed):
            assert article == ("an" if term[0].lower() in "aeiou" and term != "European" else "a")
        seen.add(changed)
    assert len(seen) > 100


@pytest.mark.parametrize(
    "text", ["the white house is an old house", "come on man", "that is so nice of her", "a deaf ear", "chrıstian"]
)
def test_words_with_other_meanings_are_left_alone(text: str) -> None:
    assert all(identity(text, rng(seed), 0.2) == text for seed in range(20))


def test_same_case() -> None:
    assert [same_case(pattern, "word") for pattern in ("old", "Old", "OLD", "I", "don't")] == [
        *("word", "Word", "WORD", "Word", "word")
    ]


@given(st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=12))
@hypothesis_settings(max_examples=60)
def test_a_digest_set_is_a_set(batches: Any) -> None:
    found, expected = DigestSet(), set()
    for batch in batches:
        digests = np.array(batch, dtype=np.uint64)
        assert found.contains(digests).tolist() == [value in expected for value in batch]
        found.add(digests)
        expected |= set(batch)
    everything = np.arange(60, dtype=np.uint64)
    assert set(everything[found.contains(everything)].tolist()) == expected


def test_the_documents_table_shows_what_the_operators_do() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    shown = {kind: text for kind, text in rows if kind in KINDS}
    assert f"> {EXAMPLE}" in DOCS.read_text(encoding="utf-8")
    made = {kind: operator(EXAMPLE, rng(), 0.2) for kind, operator in KINDS.items()}
    made["zero_width"] = re.sub(
        "[" + "".join(ZERO_WIDTH) + "]", lambda mark: f"\\u{ord(mark[0]):04x}", made["zero_width"]
    )
    assert shown == {kind: text.replace("*", "\\*").replace("_", "\\_") for kind, text in made.items()}


def test_augment_needs_no_torch(pytestconfig: Any) -> None:
    code = "import sys; from gkiller.data.augment import augment; augment(['you fool'], (), 1.0, 0); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, check=False).returncode == 0
