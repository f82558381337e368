"""Writes docs/cli.md and docs/settings.md from the program itself.

``python tools/make_docs.py`` writes them; ``--check`` writes nothing and ends with 1 when they are
stale, showing what changed.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gkiller.errors import GkillerError

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Written by tools/make_docs.py. Change the program, not this file. -->"
DIFF_LINES = 40

LAYERS = """\
Each value is taken from the strongest layer that gives it. From the weakest to the strongest:

1. the definition's default, or for a giant (`model.arch`) its own, listed [below](#giants);
2. the preset: `--preset NAME`, else `GKILLER_PRESET`, else `preset = "NAME"` at the top of the file;
3. `gkiller.toml` in the current directory, or the file named by `--config FILE` instead of it;
4. `GKILLER_*` variables, such as `GKILLER_TRAIN__LR=3e-5` (two underscores after the section);
5. flags, such as `--lr 3e-5`;
6. dotted overrides, such as `--set train.lr=3e-5`; repeatable, the last one wins.

A list is written `a,b` or as a TOML array. `none`, or nothing, unsets a setting whose type ends in `?`;
in a file, `""` does. With `--set`, a text may be quoted: `--set 'data.text_column="none"'` is a column
of that name. An unknown key, a misspelt flag or a value out of its range ends with exit code 2 and
names everything that is wrong.

`gkiller config show` prints the values in force and where each comes from, `gkiller config show --toml`
prints them as a settings file, and `gkiller config keys` lists what there is to set.
"""


def main() -> int:
    """Write or check the documents; return the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/cli.md and docs/settings.md.")
    parser.add_argument("--check", action="store_true", help="only compare; end with 1 when they are stale")
    arguments = parser.parse_args()
    documents = {ROOT / "docs" / "cli.md": cli_document(), ROOT / "docs" / "settings.md": settings_document()}
    stale = [path for path, text in documents.items() if _read(path) != text]
    for path in stale:
        if arguments.check:
            sys.stdout.write(_difference(path, documents[path]))
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(documents[path], encoding="utf-8", newline="\n")
    return 1 if arguments.check and stale else 0


def cli_document() -> str:
    """Return the reference of the command line: every command with its arguments and flags, and the exit codes."""
    import typer

    from gkiller.cli.lazy import COMMANDS, load_command
    from gkiller.cli.main import app

    parts = [NOTICE, "# Command line", ""]
    parent = typer.main.get_command(app).make_context("gkiller", [], resilient_parsing=True)
    parts += _page(parent.command, "gkiller", None)
    for name, lazy in COMMANDS.items():
        if find_spec(lazy.module) is not None:
            parts += _page(load_command(name), name, parent)
    return "\n".join([*parts, "## Exit codes", "", *exit_codes(), ""])


def _page(command: Any, name: str, parent: Any) -> Iterator[str]:
    """Yield a command's lines: how it is called, what it does, its arguments and flags, and those of its commands."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    path = context.command_path
    yield f"{'##' if path.count(' ') < 2 else '###'} `{path}`"
    yield from ("", "```text", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", "")
    yield from (_prose(command.help or ""), "")
    panels: dict[str, list[str]] = {"Arguments": []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:  # it is hidden otherwise
            argument = parameter.param_type_name == "argument"
            panel = parameter.rich_help_panel or ("Arguments" if argument else "Flags")
            form = parameter.display_name_raw if argument else record[0]
            panels.setdefault(panel, []).append(f"- `{form}`: {_prose(record[1])}")
    children = getattr(command, "commands", {})
    for panel, lines in panels.items():
        yield from (f"**{panel}**", "", *lines, "") if lines else ()
    if parent is not None:
        for child in children:
            yield from _page(command.get_command(context, child), child, context)


def _prose(text: str) -> str:
    """Return help text as Markdown: typer's escapes taken out, what Markdown would read as markup put in."""
    paragraphs = [" ".join(part.split()) for part in text.replace("\\[", "[").split("\n\n")]
    return "\n\n".join(paragraphs).replace("<", "&lt;").replace("*", "\\*")


