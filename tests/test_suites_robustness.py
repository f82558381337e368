"""Robustness: scorers whose loss is known, pairs, and what is resampled."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_corpora import comments

from gkiller.data.augment import augment
from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import Labelled
from gkiller.errors import ScoreRangeError, SettingsError, SingleClassError
from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.robustness import MEAN, EqualFpr, Robustness, measure_robustness
from gkiller.evaluation.suites import Contestant
from gkiller.scoring.scorers import Scorer
from gkiller.settings.definition import AugmentSettings, EvaluationSettings
from gkiller.storage.strict_json import plain

QUICK = EvaluationSettings(resamples=50)
RUDE = "you are an utter idiot today"
CALM = "thank you for the careful edit"


def toy(count: int = 40) -> Labelled:
    """Half rude, half calm, all different."""
    texts = [f"{RUDE if i % 2 else CALM} {i}" for i in range(count)]
    labels = np.array([[i % 2] for i in range(count)], dtype=np.float32)
    rows = Split([str(i) for i in range(count)], texts, labels, np.ones(count))
    return Labelled(Dataset(("toxicity",), {}), rows, "test")


def contestant(rule: Callable[..., Any], name: str = "m", threshold: float = 0.5) -> Contestant:
    """A model whose score of a comment is what the rule says."""

    def score(texts: Any, progress: Any) -> Any:
        return np.array([[float(rule(text))] for text in texts])

    return Contestant(Scorer(name, ("toxicity",), score), "toxicity", threshold, "a test")


def augmenting(*kinds: Any, **more: Any) -> AugmentSettings:
    return AugmentSettings(**{"kinds": kinds, "intensity": 1.0, **more})


def naive(text: str) -> bool:
    return "idiot" in text


def deaf_to_case(text: str) -> bool:
    return "idiot" in text.lower()


def thorough(text: str) -> bool:
    return "y" in text.lower() and "thank" not in text.lower()


def measure(
    models: list[Contestant],
    settings: AugmentSettings | None = None,
    found: Labelled | None = None,
    evaluation: EvaluationSettings = QUICK,
) -> Robustness:
    return measure_robustness(found or toy(), "toxicity", models, settings or augmenting("leet"), evaluation)


def test_a_scorer_of_letters_loses_what_the_letters_hide() -> None:
    result = measure([contestant(naive), contestant(thorough, "t")], augmenting("leet", "zero_width"))
    first, second = result.models
    assert result.changed == {"leet": 20, "zero_width": 20}
    assert (first.recall.value, first.f1.value) == (1.0, 1.0)
    assert first.lost["leet"].value == 1.0  # "idiot" has an i, an o and a t
    assert first.lost["zero_width"].value == 1.0
    assert second.lost["leet"].value == 0.0
    assert first.hidden["leet"].value == 0.0
    assert first.lost[MEAN].value == 1.0
    assert (first.lost["leet"].low, first.lost["leet"].high) == (1.0, 1.0)
    share = result.differences[0].lost["leet"]
    assert (share.a, share.b, share.delta, share.relative) == (0.0, 1.0, -1.0, 0.0)
    assert (share.relative_low, share.relative_high) == (0.0, 0.0)


def test_a_third_of_the_loss_by_hand() -> None:
    """The rule reads the number at the end: a known third of the comments is seen through their disguise."""
    numbers = set(range(1, 40, 2))
    seen = {number for number in numbers if number % 3 == 1}

    def third(text: Any) -> Any:
        number = int(text.rsplit(" ", 1)[1])
        return number in numbers and ("idiot" in text or number not in seen)

    result = measure([contestant(naive), contestant(third)])
    one = result.differences[0].lost["leet"]
    assert one.a == pytest.approx(len(seen) / 20)
    assert one.relative == pytest.approx(len(seen) / 20)
    assert one.relative_low < len(seen) / 20 < one.relative_high
    assert result.differences[0].f1.delta == 0.0


def test_what_a_model_does_not_see_costs_nothing() -> None:
    result = measure([contestant(deaf_to_case), contestant(naive)], augmenting("casing"))
    assert result.changed["casing"] == 20
    assert (result.models[0].lost["casing"].value, result.models[0].lost["casing"].high) == (0.0, 0.0)
    assert result.models[1].lost["casing"].value > 0
    share = result.differences[0].lost["casing"]
    assert np.isnan([share.relative, share.relative_low, share.relative_high]).all()
    assert plain(share)["relative"] is None
    json.dumps(result.as_dict(), allow_nan=False)


def test_the_comments_scored_are_those_of_the_operators() -> None:
    found, asked = toy(), []

    def score(texts: Any, progress: Any) -> Any:
        asked.append(list(texts))
        return np.full((len(texts), 1), 0.25)

    model = Contestant(Scorer("m", ("toxicity",), score), "toxicity", 0.5, "a test")
    measure([model], augmenting("swap", rate=0.5, seed=3, intensity=0.4), found)
    drawn = [*found.rows.texts[1::2], *found.rows.texts[::2]]
    made = augment(drawn, ["swap"], 0.5, 3, intensity=0.4)
    changed = [new for new, old in zip(made, drawn, strict=True) if new != old]
    assert 0 < len(changed) < 40
    assert asked == [[*found.rows.texts, *changed]]


def test_taking_any_disguise_for_toxic_adds_false_alarms() -> None:
    """The rule flags whatever has a 3 among its words."""

    def wary(text: Any) -> Any:
        return "idiot" in text or "3" in text.rsplit(" ", 1)[0]

    result = measure([contestant(wary), contestant(naive)])
    first = result.models[0]
    assert (first.fpr.value, first.f1.value) == (0.0, 1.0)
    assert first.added["leet"].value == first.alarms["leet"].value
    calm = toy().rows.texts[::2]
    flagged = [wary(text) for text in augment(calm, ["leet"], 1.0, 0, intensity=1.0)]
    assert first.added["leet"].value == pytest.approx(np.mean(flagged))
    assert first.added[MEAN].value == first.added["leet"].value > 0
    one = result.differences[0]
    assert (one.fpr.delta, one.added["leet"].delta) == (0.0, -first.added["leet"].value)
    assert (one.added["leet"].a, one.lost["leet"].a) == (0.0, 1.0)


def test_recall_that_is_bought_with_false_alarms_is_lost_at_equal_fpr() -> None:
    """Of the disguised comments the rule tells the calm ones from the rude ones in a half of the cases."""

    def wary(text: Any) -> Any:
        words, number = text.rsplit(" ", 1)
        if words in (RUDE, CALM):
            return 0.6 if words == RUDE else 0.1
        return 0.8 if int(number) % 4 == 1 else 0.7

    result = measure([contestant(wary), contestant(naive)])
    first = result.models[0]
    assert (first.hidden["leet"].value, first.alarms["leet"].value) == (1.0, 1.0)
    assert (first.lost["leet"].value, first.added["leet"].value) == (0.0, 1.0)
    assert (first.matched["leet"].value, first.price["leet"].value) == (0.5, 0.5)
    assert result.models[1].price["leet"].value == result.models[1].lost["leet"].value == 1.0
    one = result.differences[0].price["leet"]
    assert (one.a, one.delta, one.relative) == (1.0, 0.5, 2.0)


def test_what_changes_nothing_costs_nothing_at_equal_fpr() -> None:
    """There is room below the threshold for more recall without alarms: as they are, and changed."""

    def rule(text: Any) -> Any:
        return 0.1 if "thank" in text.lower() else 0.4 + 0.2 * (int(text.rsplit(" ", 1)[1]) % 4 == 1)

    own = measure([contestant(rule)], augmenting("casing")).models[0]
    assert (own.recall.value, own.matched["casing"].value) == (0.5, 1.0)
    assert (own.lost["casing"].value, own.price["casing"].value) == (0.0, 0.0)


def recall_by_thresholds(
    positive: np.ndarray[Any, Any],
    negative: np.ndarray[Any, Any],
    flagged: np.ndarray[Any, Any],
    masses: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> np.float64:
    """Try every threshold: the highest recall whose alarms are no more than those of the flagged."""
    of_positive, of_negative = masses
    allowed = of_negative @ flagged + 1e-9
    cuts = [-np.inf, *np.concatenate([positive, negative]), np.inf]
    recalls = [of_positive @ (positive >= cut) for cut in cuts if of_negative @ (negative >= cut) <= allowed]
    return max(recalls) / of_positive.sum()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
)
def test_recall_at_equal_fpr_is_the_best_of_all_thresholds(positives: Any, negatives: Any) -> None:
    positive, of_positive = np.array(positives, dtype=float).T
    negative, of_negative, flagged = np.array(negatives, dtype=float).T
    found = EqualFpr(positive, negative, flagged).recall(of_positive[None], of_negative[None])[0]
    if of_positive.sum() and of_negative.sum():
        masses = of_positive, of_negative
        assert found == pytest.approx(recall_by_thresholds(positive, negative, flagged, masses))
    else:
        assert np.isnan(found)


def test_as_many_negatives_as_positives_are_drawn() -> None:
    found = comments([1] * 5 + [0] * 40)
    asked = []

    def score(texts: Any, progress: Any) -> Any:
        asked.extend(texts)
        return np.full((len(texts), 1), 0.25)

    model = Contestant(Scorer("m", ("toxicity",), score), "toxicity", 0.5, "a test")
    first, again = (measure([model], augmenting("leet", seed=seed), found) for seed in (1, 1))
    assert (first.rows, first.positives, first.negatives) == (45, 5, 5)
    assert first.as_dict() == again.as_dict()
    assert asked[:55] == asked[55:]
    measure([model], augmenting("leet", seed=2), found)
    assert asked[110 + 50 :] != asked[50:55]  # others are drawn
    assert measure([model], found=comments([1] * 5 + [0] * 2)).negatives == 2


def test_a_comment_that_is_not_drawn_keeps_its_score() -> None:
    none = measure([contestant(naive)], augmenting("leet", rate=0.0))
    assert none.changed == {"leet": 0}
    assert none.models[0].lost["leet"].value == 0.0
    half = measure([contestant(naive)], augmenting("leet", rate=0.5))
    assert 0 < half.changed["leet"] < 20
    assert half.models[0].lost["leet"].value == pytest.approx(half.changed["leet"] / 20)


def test_f1_and_weights_are_those_of_an_evaluation() -> None:
    rng = np.random.default_rng(0)
    found = comments(rng.random(200) < 0.3, rng.random(200) + 0.5)
    scores = dict(zip(found.rows.texts, rng.random(200), strict=True))
    model = contestant(lambda text: scores.get(text, 0.0), threshold=0.4)
    own = measure([model], found=found).models[0]
    expected = label_figures(
        found.rows.labels[:, 0],
        np.array([scores[text] for text in found.rows.texts]),
        found.rows.weights,
        threshold=0.4,
    )
    assert own.f1.value == pytest.approx(expected["f1"])
    assert own.recall.value == pytest.approx(expected["recall"])
    assert own.lost["leet"].value == pytest.approx(own.recall.value - own.hidden["leet"].value)


def test_the_default_kinds_and_the_mean_over_them() -> None:
    result = measure([contestant(naive)], AugmentSettings(intensity=0.5))
    own = result.models[0]
    kinds = ["swap", "delete", "insert", "neighbour", "repeat", "leet", "homoglyph", "spacing"]
    assert list(own.lost) == [*kinds, "zero_width", "casing", MEAN]
    lost = [figure.value for kind, figure in own.lost.items() if kind != MEAN]
    assert own.lost[MEAN].value == pytest.approx(np.mean(lost))
    assert own.lost[MEAN].low < own.lost[MEAN].value < own.lost[MEAN].high


def test_the_same_seed_gives_the_same_report() -> None:
    one, again = (measure([contestant(naive)], AugmentSettings(seed=5)).as_dict() for _ in range(2))
    assert one == again


def test_a_model_that_flags_nothing_is_named() -> None:
    result = measure([contestant(lambda text: 0.0, "silent"), contestant(naive)])
    assert result.blind() == ["silent: flags no positive comment, so it has no recall to lose"]


def test_only_positives_are_enough_and_none_are_refused() -> None:
    found = comments([1] * 6)
    own = measure([contestant(lambda text: 1.0)], found=found).models[0]
    assert own.f1.value == 1.0
    assert (own.fpr.value, own.added[MEAN].value) == (None, None)
    assert own.fpr.note == "undefined: a class is missing"
    with pytest.raises(SingleClassError, match="no comment is positive"):
        measure([contestant(naive)], found=comments([0] * 6))
    with pytest.raises(SettingsError, match="no kind of augmentation"):
        measure([contestant(naive)], augmenting("nonsense"))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_scores_that_are_no_probabilities_are_refused(value: float) -> None:
    with pytest.raises(ScoreRangeError, match="m, comment 1"):
        measure([contestant(lambda text: value)])
