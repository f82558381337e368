"""Characters that show nothing, and runs that are displayed in reverse: one reading for every tokenizer."""

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from toy import toy_tokenizer

from gkiller.assets import default_model_path
from gkiller.tokens.batches import tokenize
from gkiller.tokens.encoding import Encoder
from gkiller.tokens.visible import visible, visible_places
from gkiller.tokens.wordpiece import parse_tokenizer

TOKENIZER = (default_model_path() / "tokenizer.json").read_text("utf-8")
ENCODER = Encoder(TOKENIZER, "default", 128)
SAME = parse_tokenizer(TOKENIZER, "default", 4096)

RANGES = """
00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202D 2060-2066 2068-206F 2800 3164 FE00-FE0F FEFF
FFA0 FFF0-FFFB 1BCA0-1BCA3 1D159 1D173-1D17A E0000-E0FFF 0305 030D-030E 0332-0337 0339-033F 0346-0357
0359-036F 0488-0489 1AB0-1ACE 1DC0-1DFF 20D0-20F0 FE20-FE2F 0001-0008 0080-0084 0890-0891 08E2 110CD
13430-1343F 16FE4 1CF00-1CF46
"""
BOUNDS = [[int(end, 16) for end in part.split("-")] for part in RANGES.split()]
UNSEEN = [chr(code) for bound in BOUNDS for code in range(bound[0], bound[-1] + 1)]
unseen = st.sampled_from(BOUNDS).flatmap(lambda bound: st.integers(bound[0], bound[-1])).map(chr)
DIRECTIONS = st.sampled_from("ab \n\u202d\u202e\u202c\u2066\u2067\u2069א\u0301")
ANY = st.text(st.one_of(st.characters(), DIRECTIONS), max_size=40)
WORDS = st.sampled_from(["idiot", "you idiot", "1d10t", "y0u are $tupid", "i.d.i.o.t", "so naïve", "2nd"])


@given(WORDS, st.lists(st.tuples(st.integers(0, 20), st.lists(unseen, min_size=1, max_size=3)), max_size=8))
@example("idiot", [(2, ["\u3164"])])
def test_invisible_characters_are_read_as_if_absent(text: Any, inserted: Any) -> None:
    made = text
    for place, characters in inserted:
        made = made[:place] + "".join(characters) + made[place:]
    assert ENCODER.ids(made) == ENCODER.ids(text)
    assert visible(made) == text


@pytest.mark.parametrize("character", ["\u3164", "\u115f", "\u1160", "\uffa0", "\u2800", "\u0488", "\u20dd", "\0"])
def test_an_invisible_character_at_every_place_of_a_word(character: str) -> None:
    for place in range(6):
        assert ENCODER.ids("you " + "idiot"[:place] + character + "idiot"[place:]) == ENCODER.ids("you idiot")


def test_all_of_unicode_s_default_ignorable_code_points_are_left_out() -> None:
    unassigned_too = [c for c in UNSEEN if unicodedata.category(c) in ("Cf", "Cn")]
    assert len(unassigned_too) > 3000
    assert visible("a" + "".join(UNSEEN) + "b") == "ab"


@pytest.mark.parametrize(
    "text",
    [
        "Thumbs 👍🏽, a family 👨\u200d👩\u200d👧, a ❤\ufe0f and a 🏳\ufe0f\u200d🌈",
        "naïve nai\u0308ve tie\u0302\u0301ng e\u0329",
        "שָׁלוֹם وَسَلَام مرحبا हिन्दी 한국어 中文",
        "tabs\tand\nlines\r\n and\u00a0spaces\u3000\u2003",
        "x ≠ y, x \u003d\u0338 y",
    ],
)
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_of_a_stack_of_marks_two_are_left() -> None:
    assert visible("a\u0301\u0302\u0303\u0304\u0336b") == "a\u0301\u0302b"


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("you \u202etoidi\u202c!", "you idiot!"),
        ("\u202etoidi na era uoy", "you are an idiot"),
        ("\u202eeno\ntwo", "eno"[::-1] + "\ntwo"),
        ("you \u202eto\u202didi\u202c\u202c", "you idiot"),
        ("\u202eto\u202eidi\u202c\u202c", "idiot"),
        ("\u2067\u2066ot\u2069\u2066idi\u2069\u2069!", "idiot!"),
        ("\u2067an idiot\u2069", "an idiot"),
        ("\u202ee\u0301a", "ae\u0301"),
        ("\u202e1 שלום 2", "2 שלום 1"),
        ("\u202c\u2069a\u202c", "a"),
    ],
)
def test_reversed_runs_are_undone(written: str, seen: str) -> None:
    assert visible(written) == seen


@given(ANY)
def test_places_are_those_of_the_characters(text: Any) -> None:
    seen, places = visible_places(text)
    assert seen == visible(text)
    assert seen == "".join(text[place] for place in places)
    assert len(set(places)) == len(places)
    assert visible(seen) == seen or set("\u0338\u200d\ufe0f") & set(seen) or re.search("[\u0300-\u036f]{2}", seen)


@given(st.one_of(ANY, WORDS))
@example("you id\u3164iot")
def test_networks_are_trained_and_measured_on_what_users_get(text: Any) -> None:
    text = re.sub("[\ud800-\udfff]", "", text)
    [row] = [tokenize(SAME, [text]).ids.tolist()]
    assert row[1:-1] == ENCODER.ids(text)[: len(row) - 2]


def test_words_know_their_place_in_the_comment() -> None:
    text = "You i\u3164di\u20ddot, \u202etoidi\u202c"
    words = Encoder(toy_tokenizer().to_str(), "toy", 16).words(text)
    assert [text[word.start : word.end] for word in words] == ["You", "i\u3164di\u20ddot", ",", "toidi"]
    assert words[1].ids == words[3].ids


@pytest.mark.parametrize("mark", ["\u202e", "\u2067", "\u2069", "\u202c", "\u202ea", "\u2067\u202e\u2069", "\u0301"])
def test_time_grows_with_the_length_alone(mark: str) -> None:
    """A square of this length would take hours."""
    assert len(visible(mark * 300_000)) <= 300_000
