"""From a path or a name to a classifier: every file is read once, and its digest is of what is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gkiller.assets import asset_path
from gkiller.errors import ModelFormatError, ModelNotFoundError, SettingsError, did_you_mean
from gkiller.inference.classifier import Classifier
from gkiller.inference.encoding import Encoder
from gkiller.inference.session import Session
from gkiller.model import layout

Precision = Literal["auto", "int8", "fp32", "fp16"]
GRAPHS: Mapping[str, str] = {
    "int8": "onnx/model.int8.onnx",
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model.fp16.onnx",
}
"""The graph of each precision, in the order in which ``auto`` prefers them."""

_BUNDLED, _NAMED = "model", "models"
_MEGABYTE = 1 << 20
_LIMITS = {layout.META: 4 * _MEGABYTE, layout.CONFIG: 4 * _MEGABYTE, layout.TOKENIZER: 64 * _MEGABYTE}
_GRAPH_LIMIT = 1024 * _MEGABYTE


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
            without it, the model that is bundled with the package.
        precision: which of the exported graphs to use; "auto" takes int8, else fp32, else fp16.
        threads: CPU threads for scoring; as many as the process may use when not given. The scores do not
            depend on it.
        verify: compare the files with their recorded SHA-256.

    Raises:
        ModelNotFoundError: there is no model, or it was not exported at that precision.
        ModelTamperedError: a file differs from its recorded SHA-256, or gkiller.json from its own digest.
        ModelFormatError: the format is unknown or inconsistent.
        SettingsError: ``precision`` or ``threads`` is none that exists.
    """
    if precision not in get_args(Precision):
        raise SettingsError(
            f"no such precision: {precision!r}", remedy=did_you_mean(str(precision), get_args(Precision))
        )
    files = _Files(_locate(model), verify)
    try:
        return _build(files, precision, _thread_count(threads))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFormatError(
            f"the model directory is inconsistent: {layout.one_line(error)}",
            where=str(files.directory),
            remedy=layout.REMEDY_DAMAGED,
        ) from error


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
    make = "quantize" if precision == "int8" and there else "export"
    raise ModelNotFoundError(
        what + also, where=str(directory), remedy=f"make one with: gkiller {make} {directory}"
    )


@dataclass(frozen=True)
class _Files:
    """Reads a model directory's files, each in one piece.

    Attributes:
        directory: where.
        verify: whether digests are compared.
    """

    directory: Path
    verify: bool

    def metadata(self) -> dict[str, Any]:
        path = self.directory / layout.META
        content = layout.parse_json(_content(path, _LIMITS[layout.META]), path)
        layout.check_version(content, path)
        if not isinstance(content.get("files"), dict):
            raise ModelFormatError("it has no list of files", where=str(path), remedy=layout.REMEDY_DAMAGED)
        if self.verify:
            layout.check_digest(content, path)
        return content

    def read(self, name: str, listed: Mapping[str, Any]) -> bytes:
        """Return a listed file's content."""
        if name not in listed:
            raise ModelFormatError(
                f"the list of files lacks {name}",
                where=str(self.directory / layout.META),
                remedy=layout.REMEDY_DAMAGED,
            )
        path = layout.listed_file(self.directory, name)
        content = _content(path, _LIMITS.get(name, _GRAPH_LIMIT))
        if self.verify and hashlib.sha256(content).hexdigest() != listed[name]:
            raise layout.altered(path)
        return content


def _content(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise ModelFormatError(
            f"not readable: {layout.one_line(error)}", where=str(path), remedy=layout.REMEDY_DAMAGED
        ) from error
    if len(content) > limit:
        raise ModelFormatError(
            f"the file has over {limit // _MEGABYTE:,} MiB", where=str(path), remedy=layout.REMEDY_DAMAGED
        )
    return content


def _build(files: _Files, precision: Precision, threads: int) -> Classifier:
    metadata = files.metadata()
    listed = metadata["files"]
    labels = tuple(str(label) for label in metadata["labels"])
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"the labels {list(labels)} are none, or stand twice")
    thresholds = {label: layout.checked_threshold(metadata["thresholds"][label]["value"]) for label in labels}
    max_length = int(metadata["max_length"])
    path = files.directory / layout.CONFIG
    config = layout.parse_json(files.read(layout.CONFIG, listed), path)
    if not 3 <= max_length <= int(config["max_position_embeddings"]):
        raise ValueError(f"max_length {max_length} is not in 3..{config['max_position_embeddings']}")
    encoder = Encoder(
        files.read(layout.TOKENIZER, listed).decode("utf-8"),
        str(files.directory / layout.TOKENIZER),
        max_length,
    )
    if encoder.vocabulary > int(config["vocab_size"]):
        raise ValueError(
            f"the tokenizer has {encoder.vocabulary} pieces, the network knows {config['vocab_size']}"
        )
    chosen, graph = graph_name(files.directory, precision)
    session = Session(files.read(graph, listed), str(files.directory / graph), len(labels), encoder.empty())
    return Classifier(
        session,
        encoder,
        labels=labels,
        thresholds=thresholds,
        precision=chosen,
        threads=threads,
        path=files.directory,
        digest=str(metadata.get("digest", "")),
    )


def _locate(model: str | os.PathLike[str] | None) -> Path:
    """Return the model directory."""
    if model is None:
        bundled = asset_path(_BUNDLED)
        if (bundled / layout.META).is_file():
            return bundled
        raise ModelNotFoundError(
            "no model is bundled with this installation",
            remedy="name one, such as load('runs/NAME') or --model runs/NAME; 'gkiller train', then "
            "'gkiller export runs/NAME' make one",
        )
    name = os.fspath(model)
    packaged = asset_path(_NAMED)
    known = sorted(path.name for path in packaged.glob("*") if (path / layout.META).is_file())
    if name in known and not Path(name).exists():
        return packaged / name
    try:
        return layout.find_model(name)
    except ModelNotFoundError as error:
        if known and Path(name).name == name and not Path(name).exists():
            error.remedy = did_you_mean(name, known)
        raise


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return available_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise SettingsError(
            f"threads must be in 1..1024, not {threads!r}", remedy="leave it out to use every core"
        )
    return threads


def available_threads() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
