"""Learning rates, parameter groups, and what each phase moves."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toy import tiny_settings, vocabulary

from gkiller.model.dendrites.growth import Growth, chosen_linears
from gkiller.model.dendrites.perforated import PerforatedGrowth
from gkiller.model.network import build_classifier
from gkiller.settings import TrainSettings
from gkiller.training.losses import build_optimizer, decays, rate, trained_parameters
from gkiller.training.phases import Phase


def phase(trains: str = "neurons", epochs: int = 4, lr: float = 0.5, dendrites: int = 1) -> Phase:
    return Phase("dendrite", trains, dendrites, epochs, lr)  # type: ignore[arg-type]


# -- rates --------------------------------------------------------------------------------------


def test_linear_warms_up_and_falls_to_zero() -> None:
    settings = TrainSettings(schedule="linear", warmup_share=0.25)
    found = [rate(settings, phase(epochs=2, lr=1.0), step, 4) for step in range(9)]
    assert found == pytest.approx([0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0])


@given(st.integers(1, 8), st.integers(1, 40), st.floats(0, 0.9, exclude_max=True), st.floats(1e-6, 1.0))
def test_linear_stays_in_its_bounds(epochs: Any, steps: Any, share: Any, lr: Any) -> None:
    settings = TrainSettings(schedule="linear", warmup_share=share)
    total = epochs * steps
    found = [rate(settings, phase(epochs=epochs, lr=lr), step, steps) for step in range(total)]
    warm = max(1, round(total * share))
    assert all(0 < value <= lr * (1 + 1e-12) for value in found)
    assert found[:warm] == sorted(found[:warm])
    assert found[warm:] == sorted(found[warm:], reverse=True)
    assert found[warm - 1] == pytest.approx(lr)  # the peak


@pytest.mark.parametrize("step_size", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_step_is_torch_s_step_lr(step_size: int, gamma: float) -> None:
    settings = TrainSettings(schedule="step", step_size=step_size, step_gamma=gamma)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
    for epoch in range(7):
        for step in range(5):
            found = rate(settings, phase(epochs=7, lr=0.3), epoch * 5 + step, 5)
            assert found == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


# -- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", (4, 4), True),
        ("bert.embeddings.word_embeddings.weight", (9, 4), True),
        ("classifier.weight", (2, 4), True),
        ("x.query.dendrites.0.weight", (4, 4), True),
        ("x.query.dendrites.0.bias", (4,), False),
        ("classifier.bias", (2,), False),
        ("bert.embeddings.LayerNorm.weight", (4,), False),
        ("bert.embeddings.LayerNorm.bias", (4,), False),
        ("x.query.dendrite_tops", (1, 4), False),
        ("x.query.dendrite_links.0", (1, 4), False),
    ],
)
def test_decays(name: str, shape: tuple[Any, ...], expected: bool) -> None:
    assert decays(name, nn.Parameter(torch.zeros(shape))) is expected


def test_every_parameter_is_in_one_group() -> None:
    torch.manual_seed(0)
    growth = Growth(build_classifier(tiny_settings().model, ("a",), len(vocabulary())))
    parameters = trained_parameters(growth, phase("neurons"))
    optimizer = build_optimizer(parameters, lr=0.25, weight_decay=0.03)
    assert isinstance(optimizer, torch.optim.AdamW)
    found = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(parameters) == sum(len(g["params"]) for g in optimizer.param_groups)
    for name, parameter in parameters.items():
        assert found[id(parameter)] == (0.03 if decays(name, parameter) else 0.0), name
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_top_weights_alone_make_one_group() -> None:
    tops = {"m.dendrite_tops": nn.Parameter(torch.zeros(1, 4))}
    [group] = build_optimizer(tops, lr=0.1, weight_decay=0.01).param_groups
    assert group["weight_decay"] == 0


# -- freezing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def growth() -> Iterator[PerforatedGrowth]:
    torch.manual_seed(0)
    model = build_classifier(tiny_settings().model, ("a",), len(vocabulary()))
    names = chosen_linears(model, ("*",))
    with PerforatedGrowth(model, names, activation="tanh", patience=2, most=2, seed=0) as grown:
        grown.grow(0.5)
        grown.grow(0.6)
        yield grown


EXPECTED = {
    "neurons": lambda name: ".dendrite" not in name,
    "dendrites": lambda name: ".dendrites.1." in name or ".dendrite_links.0" in name or "_tops" in name,
    "candidates": lambda name: ".dendrites.1." in name or ".dendrite_links.0" in name,
    "tops": lambda name: name.endswith("_tops"),
    "everything": lambda name: True,
}


@pytest.mark.parametrize("trains", list(EXPECTED))
def test_a_phase_moves_what_it_says_and_freezes_the_rest(growth: PerforatedGrowth, trains: str) -> None:
    chosen = trained_parameters(growth, phase(trains, dendrites=2))
    every = {**growth.neuron_parameters(), **growth.all_dendrites()}
    assert set(chosen) == {name for name in every if EXPECTED[trains](name)}
    assert all(every[name].requires_grad == (name in chosen) for name in every)
    moving = {id(p) for p in growth.model.parameters() if p.requires_grad}
    assert moving == {id(p) for p in chosen.values()}  # perforatedai's unused copies stay where they are
