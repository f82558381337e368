"""What a step lowers and how: losses, class weights, the optimiser and its learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gkiller.errors import SingleClassError
from gkiller.model.dendrites.growth import Captured, Growth
from gkiller.model.network import ACTIVATIONS

if TYPE_CHECKING:
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


def build_optimizer(parameters: Mapping[str, nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) with decayed and undecayed groups.

    Its fused kernel goes over the embeddings once per step; the plain one takes several passes.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if decays(n, p) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, weight_decay), (False, 0.0))
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


def class_weights(labels: npt.NDArray[np.float32], names: Sequence[str], mode: Literal["balanced", "none"]) -> Tensor:
    """Return the weight of a negative and of a positive, per label (L, 2), float32; ones with one class only.

    "balanced" is scikit-learn's: known rows / (2 * rows of the class). ``labels`` are (n, L) of 0, 1 or NaN where
    unknown; a SingleClassError where no label has both classes.
    """
    counts = np.stack([(labels == 0).sum(0), (labels == 1).sum(0)], axis=1).astype(np.float64)
    both = (counts > 0).all(axis=1)
    if not both.any():
        what = "the training split has only one class of " + ", ".join(names)
        remedy = "add comments of the other class, or check the label column and data.cutoff"
        raise SingleClassError(what, where="train", remedy=remedy)
    weights = np.ones_like(counts)
    if mode == "balanced":
        weights[both] = counts[both].sum(1, keepdims=True) / (2 * counts[both])
    return torch.from_numpy(weights.astype(np.float32))


def task_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted loss of a batch; ``targets`` are (rows, L) of 0, 1 or NaN, which does not count.

    One label, logits (rows, 2): two-class cross-entropy, averaged by weight as torch's ``cross_entropy`` does.
    Several, logits (rows, L): binary cross-entropy per label, weighted, averaged over the known labels.
    """
    logits = logits.float()
    if targets.shape[1] == 1:
        column = targets[:, 0]
        classes = torch.where(column.isnan(), -100, column.nan_to_num().long())
        if not bool((classes >= 0).any()):
            return logits.sum() * 0
        return functional.cross_entropy(logits, classes, weight=weights[0], ignore_index=-100)
    known = ~targets.isnan()
    clean = targets.nan_to_num()
    each = functional.binary_cross_entropy_with_logits(logits, clean, reduction="none")
    weight = torch.where(clean > 0.5, weights[:, 1], weights[:, 0]) * known
    return (each * weight).sum() / known.sum().clamp(min=1)


def logit_loss(logits: Tensor, taught: Tensor) -> Tensor:
    """Return the mean squared difference from the teachers' logits (Kim et al. 2021, arXiv:2105.08919).

    Both are (rows, L), one per label; ``taught`` is NaN where no teacher has the label, which does not count.
    """
    known = ~taught.isnan()
    squared = (logits.float() - taught.nan_to_num()).square() * known
    return squared.sum() / known.sum().clamp(min=1)


def similarity_loss(student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Return how far the student's view of which comments are alike is from the teachers'.

    Similarity-preserving distillation (Tung and Mori 2019, arXiv:1907.09682): the mean squared difference of the rows'
    inner products, each row of them scaled to length 1. Vectors are (rows, width) and widths need not agree. Of several
    teachers, the mean.
    """

    def similarities(vectors: Tensor) -> Tensor:
        vectors = vectors.float()
        return functional.normalize(vectors @ vectors.T, dim=1)

    own = similarities(student)
    return torch.stack([(own - similarities(each)).square().mean() for each in teachers]).mean()


def loss_mass(targets: Tensor, weights: Tensor) -> float:
    """Return what `task_loss` divides by: the known rows' summed weights, or the count of known labels."""
    known = ~targets.isnan()
    if targets.shape[1] > 1:
        return float(known.sum())
    return float(torch.where(targets > 0.5, weights[0, 1], weights[0, 0])[known].sum())


def correlation(fired: Tensor, error: Tensor) -> Tensor:
    r"""Return \|Corr(D, E)\| of each unit.

    ``|sum (d - mean d)(e - mean e)| / sqrt(sum (d - mean d)^2 * sum (e - mean e)^2)``: the magnitude that
    Cascade-Correlation maximises for a candidate unit, normalised by both deviations. 0 where either does not vary.
    ``fired`` is a dendrite's activation, ``error`` dLoss/dOutput of the neuron it sits on, both (positions, units);
    the result, (units,), is in 0..1 and differentiable in ``fired``.
    """
    d = fired - fired.mean(0)
    e = error - error.mean(0)
    e = e / e.norm(dim=0).clamp(min=1e-12)  # errors of a mean loss are tiny: scale before multiplying
    found: Tensor = (d * e).sum(0).abs() / d.norm(dim=0).clamp(min=1e-12)
    return found


def newest_activation(x: Tensor, parameters: Mapping[str, Tensor], name: str, activation: str) -> Tensor:
    """Return the newest dendrite's activation, (positions, units), on a wrapped Linear's input, (positions, in)."""
    fired: list[Tensor] = []
    while f"{name}.dendrites.{len(fired)}.weight" in parameters:
        k = len(fired)
        own = f"{name}.dendrites.{k}"
        drive = nn.functional.linear(x, parameters[f"{own}.weight"], parameters[f"{own}.bias"])
        for j, earlier in enumerate(fired):
            drive = drive + parameters[f"{name}.dendrite_links.{k - 1}"][j] * earlier
        fired.append(ACTIVATIONS[activation](drive))
    return fired[-1]


def correlation_loss(
    loss: Tensor, seen: Captured, mask: Tensor, parameters: Mapping[str, Tensor], activation: str
) -> Tensor:
    """Return minus the mean correlation of all new dendrites with their neurons' error.

    Args:
        loss: the task loss of the batch whose forward pass ``seen`` recorded.
        seen: inputs and outputs of the wrapped Linears, (rows, tokens, features).
        mask: (rows, tokens), 1 on real tokens; padding says nothing.
    """
    names = list(seen.outputs)
    errors = torch.autograd.grad(loss, [seen.outputs[name] for name in names])
    real = mask.bool()
    means = []
    for name, error in zip(names, errors, strict=True):
        fired = newest_activation(seen.inputs[name][real], parameters, name, activation)
        means.append(correlation(fired, error[real]).mean())
    return -torch.stack(means).mean()
