"""Turns typer's complaints about a command line into errors with a remedy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

import typer

from gkiller.errors import GkillerError, SettingsError

# Typer carries its own copy of click from 0.26 on and used the package before; both derive
# BadParameter from the class of every usage error.
UsageError: Any = typer.BadParameter.__mro__[1]

TOP_LEVEL = ("--debug", "--version")
CLOSE = 0.65  # similarity of two flags below which a proposal would only confuse


_COMMENT = "a comment that begins with a dash comes after --"


def explain(error: Any, arguments: Sequence[str] = ()) -> SettingsError:
    """Return typer's usage error as a settings error: what, where, remedy.

    Args:
        error: what typer raised.
        arguments: the command line, where a comment may have been taken for flags.
    """
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else getattr(error, "command_path", "gkiller")
    name = getattr(error, "option_name", None)
    if context is not None and name is not None and hasattr(error, "possibilities"):
        found = SettingsError(f"no such flag: {name}", where=where, remedy=flag_advice(name, context))
        if takes_comments(context.command) and not any(map(_attached, arguments)):
            text = next((one for one in arguments if one.startswith(name)), name)
            found.remedy += f"; {_COMMENT}: {after_dashes(where, text)}"
        return found
    what, proposes, proposal = error.format_message().partition(" Did you mean ")
    remedy = f"did you mean {proposal}" if proposes else f"see '{where} --help'"
    return SettingsError(what.rstrip("."), where=where, remedy=remedy)


def takes_comments(command: Any) -> bool:
    """Whether a command takes comments as arguments."""
    return any(parameter.name == "texts" for parameter in command.params)


def after_dashes(command: str, text: str) -> str:
    """Return the command line that scores a comment that begins with a dash."""
    return f"{command} -- {shlex.quote(text)}"


def refuse_attached(command: Any, arguments: Sequence[str], where: str) -> None:
    """Refuse a comment such as "-i hate you", which would be read as -i with the value " hate you".

    Raises:
        SettingsError: an argument before ``--`` is a short flag with blanks in the value attached to it.
    """
    if not takes_comments(command):
        return
    options = [one for one in command.params if one.param_type_name == "option" and not one.is_flag]
    takes_value = {flag for one in options for flag in one.opts}
    before = ""
    for text in takewhile(lambda one: one != "--", arguments):
        if text[:2] in takes_value and any(map(str.isspace, text)) and before not in takes_value:
            raise SettingsError(
                f"{text!r} can be read as the flag {text[:2]} or as a comment",
                where=where,
                remedy=f"a value with blanks stands apart from its flag: {text[:2]} {shlex.quote(text[2:])}",
            )
        before = text


def advise_dashes(error: GkillerError, arguments: Sequence[str]) -> None:
    """Add to an error that a comment comes after ``--``, where one may have been read as a flag."""
    if list(arguments[:1]) != ["predict"]:
        return
    text = next(filter(_attached, takewhile(lambda one: one != "--", arguments)), None)
    if text is not None:
        error.remedy += f"; {_COMMENT}: {after_dashes('gkiller predict', text)}"


def _attached(argument: str) -> bool:
    """Whether an argument is several letters after a single dash: flags, a flag with its value, a comment."""
    return len(argument) > 2 and argument[0] == "-" and argument[1] != "-"


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
