"""From what a user names to rows of the table: models, classifiers of transformers, and fitted rivals.

What takes long to make is kept in a cache directory, under a name that ends with a fingerprint of everything
it depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from gkiller.benchmark.systems import ONNX, Role, Runtime, SystemSpec, graph_file
from gkiller.data.load import split_fingerprint
from gkiller.deployment.quantize import PLAIN_CANDIDATES, export_network, quantize_plain
from gkiller.errors import ModelNotFoundError
from gkiller.evaluation.source import run_of
from gkiller.model.layout import BESIDE, TOKENIZER, WEIGHTS
from gkiller.model.pretrained import loading
from gkiller.model.sequence import (
    fetch_classifier,
    is_gkiller,
    load_classifier,
    name_of,
    read_tokenizer,
    weights_digest,
)
from gkiller.scoring.models import AnyModel, DeployedModel, load_any
from gkiller.settings import resolve
from gkiller.storage.files import write_text, writing
from gkiller.tokens.wordpiece import special_ids
from gkiller.wording import Progress, counted

if TYPE_CHECKING:
    from torch import nn

    from gkiller.data.dataset import Split
    from gkiller.tokens.batches import LongText


FILES: Final[dict[Runtime, str]] = {"onnx fp32": "model.onnx", "onnx int8": "model.int8.onnx"}


def make_graphs(module: nn.Module, max_length: int, folder: Path) -> dict[Runtime, Path]:
    """Write a network's graphs, unless they are there.

    Returns:
        The files by runtime. int8 is the first way that a giant's graph is tried in: onnxruntime's dynamic
        quantization of weights and embeddings.
    """
    plain, small = (folder / file for file in FILES.values())
    if not (plain.is_file() and small.is_file()):
        graph = export_network(module, max_length)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder) as made:
                first, second = Path(made) / plain.name, Path(made) / small.name
                first.write_bytes(graph.SerializeToString())
                second.write_bytes(quantize_plain(graph, PLAIN_CANDIDATES[0].scheme))
                second.replace(small)
                first.replace(plain)
    return {"onnx fp32": plain, "onnx int8": small}


RUNTIMES: Final[tuple[Runtime, ...]] = ("torch fp32", "onnx fp32", "onnx int8")
_SHORT: Final = 12
"""Hex digits of a fingerprint in a name."""


@dataclass(frozen=True)
class Frame:
    """What every system shares."""

    labels: tuple[str, ...]
    max_length: int
    batch_size: int
    cache: Path
    seed: int = 0
    long_text: LongText = "window"

    def spec(self, **values: Any) -> SystemSpec:
        """Return a row that has the shared limits."""
        shared = {"max_length": self.max_length, "batch_size": self.batch_size, "long_text": self.long_text}
        given = {**shared, **values}
        return SystemSpec(**given)


def gkiller_specs(frame: Frame, loaded: AnyModel, name: str, role: Role, note: str = "") -> list[SystemSpec]:
    """Return a gkiller model's rows: torch where it has weights, and each graph that it was exported to."""
    assert loaded.path is not None
    directory = loaded.path
    shared: dict[str, Any] = {
        "name": name,
        "kind": "gkiller",
        "path": str(directory),
        "labels": loaded.labels,
        "parameters": loaded.parameters,
        "max_length": min(frame.max_length, loaded.max_length),
        "role": role,
        "note": note or _training_note(directory),
        "tokenizer": str(directory / TOKENIZER),
        "pad": max(0, special_ids(loaded.tokenizer).pad),
    }
    rows = []
    for runtime in RUNTIMES:
        graph = graph_file(directory, runtime)
        if graph is None and (runtime in ONNX or isinstance(loaded, DeployedModel)):
            continue
        needed = [graph or directory / WEIGHTS, *(directory / file for file in BESIDE)]
        files = tuple(str(file) for file in needed)
        rows.append(frame.spec(**shared, runtime=runtime, files=files, graph=str(graph or "")))
    return rows


def _training_note(directory: Path) -> str:
    """Say how a giant was fine-tuned, by its run's settings; empty for other models, and outside of a run."""
    run = run_of(directory)
    if run is None:
        return ""
    settings = resolve(config=run / "settings.toml", environ={}).settings
    if settings.model.arch != "giant":
        return ""
    epochs, frozen = settings.train.epochs, settings.train.freeze_layers
    note = "fine-tuned" + (f", {counted(epochs, 'epoch')}" if epochs else "")
    note += ", bf16 products" if settings.train.precision == "bf16" else ""
    return note + (f", all but its lowest {counted(frozen, 'layer')}" if frozen else "")


