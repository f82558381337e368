"""The giant: fine-tuned on the model's own training data, probed as a frozen encoder, or of random weights.

All three are kept as model directories in the cache, so that everything that reads a model reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from gkiller.benchmark.rivals import Frame, fingerprint, gkiller_specs, make_graphs, rival_specs, with_graphs
from gkiller.benchmark.systems import SystemSpec, Trained
from gkiller.data.load import Labelled, split_fingerprint
from gkiller.deployment.deploy import export_onnx, quantize
from gkiller.deployment.parity import parity_rows
from gkiller.deployment.quantize import ScoringNetwork
from gkiller.errors import ParityError, SettingsError
from gkiller.model.directory import LoadedModel, load_model, save_model
from gkiller.model.layout import GRAPHS, META, GraphPrecision
from gkiller.model.network import ToxicityClassifier, new_classifier
from gkiller.model.pretrained import load_encoder, load_tokenizer, loading
from gkiller.model.sequence import fetch, is_classifier, is_gkiller, weights_digest
from gkiller.wording import Progress, staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from gkiller.data.dataset import Dataset
    from gkiller.scoring.models import AnyModel
    from gkiller.settings.definition import Settings
    from gkiller.training.trainer import EventCallback


DEFAULT_BASE: Final = "google-bert/bert-base-uncased"
"""The giant where none is named."""

PROBE_C: Final = 1.0
_BATCH: Final = 32
_HARMLESS: Final = ("threads", "device", "checkpoint_seconds", "checkpoint_steps", "keep_checkpoints")
"""Training settings that a cached giant does not depend on."""


@dataclass(frozen=True)
class Base:
    """The giant that was asked for."""

    reference: str
    # what becomes of a bare encoder: "fine-tune" it, "probe" it frozen, or take "random" weights of its shape, which
    # can be timed alone
    way: str = "fine-tune"
    overrides: tuple[str, ...] = ()  # KEY=VALUE settings of the fine-tuning, as the command line gave them


def giant_specs(
    frame: Frame,
    base: Base,
    model: AnyModel,
    dataset: Dataset | None,
    settings: Settings,
    *,
    progress: Progress,
    on_event: EventCallback,
) -> tuple[list[SystemSpec], list[str]]:
    """Return the giant's rows, and warnings.

    Args:
        frame: what all systems share.
        dataset: the model's own, None where nothing is scored.
        settings: of the command, with ``data`` of the model's own run.

    Raises:
        GkillerError: the giant cannot be had, or fine-tuned.
    """
    if base.way == "random" and base.reference == DEFAULT_BASE:
        return _random(frame, _bert_base(), model.tokenizer.to_str(), Path(base.reference).name), []
    if is_gkiller(base.reference):
        return rival_specs(frame, base.reference, "giant"), []
    folder = fetch(base.reference)
    with loading(base.reference):
        trained = is_classifier(folder)
    if trained:
        return rival_specs(frame, base.reference, "giant"), []
    name = Path(base.reference).name
    giant = giant_settings(str(folder), settings, frame, base.overrides)
    if base.way == "random":
        tokenizer = load_tokenizer(giant.model)
        encoder = load_encoder(giant.model, tokenizer.get_vocab_size())
        return _random(frame, encoder.config, tokenizer.to_str(), name), []
    if dataset is None:
        raise SettingsError(
            "this giant has to be trained first, and there are no training comments",
            where="--compare-base",
            remedy="name the data with --data, or time random weights with --speed-only",
        )
    if base.way == "probe":
        return _probe(frame, giant, folder, dataset, name, progress), []
    return _fine_tuned(frame, giant, folder, dataset, name, progress=progress, on_event=on_event)


def giant_settings(encoder: str, settings: Settings, frame: Frame, overrides: Sequence[str]) -> Settings:
    """Return the settings of a giant's fine-tuning: its own defaults, with the model's data and limits."""
    from gkiller.settings import resolve

    # Neither variables nor a gkiller.toml: they were written for the model, and may not suit a giant.
    own = resolve(
        overrides=["model.arch=giant", f"model.max_length={frame.max_length}", *overrides],
        flags={"model.encoder": encoder},
        environ={},
        directory=frame.cache,
    ).settings
    return own.model_copy(update={"data": settings.data})


def _bert_base() -> Any:
    """Return BERT-Base's configuration, which is the default of transformers: no hub is needed for it."""
    from transformers import BertConfig

    return BertConfig()


def _random(frame: Frame, config: Any, tokenizer: str, name: str) -> list[SystemSpec]:
    note = "random weights: timed, not scored"
    facts = (config.to_json_string(), tokenizer, frame.labels, frame.max_length, frame.seed)
    place = frame.cache / f"{name}-random-{fingerprint(*facts)}"
    if not (place / META).is_file():
        with torch.random.fork_rng():
            torch.manual_seed(frame.seed)
            network = new_classifier(config, len(frame.labels), "mean").eval()
        _save(place, network, tokenizer, frame, note)
    return _ungated(frame, place, name, note, "nothing")


def _probe(
    frame: Frame, giant: Settings, folder: Path, dataset: Dataset, name: str, progress: Progress
) -> list[SystemSpec]:
    """Return the rows of a frozen encoder, mean-pooled, with a logistic regression for each label."""
    note = "frozen encoder + logistic head"
    train = dataset.split("train")
    facts = (weights_digest(folder), split_fingerprint(train, dataset.labels), frame.max_length, PROBE_C)
    place = frame.cache / f"{name}-probe-{fingerprint(*facts)}"
    if not (place / META).is_file():
        tokenizer = load_tokenizer(giant.model)
        encoder = load_encoder(giant.model, tokenizer.get_vocab_size())
        network = ToxicityClassifier(encoder, len(dataset.labels), "mean").eval()
        fit_probe(network, tokenizer, dataset, frame, progress)
        _save(place, network, tokenizer.to_str(), replace(frame, labels=dataset.labels), note)
    return _ungated(frame, place, name, note, "head")


