"""onnxruntime without its telemetry: all of gkiller imports it from here, and no other module may."""

from __future__ import annotations

from typing import Any

from gkiller.private import silence_onnxruntime

silence_onnxruntime()

import onnxruntime  # noqa: E402, TID251

__all__ = ["onnxruntime", "quantization"]


def quantization() -> Any:
    """Return onnxruntime's own tools for int8, which need onnx."""
    from onnxruntime import quantization  # noqa: TID251

    return quantization
