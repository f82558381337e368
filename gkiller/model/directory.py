"""The model directory: what `save_model` writes and `load_model` reads. No pickle, no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gkiller.errors import ModelFormatError
from gkiller.files import atomic_directory, json_text, sha256_file
from gkiller.model.classifier import Pooling, ToxicityClassifier, new_classifier
from gkiller.model.dendritic import ACTIVATIONS, add_dendrites
from gkiller.model.growth import dendritic_modules
from gkiller.model.layout import CARD as _CARD
from gkiller.model.layout import CONFIG as _CONFIG
from gkiller.model.layout import FORMAT_VERSION, altered, check_digest, check_version, listed_file, parse_json
from gkiller.model.layout import META as _META
from gkiller.model.layout import REMEDY_DAMAGED as _REMEDY_DAMAGED
from gkiller.model.layout import TOKENIZER as _TOKENIZER
from gkiller.model.layout import WEIGHTS as _WEIGHTS
from gkiller.model.layout import checked_threshold as _threshold
from gkiller.model.layout import content_digest as _digest
from gkiller.model.layout import find_model as find_model
from gkiller.model.layout import one_line as _one_line
from gkiller.model.tokenizer import parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import BertConfig


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
        save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, temporary / _WEIGHTS)
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
        _write_metadata(temporary, metadata)


def rewrite_model(
    directory: Path, loaded: LoadedModel, *, thresholds: Mapping[str, Mapping[str, Any]], card: str
) -> None:
    """Replace a loaded model's thresholds and card, whole or not at all.

    Args:
        directory: the model directory to replace.
        loaded: what `load_model` gave for it.
        thresholds: as in `save_model`.
        card: the new model card.
    """
    source = loaded.path or directory
    listed = _read_json(source / _META)["files"]
    with atomic_directory(directory) as temporary:
        for name in listed:
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / name).read_bytes())
        (temporary / _CARD).write_text(card, "utf-8")
        _write_metadata(
            temporary, {**loaded.metadata, "thresholds": {k: dict(v) for k, v in thresholds.items()}}
        )


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
    """
    source = loaded.path or directory
    kept = [name for name in _read_json(source / _META)["files"] if keep is None or keep(name)]
    with atomic_directory(directory) as temporary:
        for name, content in (*((n, (source / n).read_bytes()) for n in kept), *files.items()):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        _write_metadata(temporary, {**loaded.metadata, **(changes or {})})


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
    metadata = _read_json(directory / _META)
    check_version(metadata, directory / _META)
    _verify(directory, metadata)
    try:
        labels = tuple(str(label) for label in metadata["labels"])
        thresholds = {label: _threshold(metadata["thresholds"][label]["value"]) for label in labels}
        max_length = int(metadata["max_length"])
        model = _build(directory, labels)
        text = (directory / _TOKENIZER).read_text("utf-8")
        tokenizer = parse_tokenizer(text, str(directory / _TOKENIZER), max_length)
        _check_fits(model, tokenizer, max_length)
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, RuntimeError) as error:
        raise ModelFormatError(
            f"the model directory is inconsistent: {_one_line(error)}",
            where=str(directory),
            remedy=_REMEDY_DAMAGED,
        ) from error
    kept = {key: value for key, value in metadata.items() if key not in ("files", "digest")}
    return LoadedModel(model, tokenizer, labels, thresholds, max_length, kept, directory)


def _config_of(model: ToxicityClassifier, labels: tuple[str, ...]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.bert.config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        config.pop(key, None)
    config["architectures"] = ["BertForSequenceClassification"]
    modules = dendritic_modules(model)
    config["gkiller"] = {
        "labels": list(labels),
        "pooling": model.pooling,
        "activation": next((m.activation for m in modules.values()), None),
        "dendrites": {name: len(m.dendrites) for name, m in modules.items()},
    }
    return dict(sorted(config.items()))


def _write_metadata(directory: Path, metadata: dict[str, Any]) -> None:
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != _META)
    digests = {p.relative_to(directory).as_posix(): sha256_file(p) for p in files}
    content = {**metadata, "files": digests}
    (directory / _META).write_text(json_text({**content, "digest": _digest(content)}), "utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return parse_json(path.read_bytes(), path)
    except OSError as error:
        raise ModelFormatError(
            f"not readable: {_one_line(error)}", where=str(path), remedy=_REMEDY_DAMAGED
        ) from error


def _verify(directory: Path, metadata: Mapping[str, Any]) -> None:
    listed = metadata.get("files")
    needed = {_CONFIG, _WEIGHTS, _TOKENIZER, _CARD}
    if not isinstance(listed, dict) or not needed <= listed.keys():
        raise ModelFormatError(
            "the list of files lacks " + ", ".join(sorted(needed - set(listed or ()))),
            where=str(directory / _META),
            remedy=_REMEDY_DAMAGED,
        )
    check_digest(metadata, directory / _META)
    for name, digest in listed.items():
        path = listed_file(directory, name)
        if sha256_file(path) != digest:
            raise altered(path)


def _check_fits(model: ToxicityClassifier, tokenizer: Tokenizer, max_length: int) -> None:
    config = model.bert.config
    if not 2 <= max_length <= config.max_position_embeddings:
        raise ValueError(f"max_length {max_length} is not in 2..{config.max_position_embeddings}")
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.get_vocab_size()} pieces, the network knows {config.vocab_size}"
        )


def _build(directory: Path, labels: tuple[str, ...]) -> ToxicityClassifier:
    config = _read_json(directory / _CONFIG)
    own = config.pop("gkiller")
    if own["labels"] != list(labels):
        raise ValueError(f"config.json has the labels {own['labels']}, gkiller.json {list(labels)}")
    model = _empty(config, own, len(labels))
    model.load_state_dict(load_file(directory / _WEIGHTS))
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} holds values that are not finite")
    return model.eval()


def _empty(config: dict[str, Any], own: Mapping[str, Any], labels: int) -> ToxicityClassifier:
    from transformers import BertConfig

    if config.get("model_type") != "bert":
        raise ValueError(f"config.json describes a {config.get('model_type')!r} model, not 'bert'")
    if own["pooling"] not in get_args(Pooling):
        raise ValueError(f"pooling {own['pooling']!r} is unknown")
    if own["dendrites"] and own["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation {own['activation']!r} is unknown")
    for name, count in own["dendrites"].items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} cannot have {count!r} dendrites")
    built: BertConfig = BertConfig.from_dict(config)
    with torch.random.fork_rng(devices=[]):
        model = new_classifier(built, labels, own["pooling"])
        add_dendrites(model, own["dendrites"], own["activation"] or "sigmoid")
    return model
