"""What Python programs do with a classifier: pickle, copy, share among processes, pass odd collections."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference_helpers import write_model

from gkiller.errors import ModelNotFoundError, ModelTamperedError, RowError
from gkiller.inference import load
from gkiller.inference.classifier import Classifier

TEXTS = ["you idiot", "you are kind"]


@pytest.fixture
def clf(tmp_path: Path) -> Classifier:
    found = load(write_model(tmp_path / "model"), precision="fp32", threads=1)
    found.thresholds["insult"] = 0.123
    return found


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))], ids=["copy", "deepcopy", "pickle"]
)
def test_a_classifier_can_be_pickled_and_copied(clf: Classifier, again: Callable[..., Any]) -> None:
    other = again(clf)
    assert other is not clf
    for name in ("labels", "thresholds", "precision", "threads", "digest", "max_length"):
        assert getattr(other, name) == getattr(clf, name)
    assert np.array_equal(other.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    other.thresholds["insult"] = 0.9
    assert clf.thresholds["insult"] == 0.123


def test_a_pickle_holds_the_path_and_not_the_model(
    clf: Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(load("model"))
    assert len(packed) < 1000
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(packed).path == clf.path


def test_a_spawned_pool_scores_with_a_classifier(clf: Classifier) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(clf.predict, TEXTS)
    assert found == clf.predict(TEXTS)


def test_a_pickle_of_a_model_that_changed_is_refused(clf: Classifier, tmp_path: Path) -> None:
    packed = pickle.dumps(clf)
    (tmp_path / "model").rename(tmp_path / "former")
    with pytest.raises(ModelNotFoundError):
        pickle.loads(packed)
    write_model(tmp_path / "model", thresholds={label: {"value": 0.4} for label in clf.labels})
    with pytest.raises(ModelTamperedError, match="not the model that was pickled"):
        pickle.loads(packed)


@pytest.mark.parametrize(
    "texts", [{"a", "b"}, frozenset({"a", "b"}), {"a": 1}.keys() & {"a"}], ids=["set", "frozenset", "keys"]
)
def test_comments_without_an_order_are_refused(clf: Classifier, texts: frozenset[Any] | set[str]) -> None:
    for score in (clf.predict, clf.predict_proba):
        with pytest.raises(RowError, match="no order"):
            score(texts)
    with pytest.raises(RowError, match="no order"):
        list(clf.stream([(0, texts)]))  # type: ignore[list-item]


@pytest.mark.parametrize(
    "texts",
    [
        tuple(TEXTS),
        iter(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, object),
        dict.fromkeys(TEXTS).keys(),
        dict(enumerate(TEXTS)).values(),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_comments_with_an_order_are_taken(clf: Classifier, texts: Any) -> None:
    assert clf.predict(texts) == clf.predict(TEXTS)


def test_comments_of_a_series_are_taken(clf: Classifier) -> None:
    pandas = pytest.importorskip("pandas")
    assert clf.predict(pandas.Series(TEXTS)) == clf.predict(TEXTS)


@pytest.mark.parametrize("texts", [b"ab", bytearray(b"ab"), memoryview(b"ab")], ids=lambda texts: type(texts).__name__)
def test_bytes_of_any_kind_are_named(clf: Classifier, texts: bytearray | bytes | memoryview) -> None:
    with pytest.raises(RowError, match=f"not {type(texts).__name__}"):
        clf.predict(texts)  # type: ignore[arg-type]
