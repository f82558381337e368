"""Disguised writing that a tokenizer undoes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, normalizers

from gkiller.data.augment import operators as letters
from gkiller.tokens import visible as disguises
from gkiller.tokens.visible import READINGS, may_be_disguised

NORMALIZER = normalizers.Sequence(
    [normalizers.Replace(Regex(pattern), letters_read) for pattern, letters_read in READINGS]
)
SIGNS = st.text(st.sampled_from("aBs @$!01345679.-*_,'\n~"), max_size=16)


def read(text: str) -> str:
    return NORMALIZER.normalize_str(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5tup1d", "stupid"),
        ("y0u $tupid cl0wn", "you stupid clown"),
        ("@ss @$$ 4ss b4d", "ass ass ass bad"),
        ("Sh!t, st0p!", "Shit, stop!"),
        ("N00B l0l 1d10t", "NooB lol idiot"),
        ("tha7 ar3", "that are"),
        ("f.o.o.l f-o-o-l f*o*o*l F_O_O_L", "fool fool fool FOOL"),
        ("you f o o l!", "you fool!"),
        ("u.s.a. mp3", "usa. mpe"),
    ],
)
def test_what_is_undone(written: str, meant: str) -> None:
    assert may_be_disguised(written)
    assert read(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The 1st, 2nd, 3rd and 4th of 1990s at 5pm, 10am: 3, 455 and 1,500 m.",
        "No! Stop!! 100% of $500 @tom @ 5",
        "e.g. this, i.e. that, a-b, u r a fool, I don't",
        "x.y-z a - b - c",
        "ab.c.d 1.a.b",
        "It's a b c's",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert read(text) == text


@given(SIGNS)
@example("b!1")
@example("@$$")
@example("a b c d")
def test_what_is_called_plain_is_left_alone_in_every_part(text: Any) -> None:
    if may_be_disguised(text):
        return
    for start in range(len(text)):
        for end in range(start, len(text) + 1):
            assert read(text[start:end]) == text[start:end]


@given(st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz BIT'.,"), max_size=40))
def test_ordinary_words_are_left_alone(text: Any) -> None:
    spaced = disguises.READINGS[-1]
    signs = normalizers.Sequence(
        [normalizers.Replace(Regex(pattern), to) for pattern, to in READINGS if (pattern, to) != spaced]
    )
    assert signs.normalize_str(text) == text


def test_most_of_what_the_augmentation_hides_is_found() -> None:
    text = "they called somebody there most ridiculous clown, nothing besides"
    found = words = 0
    for seed in range(100):
        assert read(letters.spacing(text, np.random.default_rng(seed), 0.1)) == text
        hidden = letters.leet(text, np.random.default_rng(seed), 1.0)
        pairs = [
            (meant, read(hidden).split()[place])
            for place, (meant, made) in enumerate(zip(text.split(), hidden.split(), strict=True))
            if made != meant
        ]
        words += len(pairs)
        found += sum(meant == made for meant, made in pairs)
    assert found / words > 0.9


def test_the_signs_of_the_augmentation_are_read() -> None:
    assert disguises.LEET == letters.LEET
    assert set(letters.SEPARATORS) == {" ", *disguises.MARKS}


def test_time_grows_with_the_length_alone() -> None:
    """Each pattern matches within a few characters: no repetition without a bound is in any."""
    for pattern, _ in READINGS:
        assert "+" not in pattern
        assert "*" not in pattern.replace(r"\*", "")
