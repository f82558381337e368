"""What every setting is, read off the definition: the source of flags, documents and messages."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from gkiller.settings.definition import ENV_DELIMITER, ENV_PREFIX, Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Kind = Literal["bool", "int", "float", "str", "choice", "list", "numbers"]
Bound = tuple[float, bool]
"""An end of a range, and whether it belongs to the range."""

_NOUNS: dict[Kind, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "choice": "one of",
    "list": "a list of texts",
    "numbers": "a list of whole numbers",
}


@dataclass(frozen=True)
class Reference:
    """One setting, as documents and messages name it; what it does not have is empty or None."""

    key: str  # the dotted name, train.lr
    kind: Kind
    optional: bool  # whether it may be unset (None)
    default: Any
    choices: tuple[str, ...]  # the allowed texts of a choice
    lower: Bound | None
    upper: Bound | None
    unit: str  # what a number counts
    flag: str
    alias: str  # a second flag of the same meaning
    env: str  # its environment variable
    description: str

    @property
    def section(self) -> str:
        """The first part of the key."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.partition(".")[2]

    @property
    def plain_flag(self) -> str:
        """The flag that the name alone would make."""
        return "--" + self.name.replace("_", "-")

    @property
    def on_flag(self) -> str:
        """The flag that sets it, or would; of a pair the one that turns it on."""
        return self.flag.partition("/")[0] or self.plain_flag

    @property
    def type_text(self) -> str:
        """The type in one word, such as ``float`` or ``ap|f1``; ``?`` marks one that may be unset."""
        word = "|".join(self.choices) if self.kind == "choice" else self.kind
        return word + ("?" if self.optional else "")

    @property
    def range_text(self) -> str:
        """The range, such as ``> 0, <= 1``, or an empty string."""
        return ", ".join(self._bounds())

    @property
    def default_text(self) -> str:
        """The default as one would type it on the command line; ``none`` when it is unset."""
        return plain_text(self.default)

    @property
    def allowed(self) -> str:
        """What a value may be, in words: type, range and unit."""
        unit = f"({self.unit})" if self.unit else ""
        none = "or none" if self.optional else ""
        parts = _NOUNS[self.kind], ", ".join(self.choices), " and ".join(self._bounds()), unit, none
        return " ".join(filter(None, parts))

    def _bounds(self) -> list[str]:
        ends = ((self.lower, ">"), (self.upper, "<"))
        return [f"{sign}{'=' * end[1]} {plain_text(end[0])}" for end, sign in ends if end is not None]


def plain_text(value: Any) -> str:
    """Return a settings value as one would type it: ``none``, ``true``, ``a,b``, ``0.001``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@cache
def settings_reference() -> tuple[Reference, ...]:
    """Return every setting in the order of the definition."""
    return tuple(
        _reference(f"{section}.{name}", leaf)
        for section, field in Settings.model_fields.items()
        for name, leaf in type(field.default).model_fields.items()
    )


@cache
def settings_by_key() -> types.MappingProxyType[str, Reference]:
    """Return the settings by their dotted keys, read-only."""
    return types.MappingProxyType({entry.key: entry for entry in settings_reference()})


def section_titles() -> dict[str, str]:
    """Return the first line of each section's docstring, by its name."""
    fields = Settings.model_fields.items()
    return {name: (type(field.default).__doc__ or name).strip().splitlines()[0] for name, field in fields}


def _reference(key: str, field: FieldInfo) -> Reference:
    kind, optional, choices = _kind(field.annotation)
    declared: Any = field.json_schema_extra  # by setting(): unit, flag, alias
    return Reference(
        key=key,
        kind=kind,
        optional=optional,
        default=field.default,
        choices=choices,
        lower=_bound(field.metadata, "ge", "gt"),
        upper=_bound(field.metadata, "le", "lt"),
        **declared,
        env=ENV_PREFIX + key.upper().replace(".", ENV_DELIMITER),
        description=" ".join((field.description or "").split()),
    )


def _kind(annotation: Any) -> tuple[Kind, bool, tuple[str, ...]]:
    """Return a leaf's kind, whether it may be None, and its choices."""
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = [part for part in get_args(annotation) if part is not type(None)]
        kind, _, choices = _kind(inner)
        return kind, True, choices
    if get_origin(annotation) is Literal:
        return "choice", False, get_args(annotation)
    if get_origin(annotation) is tuple:
        return "numbers" if get_args(annotation)[0] is int else "list", False, ()
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return kinds[annotation], False, ()


def _bound(metadata: list[Any], inclusive: str, exclusive: str) -> Bound | None:
    """Return one end of the range among a field's constraints (annotated-types)."""
    names = (inclusive, exclusive)
    ends = [(getattr(rule, name), name == inclusive) for rule in metadata for name in names if hasattr(rule, name)]
    return ends[0] if ends else None


def settings_toml(settings: Settings, section: str | None = None) -> str:
    """Return every setting, or those of a section or key, as TOML; what they mean, and what is unset, as comments."""
    import tomlkit

    document = tomlkit.document()
    extent = "Complete settings." if section is None else f"Only {section}."
    document.add(tomlkit.comment(f"{extent} Use them again with: gkiller train --config FILE"))
    for entry in settings_reference():
        if section not in (None, entry.section, entry.key):
            continue
        if entry.section not in document:
            table = tomlkit.table()
            table.comment(section_titles()[entry.section])
            document.add(tomlkit.nl())
            document.add(entry.section, table)
        facts = "; ".join(fact for fact in (entry.unit, entry.type_text, entry.range_text) if fact)
        table.add(tomlkit.comment(f"{entry.description} [{facts}]"))
        value = getattr(getattr(settings, entry.section), entry.name)
        if value is None:
            table.add(tomlkit.comment(f"{entry.name} is not set"))
        else:
            table.add(entry.name, list(value) if isinstance(value, tuple) else value)
    return tomlkit.dumps(document)
