"""Mutations of a directory of files, the same ones for the same seed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkiller.storage.files import sha256_file
from gkiller.storage.sealed import digest_of

HOSTILE: Any = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e300, 2**31, 2**63, 10**30, "", "x", "..", "/etc/passwd"),
    *("\x00", "\x1b[2J", "\u202e", "x" * 5000, [], {}, [0], [[]], {"": 0}, [None] * 100, {"type": "x"}),
)
"""Values that a JSON file's reader may not expect."""


@dataclass(frozen=True)
class Mutation:
    """One change of a directory.

    Attributes:
        description: says what it does.
        apply: does it, to a copy of the directory.
    """

    description: str
    apply: Callable[[Path], None]


def contents(directory: Path) -> dict[str, bytes]:
    """The files below a directory, by name."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def restore(directory: Path, files: dict[str, bytes]) -> None:
    """Make a flat directory hold these files and no others; quicker than to copy it anew."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.name not in files:
            path.unlink()
    for name, data in files.items():
        (directory / name).write_bytes(data)


def mutations(files: dict[str, bytes], seed: int, count: int) -> Iterator[Mutation]:
    """Yield ``count`` mutations of a flat directory that holds these files."""
    for number in range(count):
        draw = random.Random(f"{seed}-{number}")
        names = sorted(files)
        name = draw.choice(names)
        kind = draw.choice(list(_WHOLE) if draw.random() < 0.15 else list(_BYTES) + ["json"] * 4)
        if kind in _WHOLE:
            other = draw.choice([n for n in names if n != name])
            yield Mutation(f"{number}: {kind} {name} {other}", _whole(kind, name, other))
            continue
        changed = _json(draw, files[name]) if kind == "json" else None
        if changed is None:
            kind = draw.choice(list(_BYTES)) if kind == "json" else kind
            changed = _BYTES[kind](draw, files[name])
        yield Mutation(f"{number}: {kind} in {name}", _writes(name, changed))


def reseal(directory: Path, name: str) -> None:
    """Make the digests in a JSON file right again, as a forger would; one that is no JSON stays."""
    path = directory / name
    try:
        content = json.loads(path.read_bytes())
        files = content["files"]
        for file in [file for file in files if (directory / file).is_file()]:
            files[file] = sha256_file(directory / file)
        content["digest"] = digest_of(content)
        path.write_text(json.dumps(content), "utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return


def _writes(name: str, data: bytes) -> Any:
    return lambda directory: (directory / name).write_bytes(data) and None


def _whole(kind: str, name: str, other: str) -> Callable[[Path], None]:
    return lambda directory: _WHOLE[kind](directory / name, directory / other)


def _swap_files(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _folder(one: Path, other: Path) -> None:
    one.unlink()
    one.mkdir()


def _link(one: Path, other: Path) -> None:
    one.unlink()
    one.symlink_to(other.name)


_WHOLE: dict[str, Callable[[Path, Path], None]] = {
    "swap files": _swap_files,
    "copy over": lambda one, other: one.write_bytes(other.read_bytes()) and None,  # type: ignore[dict-item]
    "delete": lambda one, other: one.unlink(),
    "rename": lambda one, other: one.replace(one.with_name("renamed")) and None,  # type: ignore[dict-item]
    "empty": lambda one, other: one.write_bytes(b"") and None,  # type: ignore[dict-item]
    "folder": _folder,
    "link": _link,
}


def _span(draw: random.Random, data: bytes) -> tuple[int, int]:
    """A range of bytes, half of the time near the start, where headers are."""
    size = len(data) if draw.random() < 0.5 else max(1, len(data) // 8)
    start = draw.randrange(size)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 64, 1000)))


def _flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        changed[_span(draw, data)[0]] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _digit(draw: random.Random, data: bytes) -> bytes:
    """Change one digit of a text, or what stands for one."""
    places = [i for i, byte in enumerate(data[:20_000]) if 48 <= byte <= 57]
    if not places:
        return _flip(draw, data)
    at = draw.choice(places)
    return data[:at] + draw.choice((b"0", b"9", b"-1", b"1e9", b"99999999", b"0.5", b'"', b"")) + data[at + 1 :]


def _exchange(draw: random.Random, data: bytes) -> bytes:
    (a, b), (c, d) = sorted((_span(draw, data), _span(draw, data)))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:] if b <= c else data[:a] + data[b:]


def _zero(draw: random.Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    return data[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + data[end:]


def _repeat(draw: random.Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    return data[:end] + data[start:end] * draw.choice((1, 1, 2, 50)) + data[end:]


def _cut(draw: random.Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    return data[:start] + data[end:]


_BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flip": _flip,
    "truncate": lambda draw, data: data[: draw.randrange(len(data))],
    "extend": lambda draw, data: data + draw.randbytes(draw.choice((1, 8, 4096))),
    "space": lambda draw, data: data + b" \n" * draw.randrange(1, 9),
    "digit": _digit,
    "exchange": _exchange,
    "zero": _zero,
    "repeat": _repeat,
    "cut": _cut,
    "insert": lambda draw, data: data[: (at := _span(draw, data)[0])] + draw.randbytes(4) + data[at:],
}


def _json(draw: random.Random, data: bytes) -> bytes | None:
    """Change one value or key of a JSON file, or of a safetensors header; None for another file."""
    try:
        if data[:1] == b"{":
            value = json.loads(data)
            _replace(draw, value)
            return json.dumps(value).encode()
        length = int.from_bytes(data[:8], "little")
        value = json.loads(data[8 : 8 + length])
        _replace(draw, value)
        header = json.dumps(value).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    except ValueError:
        return None


def _replace(draw: random.Random, value: object) -> None:
    while isinstance(value, dict | list) and value:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.85:
            value = inner
            continue
        action = draw.random()
        if action < 0.15:
            del value[key]
        elif action < 0.3 and isinstance(value, dict):
            value[draw.choice(["", "x", "..", "auto_map", key + "x"])] = value.pop(key)  # type: ignore[operator]
        elif action < 0.45 and type(inner) in (int, float):
            value[key] = draw.choice((inner + 1, inner - 1, inner * 2, -inner, inner * 1000, inner / 2))
        else:
            value[key] = draw.choice(HOSTILE)
        return
