"""The gate: an export must score as the trained model does, or nothing is written."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.data.sources import public_source
from gkiller.errors import ParityError
from gkiller.evaluation.metrics import label_figures
from gkiller.scoring.models import score_texts
from gkiller.tokens.batches import Read, Reader, Tokens
from gkiller.wording import Progress

if TYPE_CHECKING:
    from gkiller.data.load import Labelled
    from gkiller.model.directory import LoadedModel
    from gkiller.model.layout import GraphPrecision
    from gkiller.settings.definition import DeploymentSettings

FloatArray = npt.NDArray[np.float64]
LIMITED: Final = "nothing was written; the limits are the deployment settings ('gkiller config keys')"


@dataclass(frozen=True)
class Limits:
    """How far an export may be from the trained model; a value equal to a limit passes."""

    score_difference: float
    flips: float  # share of decisions, rows times labels, on the other side of the threshold
    ap_loss: float
    f1_loss: float
    least_positives: int = 0  # positive comments below which a label's losses say too little to count


@dataclass(frozen=True)
class ParityRows:
    """Comments that an export is compared on."""

    texts: tuple[str, ...]
    read: Read
    truth: FloatArray  # (n, L) 0, 1, or NaN where unknown
    weights: FloatArray  # (n,)
    expected: FloatArray  # (n, L), the trained model's scores
    labels: tuple[str, ...]
    thresholds: FloatArray  # (L,)
    fingerprint: str
    source: str
    split: str

    @property
    def tokens(self) -> Tokens:
        """The m windows."""
        return self.read.tokens


@dataclass(frozen=True)
class LabelParity:
    """One label's figures before and after; None where the data do not define them."""

    label: str
    positives: int
    flips: int
    f1_before: float | None
    f1_after: float | None
    ap_before: float | None
    ap_after: float | None


@dataclass(frozen=True)
class Parity:
    """What the gate measured."""

    rows: int
    max_difference: float  # largest absolute difference of a score; NaN scores count as 1
    flips: int
    flip_share: float  # the same as a share of rows times labels
    f1_loss: float
    ap_loss: float
    labels: tuple[LabelParity, ...]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no limit was exceeded."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "passed": self.passed}


def limits_of(settings: DeploymentSettings, precision: GraphPrecision) -> Limits:
    """Return the settings' limits for a precision; fp16 storage has those of int8."""
    if precision == "fp32":
        return Limits(settings.fp32_score_difference, settings.fp32_flips, settings.fp32_ap_loss, settings.fp32_f1_loss)
    losses = settings.int8_ap_loss, settings.int8_f1_loss, settings.int8_least_positives
    return Limits(settings.int8_score_difference, settings.int8_flips, *losses)


def parity_rows(loaded: LoadedModel, found: Labelled, most: int, progress: Progress | None = None) -> ParityRows:
    """Score at most so many labelled comments with the trained model, for an export to be compared with."""
    rows = np.arange(len(found.rows.texts))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    texts = [found.rows.texts[row] for row in rows]
    truth = np.full((len(rows), len(loaded.labels)), np.nan)
    for place, label in enumerate(loaded.labels):
        if label in found.dataset.labels:
            truth[:, place] = found.rows.labels[rows, found.dataset.labels.index(label)]
    weights = np.asarray(found.rows.weights, dtype=np.float64)[rows]
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass"))
    digest.update(truth.tobytes() + weights.tobytes())
    return ParityRows(
        texts=tuple(texts),
        read=Reader(loaded.tokenizer, loaded.max_length).read(texts),
        truth=truth,
        weights=weights,
        expected=score_texts(loaded, texts, 32, progress),
        labels=loaded.labels,
        thresholds=np.array([loaded.thresholds[label] for label in loaded.labels]),
        fingerprint=digest.hexdigest(),
        source=public_source(str(found.dataset.manifest.get("source", ""))),
        split=found.name,
    )


def compare(rows: ParityRows, scores: FloatArray, limits: Limits) -> Parity:
    """Measure how far an export's scores of the windows, (m, L), are from the trained model's of comments."""
    scores = rows.read.highest(scores)
    sound = np.isfinite(scores)
    found = np.where(sound, scores, 0.5)
    difference = np.where(sound, np.abs(found - rows.expected), 1.0)
    flipped = (found >= rows.thresholds) != (rows.expected >= rows.thresholds)
    flips, places = flipped.sum(axis=0), range(len(rows.labels))
    labels = tuple(_label_parity(rows, found[:, place], int(flips[place]), place) for place in places)
    counted = [one for one in labels if one.positives >= limits.least_positives]
    measured = {
        "max_difference": float(difference.max(initial=0.0)),
        "flip_share": float(flipped.mean()) if flipped.size else 0.0,
        "ap_loss": max((_loss(one.ap_before, one.ap_after) for one in counted), default=0.0),
        "f1_loss": max((_loss(one.f1_before, one.f1_after) for one in counted), default=0.0),
    }
    checks = (
        ("a score differs by", measured["max_difference"], limits.score_difference, ".2g"),
        ("flipped decisions:", measured["flip_share"], limits.flips, ".3%"),
        ("average precision lost:", measured["ap_loss"], limits.ap_loss, ".4f"),
        ("F1 lost:", measured["f1_loss"], limits.f1_loss, ".4f"),
    )
    failures = tuple(
        f"{name} {value:{form}} (limit {most:{form}})" for name, value, most, form in checks if value > most
    )
    return Parity(rows=len(scores), flips=int(flipped.sum()), labels=labels, failures=failures, **measured)


def require(parity: Parity, what: str, where: str) -> None:
    """Raise a ParityError where a limit was exceeded by an export, such as "the fp32 graph"."""
    if not parity.passed:
        what = f"{what} does not score as the trained model does: {'; '.join(parity.failures)}"
        raise ParityError(what, where=where, remedy=LIMITED, report=parity.as_dict())


def _label_parity(rows: ParityRows, found: FloatArray, flips: int, place: int) -> LabelParity:
    truth, cut = rows.truth[:, place], float(rows.thresholds[place])
    before = label_figures(truth, rows.expected[:, place], rows.weights, threshold=cut)
    after = label_figures(truth, found, rows.weights, threshold=cut)
    figures = [before["f1"], after["f1"], before["ap"], after["ap"]]
    known = (None if math.isnan(figure) else float(figure) for figure in figures)
    return LabelParity(rows.labels[place], int((truth == 1).sum()), flips, *known)


def _loss(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else max(0.0, before - after)