def rival_specs(frame: Frame, reference: str, role: Role = "rival") -> list[SystemSpec]:
    """Return the rows of a trained classifier: a gkiller model or run, or a classifier of transformers.

    Raises:
        ModelNotFoundError: there is neither.
        ModelFormatError: it is an encoder without a classifier, or cannot be read.
        HubUnavailableError: it is a hub id, and the hub does not give it.
    """
    if is_gkiller(reference):
        loaded = load_any(reference)
        assert loaded.path is not None
        return gkiller_specs(frame, loaded, name_of(loaded.path), role)
    folder = fetch_classifier(
        reference,
        what="this is an encoder without a classifier, so it has no scores to compare",
        remedy=f"fine-tune it: gkiller train --arch giant --base-model {reference}, or name it with --compare-base",
    )
    return transformers_specs(frame, reference, folder, role)


def transformers_specs(frame: Frame, reference: str, folder: Path, role: Role) -> list[SystemSpec]:
    """Return the rows of a sequence classifier of transformers; its graphs are made and kept in the cache."""
    module, labels = load_classifier(str(folder), frame.labels)
    name = Path(reference).name
    place = frame.cache / f"{name}-{fingerprint(weights_digest(folder), frame.max_length, labels)}"
    with loading(reference):
        tokenizer, pad, most = read_tokenizer(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / TOKENIZER, tokenizer)
    limit = min(frame.max_length, most)
    graphs = make_graphs(module, limit, place)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    weights = [str(path) for path in (*sorted(folder.glob("*.safetensors")), folder / "config.json")]
    row = frame.spec(
        name=name,
        kind="transformers",
        runtime="torch fp32",
        path=str(folder),
        labels=labels,
        parameters=parameters,
        files=(*weights, str(place / TOKENIZER)),
        max_length=limit,
        role=role,
        tokenizer=str(place / TOKENIZER),
        pad=pad,
    )
    return with_graphs(row, graphs)


def with_graphs(row: SystemSpec, graphs: dict[Runtime, Path]) -> list[SystemSpec]:
    """Return a torch row and, for each graph, one that runs it."""
    own = [
        replace(row, runtime=runtime, graph=str(path), files=(str(path), row.tokenizer))
        for runtime, path in graphs.items()
    ]
    return [row, *own]


def linear_spec(frame: Frame, train: Split, labels: Sequence[str], progress: Progress) -> SystemSpec:
    """Return the TF-IDF rival, fitted on the training split unless it was before."""
    from gkiller.benchmark import linear

    facts = (linear.FEATURES, linear.C, linear.MIN_DF, version("scikit-learn"))
    place = frame.cache / f"tfidf-{fingerprint(split_fingerprint(train, tuple(labels)), *facts)}"
    if not (place / linear.FILES[-1]).is_file():
        progress(0, None, "fitting TF-IDF")
        linear.fit_linear(train, labels).save(place)
    return frame.spec(
        name="TF-IDF + LR",
        kind="linear",
        runtime="scikit-learn",
        path=str(place),
        labels=tuple(labels),
        parameters=linear.load_linear(place).parameters,
        files=tuple(str(place / file) for file in linear.FILES),
        max_length=0,
        note="logistic regression; reads whole comments",
    )


def static_spec(frame: Frame, source: str, train: Split, labels: Sequence[str]) -> SystemSpec:
    """Return the static rival, fitted on the training split.

    Raises:
        SettingsError: model2vec is not installed.
        ModelNotFoundError: there is no such directory.
    """
    from gkiller.benchmark import linear as static

    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ModelNotFoundError("no such directory", where=source, remedy="name a directory that model2vec saved")
    fitted = static.fit_static(str(folder), train, labels)
    place = frame.cache / f"static-{fingerprint(split_fingerprint(train, tuple(labels)), str(folder.resolve()))}"
    fitted.save(place)
    embeddings = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return frame.spec(
        name=f"{folder.name} + LR",
        kind="static",
        runtime="numpy",
        path=str(place),
        labels=tuple(labels),
        parameters=fitted.parameters,
        files=(*embeddings, str(place / static.HEAD)),
        max_length=0,
        note="static embeddings, logistic regression; reads whole comments",
    )


def unique_names(rows: Sequence[Sequence[SystemSpec]]) -> list[SystemSpec]:
    """Return all rows; where several models have a name, the later ones get a number."""
    seen: dict[str, int] = {}
    found = []
    for model in rows:
        base = model[0].name
        seen[base] = seen.get(base, 0) + 1
        name = base if seen[base] == 1 else f"{base} ({seen[base]})"
        found += [replace(spec, name=name) for spec in model]
    return found


def fingerprint(*facts: Any) -> str:
    """Return the first digits of the SHA-256 of plain values."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]
