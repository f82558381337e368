"""Label-preserving changes of comments: for more training data, and for suites that measure robustness."""

from __future__ import annotations

from gkiller.data.augment.apply import (
    DEFAULT_INTENSITY,
    FAMILIES,
    KINDS,
    Variant,
    augment,
    resolve_kinds,
    variants,
)

__all__ = [
    "DEFAULT_INTENSITY",
    "FAMILIES",
    "KINDS",
    "Variant",
    "augment",
    "resolve_kinds",
    "variants",
]
