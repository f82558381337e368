"""The model directory: what `save_model` writes and `load_model` reads. No pickle, no code.

A directory may come from anybody: its digests may be right and its content wrong. Every file is read once,
within a limit, and its content is checked before it is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import save

from gkiller.data.labels import FLAG_LABELS
from gkiller.errors import ModelNotFoundError
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.layout import (
    CARD,
    CONFIG,
    FORMAT_VERSION,
    LIMITS,
    META,
    TOKENIZER,
    WEIGHTS,
    consistent,
    find_model,
    flag_entry,
    read_flag_labels,
    read_labels,
    read_max_length,
    read_thresholds,
    require_weights,
    unbroken,
)
from gkiller.model.network import ToxicityClassifier, parameter_count, read_description
from gkiller.model.pretrained import architecture_of
from gkiller.storage.files import atomic_directory, json_text
from gkiller.storage.sealed import Sealed, seal, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.storage.tensors import FLOATS, read_header, read_tensors
from gkiller.tokens.wordpiece import check_padding, check_vocabulary, parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score comments."""

    model: ToxicityClassifier
    tokenizer: Tokenizer  # truncates at max_length
    labels: tuple[str, ...]  # in the order of the scores' columns
    thresholds: dict[str, float]  # by label; a score at or above it is positive
    max_length: int
    metadata: dict[str, Any] = field(default_factory=dict)  # gkiller.json, without its list of files and its digest
    path: Path | None = None

    @property
    def precision(self) -> str:
        """Of the weights that score."""
        return "fp32"

    @property
    def parameters(self) -> int:
        """How many numbers inference uses."""
        return parameter_count(self.model)


class Stored(Protocol):
    """A model that was read from a directory, with its weights or without."""

    @property
    def path(self) -> Path | None:
        """Where it was loaded from."""

    @property
    def metadata(self) -> dict[str, Any]:
        """gkiller.json, without its list of files and its digest."""


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
    flag_labels: Sequence[str] | None = None,
) -> None:
    """Write a model directory, whole or not at all; an earlier one at the same place is replaced.

    Args:
        model: the folded network.
        labels: in the order of the head's outputs.
        thresholds: by label, at least ``{"value": float}``, with how it was tuned.
        training: where the model came from: data source, whether it is synthetic, manifest digest.
        flag_labels: the labels that decide whether a comment is flagged; all by default.
    """
    with atomic_directory(directory) as temporary:
        (temporary / CONFIG).write_text(json_text(_config_of(model, labels)), "utf-8")
        weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        (temporary / WEIGHTS).write_bytes(save(weights))
        (temporary / TOKENIZER).write_text(tokenizer_json, "utf-8")
        (temporary / CARD).write_text(card, "utf-8")
        metadata = {
            "format_version": FORMAT_VERSION,
            "labels": list(labels),
            "max_length": max_length,
            "thresholds": {label: dict(thresholds[label]) for label in labels},
            **flag_entry(flag_labels or labels, labels),
            "calibration": None,
            "training": dict(training or {}),
        }
        seal(temporary, META, metadata)


def rewrite_model(
    directory: Path,
    loaded: Stored,
    *,
    thresholds: Mapping[str, Mapping[str, Any]],
    card: str,
    flag_labels: Sequence[str] | None = None,
) -> None:
    """Write a loaded model with other thresholds, another card and, where given, other labels that decide a flag."""
    content = {**loaded.metadata, "thresholds": {k: dict(v) for k, v in thresholds.items()}}
    if flag_labels is not None:
        content.pop(FLAG_LABELS, None)
        content |= flag_entry(flag_labels, loaded.metadata["labels"])
    _copy(directory, loaded, {CARD: card.encode()}, content)


