"""ONNX graphs of rivals that no gate compares: fp32 by torch's exporter, int8 by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from gkiller.benchmark.systems import Runtime
from gkiller.deployment.dynamic import PLAIN_CANDIDATES, quantise_plain
from gkiller.deployment.graph import export_network
from gkiller.files import writing

if TYPE_CHECKING:
    from torch import nn

FILES: Final[dict[Runtime, str]] = {"onnx fp32": "model.onnx", "onnx int8": "model.int8.onnx"}


def make_graphs(module: nn.Module, max_length: int, folder: Path) -> dict[Runtime, Path]:
    """Write a network's graphs, unless they are there.

    Args:
        module: maps ids and mask to one logit per label.
        max_length: tokens of the longest comment.
        folder: where to; made when it is not there.

    Returns:
        The files by runtime. int8 is the first way that a giant's graph is tried in: onnxruntime's dynamic
        quantisation of weights and embeddings.
    """
    plain, small = (folder / file for file in FILES.values())
    if not (plain.is_file() and small.is_file()):
        graph = export_network(module, max_length)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder) as made:
                first, second = Path(made) / plain.name, Path(made) / small.name
                first.write_bytes(graph.SerializeToString())
                second.write_bytes(quantise_plain(graph, PLAIN_CANDIDATES[0].scheme))
                second.replace(small)
                first.replace(plain)
    return {"onnx fp32": plain, "onnx int8": small}
