"""The correlation objective of a dendrite phase (Cascade-Correlation, Fahlman & Lebiere 1990)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gkiller.model.dendritic import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

_TINY = 1e-12


@dataclass
class Captured:
    """What the wrapped Linears saw and gave in one forward pass, by module name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def capture(modules: Mapping[str, nn.Module]) -> Iterator[Captured]:
    """Record the input and output of each module while the context lasts."""
    seen = Captured()

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.inputs[name] = inputs[0].detach()
            seen.outputs[name] = output

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def correlation(fired: Tensor, error: Tensor) -> Tensor:
    r"""Return \|Corr(D, E)\| of each unit.

    ``|sum (d - mean d)(e - mean e)| / sqrt(sum (d - mean d)^2 * sum (e - mean e)^2)``: the magnitude that
    Cascade-Correlation maximises for a candidate unit, normalised by both deviations. 0 where either
    does not vary.

    Args:
        fired: (positions, units), a dendrite's activation.
        error: (positions, units), dLoss/dOutput of the neuron it sits on.

    Returns:
        (units,), in 0..1; differentiable in ``fired``.
    """
    d = fired - fired.mean(0)
    e = error - error.mean(0)
    e = e / e.norm(dim=0).clamp(min=_TINY)  # errors of a mean loss are tiny: scale before multiplying
    found: Tensor = (d * e).sum(0).abs() / d.norm(dim=0).clamp(min=_TINY)
    return found


def newest_activation(x: Tensor, parameters: Mapping[str, Tensor], name: str, activation: str) -> Tensor:
    """Return the newest dendrite's activation on ``x``, (positions, units).

    Args:
        x: (positions, in), a wrapped Linear's input.
        parameters: every dendrite's weights by folded name.
        name: the wrapped Linear.
        activation: a key of `ACTIVATIONS`.
    """
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
        parameters: every dendrite's weights by folded name.
        activation: a key of `ACTIVATIONS`.
    """
    names = list(seen.outputs)
    errors = torch.autograd.grad(loss, [seen.outputs[name] for name in names])
    real = mask.bool()
    means = []
    for name, error in zip(names, errors, strict=True):
        fired = newest_activation(seen.inputs[name][real], parameters, name, activation)
        means.append(correlation(fired, error[real]).mean())
    return -torch.stack(means).mean()
