"""What other libraries are told so that they report nothing to their makers and write nothing at home.

The only place that sets such variables; docs/privacy.md has the reasons and how to check them.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

ONNXRUNTIME: Final = {"ORT_DISABLE_TELEMETRY": "1"}
"""Read by onnxruntime when it is imported. Its own `disable_telemetry_events` stops nothing of it."""
HUB: Final = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "DISABLE_SAFETENSORS_CONVERSION": "1"}
"""No details of this machine in requests, no request that only counts a download, and no request to a third
server that converts weights."""
_READ_AT_IMPORT: Final = (
    ("huggingface_hub.constants", "HF_HUB_DISABLE_TELEMETRY", True),
    ("datasets.config", "HF_UPDATE_DOWNLOAD_COUNTS", False),
)
_FONT_LIST: Final = "matplotlib.font_manager"


def silence_onnxruntime() -> None:
    """Switch onnxruntime's telemetry off for this process and its children; call it before the import."""
    os.environ.update(ONNXRUNTIME)


def silence_hub() -> None:
    """Let requests to the Hugging Face hub ask for what was named, and for nothing else."""
    os.environ.update(HUB)
    for module, name, value in _READ_AT_IMPORT:
        if module in sys.modules:
            setattr(sys.modules[module], name, value)


@contextmanager
def matplotlib_apart() -> Iterator[None]:
    """Import matplotlib inside of this block: it then keeps no list of fonts below the home directory.

    It also reads no matplotlibrc. Nothing changes where ``MPLCONFIGDIR`` is set or matplotlib was imported before.
    """
    if _FONT_LIST not in sys.modules and "MPLCONFIGDIR" not in os.environ:
        with (
            tempfile.TemporaryDirectory(prefix="gkiller-matplotlib-") as folder,
            _variables(MPLCONFIGDIR=folder, MPL_IGNORE_SYSTEM_FONTS="1"),
        ):
            import_module(_FONT_LIST)
    yield


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers log nothing, draw no bars and report nothing while the block runs."""
    utils = import_module("transformers.utils")

    silence_hub()
    talk: Any = utils.logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()
