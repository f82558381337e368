"""A group whose commands are imported only when they are run."""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import cleandoc
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from gkiller.cli.console import colours
from gkiller.cli.usage import UsageError, refuse_attached
from gkiller.errors import SettingsError, did_you_mean

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
        "gkiller.cli.export", "Export a model: ONNX graph, plain weights, or a wheel to install."
    ),
    "quantize": LazyCommand(
        "gkiller.cli.quantize", "Make a model's int8 graph: the best of several measured ways."
    ),
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
            raise SettingsError(
                f"no such command: {name}", where=ctx.command_path, remedy=did_you_mean(name, COMMANDS)
            )
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
