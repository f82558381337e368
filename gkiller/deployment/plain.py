"""The plain graph: what torch's own exporter makes of a network."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gkiller.deployment.arithmetic import OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from gkiller.model.network import ToxicityClassifier


class ScoringNetwork(nn.Module):
    """A classifier whose outputs are one logit per label, (rows, L): the sigmoid of each is the score."""

    def __init__(self, model: ToxicityClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask, int64 (rows, tokens), to logits (rows, L)."""
        return self.model.label_logits(self.model(input_ids, attention_mask))


def export_plain(model: ToxicityClassifier, max_length: int) -> onnx.ModelProto:
    """Export a folded classifier with torch's current exporter.

    Returns:
        A graph of opset `OPSET` with the interface of `gkiller.deployment.lean.build`; rows and tokens are
        dynamic, and the weights are inside.
    """
    return export_network(ScoringNetwork(model), max_length)


def export_network(network: nn.Module, max_length: int) -> onnx.ModelProto:
    """Export a network with torch's current exporter; as `export_plain`.

    Args:
        network: maps ids and mask, int64 (rows, tokens), to logits (rows, L).
    """
    ids = torch.ones((2, min(8, max_length)), dtype=torch.int64)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", min=2, max=max_length)
    shape = {0: rows, 1: tokens}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            network.eval(),
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=(shape, shape),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # without a file name it is returned
    proto: onnx.ModelProto = program.model_proto
    # Its recorded shapes are not needed, and wrong once a tool changes a tensor's type.
    del proto.graph.value_info[:]
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own talk off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
