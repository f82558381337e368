"""Which phases a training has, how long they are, and how many dendrites stay."""

from typing import Any

import pytest
from toy import tiny_settings

from gkiller.settings import resolve
from gkiller.settings.definition import Settings
from gkiller.training.phases import (
    LEAST_EPOCHS,
    LEAST_STEPS,
    MOST_EPOCHS,
    Lengths,
    Phase,
    ends_dendrite,
    first_phase,
    lengths,
    next_phase,
)


def sequence(*overrides: Any, kept: Any = 9) -> Any:
    """The phases as (name, what they train, dendrites, epochs); ``kept`` dendrites help."""
    settings = tiny_settings("dendrites.epochs=4", *overrides)
    length = lengths(settings, 10)
    phase = first_phase(settings, length)
    found = []
    while phase is not None:
        found.append((phase.name, phase.trains, phase.dendrites, phase.epochs))
        phase = next_phase(settings, length, phase, min(kept, phase.dendrites))
    return found


NEURON = ("neuron", "neurons", 0, 2)


def test_no_dendrites() -> None:
    assert sequence("dendrites.enabled=false") == [NEURON]


def test_one_dendrite_by_gradient() -> None:
    assert sequence() == [NEURON, ("dendrite", "dendrites", 1, 4), ("joint", "everything", 1, 1)]


def test_without_joint_fine_tuning() -> None:
    assert sequence("dendrites.joint_epochs=0") == [NEURON, ("dendrite", "dendrites", 1, 4)]


def test_one_dendrite_by_correlation() -> None:
    assert sequence("dendrites.objective=correlation", "dendrites.top_epochs=1") == [
        NEURON,
        ("dendrite", "candidates", 1, 3),
        ("dendrite", "tops", 1, 1),
        ("joint", "everything", 1, 1),
    ]


def test_two_dendrites() -> None:
    assert sequence("dendrites.count=2") == [
        NEURON,
        ("dendrite", "dendrites", 1, 4),
        ("joint", "everything", 1, 1),
        ("dendrite", "dendrites", 2, 4),
        ("joint", "everything", 2, 1),
    ]


def test_two_dendrites_by_correlation_without_joint() -> None:
    overrides = ("dendrites.count=2", "dendrites.objective=correlation", "dendrites.joint_epochs=0")
    assert [found[1] for found in sequence(*overrides)] == ["neurons", *["candidates", "tops"] * 2]


@pytest.mark.parametrize(("kept", "phases"), [(0, 3), (1, 5), (2, 5)])
def test_a_dendrite_that_does_not_help_is_the_last(kept: int, phases: int) -> None:
    assert len(sequence("dendrites.count=2", kept=kept)) == phases


@pytest.mark.parametrize("overrides", [(), ("dendrites.joint_epochs=0",), ("dendrites.objective=correlation",)])
def test_a_dendrite_is_judged_once_after_its_last_phase(overrides: tuple[Any, ...]) -> None:
    length = lengths(tiny_settings("dendrites.epochs=4", *overrides), 10)
    phases = [Phase(*found, 0.1) for found in sequence("dendrites.count=2", *overrides)]  # type: ignore[call-arg]
    ends = [ends_dendrite(length, phase) for phase in phases]
    last = [
        after is None or after.dendrites > phase.dendrites
        for phase, after in zip(phases, [*phases[1:], None], strict=True)
    ]
    assert ends == [False, *last[1:]]
    assert ends.count(True) == 2


def test_rates_are_those_set() -> None:
    settings = tiny_settings("train.lr=0.1", "dendrites.lr=0.2", "dendrites.joint_lr=0.3")
    length = lengths(settings, 10)
    first = first_phase(settings, length)
    second = next_phase(settings, length, first, 0)
    third = next_phase(settings, length, second, 1)
    assert (first.lr, second.lr, third.lr) == (0.1, 0.2, 0.3)


# -- lengths ------------------------------------------------------------------------------------


def free(*overrides: Any) -> Settings:
    unset = ("train.epochs=none", "dendrites.epochs=none", "dendrites.joint_epochs=none")
    return tiny_settings(*unset, *overrides)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 400, 100_000])
def test_unset_lengths_suit_the_data(steps: int) -> None:
    found = lengths(free(), steps)
    assert LEAST_EPOCHS <= found.neuron <= MOST_EPOCHS
    if LEAST_EPOCHS < found.neuron < MOST_EPOCHS:
        assert (found.neuron - 1) * steps < LEAST_STEPS <= found.neuron * steps
    assert found.dendrite >= 1
    assert found.joint >= 1
    assert found.tops == 0


def test_large_data_take_one_epoch_and_the_sample_several() -> None:
    assert lengths(free(), 1053) == Lengths(neuron=1, dendrite=1, tops=0, joint=1)
    assert lengths(free(), 189).neuron == 6


@pytest.mark.parametrize("steps", [1, 50, 100_000])
@pytest.mark.parametrize("extra", [(), ("dendrites.top_epochs=50",), ("train.epochs=1",)])
def test_a_correlation_phase_always_has_both_parts(steps: int, extra: tuple[Any, ...]) -> None:
    found = lengths(free("dendrites.objective=correlation", *extra), steps)
    assert 1 <= found.tops < found.dendrite


def test_set_lengths_are_kept() -> None:
    found = lengths(tiny_settings("train.epochs=7", "dendrites.epochs=5", "dendrites.joint_epochs=0"), 1)
    assert (found.neuron, found.dendrite, found.joint) == (7, 5, 0)


def test_a_phase_is_a_value() -> None:
    assert Phase("joint", "everything", 1, 2, 0.1) == Phase("joint", "everything", 1, 2, 0.1)


@pytest.mark.parametrize(
    ("objective", "expected"), [("gradient", Lengths(2, 1, 0, 0)), ("correlation", Lengths(2, 2, 1, 0))]
)
def test_the_fast_preset_stays_short(objective: str, expected: Lengths) -> None:
    flags = {"dendrites.objective": objective}
    settings = resolve(preset="fast", flags=flags, environ={}).settings
    assert lengths(settings, 25) == expected