def fit_probe(network: ToxicityClassifier, tokenizer: Any, dataset: Dataset, frame: Frame, progress: Progress) -> None:
    """Set a classifier's head to logistic regressions on its frozen, mean-pooled token vectors.

    Args:
        network: of pooling "mean"; its head is replaced, the encoder stays.

    Raises:
        SingleClassError: a label has one class only.
    """
    from gkiller.benchmark.linear import fit_head

    train, labels = dataset.split("train"), dataset.labels
    tokenizer.enable_truncation(frame.max_length)
    head = network.classifier
    setattr(network, "classifier", nn.Identity())  # noqa: B010  # its logits are then the pooled vectors
    vectors = _embed(network, tokenizer, train.texts, progress)
    network.classifier = head
    heads = [fit_head(vectors, train.labels[:, place], name, PROBE_C) for place, name in enumerate(labels)]
    weights = torch.tensor(np.stack([weight for weight, _ in heads]), dtype=torch.float32)
    biases = torch.tensor([bias for _, bias in heads], dtype=torch.float32)
    with torch.no_grad():
        if len(labels) == 1:  # two classes, whose difference is the logit
            weights = torch.cat([torch.zeros_like(weights), weights])
            biases = torch.cat([torch.zeros_like(biases), biases])
        head.weight.copy_(weights)
        head.bias.copy_(biases)


def _embed(network: nn.Module, tokenizer: Any, texts: Sequence[str], progress: Progress) -> Any:
    from gkiller.tokens.batches import scoring_batches, tokenize

    tokens = tokenize(tokenizer, texts)
    vectors: Any = None
    done = 0
    with torch.inference_mode():
        for rows in scoring_batches(tokens.lengths, _BATCH):
            ids, mask = tokens.pad_batch(rows)
            found = network(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
            if vectors is None:
                vectors = np.zeros((len(texts), found.shape[1]), np.float32)
            vectors[rows] = found
            done += len(rows)
            progress(done, len(texts), "embedding with the frozen giant")
    return vectors


def _save(place: Path, network: ToxicityClassifier, tokenizer: str, frame: Frame, note: str) -> None:
    thresholds = {label: {"value": 0.5, "target": "none"} for label in frame.labels}
    save_model(
        place,
        network,
        tokenizer,
        labels=frame.labels,
        thresholds=thresholds,
        max_length=frame.max_length,
        card=f"# {place.name}\n\nMade by `gkiller bench`: {note}.\n",
    )


def _ungated(frame: Frame, place: Path, name: str, note: str, trained: Trained) -> list[SystemSpec]:
    """Return the rows of a model whose graphs are kept beside it, as no gate compares them."""
    loaded = load_model(place)
    graphs = make_graphs(ScoringNetwork(loaded.model), frame.max_length, place.with_name(f"{place.name}.onnx"))
    torch_row = gkiller_specs(frame, loaded, name, "giant", note)[0]
    return [replace(row, trained=trained) for row in with_graphs(torch_row, graphs)]


def _fine_tuned(
    frame: Frame,
    giant: Settings,
    folder: Path,
    dataset: Dataset,
    name: str,
    *,
    progress: Progress,
    on_event: EventCallback,
) -> tuple[list[SystemSpec], list[str]]:
    """Return the rows of the fine-tuned giant; it is trained, or goes on training, unless it was before."""
    from gkiller.training.run import RunDirectory
    from gkiller.training.train import train

    run = frame.cache / f"{name}-{giant_fingerprint(giant, folder, dataset)}"
    known = RunDirectory(run) if (run / "settings.toml").is_file() else None
    if known is None or not known.complete:
        started: dict[str, Any] = {"name": run.name} if known is None else {"resume": run}
        train(giant, out=frame.cache, on_event=on_event, signals=True, **started)
    warnings = _export(load_model(run), giant, dataset, progress)
    return gkiller_specs(frame, load_model(run), name, "giant"), warnings


def giant_fingerprint(giant: Settings, folder: Path, dataset: Dataset) -> str:
    """Return the fingerprint of what a fine-tuned giant depends on: data, settings and base weights."""
    splits = {name: split_fingerprint(dataset.split(name), dataset.labels) for name in ("train", "valid")}
    plain = giant.model_dump(mode="json", include={"model", "train", "dendrites"})
    plain["model"].pop("encoder")  # the weights themselves count, wherever they are
    for key in _HARMLESS:
        plain["train"].pop(key, None)
    return fingerprint(plain, splits, weights_digest(folder))


def _export(loaded: LoadedModel, giant: Settings, dataset: Dataset, progress: Progress) -> list[str]:
    """Export a fine-tuned giant behind the parity gate, where it is not yet; return warnings."""
    assert loaded.path is not None
    if all((loaded.path / GRAPHS[precision]).is_file() for precision in ("fp32", "int8")):
        return []
    valid = Labelled(dataset, dataset.split("valid"), "valid")
    rows = parity_rows(loaded, valid, giant.deployment.parity_rows, staged(progress, "scoring with the giant"))
    warnings = []
    ways: dict[GraphPrecision, Callable[..., Any]] = {"fp32": export_onnx, "int8": quantize}
    for precision, make in ways.items():
        if (loaded.path / GRAPHS[precision]).is_file():
            continue
        try:
            make(load_model(loaded.path), rows, giant.deployment, progress=progress)
        except ParityError as error:
            warnings.append(f"the giant has no {precision} graph: {error.what}")
    return warnings
