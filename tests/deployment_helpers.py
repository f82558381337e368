"""Small networks with every kind of weight set, saved models of them, and rows to compare on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import comment, tiny_settings, toy_tokenizer, vocabulary

from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import Labelled
from gkiller.deployment import deploy, quantize
from gkiller.deployment.weights import network_of
from gkiller.model.dendrites.growth import chosen_linears, dendritic_modules
from gkiller.model.directory import LoadedModel, load_model, save_model
from gkiller.model.network import ToxicityClassifier, add_dendrites, build_classifier

ONE, SIX = ("toxicity",), ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
LENGTH = 16


def network(
    labels: tuple[Any, ...] = ONE,
    dendrites: int = 1,
    activation: str = "sigmoid",
    pooling: str = "mean_max",
    layers: int = 2,
    patterns: tuple[Any, ...] = ("*",),
) -> ToxicityClassifier:
    """A classifier whose weights are large enough to make every part matter."""
    torch.manual_seed(len(labels) + dendrites)
    settings = tiny_settings(f"model.pooling={pooling}", f"model.layers={layers}").model
    model = build_classifier(settings, labels, len(vocabulary()))
    if dendrites:
        names = chosen_linears(model, patterns)
        add_dendrites(model, dict.fromkeys(names, dendrites), activation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" not in name:
                parameter.normal_(std=0.3)
        for module in dendritic_modules(model).values():
            for link in module.dendrite_links:
                link.normal_()
    return model.eval()


def save(folder: Path, model: ToxicityClassifier | None = None, labels: tuple[Any, ...] = ONE) -> LoadedModel:
    """A saved model of the toy vocabulary, loaded again."""
    save_model(
        folder,
        model or network(labels),
        toy_tokenizer().to_str(),
        labels=labels,
        thresholds={label: {"value": 0.5} for label in labels},
        max_length=LENGTH,
        card="# Card\n",
    )
    return load_model(folder)


def tokens(rows: int, length: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Random ids and masks, int64 (rows, length); every row has at least one real token."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, len(vocabulary()), (rows, length))
    mask = np.arange(length) < random.integers(1, length + 1, (rows, 1))
    return ids, mask.astype(np.int64)


def torch_logits(
    model: ToxicityClassifier, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The trained model's logits with one column per label."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return logits[:, 1:] - logits[:, :1] if model.labels == 1 else logits


def labelled(labels: tuple[Any, ...] = ONE, count: int = 80) -> Labelled:
    """Toy comments, every fourth positive in every label."""
    rude = np.arange(count) % 4 == 0
    texts = [comment(i, bool(rude[i])) for i in range(count)]
    table = np.repeat(rude[:, None], len(labels), axis=1).astype(np.float32)
    split = Split([str(i) for i in range(count)], texts, table, np.ones(count))
    return Labelled(Dataset(tuple(labels), {"valid": split}, {"source": "toy"}), split, "valid")


def broken_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the graph's builder see one wrong matrix."""

    def damaged(model: Any, max_length: Any) -> Any:
        found = network_of(model, max_length)
        first = found.layers[0]
        wrong = replace(first, up=replace(first.up, weight=-first.up.weight))
        return replace(found, layers=(wrong, *found.layers[1:]))

    for room in (deploy, quantize):
        monkeypatch.setattr(room, "network_of", damaged)
