"""The optimiser, its parameter groups and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from gkiller.model.growth import Growth
    from gkiller.settings.definition import TrainSettings
    from gkiller.training.phases import Phase


def trained_parameters(growth: Growth, phase: Phase, frozen: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """Return the parameters that a phase moves, by folded name; freeze all others.

    Args:
        growth: the network.
        phase: says what it trains.
        frozen: names that stand still in every phase.

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
