"""How well the systems score: each at its own thresholds, and paired on the same rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.benchmark.plan import main_row
from gkiller.benchmark.systems import Scores, System, SystemSpec, open_system, score
from gkiller.data.load import texts_digest
from gkiller.errors import LabelMismatchError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.significance import Paired, Side, Verdict, compare_sides, verdict
from gkiller.evaluation.thresholds import Threshold, kept_notes, tune_thresholds
from gkiller.model.layout import META, read_labels, read_thresholds
from gkiller.storage.files import atomic_directory, sha256_file
from gkiller.storage.sealed import SealBrokenError, seal, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.wording import Progress

if TYPE_CHECKING:
    from gkiller.data.dataset import Split
    from gkiller.evaluation.results import Evaluation
    from gkiller.settings.definition import EvaluationSettings


_SEAL: Final = "scores.json"
_FILE: Final = "scores.f64"
_VERSION: Final = 1
_PACKAGES: Final = ("gkiller", "torch", "onnxruntime", "scikit-learn", "tokenizers", "numpy")
_SIZE: Final = 8
"""Bytes of a score."""


class KeptScores:
    """The scores of one system, in a directory for each set of comments.

    A directory is named by a fingerprint of everything that the scores depend on: the system's files, limits
    and reading, the comments, and the versions of the packages.
    """

    def __init__(self, folder: Path, spec: SystemSpec) -> None:
        self._folder = folder
        self._labels = len(spec.labels)
        files = [sha256_file(Path(file)) for file in spec.files]
        limits = (spec.kind, spec.runtime, spec.labels, spec.max_length, spec.batch_size, spec.pad)
        # Older scores are of truncated comments, and their names say nothing of the reading.
        reading = [spec.long_text] if spec.max_length and spec.long_text != "truncate" else []
        self._facts: list[Any] = [files, limits, [version(package) for package in _PACKAGES], *reading]

    def scores(self, texts: Sequence[str], compute: Callable[[], Scores]) -> Scores:
        """Return the scores of n comments, float64 (n, L): those that are kept, else computed and kept.

        Raises:
            OutputError: they cannot be written.
        """
        facts = json.dumps([*self._facts, texts_digest(texts)])
        place = self._folder / hashlib.sha256(facts.encode()).hexdigest()[:32]
        shape = (len(texts), self._labels)
        try:
            size = shape[0] * shape[1] * _SIZE
            found = unseal(place, _SEAL, version=_VERSION, keep={_FILE: size}, exact=True).kept[_FILE]
            return np.frombuffer(found, np.float64).reshape(shape)
        except (SealBrokenError, OSError, ValueError):
            scores = compute()
        with atomic_directory(place) as temporary:
            (temporary / _FILE).write_bytes(np.ascontiguousarray(scores, np.float64).tobytes())
            seal(temporary, _SEAL, {"format_version": _VERSION})
        return scores


_CHUNK = 512
"""Comments scored between two reports of progress."""


@dataclass(frozen=True)
class LabelledSet:
    """Rows to measure on."""

    name: str  # "valid", "test", or what --also called it
    labels: tuple[str, ...]  # of the columns of rows
    rows: Split


@dataclass(frozen=True)
class Duel:
    """The model and a rival on the same rows of one label."""

    label: str
    model: str
    rival: str
    paired: Paired
    verdict: Verdict


@dataclass(frozen=True)
class SetQuality:
    """What was measured on one set."""

    name: str
    rows: int
    systems: dict[str, Evaluation]  # by key, each system's figures, of the labels that it and the set share
    duels: tuple[Duel, ...]


@dataclass(frozen=True)
class Quality:
    """How well the systems score."""

    thresholds: dict[str, dict[str, float]]  # by key and label, tuned on the validation split
    rule: str  # what they are tuned for, such as "max f1"
    sets: tuple[SetQuality, ...]
    kept: tuple[str, ...] = ()  # a line for each threshold that could not be tuned

    def warnings(self) -> list[str]:
        """Return which thresholds could not be tuned, and which figures rest on few rows."""
        rough = [line for one in self.sets for line in next(iter(one.systems.values())).rough(one.name)]
        return [*self.kept, *rough]


def scored_specs(specs: Sequence[SystemSpec]) -> list[SystemSpec]:
    """Return the systems whose scores are measured: torch only where there is no fp32 graph of the same."""
    exported = {spec.name for spec in specs if spec.runtime == "onnx fp32"}
    return [spec for spec in specs if spec.scored and not (spec.runtime == "torch fp32" and spec.name in exported)]


def measure_quality(
    specs: Sequence[SystemSpec],
    sets: Sequence[LabelledSet],
    settings: EvaluationSettings,
    *,
    margin: float,
    threads: int,
    progress: Progress,
    cache: Path,
) -> Quality:
    """Score every set with every system, tune thresholds, and compare.

    Args:
        settings: of resamples, confidence and seed, and of what thresholds are tuned for.
        margin: what the model's F1 may lose, a share of the rival's.

    Raises:
        LabelMismatchError: a system and the validation rows share no label.
        ThresholdTargetError: no threshold of a system reaches the precision or recall that is asked for.
        GkillerError: a system cannot be loaded, or its scores are no probabilities.
    """
    chosen = scored_specs(specs)
    tables = {spec.key: _tables(spec, sets, threads, progress, cache) for spec in chosen}
    tuned = {spec.key: _tune(spec, sets[0], tables[spec.key][sets[0].name], settings) for spec in chosen}
    thresholds = {key: {label: one.value for label, one in own.items()} for key, own in tuned.items()}
    targets = [one.target for one in tuned[chosen[0].key].values()]
    rule = next((target for target in targets if target != "none"), "none")
    kept = tuple(f"{key}: {line}" for key, own in tuned.items() for line in kept_notes(own))
    pairs = duel_pairs(chosen)
    found = []
    for done, one in enumerate(sets):
        progress(done, len(sets), "resampling")
        systems = {
            spec.key: _evaluate(spec, one, tables[spec.key][one.name], thresholds, settings)
            for spec in chosen
            if _tuned(spec, one, thresholds)
        }
        duels = [
            _duel(one, label, pair, tables, thresholds, settings, margin)
            for pair in pairs
            for label in _tuned(pair[0], one, thresholds)
            if label in _tuned(pair[1], one, thresholds)
        ]
        found.append(SetQuality(one.name, len(one.rows), systems, tuple(duels)))
    progress(len(sets), len(sets), "resampling")
    return Quality(thresholds, rule, tuple(found), kept)


def duel_pairs(specs: Sequence[SystemSpec]) -> list[tuple[SystemSpec, SystemSpec]]:
    """Pair each rival with the model's row of the same precision, else with its main row."""
    main = main_row(specs)
    own = {_precision(spec): spec for spec in specs if spec.role == "model"}
    return [
        (own.get(_precision(spec), main) if spec.kind not in ("linear", "static") else main, spec)
        for spec in specs
        if spec.role != "model"
    ]


