"""What a resumed training may change, which checkpoints fit it, and the command for it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.errors import ResumeError, counted
from gkiller.settings import resolve
from gkiller.training.phases import Lengths, Phase, phase_length
from gkiller.training.ranks import local_processes

if TYPE_CHECKING:
    from gkiller.model.growth import State
    from gkiller.settings import Settings
    from gkiller.settings.definition import DendriteSettings
    from gkiller.training.progress import Progress

HARMLESS = (
    "train.device",
    "train.threads",
    "train.keep_checkpoints",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
)
"""Settings that a resumed run may change: they do not change what is computed, but for rounding."""

LONGER = {"train.epochs": 0, "dendrites.epochs": 1, "dendrites.joint_epochs": 2}
"""Lengths that a resumed run may raise, with the place of their phase in a training."""
_PLACES = {"neuron": 0, "dendrite": 1, "joint": 2}


def resume_command(run: Path, processes: int) -> str:
    """Return the command that goes on with a run, in as many processes of this machine as now."""
    launcher = f"torchrun --nproc-per-node {local_processes()} -m " if processes > 1 else ""
    return f"{launcher}gkiller train --resume {shlex.quote(run.as_posix())}"


def run_settings(run: Path) -> Settings:
    """Return the settings that a run directory records."""
    return resolve(config=run / "settings.toml", environ={}).settings


def resumed_settings(run: Path, asked: Settings, keys: Iterable[str]) -> Settings:
    """Return a run's own settings with the changes asked for, as far as they are allowed.

    Args:
        run: the run directory.
        asked: the settings asked for now.
        keys: the dotted keys of ``asked`` that count; the others are taken from the run.

    Raises:
        ResumeError: one of the keys differs and is neither among `HARMLESS` nor a length that grows.
    """
    kept = run_settings(run)
    changes: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for key, (ours, theirs) in changed(kept, asked, keys).items():
        longer = key in LONGER and theirs is not None and (ours is None or theirs > ours)
        if key in HARMLESS or longer:
            section, field = key.split(".")
            changes.setdefault(section, {})[field] = theirs
        else:
            refused.append(f"{key} is {ours!r} in the run and {theirs!r} now")
    if refused:
        raise ResumeError(
            "a resumed run keeps its settings: " + "; ".join(refused),
            where=str(run),
            remedy="leave these settings out, or start a new training; "
            f"{', '.join(HARMLESS)} may change, and {', '.join(LONGER)} may grow",
        )
    sections = {name: getattr(kept, name).model_copy(update=fields) for name, fields in changes.items()}
    return kept.model_copy(update=sections)


def changed(before: Settings, after: Settings, keys: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the settings among ``keys`` that differ, each with both values."""
    found = {}
    for key in keys:
        section, field = key.split(".")
        pair = getattr(getattr(before, section), field), getattr(getattr(after, section), field)
        if pair[0] != pair[1]:
            found[key] = pair
    return found


def check_lengths(keys: Iterable[str], phase: Phase) -> None:
    """Refuse to lengthen a phase that is over.

    Args:
        keys: the settings that were changed.
        phase: where the training stands.

    Raises:
        ResumeError: one of them is the length of an earlier phase.
    """
    over = [key for key in keys if key in LONGER and LONGER[key] < _PLACES[phase.name]]
    if over:
        raise ResumeError(
            f"the run is in its {phase.name} phase: {', '.join(over)} cannot change any more",
            remedy="leave it out, or start a new training",
        )


def lengthened(phase: Phase, length: Lengths) -> Phase:
    """Return a checkpoint's phase with its length as it is now.

    Raises:
        ResumeError: it would get shorter.
    """
    epochs = phase_length(length, phase)
    if epochs < phase.epochs:
        planned = counted(phase.epochs, "epoch")
        raise ResumeError(
            f"the {phase.name} phase was planned for {planned} and cannot get shorter",
            remedy=f"ask for {planned} or more",
        )
    return replace(phase, epochs=epochs)


def check_place(progress: Progress, dendrites: DendriteSettings, steps: int) -> None:
    """Refuse a checkpoint of a place that a training never comes to.

    Args:
        progress: where the checkpoint was written.
        dendrites: the settings in force.
        steps: of an epoch.

    Raises:
        ResumeError: it is of another training.
    """
    most = dendrites.count if dendrites.enabled else 0
    if progress.phase.dendrites > most or not 0 <= progress.step <= steps:
        raise ResumeError(f"the checkpoint, {progress.place()}, is of another training")


def check_network(own: State, given: State) -> None:
    """Refuse a checkpoint's weights where they are not those of the network.

    Raises:
        ResumeError: a name or a shape differs.
    """
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (own, given)]
    odd = sorted(n for n in {*own, *given} if shapes[0].get(n) != shapes[1].get(n))
    if odd:
        raise ResumeError(f"the checkpoint is of another network: {', '.join(odd[:3])}")
