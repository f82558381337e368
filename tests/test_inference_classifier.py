"""Scores, flags, long texts, odd texts and explanations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import comment

from gkiller.errors import ModelFormatError, RowError, ScoreRangeError, SettingsError
from gkiller.inference import load
from gkiller.inference.classifier import Classifier
from gkiller.inference.session import sigmoid
from gkiller.tokens import batches

TEXTS = [comment(i, i % 4 == 0) for i in range(500)]


@pytest.fixture(scope="module")
def clf(onnx_model: Path) -> Classifier:
    return load(onnx_model, precision="fp32", threads=1)


def test_a_string_gives_a_prediction_a_list_gives_a_list(clf: Classifier) -> None:
    one = clf.predict("you idiot")
    several = clf.predict(["you idiot", "thank you"])
    assert isinstance(several, list)
    assert several[0] == one
    assert one.flags == {"toxicity": True, "insult": bool(one.scores["insult"] >= 0.5)}
    assert one.flagged
    assert (one.windows, one.truncated) == (1, False)
    assert one["toxicity"] == one.scores["toxicity"] > several[1]["toxicity"]
    assert dict(one) == one.scores
    assert list(one) == list(clf.labels)
    assert clf.predict(iter(["a"])) == [clf.predict("a")]
    assert clf.predict([]) == []
    assert clf.predict_proba([]).shape == (0, 2)
    assert clf.predict_proba("a").shape == (1, 2)


def test_scores_are_those_of_each_comment_alone(clf: Classifier) -> None:
    together = clf.predict_proba(TEXTS)
    alone = np.array([clf.predict_proba([text])[0] for text in TEXTS])
    assert together.dtype == np.float64
    assert np.abs(together - alone).max() < 1e-6


def test_threads_change_nothing(onnx_model: Path) -> None:
    scores = [load(onnx_model, threads=n).predict_proba(TEXTS) for n in (1, 2, 5)]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] == scores[2]).all()


def test_chunks_and_repeated_comments_change_nothing(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXTS[i % 7] for i in range(50)]
    expected = clf.predict_proba(texts)
    assert len(np.unique(expected[:, 1])) == 7
    monkeypatch.setattr(batches, "CHUNK_ROWS", 3)
    assert np.abs(clf.predict_proba(texts) - expected).max() < 1e-6
    monkeypatch.setattr(batches, "CHUNK_CHARACTERS", 1)
    assert np.abs(clf.predict_proba(texts) - expected).max() < 1e-6


def test_thresholds_can_be_given(clf: Classifier) -> None:
    score = clf.predict("you idiot").scores["insult"]
    assert clf.predict("you idiot", thresholds=score).flags["insult"]
    assert not clf.predict("you idiot", thresholds=np.nextafter(score, 1)).flags["insult"]
    mixed = clf.predict("you idiot", thresholds={"insult": 0})
    assert mixed.flags == {"toxicity": True, "insult": True}
    with pytest.raises(ScoreRangeError, match=r"1\.5"):
        clf.predict("a", thresholds=1.5)
    with pytest.raises(ScoreRangeError, match="nan"):
        clf.predict("a", thresholds=float("nan"))
    assert clf.predict("you idiot", thresholds=np.float32(0)).flags["insult"]  # type: ignore[call-overload]
    with pytest.raises(SettingsError, match="did you mean 'insult'"):
        clf.predict("a", thresholds={"insul": 0.5})
    with pytest.raises(SettingsError, match="no label 1"):
        clf.predict("a", thresholds={1: 0.5})  # type: ignore[dict-item]


def test_a_long_text_is_read_to_its_end(clf: Classifier) -> None:
    text = "thank you " * 40 + "you idiot"
    found = clf.predict(text)
    assert found.windows > 1
    assert found.flags["toxicity"]
    assert not found.truncated
    cut = clf.predict(text, long_text="truncate")
    assert (cut.windows, cut.truncated, cut.flags["toxicity"]) == (1, True, False)
    assert cut.scores == clf.predict("thank you " * 7).scores
    with pytest.raises(SettingsError, match="did you mean 'truncate'"):
        clf.predict(text, long_text="trunc")  # type: ignore[call-overload]


def test_the_highest_window_counts(clf: Classifier) -> None:
    words = ["idiot", *["please"] * 13]
    whole = clf.predict(" ".join([*["page"] * 200, *words, *["page"] * 7])).scores["toxicity"]
    assert whole >= clf.predict("please " * 14).scores["toxicity"]
    assert whole > clf.predict("page " * 14).scores["toxicity"]


@pytest.mark.parametrize("text", ["", " \n\t", "😀😀", "\ud83d", "a\0b", "\x07\x1b", "\u202e", "\ufeff", "ﷺ" * 50])
def test_odd_texts_have_an_answer(clf: Classifier, text: str) -> None:
    scores = clf.predict_proba([text, "plain", text])
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores[0] == scores[2]).all()


def test_what_odd_texts_are_read_as(clf: Classifier) -> None:
    assert clf.predict("").scores == clf.predict(" \r\n").scores == clf.predict("\0\x07").scores
    assert clf.predict("you id\0iot").scores == clf.predict("you idiot").scores
    assert clf.predict("you \ud800").scores == clf.predict("you \ufffd").scores


def test_a_megabyte_has_an_answer(clf: Classifier) -> None:
    words = clf.predict("you fool " * 120_000)
    assert words.windows > 10_000
    assert words.flagged
    assert clf.predict("x" * 1_000_000).windows == 1


@given(st.lists(st.text(st.characters()), max_size=5), st.sampled_from(["window", "truncate"]))
def test_any_text_gets_scores_in_range(onnx_model: Any, texts: Any, long_text: Any) -> None:
    scores = load_once(onnx_model).predict_proba(texts, long_text=long_text)
    assert scores.shape == (len(texts), 2)
    assert ((scores >= 0) & (scores <= 1)).all()


LOADED: dict[Any, Any] = {}


def load_once(path: Path) -> Classifier:
    return LOADED.setdefault(path, load(path, threads=2))


@pytest.mark.parametrize(
    "texts", [b"a", 3, None, [b"a"], ["a", None], ["a", 1.5], {"text": "a"}, np.array("a"), np.array([["a"]])], ids=repr
)
def test_what_is_no_text_is_refused(clf: Classifier, texts: Any) -> None:
    for method in (clf.predict, clf.predict_proba):
        with pytest.raises(RowError, match="must be a str"):
            method(texts)
    with pytest.raises(RowError, match="must be a str"):
        clf.explain(texts if not isinstance(texts, list) else texts[-1])


def test_stream_gives_the_chunks_before_a_bad_one(clf: Classifier) -> None:
    found: list[Any] = []
    with pytest.raises(RowError, match="not int"):
        found.extend(clf.stream([("a", ["you idiot"]), ("b", ["thank you"]), ("c", [5]), ("d", ["x"])]))  # type: ignore[list-item]
    assert [key for key, _ in found] == ["a", "b"]


def test_stream_keeps_order_and_keys(clf: Classifier) -> None:
    chunks = [(i, TEXTS[i * 10 : i * 10 + i]) for i in range(6)]
    found = list(clf.stream(iter(chunks)))
    assert [key for key, _ in found] == list(range(6))
    assert [len(scored.scores) for _, scored in found] == list(range(6))
    assert list(clf.stream([])) == []


def test_explain_names_the_rude_word(clf: Classifier) -> None:
    text = "thank you, you IDIOT and welcome"
    words = clf.explain(text)
    assert [text[w.start : w.end] for w in words] == [w.text for w in words]
    assert [w.text for w in words] == ["thank", "you", ",", "you", "IDIOT", "and", "welcome"]
    assert max(words, key=lambda w: w.contributions["toxicity"]).text == "IDIOT"
    assert clf.explain("") == clf.explain(" \0") == []


def log_odds(clf: Classifier, text: str) -> np.float64:
    score = clf.predict(text).scores["toxicity"]
    return np.log(score / (1 - score))


def test_a_contribution_is_the_fall_of_the_log_odds(onnx_model: Path) -> None:
    clf = load(onnx_model, precision="fp32", threads=1)
    word = clf.explain("you fool")[1]
    encoder = clf._encoder
    ids = np.array([[encoder.cls, *encoder.ids("you"), encoder.mask, encoder.sep]])
    hidden = clf._session.run(ids, np.ones_like(ids))[0, 0]
    assert word.contributions["toxicity"] == pytest.approx(log_odds(clf, "you fool") - hidden, abs=1e-4)


def test_explain_a_long_text(clf: Classifier) -> None:
    text = "please " * 30 + "idiot " + "please " * 30
    words = clf.explain(text)
    assert len(words) == 61
    top = max(words, key=lambda w: w.contributions["toxicity"])
    assert (top.text, top.start) == ("idiot", 210)
    stretches = clf.explain(text, units=10)
    assert len(stretches) <= 10
    assert "idiot" in max(stretches, key=lambda w: w.contributions["toxicity"]).text
    assert "".join(s.text.replace(" ", "") for s in stretches) == text.replace(" ", "")
    for units in (0, 1.5, "3", True):
        with pytest.raises(SettingsError, match="units"):
            clf.explain(text, units=units)  # type: ignore[arg-type]


def test_explain_a_text_of_more_passes_than_are_made_at_once(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "please " * 30 + "idiot " + "please " * 30
    expected = clf.explain(text)
    monkeypatch.setattr("gkiller.inference.classifier._ROWS_AT_ONCE", 7)
    for word, same in zip(clf.explain(text), expected, strict=True):
        assert (word.text, word.start) == (same.text, same.start)
        assert word.contributions == pytest.approx(same.contributions, abs=1e-4)


def test_what_is_no_number_is_refused(onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clf = load(onnx_model, threads=1)
    monkeypatch.setattr(clf._session, "_answer", lambda ids, mask, stop: np.full((len(ids), 2), np.nan, np.float32))
    with pytest.raises(ModelFormatError, match="not a finite number"):
        clf.predict("a")


@given(st.floats(-1e4, 1e4, width=32))
def test_sigmoid(x: Any) -> None:
    with np.errstate(over="raise"):
        value = float(sigmoid(np.array([x], np.float32))[0])
    assert 0 <= value <= 1
    assert value == pytest.approx(1 / (1 + np.exp(-np.float64(np.clip(x, -700, 700)))), abs=1e-12)
