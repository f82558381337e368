"""``gkiller config``: the settings, their values and where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, note, results_table, show
from gkiller.cli.options import JsonFlag, with_settings
from gkiller.errors import SettingsError

if TYPE_CHECKING:
    from gkiller.settings import Reference, Resolved

app = typer.Typer(
    help="Show the settings and where each value comes from.", no_args_is_help=True, rich_markup_mode="rich"
)

_SECTION = "Only this section, such as train, or this key."
SectionArgument = Annotated[str | None, typer.Argument(metavar="SECTION", help=_SECTION)]


@app.command("show")
@with_settings("data", "augment", "model", "dendrites", "train", "distill", "evaluation")
def show_settings(
    resolved: Resolved,
    section: SectionArgument = None,
    toml: Annotated[bool, typer.Option("--toml", help="Print a complete settings file instead.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print every setting's value, unit and origin, as a command with the same flags would see them."""
    from gkiller.settings import plain_text, preset_about, settings_toml, settings_values

    values, origins = settings_values(resolved.settings), resolved.origins
    if json:
        facts = {e.key: {"value": values[e.key], "unit": e.unit, "origin": origins[e.key]} for e in _entries(section)}
        emit_json({"preset": resolved.preset, "settings": facts})
    elif toml:
        _entries(section)  # refuses an unknown one
        typer.echo(settings_toml(resolved.settings, section=section), nl=False)
    else:
        rows = [(e.key, plain_text(values[e.key]), e.unit, origins[e.key]) for e in _entries(section)]
        show(results_table("", ("setting", "value", "unit", "origin"), rows))
        if resolved.preset != "default":
            note(f"preset {resolved.preset}: {preset_about(resolved.preset)}")


@app.command("keys")
def list_keys(section: SectionArgument = None, json: JsonFlag = False) -> None:
    """List every setting with its type, range, default, flag and variable."""
    entries = _entries(section)
    if json:
        emit_json({"settings": {entry.key: _definition(entry) for entry in entries}})
    else:
        show(results_table("", ("setting", "meaning"), [(entry.key, _meaning(entry)) for entry in entries]))


def _meaning(entry: Reference) -> str:
    """Return what a setting is for and, on a line of its own, what it may be and how it is given."""
    kind = " ".join(filter(None, (entry.type_text, entry.range_text, entry.unit)))
    default = f"default {entry.default_text}" if entry.default_text else "no default"
    return f"{entry.description}\n{'; '.join(filter(None, (kind, default, entry.flag, entry.env)))}"


def _entries(section: str | None) -> list[Reference]:
    """Return the settings of a section, or the one of a key, or all."""
    from gkiller.settings import key_advice, nearest_keys, section_titles, settings_reference
    from gkiller.wording import did_you_mean, nearest

    entries = [entry for entry in settings_reference() if section in (None, entry.section, entry.key)]
    if not entries:
        word, titles = str(section), section_titles()
        meant = nearest(word, titles) or not nearest_keys(word)
        remedy = did_you_mean(word, titles) if "." not in word and meant else key_advice(word)
        raise SettingsError(f"no section or setting {section!r}", where="gkiller config", remedy=remedy)
    return entries


def _definition(entry: Reference) -> dict[str, Any]:
    return {
        "type": entry.type_text,
        "range": entry.range_text,
        "default": entry.default,
        "unit": entry.unit,
        "flag": entry.flag,
        "variable": entry.env,
        "description": entry.description,
    }
