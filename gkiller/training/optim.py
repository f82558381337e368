"""The optimiser, its parameter groups and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gkiller.deployment.restore import read_deployed
from gkiller.deployment.weights import head_of
from gkiller.errors import ModelFormatError
from gkiller.model.directory import load_model
from gkiller.model.layout import META, deployed_directory

if TYPE_CHECKING:
    from gkiller.model.dendrites.growth import Growth
    from gkiller.model.network import ToxicityClassifier
    from gkiller.settings.definition import TrainSettings
    from gkiller.training.phases import Phase


def trained_parameters(growth: Growth, phase: Phase, frozen: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """Return the parameters that a phase moves, by folded name; freeze all others.

    The unused copies that perforatedai keeps are frozen in every phase.
    """
    neurons, dendrites = growth.neuron_parameters(), growth.dendrite_parameters()
    tops = {name: p for name, p in dendrites.items() if name.endswith(".dendrite_tops")}
    chosen = {
        "neurons": neurons,
        "dendrites": dendrites,
        "candidates": {name: p for name, p in dendrites.items() if name not in tops},
        "tops": tops,
        "everything": {**neurons, **growth.all_dendrites()},
    }[phase.trains]
    chosen = {name: parameter for name, parameter in chosen.items() if name not in frozen}
    for parameter in growth.model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, not to biases, LayerNorm, links or top weights."""
    plain = name.endswith((".dendrite_tops", ".bias")) or ".dendrite_links." in name or "LayerNorm" in name
    return parameter.ndim >= 2 and not plain


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) with decayed and undecayed groups.

    Its fused kernel goes over the embeddings once per step; the plain one takes several passes.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in parameters.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


def rate(settings: TrainSettings, phase: Phase, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 within the phase.

    "linear" rises to the peak over the warm-up share and falls to 0 at the phase's end; "step" multiplies
    by ``step_gamma`` every ``step_size`` epochs, as torch's StepLR.
    """
    if settings.schedule == "step":
        return float(phase.lr * settings.step_gamma ** ((step // steps_per_epoch) // settings.step_size))
    total = phase.epochs * steps_per_epoch
    warm = max(1, round(total * settings.warmup_share))
    if step < warm:
        return phase.lr * (step + 1) / warm
    return phase.lr * max(0.0, (total - step) / max(1, total - warm))


Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What a model makes of a pooled vector.

    Attributes:
        weight: (labels, width).
        bias: (labels,).
    """

    weight: Array
    bias: Array
    labels: tuple[str, ...]
    pooling: str


def stored_head(encoder: str) -> Head:
    """Read the head of the model that an encoder is taken from, with one logit per label.

    Args:
        encoder: as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, or it cannot be read.
    """
    if (graph := deployed_directory(encoder)) is not None:
        network, description = read_deployed(graph)
        head, labels, pooling = network.head, description.labels, description.pooling
    else:
        directory = Path(encoder).expanduser()
        if not (directory / META).is_file():
            raise ModelFormatError(
                "an encoder without a head",
                where=encoder,
                remedy="name a model of gkiller with --encoder, or set model.head to fresh",
            )
        loaded = load_model(directory)
        head, labels, pooling = head_of(loaded.model), loaded.labels, loaded.model.pooling
    return Head(head.weight.T, head.bias, labels, pooling)


def keep_head(model: ToxicityClassifier, labels: Sequence[str], encoder: str) -> None:
    """Give a network's head the weights of a model for the labels that both score; others stay as they are.

    Args:
        encoder: which model, as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, it cannot be read, it pools in another way or scores none of
            the labels.
    """
    head = stored_head(encoder)
    if head.pooling != model.pooling:
        raise ModelFormatError(
            f"the head is for the pooling {head.pooling!r}, and model.pooling is {model.pooling!r}",
            where=encoder,
            remedy=f"set model.pooling to {head.pooling}, or model.head to fresh",
        )
    known = [label for label in labels if label in head.labels]
    if not known:
        raise ModelFormatError(
            f"the model scores {', '.join(head.labels)}, and none of {', '.join(labels)}",
            where=encoder,
            remedy="name the label columns as the model does, or set model.head to fresh",
        )
    rows = [head.labels.index(label) for label in known]
    weight, bias = (torch.tensor(array[rows]) for array in (head.weight, head.bias))
    with torch.no_grad():
        if model.labels == 1:  # two logits, whose difference is the label's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            places = [0, 1]
        else:
            places = [labels.index(label) for label in known]
        model.classifier.weight[places] = weight
        model.classifier.bias[places] = bias
