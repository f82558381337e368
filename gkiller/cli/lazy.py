"""A group whose commands are imported only when they are run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import cleandoc
from itertools import takewhile
from typing import Any, NamedTuple, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from gkiller.cli.console import colours
from gkiller.errors import GkillerError, SettingsError
from gkiller.wording import did_you_mean, nearest


def replace_closed() -> None:
    """Put something in the place of each closed standard stream, so that no file gets its number.

    A closed stdout becomes a pipe that nobody reads, stdin and stderr become the null device.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            handle = _unread_pipe() if number == 1 else os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def silence(*streams: TextIO) -> None:
    """Point streams at the null device, so that flushing them at exit cannot fail."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(sink, stream.fileno())
    os.close(sink)


def _unread_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


# Typer carries its own copy of click from 0.26 on and used the package before; both derive BadParameter from the class
# of every usage error.
UsageError: Any = typer.BadParameter.__mro__[1]
TOP_LEVEL = ("--debug", "--version")

_COMMENT = "a comment that begins with a dash comes after --"


def explain(error: Any, arguments: Sequence[str] = ()) -> SettingsError:
    """Return typer's usage error as a settings error: what, where, remedy."""
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
    hits = nearest(name.replace("_", "-"), meant, count=2)
    if hits:
        return "did you mean " + " or ".join(meant[hit] for hit in hits) + "?"
    return f"'{context.command_path} --help' lists the flags"


def _flags(context: Any) -> list[str]:
    """Return every long and short flag of the context's command."""
    declared = [flag for parameter in context.command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
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


AFTER_DASHES = "gkiller.after_dashes"
"""In a context's ``meta``: whether ``--`` stands among the arguments."""

INTERRUPTED = 130


class LazyCommand(NamedTuple):
    """Where a command is, and the one line that ``gkiller --help`` shows without importing it."""

    module: str
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "data": LazyCommand("gkiller.cli.data", "Prepare, augment, inspect and list labelled comments."),
    "train": LazyCommand("gkiller.cli.train", "Train a classifier: first its neurons, then its dendrites."),
    "sweep": LazyCommand("gkiller.cli.sweep", "Search for settings: many trainings, compared on validation."),
    "evaluate": LazyCommand("gkiller.cli.evaluate", "Measure a model on labelled comments."),
    "threshold": LazyCommand("gkiller.cli.threshold", "Tune a model's thresholds again, on other comments."),
    "compare": LazyCommand("gkiller.cli.compare", "Compare two models, or files of their scores."),
    "suite": LazyCommand("gkiller.cli.suite", "Measure identity bias, and robustness to obfuscation."),
    "export": LazyCommand(
        "gkiller.cli.deployment", "Export a model: ONNX graph, plain weights, or a wheel to install."
    ),
    "quantize": LazyCommand("gkiller.cli.deployment", "Make a model's int8 graph: the best of several measured ways."),
    "predict": LazyCommand("gkiller.cli.predict", "Score comments: arguments, standard input or a file."),
    "bench": LazyCommand("gkiller.cli.bench", "Measure a model beside a giant and other rivals."),
    "config": LazyCommand("gkiller.cli.config", "Show the settings and where each value comes from."),
    "doctor": LazyCommand("gkiller.cli.doctor", "Check the set-up, down to a tiny training."),
}


def load_command(name: str) -> Any:
    """Import a command and return it as typer's own object.

    A module offers either a typer application named ``app`` or a function named like the command.
    """
    module = import_module(COMMANDS[name].module)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(name)(getattr(module, name))
    app._add_completion = False  # only the top level offers to install it
    command = typer.main.get_command(app)
    command.name = name
    _prepare_help(command)
    return command


def _prepare_help(command: Any) -> None:
    """Let the terminal's width alone break a help's paragraphs into lines, and colour it as other output."""
    paragraphs = cleandoc(command.help or "").split("\n\n")
    joined = [
        paragraph
        if any(line.startswith((" ", "-")) for line in paragraph.splitlines())
        # Lists and examples keep their lines.
        else " ".join(paragraph.splitlines())
        for paragraph in paragraphs
    ]
    command.help = "\n\n".join(joined)
    for child in getattr(command, "commands", {}).values():
        _prepare_help(child)
    draw = command.format_help

    def format_help(context: Any, formatter: Any) -> None:
        from typer import rich_utils

        terminal = sys.stdout is not None and sys.stdout.isatty()
        rich_utils.FORCE_TERMINAL, rich_utils.COLOR_SYSTEM = terminal, colours(terminal=terminal)
        draw(context, formatter)

    command.format_help = format_help


class LazyGroup(TyperGroup):
    """Lists commands from a table, and imports one when it is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in that knows the command's one line."""
        if cmd_name not in COMMANDS:
            return None
        summary = COMMANDS[cmd_name].summary
        return TyperCommand(cmd_name, help=summary, short_help=summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command itself.

        Raises:
            SettingsError: there is no such command.
        """
        name = args[0]
        if name not in COMMANDS:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            raise SettingsError(f"no such command: {name}", where=ctx.command_path, remedy=did_you_mean(name, COMMANDS))
        ctx.meta[AFTER_DASHES] = "--" in args
        command = load_command(name)
        refuse_attached(command, args[1:], f"{ctx.command_path} {name}")
        return name, command, args[1:]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interrupt ends it with its own status."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            raise typer.Exit(INTERRUPTED) from None
        except UsageError as error:
            # Some of typer's errors do not know the command that they are about.
            error.command_path = " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand)))
            raise
