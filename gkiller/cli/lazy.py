"""A group whose commands are imported only when they are run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from inspect import cleandoc
from itertools import takewhile
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from gkiller.cli.console import colours
from gkiller.errors import GkillerError, SettingsError
from gkiller.wording import did_you_mean, nearest, proposal

# Typer carries its own copy of click from 0.26 on and used the package before; both derive BadParameter from the class
# of every usage error.
UsageError: Any = typer.BadParameter.__mro__[1]
TOP_LEVEL = ("--debug", "--version")
_COMMENT = "a comment that begins with a dash comes after --"
_NO_COMMAND = re.compile(r"No such command '(.*?)'")


def explain(error: Any, arguments: Sequence[str] = ()) -> SettingsError:
    """Return typer's usage error as a settings error: what, where, remedy."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else getattr(error, "command_path", "gkiller")
    name = getattr(error, "option_name", None)
    if context is not None and name is not None and hasattr(error, "possibilities"):
        found = SettingsError(f"no such flag: {name}", where=where, remedy=flag_advice(name, context))
        if takes_comments(context.command) and not any(map(_attached, arguments)):
            text = next((one for one in arguments if one.startswith(name)), name)
            found.remedy += f"; {_COMMENT}: {where} -- {shlex.quote(text)}"
        return found
    message = error.format_message()
    if context is not None and (unknown := _NO_COMMAND.match(message)):
        return no_command(unknown[1], where, context.command.commands)
    return SettingsError(message.rstrip("."), where=where, remedy=f"see '{where} --help'")


def no_command(name: str, where: str, commands: Iterable[str]) -> SettingsError:
    """Return the error of a command that there is not."""
    return SettingsError(f"no such command: {name}", where=where, remedy=did_you_mean(name, commands))


def takes_comments(command: Any) -> bool:
    """Whether a command takes comments as arguments."""
    return any(parameter.name == "texts" for parameter in command.params)


def refuse_attached(command: Any, arguments: Sequence[str], where: str) -> None:
    """Refuse a comment such as "-i hate you" before ``--``, which would be read as -i with the value " hate you"."""
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
        error.remedy += f"; {_COMMENT}: gkiller predict -- {shlex.quote(text)}"


def _attached(argument: str) -> bool:
    """Whether an argument is several letters after a single dash: flags, a flag with its value, a comment."""
    return len(argument) > 2 and argument[0] == "-" and argument[1] != "-"


def flag_advice(name: str, context: Any) -> str:
    """Return what to write instead of a flag that a command does not have; for a setting it may be ``--set``."""
    from gkiller.settings import settings_reference

    if name in TOP_LEVEL:
        return f"write it before the command: gkiller {name} ..."
    declared = [flag for parameter in context.command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    flags = [flag for flag in (*declared, *context.help_option_names) if flag.startswith("-")]
    meant = {flag: flag for flag in flags}
    if "--set" in flags:
        if keys := _keys_of(name):
            return proposal(f"--set {key}=..." for key in keys)
        meant = {**{entry.on_flag: f"--set {entry.key}=..." for entry in settings_reference()}, **meant}
    if hits := nearest(name.replace("_", "-"), meant, count=2):
        return proposal(meant[hit] for hit in hits)
    return f"'{context.command_path} --help' lists the flags"


def _keys_of(flag: str) -> list[str]:
    """Return the settings that a flag means: a dotted key, a setting's own flag, or its plain name."""
    from gkiller.settings import nearest_keys, settings_by_key, settings_reference

    word = flag.lstrip("-").replace("-", "_")
    if word in settings_by_key():
        return [word]
    if "." in word:
        return nearest_keys(word)
    by_flag = [entry.key for entry in settings_reference() if flag in (*entry.flag.split("/"), entry.alias)]
    return by_flag or [entry.key for entry in settings_reference() if entry.name == word]


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
    "threshold": LazyCommand("gkiller.cli.evaluate", "Tune a model's thresholds again, on other comments."),
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
    """Import a command, a module's ``app`` or its function of that name, and return it as typer's own object."""
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
    for place, lines in enumerate(map(str.splitlines, paragraphs)):
        if not any(line.startswith((" ", "-")) for line in lines):  # lists and examples keep their lines
            paragraphs[place] = " ".join(lines)
    command.help = "\n\n".join(paragraphs)
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
        """Import and return the command itself."""
        name = args[0]
        if name not in COMMANDS:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            raise no_command(name, ctx.command_path, COMMANDS)
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
