"""From a path or a name to a classifier: every file is read once, and its digest is of what is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from gkiller.errors import ModelNotFoundError, ModelTamperedError, SettingsError
from gkiller.inference.classifier import Classifier
from gkiller.inference.session import Ids, Session
from gkiller.model.layout import (
    CONFIG,
    FORMAT_VERSION,
    GRAPHS,
    LIMITS,
    META,
    TOKENIZER,
    GraphPrecision,
    consistent,
    default_model,
    find_model,
    read_flag_labels,
    read_labels,
    read_max_length,
    read_thresholds,
    unbroken,
)
from gkiller.storage.sealed import Check, Sealed, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.encoding import Encoder
from gkiller.wording import did_you_mean

Precision = Literal["auto"] | GraphPrecision
_PRECISIONS = ("auto", *GRAPHS)
_LEAST_LENGTH = 3  # [CLS], [SEP] and a piece between them
_MADE_BY: dict[Precision, str] = {
    "auto": "export {}",
    "fp32": "export {}",
    "int8": "quantize {}",
    "fp16": "quantize {} --storage fp16",
}
_PROBE_TOKENS = 128


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "auto",
    threads: int | None = None,
    verify: bool = True,
) -> Classifier:
    """Load an exported model for scoring.

    Args:
        model: a model directory, a run directory, or the name of a model that came with the package;
            without it, or as "default", the model that gkiller ships.
        precision: which of the exported graphs to use; "auto" takes int8, else fp32, else fp16.
        threads: CPU threads for scoring; as many as the process may use when not given. The scores do not depend on it.

    Raises:
        ModelNotFoundError: there is no model, or it was not exported at that precision.
        ModelTamperedError: a file differs from its recorded SHA-256, or gkiller.json from its own digest.
        ModelFormatError: the format is unknown or inconsistent.
        SettingsError: ``precision`` or ``threads`` is none that exists.
    """
    if precision not in _PRECISIONS:
        raise SettingsError(f"no such precision: {precision!r}", remedy=did_you_mean(str(precision), _PRECISIONS))
    count = _thread_count(threads)
    directory = _locate(model)
    chosen, graph = graph_name(directory, precision)
    keep = {name: LIMITS[name] for name in (CONFIG, TOKENIZER, graph)}
    check: Check = "kept" if verify else "none"
    with unbroken():
        sealed = unseal(directory, META, version=FORMAT_VERSION, keep=keep, check=check)
    with consistent(directory):
        return _build(sealed, chosen, graph, count)


def reopen(path: str, digest: str, precision: Precision, threads: int, thresholds: Mapping[str, float]) -> Classifier:
    """Load a pickled classifier's model.

    Raises:
        ModelNotFoundError: it is not there any more.
        ModelTamperedError: it is not the model that was pickled.
        ModelFormatError: it cannot be read.
    """
    classifier = load(path, precision=precision, threads=threads)
    if classifier.digest != digest:
        raise ModelTamperedError(
            "this is not the model that was pickled: its digest differs",
            where=path,
            remedy="load it again and pickle that, or put the former model back",
        )
    classifier.thresholds = classifier.limits(thresholds)
    return classifier


def graph_name(directory: Path, precision: Precision) -> tuple[str, str]:
    """Return the precision and the file of the graph to use.

    Raises:
        ModelNotFoundError: the model was not exported, or not at that precision.
    """
    there = {name: file for name, file in GRAPHS.items() if (directory / file).is_file()}
    if precision == "auto" and there:
        return next(iter(there.items()))
    if precision in there:
        return precision, there[precision]
    what = f"the model has no {precision} graph" if there else "the model has no ONNX graph"
    also = f"; there is: {', '.join(there)}" if there else ""
    remedy = f"make one with: gkiller {_MADE_BY[precision].format(directory)}"
    raise ModelNotFoundError(what + also, where=str(directory), remedy=remedy)


def _build(sealed: Sealed, precision: str, graph: str, threads: int) -> Classifier:
    content, directory = sealed.content, sealed.directory
    labels = read_labels(content["labels"])
    config = parse_json(sealed.kept[CONFIG])
    thresholds = read_thresholds(content["thresholds"], labels)
    max_length = read_max_length(content["max_length"], config)
    if max_length < _LEAST_LENGTH:
        raise ValueError("max_length 2 leaves no room for a comment")
    encoder = Encoder(sealed.kept[TOKENIZER], str(directory / TOKENIZER), max_length)
    encoder.check_fits(config)
    probes = (encoder.empty(), _probe(config["vocab_size"], max_length))
    return Classifier(
        Session(sealed.kept[graph], str(directory / graph), len(labels), probes),
        encoder,
        labels=labels,
        thresholds=thresholds,
        precision=precision,
        threads=threads,
        path=directory,
        digest=sealed.digest,
        flag_labels=read_flag_labels(content, labels),
        reopen=reopen,
    )


def _probe(pieces: int, max_length: int) -> tuple[Ids, Ids]:
    """Return ids and mask, both int64 (2, tokens), with the first and the last known piece."""
    tokens = min(max_length, _PROBE_TOKENS)
    ids = np.linspace([0, pieces - 1], [pieces - 1, 0], tokens, axis=1).astype(np.int64)
    return ids, np.ones_like(ids)


def _locate(model: str | os.PathLike[str] | None) -> Path:
    """Return the model directory."""
    return default_model() if model is None else find_model(os.fspath(model))


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return available_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise SettingsError(f"threads must be in 1..1024, not {threads!r}", remedy="leave it out to use every core")
    return threads


def available_threads() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
