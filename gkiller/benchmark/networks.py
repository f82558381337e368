"""Networks as torch modules with one logit per label: gkiller's models, and classifiers of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from gkiller.benchmark.systems import Ids, Logits, Network, SystemSpec
from gkiller.deployment.plain import ScoringNetwork
from gkiller.model.directory import load_model
from gkiller.model.sequence import load_classifier, read_tokenizer
from gkiller.storage.files import write_text


def open_network(spec: SystemSpec, threads: int) -> Network:
    """Load a system's torch network; it uses so many threads."""
    torch.set_num_threads(threads)
    module = module_of(spec).eval()

    def network(ids: Ids, mask: Ids) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        return logits

    return network


def module_of(spec: SystemSpec) -> nn.Module:
    """Return a system's network with one logit per label."""
    if spec.kind == "transformers":
        module, _ = load_classifier(spec.path, spec.labels)
        return module
    return ScoringNetwork(load_model(spec.path).model)


def save_tokenizer(folder: Path, path: Path) -> tuple[int, int]:
    """Write the tokenizer.json of a transformers model.

    Args:
        folder: of the model.
        path: where to; its directory is made.

    Returns:
        The padding id, and the most tokens that the network takes.

    Raises:
        ModelFormatError: the tokenizer has no fast form.
    """
    text, pad, most = read_tokenizer(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return pad, most
