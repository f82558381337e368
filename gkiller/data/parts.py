"""A part: one file or hub split, which belongs to one of train, valid and test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkiller.data.catalogue import KnownSource
from gkiller.data.rows import Reader

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""How files and hub splits may be named, in lower case."""


@dataclass
class Part:
    """One file or hub split.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        reader: its rows.
        stem: the beginning of the ids of rows that have none.
        path: the local file, if it is one.
        known: the catalogue's entry, if there is one.
        info: what the manifest says of it.

    """

    split: str
    reader: Reader
    stem: str
    path: Path | None = None
    known: KnownSource | None = None
    info: dict[str, Any] = field(default_factory=dict)
