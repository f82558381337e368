"""Int8 of a plain graph by onnxruntime's dynamic quantisation, for encoders without a lean graph."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from gkiller.deployment.arithmetic import Scheme
from gkiller.deployment.quantise import Candidate

if TYPE_CHECKING:
    import onnx

PLAIN_CANDIDATES: Final = (
    Candidate("onnxruntime dynamic", Scheme("int8", "int8", activations="dynamic")),
    Candidate("onnxruntime dynamic, fp32 embeddings", Scheme("int8", "fp32", activations="dynamic")),
    Candidate("onnxruntime dynamic, 7-bit weights", Scheme("int8", "int8", activations="dynamic", bits=7)),
    Candidate(
        "onnxruntime dynamic, 7-bit weights, fp32 embeddings",
        Scheme("int8", "fp32", activations="dynamic", bits=7),
    ),
)
"""Ways to make a plain graph int8: its products of weights always, its tables of embeddings or not."""


def quantise_plain(graph: onnx.ModelProto, scheme: Scheme) -> bytes:
    """Return a plain graph with int8 weights; its other inputs are made bytes batch by batch.

    Args:
        graph: of `gkiller.deployment.graph.export_plain`; it is not changed.
        scheme: int8 weights and dynamic activations; ``bits``, ``per_column`` and ``embeddings`` count.
    """
    from gkiller.ort import quantization

    tools = quantization()
    source = copy.deepcopy(graph)
    # The preparation that onnxruntime advises is what torch's exporter has done; so it says nothing.
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with TemporaryDirectory(prefix="gkiller-int8-") as folder:
        target = Path(folder) / "model.int8.onnx"
        tools.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if scheme.embeddings == "int8" else [])],
            per_channel=scheme.per_column,
            reduce_range=scheme.bits < 8,
            weight_type=tools.QuantType.QInt8,
        )
        return target.read_bytes()
