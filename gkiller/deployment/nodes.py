"""A small writer of ONNX graphs: constants, nodes, names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

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
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int,
        *,
        domain: str = "",
        output: str = "",
        **attributes: Any,
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
