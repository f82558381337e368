"""Where perforatedai can be had. Nothing heavy is imported here, so that ``gkiller doctor`` can ask early."""

from __future__ import annotations

from typing import Final

PERFORATEDAI: Final = "3.2.9"
"""The one version that gkiller is written for and tested with; ``pyproject.toml`` pins it."""

SUPPORTED: Final = "CPython 3.11 or 3.12 on Linux x86-64 or Windows x86-64, and 3.11 to 3.13 on macOS"
"""The platforms its publisher has builds for; ``pyproject.toml`` marks the dependency with them."""
