"""A small network with dendrites, saved as a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from giants import tokenizer_of, write_encoder
from toy import tiny_settings, toy_tokenizer, vocabulary

from gkiller.model.dendrites.growth import chosen_linears, dendritic_modules
from gkiller.model.directory import save_model
from gkiller.model.network import ToxicityClassifier, add_dendrites, build_classifier

LABELS = ("toxicity", "threat")


def network(
    labels: tuple[Any, ...] = LABELS, dendrites: int = 2, activation: str = "tanh", pooling: str = "mean_max"
) -> ToxicityClassifier:
    torch.manual_seed(0)
    settings = tiny_settings(f"model.pooling={pooling}").model
    model = build_classifier(settings, labels, len(vocabulary()))
    names = chosen_linears(model, ("*.query", "*.output.dense"))
    add_dendrites(model, dict.fromkeys(names, dendrites), activation)
    with torch.no_grad():
        for module in dendritic_modules(model).values():
            module.dendrite_tops.normal_()
            for link in module.dendrite_links:
                link.normal_()
    return model.eval()


def save(
    folder: Path, model: ToxicityClassifier | None = None, labels: tuple[Any, ...] = LABELS, **changes: Any
) -> Path:
    values = {
        "labels": labels,
        "thresholds": {label: {"value": 0.25 + i / 10, "target": "max f1"} for i, label in enumerate(labels)},
        "max_length": 16,
        "card": "# Card\n\n## Thresholds\n\n- none\n",
        "training": {"source": "a test", "synthetic": True},
    }
    save_model(folder, model or network(labels), toy_tokenizer().to_str(), **(values | changes))  # type: ignore[arg-type]
    return folder


def save_giant(folder: Path, kind: str, encoder: Path) -> Path:
    """A giant of random weights, saved as a model directory."""
    write_encoder(encoder, kind)
    tokenizer = tokenizer_of(kind)
    overrides = ("model.arch=giant", f"model.encoder={encoder}", "dendrites.enabled=false")
    settings = tiny_settings(*overrides, "model.pooling=mean_max").model
    model = build_classifier(settings, LABELS, tokenizer.get_vocab_size())
    text = tokenizer.to_str()
    thresholds = {label: {"value": 0.5, "target": "max f1"} for label in LABELS}
    save_model(folder, model, text, labels=LABELS, thresholds=thresholds, max_length=16, card="# Card\n", training={})
    return folder
