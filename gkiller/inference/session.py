"""The ONNX graph: two inputs, one output, one thread a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller.errors import ModelFormatError, one_line
from gkiller.model.layout import REMEDY_DAMAGED
from gkiller.ort import onnxruntime as ort

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

_FATAL_ONLY = 4


class Session:
    """Runs the graph.

    Every call computes on the calling thread alone: several threads call it at once to use several cores,
    no thread spins while nothing is to do, and the result does not depend on how many there are.

    Args:
        graph: the content of the ONNX file.
        where: how messages name it.
        labels: how many there are.
        probe: ids and mask to try it with.

    Raises:
        ModelFormatError: it is not an ONNX graph with the inputs, the output and the width expected.
    """

    def __init__(self, graph: bytes, where: str, labels: int, probe: tuple[Ids, Ids]) -> None:
        try:
            self._session = ort.InferenceSession(graph, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelFormatError(
                f"not a graph that onnxruntime {ort.__version__} can run: {one_line(error)}",
                where=where,
                remedy=REMEDY_DAMAGED,
            ) from error
        self._check_names(where)
        try:
            logits = self.run(*probe)
        except Exception as error:
            raise ModelFormatError(
                f"the graph fails: {one_line(error)}", where=where, remedy=REMEDY_DAMAGED
            ) from error
        if logits.shape != (1, labels) or logits.dtype != np.float32 or not np.isfinite(logits).all():
            raise ModelFormatError(
                f"the graph answers {logits.dtype} of shape {logits.shape} to one comment, not {labels} "
                "finite float32",
                where=where,
                remedy="export the model again with: gkiller export",
            )

    def _check_names(self, where: str) -> None:
        inputs = sorted(value.name for value in self._session.get_inputs())
        outputs = [value.name for value in self._session.get_outputs()]
        if inputs != sorted(INPUTS) or outputs != [OUTPUT]:
            raise ModelFormatError(
                f"the graph maps {', '.join(inputs)} to {', '.join(outputs)}, not {', '.join(INPUTS)} to "
                f"{OUTPUT}",
                where=where,
                remedy="export the model again with: gkiller export",
            )

    def run(self, ids: Ids, mask: Ids) -> Logits:
        """Return float32 logits of shape (rows, L) for ids and mask of shape (rows, tokens)."""
        answer: Any = self._session.run([OUTPUT], {INPUTS[0]: ids, INPUTS[1]: mask})
        logits: Logits = answer[0]
        return logits


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A memory pattern is kept for every shape that was met, and batches have hundreds of shapes.
    options.enable_mem_pattern = False
    options.log_severity_level = _FATAL_ONLY
    return options
