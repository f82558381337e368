"""Settings as a commented TOML file that loads back to the same settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkiller.settings.reference import section_titles, settings_reference

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings
    from gkiller.settings.reference import Reference


def settings_toml(settings: Settings, section: str | None = None) -> str:
    """Return every setting as TOML, with its description, unit and range as comments.

    Args:
        settings: what to write.
        section: only this section, or this dotted key.

    ``resolve(config=...)`` on the text gives equal settings when no stronger layer speaks. A setting
    that is unset appears as a comment, since TOML has no null.
    """
    import tomlkit

    document = tomlkit.document()
    extent = "Complete settings." if section is None else f"Only {section}."
    document.add(tomlkit.comment(f"{extent} Use them again with: gkiller train --config FILE"))
    tables = {}
    for entry in settings_reference():
        if section not in (None, entry.section, entry.key):
            continue
        if entry.section not in tables:
            table = tomlkit.table()
            table.comment(section_titles()[entry.section])
            document.add(tomlkit.nl())
            document.add(entry.section, table)
            tables[entry.section] = table
        table = tables[entry.section]
        table.add(tomlkit.comment(_remark(entry)))
        value = getattr(getattr(settings, entry.section), entry.name)
        if value is None:
            table.add(tomlkit.comment(f"{entry.name} is not set"))
        else:
            table.add(entry.name, list(value) if isinstance(value, tuple) else value)
    return tomlkit.dumps(document)


def _remark(entry: Reference) -> str:
    facts = "; ".join(fact for fact in (entry.unit, entry.type_text, entry.range_text) if fact)
    return f"{entry.description} [{facts}]"
