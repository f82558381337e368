"""The correlation objective: numpy's correlation, differentiated, over real tokens."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy import tiny_settings, vocabulary

from gkiller.model.dendrites.growth import capture, chosen_linears
from gkiller.model.dendrites.perforated import PerforatedGrowth
from gkiller.model.network import ACTIVATIONS, build_classifier
from gkiller.training.losses import correlation, correlation_loss, newest_activation, task_loss

finite = st.floats(-100, 100, width=32)


@given(st.integers(2, 30), st.integers(1, 4), st.data())
def test_correlation_is_numpy_s(positions: Any, units: Any, data: Any) -> None:
    d = data.draw(arrays(np.float32, (positions, units), elements=finite)).astype(np.float64)
    e = data.draw(arrays(np.float32, (positions, units), elements=finite)).astype(np.float64)
    found = correlation(torch.from_numpy(d), torch.from_numpy(e)).numpy()
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    for unit in range(units):
        if d[:, unit].std() > 1e-3 and e[:, unit].std() > 1e-3:
            expected = abs(np.corrcoef(d[:, unit], e[:, unit])[0, 1])
            assert found[unit] == pytest.approx(expected, abs=1e-6)


def test_perfect_and_opposite_correlation_are_both_one() -> None:
    d = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].expand(9, 2)
    e = torch.stack([d[:, 0] * 0.01 + 4, -3 * d[:, 0]], dim=1)
    torch.testing.assert_close(correlation(d, e), torch.ones(2, dtype=torch.float64))


def test_tiny_errors_count_as_much_as_large_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    d, e = torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    torch.testing.assert_close(correlation(d, e * 1e-8), correlation(d, e), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("constant", ["fired", "error", "both"])
def test_what_does_not_vary_has_no_correlation(constant: str) -> None:
    d, e = torch.randn(6, 2), torch.randn(6, 2)
    d = torch.full((6, 2), 0.3) if constant != "error" else d
    e = torch.zeros(6, 2) if constant != "fired" else e
    d.requires_grad_(True)
    found = correlation(d, e)
    assert not found.detach().numpy().round(5).any()
    found.sum().backward()
    assert bool(d.grad.isfinite().all())


def test_its_gradient() -> None:
    d = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    e = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda fired: correlation(fired, e), (d,))


# -- in the network -----------------------------------------------------------------------------


def network(labels: Any = ("toxicity",)) -> Any:
    torch.manual_seed(0)
    return build_classifier(tiny_settings("model.dropout=0").model, labels, len(vocabulary()))


@pytest.fixture
def growth() -> Iterator[PerforatedGrowth]:
    model = network()
    names = chosen_linears(model, ("*",))
    with PerforatedGrowth(model, names, activation="tanh", patience=2, most=2, seed=0, init_std=0.3) as grown:
        grown.grow(0.5)
        yield grown


def batch(padding: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 9, 8, 7, 3], [2, 60, 3, 0, 0], [2, 50, 51, 3, 0]])
    mask = (ids != 0).long()
    extra = torch.zeros(3, padding, dtype=torch.long)
    return torch.cat([ids, extra], 1), torch.cat([mask, extra], 1), torch.tensor([[1.0], [0.0], [1.0]])


def mean_correlation(growth: PerforatedGrowth, padding: int = 0) -> torch.Tensor:
    ids, mask, targets = batch(padding)
    with capture(growth.grown()) as seen:
        loss = task_loss(growth.model(ids, mask), targets, torch.ones(1, 2))
    return -correlation_loss(loss, seen, mask, growth.all_dendrites(), "tanh")


def test_padding_does_not_matter(growth: PerforatedGrowth) -> None:
    growth.model.eval()
    torch.testing.assert_close(mean_correlation(growth), mean_correlation(growth, 6), rtol=1e-4, atol=1e-5)


def test_it_is_the_mean_over_all_units_of_their_correlation_with_the_error(growth: PerforatedGrowth) -> None:
    """Recomputed with numpy from a finite difference of the loss at the neurons' outputs."""
    growth.model.eval()
    ids, mask, targets = batch()
    total = []
    for name, module in growth.grown().items():
        with capture({name: module}) as seen:
            loss = task_loss(growth.model(ids, mask), targets, torch.ones(1, 2))
        [error] = torch.autograd.grad(loss, [seen.outputs[name]])
        real = mask.bool()
        fired = newest_activation(seen.inputs[name][real], growth.all_dendrites(), name, "tanh").detach()
        columns = zip(fired.double().numpy().T, error[real].double().numpy().T, strict=True)
        total.append(np.mean([abs(np.corrcoef(d, e)[0, 1]) for d, e in columns]))
    assert mean_correlation(growth).item() == pytest.approx(np.mean(total), abs=1e-4)


def test_only_the_candidates_get_a_gradient(growth: PerforatedGrowth) -> None:
    growth.model.zero_grad(set_to_none=True)
    mean_correlation(growth).backward()
    moved = {n for n, p in growth.all_dendrites().items() if p.grad is not None and p.grad.any()}
    assert {name.rpartition(".")[2] for name in moved} == {"weight", "bias"}
    assert len(moved) == 2 * len(growth.grown())
    assert all(p.grad is None for p in growth.neuron_parameters().values())


def test_following_the_gradient_raises_it(growth: PerforatedGrowth) -> None:
    growth.model.eval()
    candidates = [p for n, p in growth.dendrite_parameters().items() if not n.endswith("_tops")]
    optimizer = torch.optim.Adam(candidates, lr=0.05)
    before = mean_correlation(growth).item()
    for _ in range(20):
        optimizer.zero_grad()
        (-mean_correlation(growth)).backward()
        optimizer.step()
    assert mean_correlation(growth).item() > before + 0.1


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_newest_activation_is_the_module_s_own(activation: str) -> None:
    from gkiller.model.network import DendriticLinear

    torch.manual_seed(0)
    module = DendriticLinear(4, 3, 3, activation)
    with torch.no_grad():
        module.dendrite_tops[2] = 1.0  # the output is the neuron's plus the newest dendrite's activation
        for link in module.dendrite_links:
            link.normal_()
    parameters = {f"m.{name}": parameter for name, parameter in module.named_parameters()}
    x = torch.randn(6, 4)
    neuron = torch.nn.functional.linear(x, module.weight, module.bias)
    torch.testing.assert_close(newest_activation(x, parameters, "m", activation), module(x) - neuron)


def test_capture_lets_go(growth: PerforatedGrowth) -> None:
    with capture(growth.grown()) as seen:
        growth.model(*batch()[:2])
    assert seen.inputs.keys() == seen.outputs.keys() == growth.grown().keys()
    before = dict(seen.outputs)
    growth.model(*batch()[:2])
    assert all(seen.outputs[name] is output for name, output in before.items())
    assert all(not tensor.requires_grad for tensor in seen.inputs.values())
