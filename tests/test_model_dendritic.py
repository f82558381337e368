"""DendriticLinear: the formula, computed by hand."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gkiller.model.network import ACTIVATIONS, DendriticLinear, add_dendrites

BY_HAND = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: np.array([[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in z]),
}


def randomised(module: DendriticLinear) -> DendriticLinear:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def by_hand(module: DendriticLinear, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The docstring's formula in numpy, float64, one dendrite after the other."""
    own = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    activate = BY_HAND[module.activation]
    y = x @ own["weight"].T + own["bias"]
    fired: list[Any] = []
    for k in range(len(module.dendrites)):
        drive = x @ own[f"dendrites.{k}.weight"].T + own[f"dendrites.{k}.bias"]
        for j in range(k):
            drive = drive + own[f"dendrite_links.{k - 1}"][j] * fired[j]
        fired.append(activate(drive))  # type: ignore[operator]
        y = y + own["dendrite_tops"][k] * fired[k]
    return y


def test_every_activation_is_tested() -> None:
    assert set(BY_HAND) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", list(BY_HAND))
@pytest.mark.parametrize("dendrites", [1, 2, 3])
def test_output_is_the_formula(dendrites: int, activation: str) -> None:
    module = randomised(DendriticLinear(5, 4, dendrites, activation))
    x = np.random.default_rng(0).normal(size=(7, 5))
    found = module(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(found, by_hand(module, x), rtol=1e-4, atol=1e-5)


def test_one_unit_by_hand() -> None:
    module = DendriticLinear(1, 1, 2, "tanh")
    values = {"weight": 2.0, "bias": 0.5, "dendrites.0.weight": 1.0, "dendrites.0.bias": 0.0}
    values |= {"dendrites.1.weight": -1.0, "dendrites.1.bias": 0.25, "dendrite_links.0": 3.0}
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name).fill_(value)
        module.dendrite_tops.copy_(torch.tensor([[0.1], [10.0]]))
    first = math.tanh(0.7)
    second = math.tanh(-0.7 + 0.25 + 3.0 * first)
    assert module(torch.tensor([[0.7]])).item() == pytest.approx(2 * 0.7 + 0.5 + 0.1 * first + 10 * second)


def test_tokens_axis_is_kept() -> None:
    module = randomised(DendriticLinear(5, 4, 2, "sigmoid"))
    x = torch.randn(2, 3, 5)
    assert torch.allclose(module(x)[1, 2], module(x[1, 2]))


def test_new_dendrites_change_nothing() -> None:
    module = DendriticLinear(5, 4, 3, "sigmoid")
    x = torch.randn(6, 5)
    assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))


def test_repr_names_dendrites_and_activation() -> None:
    assert "dendrites=2, activation=tanh" in repr(DendriticLinear(2, 3, 2, "tanh"))


def test_add_dendrites_replaces_the_named_linears() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.ReLU()))
    add_dendrites(model, {"0": 0, "1.0": 2}, "relu")
    assert type(model[0]) is nn.Linear
    grown = model[1][0]  # type: ignore[index]
    assert isinstance(grown, DendriticLinear)
    assert (grown.in_features, grown.out_features, len(grown.dendrites)) == (4, 5, 2)


@pytest.mark.parametrize(
    ("counts", "activation", "error"),
    [({"0": 1}, "softplus", KeyError), ({"7": 1}, "relu", AttributeError), ({"1": 1}, "relu", TypeError)],
)
def test_add_dendrites_refuses(counts: dict[str, int], activation: str, error: type[Any]) -> None:
    with pytest.raises(error):
        add_dendrites(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), counts, activation)


def test_add_dendrites_does_not_grow_twice() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    add_dendrites(model, {"0": 1}, "relu")
    with pytest.raises(TypeError):
        add_dendrites(model, {"0": 1}, "relu")


def test_a_copy_is_independent() -> None:
    module = randomised(DendriticLinear(3, 3, 1, "sigmoid"))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.dendrite_tops.zero_()
    assert bool(module.dendrite_tops.abs().sum() > 0)
