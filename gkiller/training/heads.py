"""The head of a trained model, to train on together with its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from gkiller.deployment.restore import read_deployed
from gkiller.deployment.weights import head_of
from gkiller.errors import ModelFormatError
from gkiller.model.directory import load_model
from gkiller.model.layout import META, deployed_directory

if TYPE_CHECKING:
    from gkiller.model.classifier import ToxicityClassifier

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What a model makes of a pooled vector.

    Attributes:
        weight: (labels, width).
        bias: (labels,).
        labels: the name of each row.
        pooling: of the vectors.
    """

    weight: Array
    bias: Array
    labels: tuple[str, ...]
    pooling: str


def stored_head(encoder: str) -> Head:
    """Read the head of the model that an encoder is taken from, with one logit per label.

    Args:
        encoder: as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, or it cannot be read.
    """
    if (graph := deployed_directory(encoder)) is not None:
        network, description = read_deployed(graph)
        head, labels, pooling = network.head, description.labels, description.pooling
    else:
        directory = Path(encoder).expanduser()
        if not (directory / META).is_file():
            raise ModelFormatError(
                "an encoder without a head",
                where=encoder,
                remedy="name a model of gkiller with --encoder, or set model.head to fresh",
            )
        loaded = load_model(directory)
        head, labels, pooling = head_of(loaded.model), loaded.labels, loaded.model.pooling
    return Head(head.weight.T, head.bias, labels, pooling)


def keep_head(model: ToxicityClassifier, labels: Sequence[str], encoder: str) -> None:
    """Give a network's head the weights of a model for the labels that both score; others stay as they are.

    Args:
        model: to be trained.
        labels: that it scores.
        encoder: which model, as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, it cannot be read, it pools in another way or scores none of
            the labels.
    """
    head = stored_head(encoder)
    if head.pooling != model.pooling:
        raise ModelFormatError(
            f"the head is for the pooling {head.pooling!r}, and model.pooling is {model.pooling!r}",
            where=encoder,
            remedy=f"set model.pooling to {head.pooling}, or model.head to fresh",
        )
    known = [label for label in labels if label in head.labels]
    if not known:
        raise ModelFormatError(
            f"the model scores {', '.join(head.labels)}, and none of {', '.join(labels)}",
            where=encoder,
            remedy="name the label columns as the model does, or set model.head to fresh",
        )
    rows = [head.labels.index(label) for label in known]
    weight, bias = (torch.tensor(array[rows]) for array in (head.weight, head.bias))
    with torch.no_grad():
        if model.labels == 1:  # two logits, whose difference is the label's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            places = [0, 1]
        else:
            places = [labels.index(label) for label in known]
        model.classifier.weight[places] = weight
        model.classifier.bias[places] = bias
