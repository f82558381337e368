"""Turns typer's complaints about a command line into errors with a remedy."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import typer

from gkiller.errors import SettingsError

# Typer carries its own copy of click from 0.26 on and used the package before; both derive
# BadParameter from the class of every usage error.
UsageError: Any = typer.BadParameter.__mro__[1]

TOP_LEVEL = ("--debug", "--version")
CLOSE = 0.65  # similarity of two flags below which a proposal would only confuse


def explain(error: Any) -> SettingsError:
    """Return typer's usage error as a settings error: what, where, remedy."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else getattr(error, "command_path", "gkiller")
    name = getattr(error, "option_name", None)
    if name is not None and hasattr(error, "possibilities"):
        return SettingsError(f"no such flag: {name}", where=where, remedy=flag_advice(name, context))
    what, proposes, proposal = error.format_message().partition(" Did you mean ")
    remedy = f"did you mean {proposal}" if proposes else f"see '{where} --help'"
    return SettingsError(what.rstrip("."), where=where, remedy=remedy)


def flag_advice(name: str, context: Any) -> str:
    """Return what to write instead of a flag that a command does not have.

    A top-level flag goes before the command; a setting's dotted key or plain name leads to ``--set``
    where the command takes it; else the nearest flags of the command are proposed.

    Args:
        name: the flag as it was written, with its dashes.
        context: typer's context of the command.
    """
    if name in TOP_LEVEL:
        return f"write it before the command: gkiller {name} ..."
    flags = _flags(context)
    meant = {flag: flag for flag in flags}
    if "--set" in flags:
        word = name.lstrip("-").replace("-", "_")
        keys = _keys_of(word, name)
        if keys:
            return "did you mean " + " or ".join(f"--set {key}=..." for key in keys) + "?"
        meant = {**_by_flag(), **meant}
    hits = get_close_matches(name.replace("_", "-"), meant, n=2, cutoff=CLOSE)
    if hits:
        return "did you mean " + " or ".join(meant[hit] for hit in hits) + "?"
    return f"'{context.command_path} --help' lists the flags"


def _flags(context: Any) -> list[str]:
    """Return every long and short flag of the context's command."""
    declared = [
        flag for parameter in context.command.params for flag in (*parameter.opts, *parameter.secondary_opts)
    ]
    return [flag for flag in (*declared, *context.help_option_names) if flag.startswith("-")]


def _keys_of(word: str, name: str) -> list[str]:
    """Return the settings that a flag means: a dotted key, a setting's own flag, or its plain name."""
    from gkiller.settings import nearest_keys, settings_by_key, settings_reference

    if word in settings_by_key():
        return [word]
    if "." in word:
        return nearest_keys(word)
    by_flag = [entry.key for entry in settings_reference() if name in (*entry.flag.split("/"), entry.alias)]
    return by_flag or [entry.key for entry in settings_reference() if entry.name == word]


def _by_flag() -> dict[str, str]:
    """Return every setting's flag, or what its flag would be, with the ``--set`` that does the same."""
    from gkiller.settings import settings_reference

    return {
        entry.flag.partition("/")[0] or "--" + entry.name.replace("_", "-"): f"--set {entry.key}=..."
        for entry in settings_reference()
    }
