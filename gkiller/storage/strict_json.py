"""JSON from files that anybody may have written: one reading, bounded, or an error; and values as JSON holds them."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import date
from enum import Enum
from pathlib import PurePath
from typing import Any

MAX_DEPTH = 32  # objects and lists inside each other; gkiller's own files have 4
_MAX_DIGITS = 300  # of a whole number: a longer one has no float, and Python refuses some


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object, refusing what two readers could take differently.

    Raises:
        ValueError: it is not UTF-8, not JSON or not an object, names a key twice, nests deeper than `MAX_DEPTH`, or
            holds a number that is not finite or of more than 300 digits, or half a surrogate pair.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    _check_depth(value)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # raises on half a surrogate pair
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:80]!r} is there twice")
        found[name] = value
    return found


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{text[:20]}... is a number of {len(text):,} digits")
    return int(text)


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = (item for each in level for item in (each.values() if isinstance(each, dict) else each))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN and infinities as null, numpy values, paths, dates as plain ones."""
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | str() | int():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        case PurePath():
            return str(value)
        case date():
            return value.isoformat()
        case set() | frozenset():
            return sorted(map(plain, value), key=str)
        case list() | tuple():
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    raise TypeError(f"no JSON form for {type(value).__name__}")
