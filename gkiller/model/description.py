"""The network that a model directory's ``config.json`` describes, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from gkiller.model.architectures import encoder_config, new_encoder
from gkiller.model.classifier import Pooling, ToxicityClassifier, new_classifier
from gkiller.model.dendritic import ACTIVATIONS, add_dendrites
from gkiller.model.layout import read_labels

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CODE = (
    *("auto_map", "custom_pipelines", "trust_remote_code", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "experts_implementation", "_experts_implementation"),
)
"""Keys with which transformers can be asked to fetch and run code."""


@dataclass(frozen=True)
class Description:
    """A network, ready to be built.

    Attributes:
        config: the encoder's configuration, made of the keys that matter to the network.
        labels: in the order of the head's outputs.
        pooling: how token vectors become one.
        activation: the dendrites' non-linearity.
        dendrites: how many, by module name.
    """

    config: PreTrainedConfig
    labels: tuple[str, ...]
    pooling: Pooling
    activation: str
    dendrites: dict[str, int]

    def build(self) -> ToxicityClassifier:
        """Return the network with random weights; torch's generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            model = new_classifier(self.config, len(self.labels), self.pooling)
            add_dendrites(model, self.dendrites, self.activation)
        return model

    @property
    def least_tensors(self) -> int:
        """Fewer than the network has, told without building anything."""
        layers: int = self.config.num_hidden_layers
        return layers * 16 + sum(self.dendrites.values()) * 2

    def shapes(self, tensors: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, without building anything.

        Args:
            tensors: how many there are in the file. Nothing is listed for a description that needs more.

        Raises:
            ValueError: there are too few for so many layers and dendrites, or a dendrite is on no Linear.
        """
        if self.least_tensors > tensors:
            raise ValueError(
                f"the network needs more than {self.least_tensors} tensors, and the file has {tensors}"
            )
        network = self._without_storage()
        shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        linears = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
        for name, count in self.dendrites.items():
            if name not in linears:
                raise ValueError(f"{name} has dendrites and is not a Linear of the network")
            outputs, inputs = linears[name].out_features, linears[name].in_features
            for k in range(count):
                shapes[f"{name}.dendrites.{k}.weight"] = (outputs, inputs)
                shapes[f"{name}.dendrites.{k}.bias"] = (outputs,)
                if k:
                    shapes[f"{name}.dendrite_links.{k - 1}"] = (k, outputs)
            shapes[f"{name}.dendrite_tops"] = (count, outputs)
        return shapes

    def _without_storage(self) -> ToxicityClassifier:
        """Return the network without its dendrites, on torch's meta device: shapes that take no memory."""
        with torch.device("meta"):
            encoder = new_encoder(self.config, pooler=self.pooling == "cls")
            return ToxicityClassifier(encoder, len(self.labels), self.pooling)


def read_description(content: Mapping[str, Any]) -> Description:
    """Read ``config.json``.

    Raises:
        ValueError: it is of no known architecture, or asks for a size, a value or code that is not read.
    """
    own = content.get("gkiller")
    if not isinstance(own, dict):
        raise ValueError("config.json has no block 'gkiller'")
    for key in _CODE:
        if key in content:
            raise ValueError(f"config.json has the key {key!r}, which can bring code along")
    pooling, activation = own.get("pooling"), own.get("activation")
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling {pooling!r} is unknown")
    dendrites = own.get("dendrites")
    if not isinstance(dendrites, dict):
        raise ValueError(f"dendrites {dendrites!r} are not counts by module")
    for name, count in dendrites.items():
        if type(count) is not int or not 1 <= count <= 1000:
            raise ValueError(f"{name} cannot have {count!r} dendrites")
    if activation is None and not dendrites:
        activation = next(iter(ACTIVATIONS))
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown")
    return Description(
        config=encoder_config(content),
        labels=read_labels(own.get("labels")),
        pooling=cast(Pooling, pooling),
        activation=activation,
        dendrites=dendrites,
    )