def _precision(spec: SystemSpec) -> str:
    return spec.runtime.split()[-1]


def _tables(
    spec: SystemSpec, sets: Sequence[LabelledSet], threads: int, progress: Progress, cache: Path
) -> dict[str, Scores]:
    """Return a system's scores of every set, by its name."""
    total, done = sum(len(one.rows) for one in sets), 0
    kept = KeptScores(cache, spec)
    opened: list[System] = []

    def computed(texts: Sequence[str]) -> Scores:
        if not opened:  # a system whose scores are all kept is not loaded
            opened.append(open_system(spec, threads))
        # By length, so that a chunk pads little; the scores go back to the rows' order.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        table = np.zeros((len(texts), len(spec.labels)))
        for start in range(0, len(order), _CHUNK):
            rows = order[start : start + _CHUNK]
            table[rows] = score(opened[0], [texts[row] for row in rows])
            progress(done + start + len(rows), total, f"scoring with {spec.key}")
        return table

    found = {}
    for one in sets:
        found[one.name] = kept.scores(one.rows.texts, partial(computed, one.rows.texts))
        done += len(one.rows)
    return found


def _shared(spec: SystemSpec, one: LabelledSet) -> tuple[str, ...]:
    return tuple(label for label in spec.labels if label in one.labels)


def _tuned(spec: SystemSpec, one: LabelledSet, thresholds: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Return the labels that a system and a set share, and that have a threshold."""
    return tuple(label for label in _shared(spec, one) if label in thresholds[spec.key])


def _columns(spec: SystemSpec, one: LabelledSet, table: Scores, labels: Sequence[str]) -> tuple[Any, Scores]:
    """Return truth and scores of the labels, each (n, L)."""
    truth = one.rows.labels[:, [one.labels.index(label) for label in labels]]
    return truth, table[:, [spec.labels.index(label) for label in labels]]


def _tune(spec: SystemSpec, valid: LabelledSet, table: Scores, settings: EvaluationSettings) -> dict[str, Threshold]:
    labels = _shared(spec, valid)
    if not labels:
        raise LabelMismatchError(
            f"the data have the labels {', '.join(valid.labels)}, {spec.name} {', '.join(spec.labels)}",
            where=spec.path,
            remedy="leave it out, or compare on data that have one of its labels",
        )
    truth, scores = _columns(spec, valid, table, labels)
    stored = _stored(spec)
    return tune_thresholds(labels, truth, scores, valid.rows.weights, stored=stored, **settings.tuning())


def _stored(spec: SystemSpec) -> dict[str, float]:
    """Return a gkiller model's own thresholds, which those that cannot be tuned keep; of others nothing."""
    if spec.kind != "gkiller":
        return {}
    content = parse_json((Path(spec.path) / META).read_bytes())
    return read_thresholds(content["thresholds"], read_labels(content["labels"]))


def _evaluate(
    spec: SystemSpec,
    one: LabelledSet,
    table: Scores,
    thresholds: Mapping[str, Mapping[str, float]],
    settings: EvaluationSettings,
) -> Evaluation:
    labels = _tuned(spec, one, thresholds)
    truth, scores = _columns(spec, one, table, labels)
    return evaluate(labels, truth, scores, one.rows.weights, thresholds[spec.key], settings)


def _duel(
    one: LabelledSet,
    label: str,
    pair: tuple[SystemSpec, SystemSpec],
    tables: Mapping[str, Mapping[str, Scores]],
    thresholds: Mapping[str, Mapping[str, float]],
    settings: EvaluationSettings,
    margin: float,
) -> Duel:
    own, other = (
        Side(tables[spec.key][one.name][:, spec.labels.index(label)], thresholds[spec.key][label]) for spec in pair
    )
    paired = compare_sides(
        one.rows.labels[:, one.labels.index(label)],
        own,
        other,
        one.rows.weights,
        resamples=settings.resamples,
        seed=settings.bootstrap_seed,
        confidence=settings.confidence,
    )
    model, rival = pair
    judged = verdict(paired.differences["f1"], margin, n=paired.n)
    return Duel(label, model.key, rival.key, paired, judged)
