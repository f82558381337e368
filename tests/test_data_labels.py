from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data.labels import CLASS_NAMES, MOST_CLASSES, UNKNOWN, LabelReader, canonical_name


@pytest.mark.parametrize("value", [0, 0.0, False, "0", " 0 ", "0.0", np.int8(0), "false", "Non-Toxic", "NO"])
def test_negative_spellings(value: Any) -> None:
    assert LabelReader(0.5).read(value) == 0


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", np.float32(1), Decimal(1), "TRUE", "toxic", "yes"])
def test_positive_spellings(value: Any) -> None:
    assert LabelReader(0.5).read(value) == 1


@pytest.mark.parametrize("value", [None, "", " ", math.nan, "NaN", "null", "n/a", -1, "-1", -1.0])
def test_unknown_spellings(value: float | str | None) -> None:
    assert LabelReader(0.5).read(value) == UNKNOWN


@pytest.mark.parametrize(
    "value", [2, -0.1, 1.0001, "2", "maybe", "1_0", "0x1", math.inf, "inf", [1], {"a": 1}, 10**400]
)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        LabelReader(0.5).read(value)


@given(st.floats(0, 1), st.floats(0.001, 1))
def test_scores_are_cut(score: Any, cutoff: Any) -> None:
    reader = LabelReader(cutoff)
    assert reader.read(score) == int(score >= cutoff)
    assert reader.read(str(score)) == int(score >= cutoff)
    assert reader.scores == (0 < score < 1)


def test_kind_tells_what_was_seen() -> None:
    reader = LabelReader(0.5)
    reader.read(1)
    assert reader.kind == "0/1"
    reader.read("Toxic")
    reader.read("not toxic")
    assert reader.kind == "class names"
    assert reader.class_names == {"toxic": 1, "not toxic": 0}
    reader.read(0.25)
    assert reader.kind == "score"


def test_many_different_scores_do_not_pile_up() -> None:
    reader = LabelReader(0.5)
    for i in range(20_000):
        reader.read(i / 20_000)
    assert len(reader._known) <= 4096


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("toxic", "toxicity"),
        ("Severe_Toxic", "severe_toxicity"),
        ("identity_hate", "identity_attack"),
        ("threat", "threat"),
        ("spam", "spam"),
    ],
)
def test_canonical_names(column: str, label: str) -> None:
    assert canonical_name(column) == label


def test_class_names_are_lower_case() -> None:
    assert all(name == name.lower() for name in CLASS_NAMES)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("hate", 1),
        (" HATE ", 1),
        ("off_topic", 1),
        ("normal", 0),
        ("toxic", 0),
        ("yes", 0),
        ("1_0", 0),
        (1, 1),
        ("0", 0),
        (0.25, 0),
        ("0.75", 1),
        (True, 1),
        *[(unknown, UNKNOWN) for unknown in (None, "", "NaN", "n/a", "none", -1, "-1", math.nan)],
    ],
)
def test_named_positive_classes(value: Any, code: int) -> None:
    assert LabelReader(0.5, ("Hate", "off_topic")).read(value) == code


@pytest.mark.parametrize("value", [2, "3", math.inf, [1], {"a": 1}])
def test_named_classes_leave_numbers_as_they_are(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        LabelReader(0.5, ("hate",)).read(value)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0, 1), ("0", 1), ("0.0", 1), (2.0, 1), ("2", 1), (1, 0), ("1", 0), (5, 0), ("x", 0), (-1, UNKNOWN)],
)
def test_numbers_can_be_class_names(value: float | str, code: int) -> None:
    assert LabelReader(0.5, ("0", "2")).read(value) == code


def test_unknown_spellings_can_be_named() -> None:
    assert LabelReader(0.5, ("none",)).read("None") == 1
    assert LabelReader(0.5, ("-1",)).read(-1) == 1


def test_class_names_are_remembered_and_missed() -> None:
    reader = LabelReader(0.5, ("hate", "2"))
    for value in ("Hate", 1, "normal"):
        reader.read(value)
    assert reader.class_names == {"hate": 1, "1": 0, "normal": 0}
    assert (reader.met("HATE"), reader.met("2.0"), reader.met("1.0")) == (True, False, True)
    assert reader.kind == "class names"


def test_a_column_of_free_text_is_no_column_of_classes() -> None:
    reader = LabelReader(0.5, ("hate",))
    for i in range(MOST_CLASSES):
        assert reader.read(f"word {i}") == 0
    with pytest.raises(ValueError, match="one more"):
        reader.read("one more")
    assert reader.read("word 1") == 0
    assert reader.read("hate") == 1


@given(st.text(), st.lists(st.text(), max_size=3))
def test_every_text_is_a_class_or_refused(value: Any, names: Any) -> None:
    reader = LabelReader(0.5, names)
    try:
        assert reader.read(value) in (0, 1, UNKNOWN)
    except ValueError:
        assert not names or any(letter.isdigit() for letter in value)
