"""Proposals for misspelt words: near ones are made, far ones give way to the list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.wording import closeness, counted, did_you_mean, nearest

COLUMNS = ["id", "comment_text", "score", "toxic", "severe_toxic", "threat", "identity_hate", "tf", "label"]
FEW = ["id", "text", "score", "tf"]


@pytest.mark.parametrize(
    ("word", "valid", "best"),
    [
        ("coment_text", COLUMNS, "comment_text"),
        ("coment", COLUMNS, "comment_text"),
        ("Comment", COLUMNS, "comment_text"),
        ("text", COLUMNS, "comment_text"),
        ("txt", FEW, "text"),
        ("scroe", FEW, "score"),
        ("ids", FEW, "id"),
        ("toxicity", COLUMNS, "toxic"),
        ("tox", COLUMNS, "toxic"),
        ("severe", COLUMNS, "severe_toxic"),
        ("hate", COLUMNS, "identity_hate"),
        ("thraet", COLUMNS, "threat"),
        ("lables", COLUMNS, "label"),
        ("validation", ["train", "valid", "test"], "valid"),
        ("eval", ["data", "train", "evaluate"], "evaluate"),
        ("AP", ["ap", "f1"], "ap"),
    ],
)
def test_good_proposals(word: str, valid: list[str], best: str) -> None:
    assert nearest(word, valid, 1) == [best]
    assert did_you_mean(word, valid).startswith(f"did you mean {best!r}")


@pytest.mark.parametrize("word", ["coment", "wt", "weight", "tweet", "body", "hate", "toxicity", "user", "w", ""])
def test_a_poor_proposal_gives_way_to_the_list(word: str) -> None:
    assert nearest(word, FEW) == []
    assert did_you_mean(word, FEW) == "valid are: id, text, score, tf"


def test_the_best_comes_first_and_its_spelling_is_kept() -> None:
    assert nearest("toxic", ["severe_toxic", "Toxic", "toxicity"]) == ["Toxic", "severe_toxic", "toxicity"]
    assert nearest("toxic", ["severe_toxic", "Toxic", "toxicity"], 1) == ["Toxic"]
    assert nearest("x", []) == []


@given(st.text(max_size=30), st.text(max_size=30))
def test_closeness_is_a_share(word: Any, valid: Any) -> None:
    assert 0 <= closeness(word, valid) <= 1
    assert closeness(word, word) == 1


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (1200, "1,200 rows")])
def test_counted(count: int, text: str) -> None:
    assert counted(count, "row") == text
    assert counted(1, "index", "indices") == "1 index"
    assert counted(2, "index", "indices") == "2 indices"
