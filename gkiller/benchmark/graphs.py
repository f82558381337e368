"""ONNX graphs of rivals that no gate compares: fp32 by torch's exporter, int8 by onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from gkiller.benchmark.systems import Runtime
from gkiller.deployment.graph import export_network
from gkiller.files import writing

if TYPE_CHECKING:
    from torch import nn

FILES: Final[dict[Runtime, str]] = {"onnx fp32": "model.onnx", "onnx int8": "model.int8.onnx"}
_QUANTISED: Final = ("MatMul", "Gemm", "Gather")


def make_graphs(module: nn.Module, max_length: int, folder: Path) -> dict[Runtime, Path]:
    """Write a network's graphs, unless they are there.

    Args:
        module: maps ids and mask to one logit per label.
        max_length: tokens of the longest comment.
        folder: where to; made when it is not there.

    Returns:
        The files by runtime. int8 is onnxruntime's dynamic quantisation, per channel.
    """
    plain, small = (folder / file for file in FILES.values())
    if not (plain.is_file() and small.is_file()):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder) as made:
                first, second = Path(made) / plain.name, Path(made) / small.name
                first.write_bytes(export_network(module, max_length).SerializeToString())
                _quantise(first, second)
                second.replace(small)
                first.replace(plain)
    return {"onnx fp32": plain, "onnx int8": small}


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the advice that onnxruntime gives on the root logger off the terminal."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
