from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.data.labels import CLASS_NAMES, UNKNOWN, LabelReader, canonical_name


@pytest.mark.parametrize("value", [0, 0.0, False, "0", " 0 ", "0.0", np.int8(0), "false", "Non-Toxic", "NO"])
def test_negative_spellings(value):
    assert LabelReader(0.5).read(value) == 0


@pytest.mark.parametrize(
    "value", [1, 1.0, True, "1", "1.0", np.float32(1), Decimal(1), "TRUE", "toxic", "yes"]
)
def test_positive_spellings(value):
    assert LabelReader(0.5).read(value) == 1


@pytest.mark.parametrize("value", [None, "", " ", math.nan, "NaN", "null", "n/a", -1, "-1", -1.0])
def test_unknown_spellings(value):
    assert LabelReader(0.5).read(value) == UNKNOWN


@pytest.mark.parametrize(
    "value", [2, -0.1, 1.0001, "2", "maybe", "1_0", "0x1", math.inf, "inf", [1], {"a": 1}, 10**400]
)
def test_other_values_are_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011
        LabelReader(0.5).read(value)


@given(st.floats(0, 1), st.floats(0.001, 1))
def test_scores_are_cut(score, cutoff):
    reader = LabelReader(cutoff)
    assert reader.read(score) == int(score >= cutoff)
    assert reader.read(str(score)) == int(score >= cutoff)
    assert reader.scores == (0 < score < 1)


def test_kind_tells_what_was_seen():
    reader = LabelReader(0.5)
    reader.read(1)
    assert reader.kind == "0/1"
    reader.read("Toxic")
    reader.read("not toxic")
    assert reader.kind == "class names"
    assert reader.class_names == {"toxic": 1, "not toxic": 0}
    reader.read(0.25)
    assert reader.kind == "score"


def test_many_different_scores_do_not_pile_up():
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
def test_canonical_names(column, label):
    assert canonical_name(column) == label


def test_class_names_are_lower_case():
    assert all(name == name.lower() for name in CLASS_NAMES)
