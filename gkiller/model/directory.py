"""The model directory: what `save_model` writes and `load_model` reads. No pickle, no code.

A directory may come from anybody: its digests may be right and its content wrong. Every file is read once,
within a limit, and its content is checked before it is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from gkiller.errors import (
    GkillerError,
    ModelFormatError,
    ModelNotFoundError,
    ModelTamperedError,
    nearest,
    one_line,
)
from gkiller.files import atomic_directory, json_text
from gkiller.model.classifier import ToxicityClassifier
from gkiller.model.description import WRITTEN, read_description, read_labels, read_number
from gkiller.model.growth import dendritic_modules
from gkiller.model.tokenizer import MAX_TOKENIZER_BYTES, parse_tokenizer
from gkiller.sealed import SealBrokenError, Sealed, seal, unseal
from gkiller.strict_json import parse_json
from gkiller.tensors import FLOATS, read_header, read_tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT_VERSION = 1
_META, _CONFIG, _WEIGHTS, _TOKENIZER, _CARD = (
    "gkiller.json",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "README.md",
)
_LIMITS = {_CONFIG: 2**20, _WEIGHTS: 4 * 2**30, _TOKENIZER: MAX_TOKENIZER_BYTES, _CARD: 4 * 2**20}
"""The most bytes that are read of each file."""
_RUN = "settings.toml"
"""The file that makes a directory a run."""
_REMEDY_MISSING = "name a run or its model directory, such as runs/NAME/model; 'gkiller train' makes one"
_REMEDY_DAMAGED = "copy the model again from where it came, or train it again"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score comments.

    Attributes:
        model: the folded network, in evaluation mode on the CPU.
        tokenizer: truncates at ``max_length``.
        labels: in the order of the scores' columns.
        thresholds: by label; a score at or above it is positive.
        max_length: tokens read of a comment.
        metadata: gkiller.json, without its list of files and its digest.
        path: where it was loaded from.
    """

    model: ToxicityClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    thresholds: dict[str, float]
    max_length: int
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def save_model(
    directory: Path,
    model: ToxicityClassifier,
    tokenizer_json: str,
    *,
    labels: tuple[str, ...],
    thresholds: Mapping[str, Mapping[str, Any]],
    max_length: int,
    card: str,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a model directory, whole or not at all; an earlier one at the same place is replaced.

    Args:
        directory: where.
        model: the folded network.
        tokenizer_json: the tokenizer.
        labels: in the order of the head's outputs.
        thresholds: by label, at least ``{"value": float}``, with how it was tuned.
        max_length: tokens read of a comment.
        card: the model card, Markdown.
        training: where the model came from: data source, whether it is synthetic, manifest digest.
    """
    with atomic_directory(directory) as temporary:
        (temporary / _CONFIG).write_text(json_text(_config_of(model, labels)), "utf-8")
        weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        (temporary / _WEIGHTS).write_bytes(save(weights))
        (temporary / _TOKENIZER).write_text(tokenizer_json, "utf-8")
        (temporary / _CARD).write_text(card, "utf-8")
        metadata = {
            "format_version": FORMAT_VERSION,
            "labels": list(labels),
            "max_length": max_length,
            "thresholds": {label: dict(thresholds[label]) for label in labels},
            "calibration": None,
            "training": dict(training or {}),
        }
        seal(temporary, _META, metadata)


def rewrite_model(
    directory: Path, loaded: LoadedModel, *, thresholds: Mapping[str, Mapping[str, Any]], card: str
) -> None:
    """Replace a loaded model's thresholds and card, whole or not at all.

    Args:
        directory: the model directory to replace.
        loaded: what `load_model` gave for it.
        thresholds: as in `save_model`.
        card: the new model card.

    Raises:
        ModelTamperedError: a file is not the one that was loaded.
        ModelFormatError: the directory cannot be read any more.
    """
    source = loaded.path or directory
    with atomic_directory(directory) as temporary:
        with _unbroken():
            _unseal(source).copy_to(temporary)
        (temporary / _CARD).write_text(card, "utf-8")
        seal(temporary, _META, {**loaded.metadata, "thresholds": {k: dict(v) for k, v in thresholds.items()}})


def add_files(
    directory: Path,
    loaded: LoadedModel,
    files: Mapping[str, bytes],
    *,
    keep: Callable[[str], bool] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write a loaded model with more files, whole or not at all; to its own place or another.

    Args:
        directory: where.
        loaded: what `load_model` gave.
        files: what is added or replaced, by its name in the directory, such as "onnx/model.onnx".
        keep: says of each of the model's own files whether to take it over; all by default.
        changes: to what gkiller.json says.

    Raises:
        ModelTamperedError: a file is not the one that was loaded.
        ModelFormatError: the directory cannot be read any more.
    """
    source = loaded.path or directory
    with atomic_directory(directory) as temporary:
        with _unbroken():
            _unseal(source).copy_to(temporary, lambda name: name not in files and (not keep or keep(name)))
        for name, content in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        seal(temporary, _META, {**loaded.metadata, **(changes or {})})


def load_model(path: str | Path) -> LoadedModel:
    """Read a model directory, or the ``model`` directory of a run.

    Args:
        path: the directory.

    Raises:
        ModelNotFoundError: there is no model.
        ModelTamperedError: a file differs from its recorded SHA-256, or gkiller.json from its own digest.
        ModelFormatError: the format is unknown or inconsistent, or a weight is not finite.
    """
    directory = find_model(path)
    with _unbroken():
        sealed = _unseal(directory)
    with _consistent(directory):
        return _read(sealed)


def find_model(path: str | Path) -> Path:
    """Return the model directory at ``path``, or at ``path/model`` when ``path`` is a run.

    Raises:
        ModelNotFoundError: there is neither.
    """
    what, remedy = "no such directory", _REMEDY_MISSING
    try:
        directory = Path(path).expanduser()
        for candidate in (directory, directory / "model"):
            if (candidate / _META).is_file():
                return candidate
        run = directory.parent if directory.name == "model" else directory
        if (run / _RUN).is_file():
            what = "this run has no model yet: its training has not finished"
            remedy = f"finish it with: gkiller train --resume {run}"
        elif directory.exists():
            what = f"no model there: {_META} is missing"
        elif close := _nearest_runs(directory):
            remedy = f"did you mean {' or '.join(map(str, close))}?"
    except (OSError, RuntimeError, ValueError) as error:  # not permitted, an unknown "~user", a NUL
        what = f"no model can be read there: {one_line(error)}"
    raise ModelNotFoundError(what, where=str(path), remedy=remedy)


def _nearest_runs(directory: Path) -> list[Path]:
    """Return the runs and models nearest in name to one that is not there: beside it, or under ``runs``."""
    for folder in (directory.parent, directory.parent / "runs"):
        there = list(folder.iterdir()) if folder.is_dir() else []
        names = [d.name for d in there if (d / _RUN).is_file() or (d / _META).is_file()]
        if close := nearest(directory.name, names):
            return [folder / name for name in close]
    return []


def _config_of(model: ToxicityClassifier, labels: tuple[str, ...]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.bert.config.to_json_string(use_diff=False))
    config = {key: value for key, value in config.items() if key in WRITTEN}
    modules = dendritic_modules(model)
    # The class of transformers computes this one only; the others would load there, and score otherwise.
    plain = model.pooling == "cls" and not modules
    config["architectures"] = ["BertForSequenceClassification" if plain else "ToxicityClassifier"]
    outputs = (f"not_{labels[0]}", *labels) if len(labels) == 1 else labels
    config["id2label"] = {str(place): name for place, name in enumerate(outputs)}
    config["label2id"] = {name: place for place, name in enumerate(outputs)}
    kind = "single" if len(labels) == 1 else "multi"
    config["problem_type"] = f"{kind}_label_classification"
    config["gkiller"] = {
        "labels": list(labels),
        "pooling": model.pooling,
        "activation": next((m.activation for m in modules.values()), None),
        "dendrites": {name: len(m.dendrites) for name, m in modules.items()},
    }
    return dict(sorted(config.items()))


def _unseal(directory: Path) -> Sealed:
    return unseal(directory, _META, version=FORMAT_VERSION, keep=_LIMITS)


@contextmanager
def _unbroken() -> Iterator[None]:
    """Turn a broken seal into an error of the model."""
    try:
        yield
    except SealBrokenError as error:
        kinds = {"missing": ModelTamperedError, "tampered": ModelTamperedError}
        remedy = _REMEDY_DAMAGED
        if error.kind == "version":
            remedy = f"this gkiller reads format {FORMAT_VERSION}; use the version that wrote it"
        elif error.kind == "tampered" and error.file.name == _META:
            remedy = f"{_REMEDY_DAMAGED}; 'gkiller threshold' is what changes thresholds"
        what = f"model {error.what}" if error.kind == "version" else error.what
        found: type[GkillerError] = kinds.get(error.kind, ModelFormatError)
        raise found(what, where=str(error.file), remedy=remedy) from error


@contextmanager
def _consistent(directory: Path) -> Iterator[None]:
    """Turn what is wrong inside of the files into an error of the model."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelFormatError(
            f"the model directory is inconsistent: {one_line(error)}",
            where=str(directory),
            remedy=_REMEDY_DAMAGED,
        ) from error


def _read(sealed: Sealed) -> LoadedModel:
    """Read what a sealed directory holds, the network last.

    Raises:
        ModelFormatError: the tokenizer cannot be used.
        ValueError: anything else cannot.
    """
    content, place = sealed.content, sealed.directory / _TOKENIZER
    sealed.kept[_CARD].decode("utf-8")
    labels = read_labels(content["labels"])
    thresholds = _thresholds(content["thresholds"], labels)
    if not isinstance(content.get("training", {}), dict):
        raise ValueError("training is not an object")
    max_length = content["max_length"]
    config = parse_json(sealed.kept[_CONFIG])
    if type(max_length) is not int or not 2 <= max_length <= _positions(config):
        raise ValueError(f"max_length {str(max_length)[:80]} is not in 2..{_positions(config)}")
    tokenizer = parse_tokenizer(sealed.kept[_TOKENIZER], str(place), max_length)
    model = _network(config, sealed.kept[_WEIGHTS], labels)
    _check_fits(model, tokenizer)
    return LoadedModel(model, tokenizer, labels, thresholds, max_length, content, sealed.directory)


def _positions(config: Mapping[str, Any]) -> int:
    found = config.get("max_position_embeddings")
    return found if type(found) is int else 0


def _thresholds(content: Any, labels: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(content, dict) or content.keys() != set(labels):
        raise ValueError(f"the thresholds are not those of the labels {', '.join(labels)}")
    for entry in content.values():
        if not isinstance(entry, dict) or not isinstance(entry.get("target", ""), str):
            raise ValueError("a threshold is not an object with a value")
        if "tuned_on" in entry:
            _check_tuned_on(entry["tuned_on"])
    return {label: read_number(content[label].get("value"), "the threshold") for label in labels}


def _check_tuned_on(record: Any) -> None:
    """Demand of what a threshold was tuned on, which other commands write into the card, its usual types."""
    kinds = {"source": str, "split": str, "rows": int, "fingerprints": list}
    if not isinstance(record, dict) or any(type(record.get(key)) is not kind for key, kind in kinds.items()):
        raise ValueError(
            "what a threshold was tuned on is not an object of source, split, rows, fingerprints"
        )
    words = [record["source"], record["split"], *record["fingerprints"]]
    if not all(isinstance(word, str) and word.isprintable() for word in words):
        raise ValueError("what a threshold was tuned on is not in printable text")


def _network(config: Mapping[str, Any], data: bytes, labels: tuple[str, ...]) -> ToxicityClassifier:
    """Build the network; nothing is allocated before its shapes are those of the file."""
    description = read_description(config)
    if description.labels != labels:
        raise ValueError(
            f"config.json has the labels {list(description.labels)}, gkiller.json {list(labels)}"
        )
    expected = description.shapes(len(read_header(data, FLOATS)))
    weights = read_tensors(data, dtypes=FLOATS, expected=expected)
    model = description.build()
    model.load_state_dict(weights)
    return model.eval()


def _check_fits(model: ToxicityClassifier, tokenizer: Tokenizer) -> None:
    """Compare the tokenizer with the network, and score an empty comment."""
    known = model.bert.config.vocab_size
    if tokenizer.get_vocab_size() > known:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} pieces, the network knows {known}")
    largest = max(tokenizer.get_vocab().values())
    if largest >= known:
        raise ValueError(f"the tokenizer has a piece numbered {largest}, the network knows {known} pieces")
    ids = torch.tensor([tokenizer.encode("").ids])
    with torch.inference_mode():
        scores = model.probabilities(model(ids, torch.ones_like(ids)))
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("the scores of an empty comment are not in 0..1")
