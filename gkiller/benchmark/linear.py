"""TF-IDF and a logistic regression: the linear rival, kept without pickle.

TF-IDF of words (1 to 2) and of characters within words (2 to 5), then a class-balanced logistic regression
for each label. It is saved as the two vocabularies and a safetensors file of the inverse document frequencies
and the coefficients, which is all that it needs to predict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from gkiller.data.dataset import Split
from gkiller.deployment.probes import sigmoid
from gkiller.errors import ModelFormatError, SettingsError, SingleClassError
from gkiller.storage.files import atomic_directory
from gkiller.wording import one_line

FEATURES: Final[dict[str, dict[str, Any]]] = {
    "words": {"ngram_range": (1, 2), "sublinear_tf": True},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5), "sublinear_tf": True},
}

MIN_DF: Final = 2
C: Final = 4.0
MAX_ITER: Final = 1_000
FILES: Final = ("words.json", "characters.json", "weights.safetensors")


@dataclass(frozen=True)
class Linear:
    """A fitted linear model."""

    features: FeatureUnion
    coefficients: npt.NDArray[np.float64]  # float64 (L, F)
    intercepts: npt.NDArray[np.float64]  # float64 (L,)

    @property
    def parameters(self) -> int:
        """Coefficients, intercepts and inverse document frequencies."""
        return int(self.coefficients.size + self.intercepts.size + self.coefficients.shape[1])

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> Any:
        """Return the features of whole comments, a sparse matrix (n, F); a linear model counts no tokens."""
        return self.features.transform(texts)

    def run(self, prepared: Any) -> npt.NDArray[np.float64]:
        """Return the scores (n, L)."""
        return sigmoid(np.asarray(prepared @ self.coefficients.T) + self.intercepts)

    def length(self, text: str) -> None:
        """Return None: it counts no tokens."""
        return

    def save(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        with atomic_directory(directory) as temporary:
            weights = {"coefficients": self.coefficients, "intercepts": self.intercepts}
            for name, vectorizer in self.features.transformer_list:
                terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
                text = json.dumps(terms, ensure_ascii=False)
                (temporary / f"{name}.json").write_text(text, "utf-8", newline="\n")
                weights[f"{name}.idf"] = vectorizer.idf_
            save_file(weights, temporary / "weights.safetensors")


def fit_linear(train: Split, labels: Sequence[str]) -> Linear:
    """Fit the linear model; rows where a label is unknown are left out for that label.

    Raises:
        SingleClassError: a label has one class only.
    """
    union = FeatureUnion([(name, TfidfVectorizer(min_df=MIN_DF, **how)) for name, how in FEATURES.items()])
    features = union.fit_transform(train.texts).tocsr()
    coefficients, intercepts = zip(
        *(fit_head(features, train.labels[:, place], name) for place, name in enumerate(labels)), strict=True
    )
    return Linear(union, np.stack(coefficients), np.array(intercepts))


def fit_head(
    features: Any, truth: npt.NDArray[np.floating[Any]], label: str, c: float = C
) -> tuple[npt.NDArray[np.float64], float]:
    """Fit one label's class-balanced logistic regression.

    Args:
        features: (n, F), sparse or dense.
        truth: (n,) 0, 1 or NaN where unknown.

    Returns:
        Coefficients (F,) and the intercept.

    Raises:
        SingleClassError: the label has one class only.
    """
    known = np.flatnonzero(~np.isnan(truth))
    classes = truth[known].astype(int)
    if len(np.unique(classes)) < 2:
        raise SingleClassError(
            "the training split has one class only, so there is nothing to fit",
            where=f"label {label!r}",
            remedy="use data that hold both classes",
        )
    head = LogisticRegression(C=c, class_weight="balanced", max_iter=MAX_ITER)
    head.fit(features[known], classes)
    return np.asarray(head.coef_[0], np.float64), float(head.intercept_[0])


def load_linear(directory: Path) -> Linear:
    """Read what `Linear.save` wrote."""
    weights = load_file(directory / "weights.safetensors")
    parts = []
    for name, how in FEATURES.items():
        terms = json.loads((directory / f"{name}.json").read_text("utf-8"))
        vectorizer = TfidfVectorizer(vocabulary={term: place for place, term in enumerate(terms)}, **how)
        vectorizer.idf_ = weights[f"{name}.idf"]
        parts.append((name, vectorizer))
    return Linear(FeatureUnion(parts), weights["coefficients"], weights["intercepts"])


HEAD = "head.safetensors"
SOURCE = "source.txt"
STATIC_C = 1.0


@dataclass(frozen=True)
class Static:
    """Mean embeddings of a comment's tokens, and a logistic regression for each label."""

    source: str
    encoder: Any
    coefficients: npt.NDArray[np.float64]  # float64 (L, F)
    intercepts: npt.NDArray[np.float64]  # float64 (L,)

    @property
    def parameters(self) -> int:
        """Embeddings, coefficients and intercepts."""
        return int(np.size(self.encoder.embedding)) + self.coefficients.size + self.intercepts.size

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> npt.NDArray[np.float64]:
        """Return the embeddings (n, F), tokenizer included."""
        return np.asarray(self.encoder.encode(list(texts)), np.float64)

    def run(self, prepared: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scores (n, L)."""
        return sigmoid(prepared @ self.coefficients.T + self.intercepts)

    def length(self, text: str) -> None:
        """Return None: its tokens are not counted."""
        return

    def save(self, directory: Path) -> None:
        """Write the head and where the embeddings are, whole or not at all."""
        with atomic_directory(directory) as temporary:
            weights = {"coefficients": self.coefficients, "intercepts": self.intercepts}
            save_file(weights, temporary / HEAD)
            (temporary / SOURCE).write_text(self.source, "utf-8")


def fit_static(source: str, train: Split, labels: Sequence[str]) -> Static:
    """Fit a logistic regression for each label on static embeddings.

    Raises:
        SettingsError: model2vec is not installed.
        ModelFormatError: it cannot read the directory.
        SingleClassError: a label has one class only.
    """
    encoder = _encoder(source)
    embedded = np.asarray(encoder.encode(list(train.texts)), np.float64)
    heads = [fit_head(embedded, train.labels[:, place], name, STATIC_C) for place, name in enumerate(labels)]
    coefficients, intercepts = zip(*heads, strict=True)
    return Static(source, encoder, np.stack(coefficients), np.array(intercepts))


def load_static(directory: Path) -> Static:
    """Read what `Static.save` wrote.

    Raises:
        SettingsError: model2vec is not installed.
        ModelFormatError: it cannot read the embeddings.
    """
    source = (directory / SOURCE).read_text("utf-8")
    weights = load_file(directory / HEAD)
    return Static(source, _encoder(source), weights["coefficients"], weights["intercepts"])


def _encoder(source: str) -> Any:
    try:
        library = import_module("model2vec")
    except ImportError as error:
        raise SettingsError(
            "static embeddings need the package model2vec, which is not installed",
            where="--static",
            remedy="pip install model2vec, or leave --static out",
        ) from error
    try:
        return library.StaticModel.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(
            f"model2vec cannot read it: {one_line(error)}", where=source, remedy="name a directory that model2vec saved"
        ) from error
