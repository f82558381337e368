"""Turns typer's complaints about a command line into errors with a remedy."""

from __future__ import annotations

from typing import Any

import typer

from gkiller.errors import SettingsError, nearest

# Typer carries its own copy of click from 0.26 on and used the package before; both derive
# BadParameter from the class of every usage error.
UsageError: Any = typer.BadParameter.__mro__[1]

_TOP_LEVEL = ("--debug", "--version")


def explain(error: Any) -> SettingsError:
    """Return typer's usage error as a settings error: what, where, remedy."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "gkiller"
    name = getattr(error, "option_name", None)
    if name is not None and hasattr(error, "possibilities"):
        return SettingsError(f"no such flag: {name}", where=where, remedy=flag_advice(name, context))
    what = error.format_message().rstrip(".")
    return SettingsError(what, where=where, remedy=f"see '{where} --help'")


def flag_advice(name: str, context: Any) -> str:
    """Return what to write instead of a flag that a command does not have.

    A setting's dotted or plain name leads to ``--set``; a top-level flag, before the command; else the
    nearest flags of the command.
    """
    where = context.command_path if context is not None else "gkiller"
    if name in _TOP_LEVEL:
        return f"write it before the command: gkiller {name} ..."
    flags = _flags(context)
    word = name.lstrip("-").replace("-", "_")
    if "--set" in flags:
        keys = _keys(word)
        if keys:
            return "did you mean " + " or ".join(f"--set {key}=..." for key in keys) + "?"
    hits = nearest(name.replace("_", "-"), flags)
    if hits:
        return "did you mean " + " or ".join(hits) + "?"
    return f"'{where} --help' lists the flags"


def _flags(context: Any) -> list[str]:
    """Return every long and short flag of the context's command."""
    if context is None:
        return []
    flags = [
        flag for parameter in context.command.params for flag in (*parameter.opts, *parameter.secondary_opts)
    ]
    return [flag for flag in (*flags, *context.help_option_names) if flag.startswith("-")]


def _keys(word: str) -> list[str]:
    """Return the settings that a flag's name means: dotted ones, or of exactly that name."""
    from gkiller.settings import nearest_keys, settings_by_key

    if word in settings_by_key():
        return [word]
    if "." in word:
        return nearest_keys(word)
    return [key for key in settings_by_key() if key.rpartition(".")[2] == word]
