"""A linear layer with dendrites: plain torch, what every saved model is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
}
"""A dendrite's non-linearities, by the name that ``config.json`` records."""


class DendriticLinear(nn.Linear):
    r"""A Linear whose output units each carry D dendrites.

    With weights (W, b), dendrites (W_k, b_k), links C_kj from dendrite j to dendrite k, top weights
    T_k and activation s, all products with C and T element-wise per output unit::

        d_k = s(W_k x + b_k + sum_{j<k} C_kj * d_j)
        y   = W x + b + sum_k T_k * d_k

    This is the function of perforatedai 3.2.9's ``PAINeuronModule`` in its training state; a test compares the two.

    Args:
        dendrites: D, at least 1.
        activation: a key of `ACTIVATIONS`.

    Attributes:
        dendrites: D Linears of shape (in, out).
        dendrite_links: D - 1 parameters; the k-th, of shape (k + 1, out), holds the rows C_{k+1,j}.
        dendrite_tops: parameter of shape (D, out), the T_k; zero at the start.
    """

    def __init__(self, in_features: int, out_features: int, dendrites: int, activation: str) -> None:
        super().__init__(in_features, out_features)
        self.activation = activation
        self.dendrites = nn.ModuleList(nn.Linear(in_features, out_features) for _ in range(dendrites))
        self.dendrite_links = nn.ParameterList(nn.Parameter(torch.zeros(k, out_features)) for k in range(1, dendrites))
        self.dendrite_tops = nn.Parameter(torch.zeros(dendrites, out_features))

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        output = super().forward(input)
        activate = ACTIVATIONS[self.activation]
        fired: list[Tensor] = []
        for k, dendrite in enumerate(self.dendrites):
            drive = dendrite(input)
            for j, earlier in enumerate(fired):
                drive = drive + self.dendrite_links[k - 1][j] * earlier
            fired.append(activate(drive))
            output = output + self.dendrite_tops[k] * fired[-1]
        return output

    def extra_repr(self) -> str:
        """Show the dendrites in the module's repr."""
        return f"{super().extra_repr()}, dendrites={len(self.dendrites)}, activation={self.activation}"


def add_dendrites(model: nn.Module, counts: dict[str, int], activation: str) -> None:
    """Replace the named Linears by `DendriticLinear` modules of fresh weights, in place.

    Args:
        counts: dendrites by module name; 0 leaves a module as it is.
        activation: a key of `ACTIVATIONS`.

    Raises:
        KeyError: an unknown activation.
        AttributeError: no module of that name.
        TypeError: the module of that name is not a plain Linear.
    """
    if activation not in ACTIVATIONS:
        raise KeyError(activation)
    for name, count in counts.items():
        linear = model.get_submodule(name)
        if type(linear) is not nn.Linear:
            raise TypeError(f"{name} is a {type(linear).__name__}, not a Linear")
        if count:
            parent, _, leaf = name.rpartition(".")
            grown = DendriticLinear(linear.in_features, linear.out_features, count, activation)
            setattr(model.get_submodule(parent), leaf, grown.to(linear.weight.device))