def exit_codes() -> Iterator[str]:
    """Yield the table of exit codes, from the error tree."""
    from gkiller.errors import GkillerError

    yield "| code | name | meaning |"
    yield "| ---: | --- | --- |"
    yield "| 0 | | done |"
    yield "| 1 | | a fault of gkiller itself, or a failed check of `gkiller doctor` |"
    for leaf in sorted(_leaves(GkillerError), key=lambda leaf: leaf.exit_code):
        yield f"| {leaf.exit_code} | `{leaf.__name__}` | {(leaf.__doc__ or '').strip().splitlines()[0]} |"
    yield "| 130 | | interrupted (Ctrl-C) |"
    yield "| 141 | | the reader of the output went away |"
    yield "| 143 | | terminated (SIGTERM) |"
    yield ""
    yield (
        "`gkiller`, `gkiller data` and `gkiller config` without a command print their help on stdout and end "
        "with 2, as nothing was done; with `--help` they end with 0."
    )
    yield ""
    yield (
        "With `--json` an error is also one JSON object on stdout, with the keys `error` (the name above), "
        "`exit_code`, `what`, `where` and `remedy`."
    )


def _leaves(kind: type[GkillerError]) -> Iterator[type[GkillerError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == "gkiller.errors"]
    for child in children:
        yield from _leaves(child)
    if not children:
        yield kind


def settings_document() -> str:
    """Return the reference of the settings: the layers, the presets, and a table per section."""
    from gkiller.settings import section_titles, settings_reference

    parts = [NOTICE, "# Settings", "", LAYERS, "## Presets", "", *_presets(), "", "## Giants", "", *_giants(), ""]
    for section, title in section_titles().items():
        parts += [f"## `{section}`", "", title, ""]
        parts += ["| setting | type | default | range | unit | flag | variable |", "| --- " * 7 + "|"]
        entries = [entry for entry in settings_reference() if entry.section == section]
        for entry in entries:
            cells = (entry.key, entry.type_text, entry.default_text or '""', entry.range_text)
            flags = ", ".join(filter(None, (entry.flag, entry.alias)))
            more = (entry.unit, flags, entry.env)
            parts.append("| " + " | ".join([*map(_code, cells), more[0], *map(_code, more[1:])]) + " |")
        parts += ["", *(f"- `{entry.key}`: {entry.description}" for entry in entries), ""]
    return "\n".join(parts)


def _giants() -> Iterator[str]:
    """Yield the defaults that a giant brings."""
    from gkiller.settings import plain_text
    from gkiller.settings.layers import read_arch

    yield "With `model.arch` set to `giant` these are the defaults:"
    yield ""
    for key, given in read_arch("giant").given.items():
        yield f"- `{key}` = `{plain_text(given.value)}`"


def _presets() -> Iterator[str]:
    """Yield what each preset changes."""
    from gkiller.settings import plain_text, preset_about, preset_names, resolve

    for name in preset_names():
        resolved = resolve(preset=name, environ={}, directory=ROOT / "docs")
        changes = [
            f"`{key}={plain_text(getattr(getattr(resolved.settings, section), leaf))}`"
            for key, origin in resolved.origins.items()
            if origin != "default"
            for section, _, leaf in [key.partition(".")]
        ]
        sets = f" It sets {', '.join(changes)}." if changes else ""
        yield f"- `{name}`: {preset_about(name)}{sets}"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _difference(path: Path, text: str) -> str:
    """Return the head of the difference between a file and what it should be."""
    name = str(path.relative_to(ROOT))
    lines = list(
        difflib.unified_diff(_read(path).splitlines(), text.splitlines(), name, f"{name} (fresh)", lineterm="")
    )
    rest = f"\n... and {len(lines) - DIFF_LINES} more lines" if len(lines) > DIFF_LINES else ""
    advice = f"{name} is stale: run python tools/make_docs.py\n"
    return advice + "\n".join(lines[:DIFF_LINES]) + rest + "\n"


if __name__ == "__main__":
    sys.exit(main())
