"""What a resumed training may change: next to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.errors import ResumeError
from gkiller.settings import resolve

if TYPE_CHECKING:
    from gkiller.settings import Settings

HARMLESS = ("train.device", "train.keep_checkpoints")
"""Settings that a resumed run may change: they do not change what is computed, but for rounding."""


def resumed_settings(run: Path, asked: Settings, keys: Iterable[str]) -> Settings:
    """Return a run's own settings with the harmless changes asked for.

    Args:
        run: the run directory.
        asked: the settings asked for now.
        keys: the dotted keys of ``asked`` that count; the others are taken from the run.

    Raises:
        ResumeError: one of the keys differs and is not among `HARMLESS`.
    """
    kept = resolve(config=run / "settings.toml", environ={}).settings
    changes: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for key in keys:
        section, field = key.split(".")
        ours, theirs = getattr(getattr(kept, section), field), getattr(getattr(asked, section), field)
        if ours == theirs:
            continue
        if key in HARMLESS:
            changes.setdefault(section, {})[field] = theirs
        else:
            refused.append(f"{key} is {ours!r} in the run and {theirs!r} now")
    if refused:
        raise ResumeError(
            "a resumed run keeps its settings: " + "; ".join(refused),
            where=str(run),
            remedy=f"leave these settings out, or start a new training; {', '.join(HARMLESS)} may change",
        )
    sections = {name: getattr(kept, name).model_copy(update=fields) for name, fields in changes.items()}
    return kept.model_copy(update=sections)