def add_files(
    directory: Path,
    loaded: Stored,
    files: Mapping[str, bytes],
    *,
    keep: Callable[[str], bool] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write a loaded model with more files, whole or not at all; to its own place or another.

    Args:
        files: what is added or replaced, by its name in the directory, such as "onnx/model.onnx".
        keep: says of each of the model's own files whether to take it over; all by default.
        changes: to gkiller.json.

    Raises:
        ModelTamperedError, ModelFormatError: a file is not the one that was loaded, or cannot be read any more.
    """
    metadata = {**loaded.metadata, **(changes or {})}
    _copy(directory, loaded, files, metadata, lambda name: name not in files and (not keep or keep(name)))


def _copy(
    directory: Path,
    loaded: Stored,
    files: Mapping[str, bytes],
    metadata: Mapping[str, Any],
    wanted: Callable[[str], bool] | None = None,
) -> None:
    with atomic_directory(directory) as temporary:
        with unbroken():
            sealed = unseal(loaded.path or directory, META, version=FORMAT_VERSION, keep={}, check="kept")
            sealed.copy_to(temporary, wanted)
        for name, content in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        seal(temporary, META, metadata)


def stored_files(loaded: Stored, names: Iterable[str]) -> dict[str, bytes]:
    """Return files of a loaded model, such as its graphs, compared with their SHA-256 as they are read.

    Raises:
        ModelNotFoundError: the model was not read from a directory.
        ModelTamperedError: one is not what it was.
        ModelFormatError: the model has no such file.
    """
    if loaded.path is None:
        raise ModelNotFoundError("the model was not read from a directory", remedy="save it first")
    keep = {name: LIMITS[name] for name in names}
    with unbroken():
        return unseal(loaded.path, META, version=FORMAT_VERSION, keep=keep, check="kept").kept


def load_model(path: str | Path) -> LoadedModel:
    """Read a model directory, or the ``model`` directory of a run.

    Raises:
        ModelNotFoundError: there is no model.
        ModelTamperedError: a file differs from its recorded SHA-256, or gkiller.json from its own digest.
        ModelFormatError: the format is unknown or inconsistent, or the weights are missing or not finite.
    """
    directory = find_model(path)
    require_weights(directory)
    with unbroken():
        keep = {name: LIMITS[name] for name in (CONFIG, WEIGHTS, TOKENIZER, CARD)}
        sealed = unseal(directory, META, version=FORMAT_VERSION, keep=keep)
    with consistent(directory):
        return _read(sealed)


def _config_of(model: ToxicityClassifier, labels: tuple[str, ...]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.bert.config.to_json_string(use_diff=False))
    config = {key: value for key, value in config.items() if key in architecture_of(config).written}
    modules = dendritic_modules(model)
    # The class of transformers computes this one only; it would load the others, and score otherwise.
    plain = model.pooling == "cls" and not modules and config["model_type"] == "bert"
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


def _read(sealed: Sealed) -> LoadedModel:
    """Read what a sealed directory holds, the network last; a ValueError for what is inconsistent."""
    content, place = sealed.content, sealed.directory / TOKENIZER
    sealed.kept[CARD].decode("utf-8")
    labels = read_labels(content["labels"])
    thresholds = read_thresholds(content["thresholds"], labels)
    read_flag_labels(content, labels)
    if not isinstance(content.get("training", {}), dict):
        raise ValueError("training is not an object")
    config = parse_json(sealed.kept[CONFIG])
    max_length = read_max_length(content["max_length"], config)
    tokenizer = parse_tokenizer(sealed.kept[TOKENIZER], str(place), max_length)
    model = _network(config, sealed.kept[WEIGHTS], labels)
    check_vocabulary(tokenizer, model.bert.config.vocab_size)
    check_padding(tokenizer, model.bert.config.to_dict())
    ids = torch.tensor([tokenizer.encode("").ids])
    with torch.inference_mode():
        scores = model.probabilities(model(ids, torch.ones_like(ids)))
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("the scores of an empty comment are not in 0..1")
    return LoadedModel(model, tokenizer, labels, thresholds, max_length, content, sealed.directory)


def _network(config: Mapping[str, Any], data: bytes, labels: tuple[str, ...]) -> ToxicityClassifier:
    """Build the network; nothing is allocated before its shapes match the file's."""
    description = read_description(config)
    if description.labels != labels:
        raise ValueError(f"config.json has the labels {list(description.labels)}, gkiller.json {list(labels)}")
    expected = description.shapes(len(read_header(data, FLOATS)))
    weights = read_tensors(data, dtypes=FLOATS, expected=expected)
    model = description.build()
    model.load_state_dict(weights)
    return model.eval()
