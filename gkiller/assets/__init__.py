"""The files that gkiller ships, and where they are."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def asset_path(*names: str) -> Path:
    """Return where a shipped file or folder is, by its names below this folder."""
    return _FOLDER.joinpath(*names)


def tokenizer_path() -> Path:
    """Return the WordPiece tokenizer's ``tokenizer.json``."""
    return asset_path("tokenizer.json")
