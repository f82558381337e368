"""How a graph stores its weights and multiplies by them: float32, float16 storage, or int8.

Int8 follows the affine scheme of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018): weights symmetric with a scale per output column, activations
with one scale and zero point for the whole tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gkiller.deployment.weights import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


OPSET: Final = 20
"""Of ONNX's own operators; the first with Gelu. onnxruntime reads it since 1.17."""

IR_VERSION: Final = 9
"""The file format that belongs to `OPSET`."""

CONTRIB: Final = "com.microsoft"
"""onnxruntime's own operators; every build of it for the CPU has them."""

Shape = tuple[int | str, ...]


class Nodes:
    """Collects a graph's nodes and constants."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0

    def constant(self, array: npt.NDArray[Any], hint: str = "constant") -> str:
        """Store an array; returns its name."""
        from onnx import numpy_helper

        name = self._name(hint)
        self._constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def number(self, value: float, hint: str = "number") -> str:
        """Store one float32."""
        return self.constant(np.array(value, np.float32), hint)

    def integers(self, *values: int) -> str:
        """Store a list of int64, as axes and shapes are."""
        return self.constant(np.array(values, np.int64), "integers")

    def add(self, op: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node of one output; returns its name."""
        return self.add_many(op, inputs, 1, domain=domain, output=output, **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], outputs: int, *, domain: str = "", output: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs; returns their names."""
        from onnx import helper

        names = [output] if output else [self._name(op) for _ in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, names[0], domain=domain, **attributes))
        return names

    def model(self, inputs: dict[str, Shape], outputs: dict[str, Shape], description: str) -> onnx.ModelProto:
        """Return the whole: int64 inputs, float32 outputs, by name with their shapes."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self._nodes,
            "gkiller",
            [helper.make_tensor_value_info(n, TensorProto.INT64, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self._constants,
        )
        return helper.make_model(
            graph,
            producer_name="gkiller",
            doc_string=description,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        )

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"{hint}_{self._count}"


Range = tuple[float, float]
Ranges = Mapping[str, Range]
"""The least and the greatest input of each place that multiplies, by its name."""

LEVELS: Final = 255
"""Steps of an unsigned byte."""


@dataclass(frozen=True)
class Scheme:
    """What the numbers of a graph are."""

    weights: Literal["fp32", "fp16", "int8"] = "fp32"
    embeddings: Literal["fp32", "fp16", "int8"] = "fp32"
    # what int8 weights are multiplied with: bytes scaled by each batch's own range ("dynamic"), or by ranges found on
    # validation comments ("static"), which makes a comment's score independent of its batch
    activations: Literal["dynamic", "static"] = "static"
    # of an int8 weight. Seven leave room for processors without VNNI, whose sums of two products are cut at 16 bits.
    bits: Literal[7, 8] = 8
    per_column: bool = True  # a scale for each output instead of one for a whole matrix


class Arithmetic(Protocol):
    """Multiplies an input by matrices."""

    def multiply(self, site: str, x: str, weights: list[Array], biases: list[Array]) -> list[str]:
        """Return x @ weight + bias for each pair.

        Args:
            site: the name of the place, such as "layer.0.qkv".
            x: a tensor of shape (.., in).
            weights: each (in, out).
            biases: each (out,).
        """
        ...


class FloatArithmetic:
    """float32 arithmetic on weights stored as float32 or float16."""

    def __init__(self, nodes: Nodes, *, half: bool) -> None:
        self._nodes = nodes
        self._half = half

    def multiply(self, site: str, x: str, weights: list[Array], biases: list[Array]) -> list[str]:
        """See `Arithmetic`; x has two dimensions."""
        return [
            self._nodes.add(
                "Gemm", x, stored(self._nodes, w, site, half=self._half), self._nodes.constant(b, f"{site}.bias")
            )
            for w, b in zip(weights, biases, strict=True)
        ]


class IntegerArithmetic:
    """Products of bytes, sums in int32, results in float32."""

    def __init__(self, nodes: Nodes, scheme: Scheme, ranges: Ranges) -> None:
        self._nodes = nodes
        self._scheme = scheme
        self._ranges = ranges
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def multiply(self, site: str, x: str, weights: list[Array], biases: list[Array]) -> list[str]:
        """See `Arithmetic`; an input that was made bytes once is not made so again."""
        if x not in self._quantized:
            self._quantized[x] = self._bytes_of(site, x)
        data, scale, zero = self._quantized[x]
        results = []
        for weight, bias in zip(weights, biases, strict=True):
            whole, steps = quantized_columns(weight, self._scheme.bits, per_column=self._scheme.per_column)
            inputs = (
                data,
                self._nodes.constant(whole, site),
                scale,
                self._nodes.constant(steps, f"{site}.scale"),
                zero,
                "",
                self._nodes.constant(bias, f"{site}.bias"),
            )
            results.append(self._nodes.add("MatMulIntegerToFloat", *inputs, domain=CONTRIB))
        return results

    def _bytes_of(self, site: str, x: str) -> tuple[str, str, str]:
        if self._scheme.activations == "dynamic":
            data, scale, zero = self._nodes.add_many("DynamicQuantizeLinear", [x], 3)
            return data, scale, zero
        step, offset = byte_scale(self._ranges[site])
        scale = self._nodes.constant(step, f"{site}.step")
        zero = self._nodes.constant(offset, f"{site}.zero")
        return self._nodes.add("QuantizeLinear", x, scale, zero), scale, zero


def arithmetic_of(nodes: Nodes, scheme: Scheme, ranges: Ranges | None) -> Arithmetic:
    """Return what a scheme asks for."""
    if scheme.weights == "int8":
        return IntegerArithmetic(nodes, scheme, ranges or {})
    return FloatArithmetic(nodes, half=scheme.weights == "fp16")


def stored(nodes: Nodes, array: Array, hint: str, *, half: bool = False) -> str:
    """Store an array, as float16 if wanted; onnxruntime makes it float32 once, when it loads the graph."""
    if not half:
        return nodes.constant(array, hint)
    return nodes.add("Cast", nodes.constant(array.astype(np.float16), hint), to=1)


def embedding_rows(nodes: Nodes, table: Array, ids: str, scheme: Scheme) -> str:
    """Return the rows of a table that ``ids`` name; an int8 table has a scale per row."""
    if scheme.embeddings != "int8":
        return nodes.add("Gather", stored(nodes, table, "words", half=scheme.embeddings == "fp16"), ids)
    whole, steps = quantized_columns(np.ascontiguousarray(table.T), 8, per_column=True)
    rows = nodes.add("Cast", nodes.add("Gather", nodes.constant(whole.T, "words"), ids), to=1)
    return nodes.add("Mul", rows, nodes.add("Gather", nodes.constant(steps[:, None], "words.scale"), ids))


def quantized_columns(weight: Array, bits: int, *, per_column: bool) -> tuple[npt.NDArray[np.int8], Array]:
    """Return int8 values (in, out) and their scales: one, or (out,)."""
    limit = float(2 ** (bits - 1) - 1)
    peak = np.abs(weight).max(axis=0) if per_column else np.array(np.abs(weight).max())
    steps = np.where(peak > 0, peak / limit, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / steps), -limit, limit).astype(np.int8), steps


def byte_scale(found: Range) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Return the scale and the zero point that spread a range over an unsigned byte; 0 stays exact."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    step = (high - low) / LEVELS or 1.0
    offset = int(np.clip(round(-low / step), 0, LEVELS))
    return np.array(step, np.float32), np.array(offset, np.uint8)
