"""The files that gkiller ships, and where they are."""

from __future__ import annotations

from pathlib import Path

MODEL_FOLDER = "model"
"""The folder of the shipped default model, in this one."""

_FOLDER = Path(__file__).resolve().parent


def asset_path(*names: str) -> Path:
    """Return where a shipped file or folder is, by its names below this folder."""
    return _FOLDER.joinpath(*names)


def default_model_path() -> Path:
    """Return where the shipped default model is, in builds that have one."""
    return asset_path(MODEL_FOLDER)


def tokenizer_path() -> Path:
    """Return the WordPiece tokenizer's ``tokenizer.json``."""
    return asset_path("tokenizer.json")
