"""How a phase of a training is called wherever people read it."""

from __future__ import annotations

CANDIDATES = "candidates"
"""What the first part of a dendrite phase by correlation trains; its loss is minus a mean correlation."""

_PARTS = {CANDIDATES: "candidates", "tops": "top weights"}


def phase_name(phase: str, trains: str = "", dendrites: int = 0) -> str:
    """Return a phase's name, such as "neuron", "dendrite 2" or "dendrite (top weights)".

    Args:
        phase: "neuron", "dendrite" or "joint".
        trains: which parameters it moves; named only where a phase has two parts.
        dendrites: dendrites per Linear; named from the second dendrite phase on.
    """
    number = f" {dendrites}" if phase == "dendrite" and dendrites > 1 else ""
    part = f" ({_PARTS[trains]})" if trains in _PARTS else ""
    return phase + number + part
