"""Ways to forge a model directory: everything that is changed gets right digests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkiller.errors import ModelFormatError
from gkiller.model.directory import load_model
from gkiller.storage.sealed import digest_of, seal

FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json")


def forge(folder: Path, **changes: Any) -> None:
    """Make all digests right, after other files were changed; ``changes`` go into gkiller.json."""
    content = json.loads((folder / "gkiller.json").read_text())
    content = {k: v for k, v in content.items() if k not in ("files", "digest")} | changes
    seal(folder, "gkiller.json", content)


def describe(folder: Path, change: Callable[..., Any]) -> None:
    """Change gkiller.json with its list of files, and make its own digest right."""
    content = json.loads((folder / "gkiller.json").read_text())
    change(content)
    content["digest"] = digest_of(content)
    (folder / "gkiller.json").write_text(json.dumps(content))


def replace(folder: Path, name: str, data: bytes | dict[str, Any]) -> None:
    (folder / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    forge(folder)


def refused(folder: Path, said: str, error: type[Any] = ModelFormatError) -> None:
    with pytest.raises(error) as caught:
        load_model(folder)
    assert said in caught.value.what
    assert str(folder) in caught.value.where
    assert caught.value.remedy
    assert len(str(caught.value)) < 1000
