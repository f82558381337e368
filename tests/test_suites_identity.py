"""The AUC variants by hand and by their properties, and which comments name which group."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from toy_corpora import comments

from gkiller.data.augment.operators import CLASSES, identity_groups
from gkiller.errors import ColumnError, EmptyDataError, SettingsError, SingleClassError
from gkiller.evaluation.identity import (
    AUCS,
    HEADLINE,
    IdentityBias,
    bias_aucs,
    column_terms,
    find_terms,
    measure_identity,
    named_groups,
    power_mean,
)
from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.suites import Contestant
from gkiller.scoring.scorers import Scorer
from gkiller.settings.definition import EvaluationSettings

QUICK = EvaluationSettings(resamples=40)
FEW = EvaluationSettings(resamples=10)


def model(name: str = "m", threshold: float = 0.5) -> Contestant:
    scorer = Scorer(name, ("toxicity",), lambda texts, progress: np.zeros((len(texts), 1)))
    return Contestant(scorer, "toxicity", threshold, "a test")


def measured(
    truth: list[Any] | np.ndarray[Any, Any],
    scores: list[Any],
    members: dict[str, Any],
    *,
    weights: Any = None,
    least: Any = 1,
    settings: Any = QUICK,
    threshold: Any = 0.5,
) -> IdentityBias:
    """Measure one model, or several when scores is a list of arrays."""
    each = [np.asarray(one, dtype=np.float64) for one in scores]
    models = [model(f"m{i}", threshold) for i in range(len(each))]
    found = comments(truth, weights)
    places = {name: np.flatnonzero(one) for name, one in members.items()}
    return measure_identity(found, "toxicity", models, each, places, settings, least=least)


# -- by hand ------------------------------------------------------------------------------------

# the first four name the group
TRUTH = [1, 1, 0, 0, 1, 1, 0, 0]
SCORES = [0.9, 0.4, 0.6, 0.2, 0.8, 0.6, 0.5, 0.1]
GROUP = [1, 1, 1, 1, 0, 0, 0, 0]
# Pairs, positive over negative:
#   subgroup: .9>.6 .9>.2 .4<.6 .4>.2                        3 of 4
#   BPSN, .8 and .6 over .6 and .2: 1, 1, a tie, 1          3.5 of 4
#   BNSP, .9 and .4 over .5 and .1: 1, 1, 0, 1               3 of 4
#   all: .9 over .6 .2 .5 .1: 4; .4 over .2 .1: 2; .8: 4; .6 over .2 .5 .1, a tie: 3.5


def test_the_three_aucs_of_a_group_by_hand() -> None:
    assert bias_aucs(TRUTH, SCORES, GROUP) == {"subgroup": 0.75, "bpsn": 0.875, "bnsp": 0.75}


def test_figures_of_a_model_by_hand() -> None:
    result = measured(TRUTH, [SCORES], {"one": GROUP})
    own = result.models[0]
    assert own.headline["auc"].value == 13.5 / 16
    assert own.headline["fpr"].value == 0.5  # .6 and .5 of four negatives reach 0.5
    assert own.terms["one"]["fpr"].value == 0.5
    assert {name: own.terms["one"][name].value for name in AUCS} == {"subgroup": 0.75, "bpsn": 0.875, "bnsp": 0.75}
    assert own.headline["bpsn"].value == pytest.approx(0.875)  # the mean of one
    assert (result.rows, result.positives) == (8, 4)
    assert [(len(one.rows), one.positives) for one in result.groups] == [(4, 2)]
    assert result.differences == ()


def test_a_background_of_nobody_leaves_its_aucs_undefined() -> None:
    found = bias_aucs([1, 0], [0.7, 0.2], [1, 1])
    assert found["subgroup"] == 1.0
    assert np.isnan([found["bpsn"], found["bnsp"]]).all()
    result = measured([1, 0], [[0.7, 0.2]], {"all": [1, 1]})
    figure = result.models[0].headline["bpsn"]
    assert (figure.value, figure.note) == (None, "undefined: a class is missing")
    json.dumps(result.as_dict(), allow_nan=False)


def test_power_mean_by_hand() -> None:
    assert power_mean(np.array([0.5, 1.0])) == pytest.approx(((2**5 + 1) / 2) ** (-1 / 5))
    assert power_mean(np.array([0.7])) == pytest.approx(0.7)
    assert power_mean(np.array([0.0, 1.0])) == 0.0
    assert np.isnan(power_mean(np.array([np.nan, 1.0])))
    table = power_mean(np.array([[0.5, 0.5], [0.2, 0.9]]))
    assert table[0] == pytest.approx(0.5)
    assert 0.2 < table[1] < 0.55  # nearer to the worst than the plain mean


def test_unknown_rows_and_rows_of_no_weight_do_not_count() -> None:
    plain = measured(TRUTH, [SCORES], {"one": GROUP})
    more = measured([*TRUTH, np.nan, 1], [[*SCORES, 0.99, 0.01]], {"one": [*GROUP, 1, 1]}, weights=[1] * 9 + [0])
    assert more.models[0].as_dict() == plain.models[0].as_dict()
    assert more.rows == 8


def test_a_weight_of_two_is_two_rows() -> None:
    weights = [1, 2, 1, 3, 2, 1, 1, 2]
    once = measured(TRUTH, [SCORES], {"one": GROUP}, weights=weights).models[0]
    many = [np.repeat(one, weights) for one in (TRUTH, SCORES, GROUP)]
    twice = measured(many[0], [many[1]], {"one": many[2]}).models[0]
    for name in AUCS:
        assert once.terms["one"][name].value == pytest.approx(twice.terms["one"][name].value)
    for name in HEADLINE:
        assert once.headline[name].value == pytest.approx(twice.headline[name].value)


def test_differences_are_paired_and_from_the_first() -> None:
    better = [0.9, 0.8, 0.3, 0.2, 0.8, 0.7, 0.3, 0.1]
    result = measured(TRUTH * 10, [SCORES * 10, better * 10], {"one": GROUP * 10})
    auc = result.differences[0].headline["auc"]
    assert (auc.a, auc.b) == (1.0, 13.5 / 16)
    assert auc.low > 0
    assert result.differences[0].terms["one"]["bnsp"].delta == 0.25
    same = measured(TRUTH * 10, [SCORES * 10, SCORES * 10], {"one": GROUP * 10}).differences[0]
    assert {(one.delta, one.low, one.high) for one in same.headline.values()} == {(0.0, 0.0, 0.0)}


def test_intervals_depend_on_the_seed_alone_and_hold_the_figure() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(300) < 0.4).astype(int)
    scores = np.clip(0.3 * truth + 0.7 * rng.random(300), 0, 1)
    members = {"a": rng.random(300) < 0.3, "b": rng.random(300) < 0.3}
    one, again = (measured(truth, [scores], members).as_dict() for _ in range(2))
    assert one == again
    other = measured(truth, [scores], members, settings=EvaluationSettings(resamples=40, bootstrap_seed=1))
    assert other.as_dict()["models"] != one["models"]
    for figure in one["models"][0]["headline"].values():
        assert figure["low"] < figure["value"] < figure["high"]
        assert figure["defined"] == 40


def test_small_groups_are_left_out_and_the_worst_comes_first() -> None:
    scores = [*SCORES, 0.1, 0.9]
    truth = [*TRUTH, 1, 0]
    members = {
        "good": [0, 0, 0, 0, 1, 1, 1, 1, 0, 0],
        "tiny": [1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "bad": [1, 1, 0, 0, 0, 0, 0, 0, 1, 1],
        "none": [0] * 10,
    }
    result = measured(truth, [scores], members, least=2)
    assert [one.term for one in result.groups] == ["good"]
    assert result.left_out == {"tiny": 2, "bad": 4, "none": 0}
    result = measured(truth, [scores], members)
    assert result.groups[0].term == "bad"
    with pytest.raises(SingleClassError, match=r"each of 4 identity terms .* fewer than 9 positives"):
        measured(truth, [scores], members, least=9)


@pytest.mark.parametrize(("truth", "said"), [([1] * 4, "no comment is negative"), ([0] * 4, "is positive")])
def test_one_class_is_refused(truth: list[int], said: str) -> None:
    with pytest.raises(SingleClassError, match=said) as caught:
        measured(truth, [[0.1, 0.2, 0.3, 0.4]], {"one": [1, 1, 0, 0]})
    assert caught.value.exit_code == 16


# -- properties ---------------------------------------------------------------------------------

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.booleans()), min_size=2, max_size=40)


def parted(
    table: list[tuple[bool, int, bool]],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    truth, scores, members = (np.array(column) for column in zip(*table, strict=True))
    return truth.astype(int), scores / 12, members


def masked_auc(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> float:
    """ROC-AUC of some rows, by the code that evaluates models."""
    return label_figures(np.where(kept, truth, np.nan), scores)["roc_auc"]


@given(rows)
@hypothesis_settings(deadline=None)
def test_the_aucs_are_those_of_the_rows_that_define_them(table: Any) -> None:
    truth, scores, members = parted(table)
    found = bias_aucs(truth, scores, members)
    expected = {
        "subgroup": masked_auc(truth, scores, members),
        "bpsn": masked_auc(truth, scores, members ^ (truth == 1)),
        "bnsp": masked_auc(truth, scores, members ^ (truth == 0)),
    }
    assert found == pytest.approx(expected, nan_ok=True)
    assert all(np.isnan(value) or 0 <= value <= 1 for value in found.values())


@given(rows, st.sampled_from([np.sqrt, np.square, lambda s: s / (2 - s), lambda s: 0.25 + s / 2]))
@hypothesis_settings(deadline=None)
def test_a_rising_transform_of_the_scores_changes_no_auc(table: Any, rising: Any) -> None:
    truth, scores, members = parted(table)
    assert bias_aucs(truth, rising(scores), members) == pytest.approx(bias_aucs(truth, scores, members), nan_ok=True)


@given(rows)
@hypothesis_settings(deadline=None)
def test_scores_upside_down_give_the_rest_to_one(table: Any) -> None:
    truth, scores, members = parted(table)
    up, down = bias_aucs(truth, scores, members), bias_aucs(truth, 1 - scores, members)
    for name in AUCS:
        assert down[name] == pytest.approx(1 - up[name], nan_ok=True)


@given(rows)
@hypothesis_settings(deadline=None)
def test_the_background_s_bpsn_is_the_group_s_bnsp(table: Any) -> None:
    truth, scores, members = parted(table)
    assert bias_aucs(truth, scores, ~members)["bpsn"] == pytest.approx(
        bias_aucs(truth, scores, members)["bnsp"], nan_ok=True
    )


@given(rows, st.lists(st.sampled_from([1e-12, 1e-3, 1.0, 7.0, 1e12]), min_size=40, max_size=40))
@hypothesis_settings(deadline=None)
def test_figures_of_any_weights_are_shares(table: Any, weights: Any) -> None:
    truth, scores, members = parted(table)
    assume(0 < truth.sum() < len(truth) and members.any())
    try:
        result = measured(
            truth, [scores], {"g": members}, weights=weights[: len(truth)], settings=EvaluationSettings(resamples=10)
        )
    except SingleClassError:
        assume(False)
    own = result.models[0]
    for figure in (*own.headline.values(), *own.terms["g"].values()):
        for value in (figure.value, figure.low, figure.high):
            assert value is None or 0 <= value <= 1


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_a_power_mean_lies_between_the_worst_and_the_plain_mean(values: Any) -> None:
    mean = float(power_mean(np.array(values)))
    assert min(values) * (1 - 1e-12) <= mean <= np.mean(values) * (1 + 1e-12)


# -- terms --------------------------------------------------------------------------------------


def test_terms_stand_between_word_boundaries_in_any_case() -> None:
    texts = ["A GAY man", "gaya", "so-gay!", "muslims, jews", "_gay", "ein Müller", "", "gay gay"]
    found = find_terms(texts, named_groups(["gay", "Muslims", "Müller"]))
    assert {name: rows.tolist() for name, rows in found.items()} == {"gay": [0, 2, 7], "muslims": [3], "müller": [5]}


def test_the_longest_term_counts_and_gaps_are_alike() -> None:
    texts = ["an african  american", "an African-American", "an african", "american and african american"]
    found = find_terms(texts, named_groups(["african", "american", "african american"]))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "african": [2],
        "american": [3],
        "african american": [0, 1, 3],
    }


def test_the_default_terms_are_those_that_are_swapped_and_more() -> None:
    groups = identity_groups()
    forms = [form for forms in groups.values() for form in forms]
    assert len(forms) == len(set(forms))
    swapped = {term for one in CLASSES for form in one.forms for term in form}
    assert swapped < set(forms)
    assert groups["muslim"] == ("muslim", "muslims")
    assert all(form == form.lower() for form in forms)
    texts = ["he is muslim", "two Muslims", "middle aged", "middle-aged", "non-binary", "a chrıstian"]
    found = find_terms(texts, named_groups([]))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "muslim": [0, 1],
        "middle-aged": [2, 3],
        "nonbinary": [4],
    }


def test_no_term_anywhere_is_refused() -> None:
    with pytest.raises(EmptyDataError, match="none of 1 identity term stands in any of 2 comments") as caught:
        find_terms(["a", "b"], named_groups(["gay"]))
    assert "--term-column" in caught.value.remedy
    with pytest.raises(SettingsError, match="is no term"):
        named_groups([" - "])


def test_a_column_names_the_groups() -> None:
    found = column_terms("who", ["gay", None, "", ["gay", "muslim", "gay"], "Muslim"])
    assert {name: rows.tolist() for name, rows in found.items()} == {"gay": [0, 3], "muslim": [3], "Muslim": [4]}
    with pytest.raises(EmptyDataError, match="no comment has an identity term"):
        column_terms("who", [None, ""])
    with pytest.raises(ColumnError, match="3 is no identity term"):
        column_terms("who", ["gay", 3])
    with pytest.raises(ColumnError, match="501 different values"):
        column_terms("who", [str(i) for i in range(501)])


def test_everything_becomes_plain_values() -> None:
    result = measured(TRUTH * 5, [SCORES * 5] * 2, {"one": GROUP * 5})
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["power"] == -5.0
    assert plain["terms"] == {"one": {"n": 20, "positives": 10}}
    assert set(plain["models"][0]["terms"]["one"]) == {*AUCS, "fpr"}
    assert plain["differences"][0]["name"] == "m1"
    assert plain["resamples"] == 40
