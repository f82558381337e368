"""The way back: a network's weights out of its lean graph, and an encoder to train on from the shipped model.

`gkiller.deployment.lean` and `gkiller.deployment.arithmetic` name every weight after its place, and write the
weights of one place in one order. Here they are read in that order. What int8 or float16 rounded stays
rounded: a value of an int8 matrix differs from the trained one by at most half of its scale.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.deployment.weights import ACTIVATIONS, LINEARS, NORMS, Array, Branch, Dense, Layer, Network, Norm, layer_of
from gkiller.inference.loading import graph_name
from gkiller.model.layout import CONFIG, FORMAT_VERSION, LIMITS, META, consistent, unbroken
from gkiller.model.network import Description, read_description
from gkiller.model.pretrained import check_fits, encoder_config, new_encoder
from gkiller.storage.sealed import unseal
from gkiller.storage.strict_json import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from gkiller.settings.definition import ModelSettings

_STORED: Final = {"float32", "float16", "int8"}
"""What the weights of a lean graph are stored as."""
_POOLER: Final = "pooler."
_NO_WEIGHTS: Final = ("constant", "integers", "number")
"""Places of constants that belong to operators."""
_RANGES: Final = (".step", ".zero")
"""Ends of the places that hold the ranges of a static int8 graph."""


def read_network(graph: bytes, description: Description) -> Network:
    """Read the weights of a lean graph as `gkiller.deployment.deploy` writes it: the inverse of `build`.

    Positions come with the token type's vector added to them, as the graph has them; ``types`` is 0.

    Raises:
        ValueError: a weight is missing, left over, not finite or not of the shape that its place asks for; it
            is no lean graph, or not of this network.
    """
    config: Any = description.config
    if config.model_type != "bert" or config.hidden_act not in ACTIVATIONS:
        raise ValueError("no lean graph is built of such a network")
    weights = _Weights(graph, description)
    words, positions = weights.matrix("words"), weights.matrix("positions")
    norm = weights.norm("embeddings")
    layers = tuple(_layer(weights, number) for number in range(config.num_hidden_layers))
    pooler = weights.dense("pooler", 0) if description.pooling == "cls" else None
    head = Dense(weights.matrix("head"), weights.take("head.bias"))
    weights.finish()
    return Network(
        words=words,
        positions=positions,
        types=np.zeros(words.shape[1], np.float32),
        norm=norm,
        layers=layers,
        heads=config.num_attention_heads,
        act=ACTIVATIONS[config.hidden_act],
        pooling=description.pooling,
        pooler=pooler,
        head=head,
    )


def encoder_state(network: Network, types: int) -> dict[str, Array]:
    """Return the encoder's parameters by BERT's own names, without dendrites: the inverse of `network_of`."""
    state = {
        "embeddings.word_embeddings.weight": network.words,
        "embeddings.position_embeddings.weight": network.positions,
        "embeddings.token_type_embeddings.weight": np.repeat(network.types[None], types, axis=0),
        **_norm_state("embeddings.LayerNorm", network.norm),
    }
    for number, layer in enumerate(network.layers):
        for part, name in LINEARS.items():
            state |= _dense_state(f"encoder.layer.{number}.{name}", getattr(layer, part))
        for part, name in NORMS.items():
            state |= _norm_state(f"encoder.layer.{number}.{name}", getattr(layer, part))
    return state | (_dense_state("pooler.dense", network.pooler) if network.pooler is not None else {})


def deployed_encoder(directory: Path, settings: ModelSettings, vocab_size: int) -> PreTrainedModel:
    """Return the encoder of a model's graph, to be trained on: its neurons, without dendrites.

    A pooler that ``settings.pooling`` asks for and the graph lacks has random weights (torch's global generator).

    Args:
        directory: of the model, as of `gkiller.model.layout.deployed_directory`.

    Raises:
        ModelNotFoundError: it has no graph.
        ModelTamperedError: one of its files is not what was written.
        ModelFormatError: it cannot be read, or is too small for the tokenizer or for ``max_length``.
    """
    network, description = read_deployed(directory)
    with consistent(directory):
        content = {
            **description.config.to_dict(),
            "max_position_embeddings": len(network.positions),
            "hidden_dropout_prob": settings.dropout,
            "attention_probs_dropout_prob": settings.attention_dropout,
        }
        config = encoder_config(content)
        check_fits(config, settings, vocab_size)
        encoder = new_encoder(config, pooler=settings.pooling == "cls")
        encoder.load_state_dict(_state(network, encoder))
    return encoder


def read_deployed(directory: Path) -> tuple[Network, Description]:
    """Read a network from the graph of a model directory, the one that `gkiller.load` takes.

    Raises:
        ModelNotFoundError: it has no graph.
        ModelTamperedError: a file is not what was written.
        ModelFormatError: it cannot be read; the graph is not lean.
    """
    _, graph = graph_name(directory, "auto")
    keep = {name: LIMITS[name] for name in (CONFIG, graph)}
    with unbroken():
        kept = unseal(directory, META, version=FORMAT_VERSION, keep=keep, check="kept").kept
    with consistent(directory):
        description = read_description(parse_json(kept[CONFIG]))
        return read_network(kept[graph], description), description


class _Weights:
    """The weights of a graph by their place, each list in the order in which they were written.

    Raises:
        ValueError: it is no graph, or a weight is stored elsewhere or as another type.
    """

    def __init__(self, graph: bytes, description: Description) -> None:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper

        self._description = description
        try:
            tensors = onnx.load_from_string(graph).graph.initializer
        except DecodeError as error:
            raise ValueError("the graph is no ONNX file") from error
        self._left: dict[str, list[Array]] = defaultdict(list)
        for tensor in tensors:
            if tensor.external_data:
                raise ValueError(f"{tensor.name} is stored in another file")
            self._left[tensor.name.rpartition("_")[0]].append(numpy_helper.to_array(tensor))

    def take(self, place: str) -> Array:
        """Return the next array of a place as float32."""
        if not self._left[place]:
            raise ValueError(f"the graph has no weight {place!r}: it is not the lean graph of this network")
        array = self._left[place].pop(0)
        if array.dtype.name not in _STORED or not np.isfinite(array).all():
            raise ValueError(f"the weight {place!r} is not of finite numbers")
        return np.ascontiguousarray(array, np.float32)

    def matrix(self, place: str) -> Array:
        """Return the next matrix of a place, multiplied by its scales where it is of int8."""
        whole = bool(self._left[place]) and self._left[place][0].dtype == np.int8
        values = self.take(place)
        return values * self.take(f"{place}.scale") if whole else values

    def norm(self, place: str) -> Norm:
        """Return the LayerNorm of a place."""
        epsilon = float(self._description.config.layer_norm_eps)
        return Norm(self.take(f"{place}.gamma"), self.take(f"{place}.beta"), epsilon)

    def dense(self, place: str, dendrites: int) -> Dense:
        """Return the next Linear of a place with its dendrites."""
        (weight, bias), *grown = [(self.matrix(place), self.take(f"{place}.bias")) for _ in range(1 + dendrites)]
        branches = []
        for number, own in enumerate(grown):
            links = [self.take(f"{place}.link") for _ in range(number)]
            stacked = np.stack(links) if links else np.zeros((0, len(bias)), np.float32)
            branches.append(Branch(*own, stacked, self.take(f"{place}.top")))
        return Dense(weight, bias, tuple(branches), self._description.activation)

    def side_by_side(self, place: str, dendrites: list[int]) -> list[Dense]:
        """Return Linears of one input: written as one where `joinable` says so."""
        if len(set(dendrites)) > 1:
            return [self.dense(place, count) for count in dendrites]
        return _parted(self.dense(place, dendrites[0]), len(dendrites))

    def dendrites(self, layer: int, part: str) -> int:
        """Return how many dendrites a Linear of a layer has."""
        return self._description.dendrites.get(f"bert.encoder.layer.{layer}.{LINEARS[part]}", 0)

    def first_only(self, layer: int) -> bool:
        """Whether a layer is computed for [CLS] alone, so that its query stands by itself."""
        last = layer == self._description.config.num_hidden_layers - 1
        return last and self._description.pooling == "cls"

    def finish(self) -> None:
        """Check that no weight is left.

        Raises:
            ValueError: one is.
        """
        for place, arrays in self._left.items():
            if arrays and place not in _NO_WEIGHTS and not place.endswith(_RANGES):
                raise ValueError(f"the graph has more weights {place!r} than its network")


def _layer(weights: _Weights, number: int) -> Layer:
    site = f"layer.{number}"
    counts = {part: weights.dendrites(number, part) for part in LINEARS}
    groups = [["query"], ["key", "value"]] if weights.first_only(number) else [["query", "key", "value"]]
    linears: dict[str, Dense] = {}
    for group in groups:
        found = weights.side_by_side(f"{site}.qkv", [counts[part] for part in group])
        linears |= zip(group, found, strict=True)
    linears |= {part: weights.dense(f"{site}.{part}", counts[part]) for part in ("mix", "up", "down")}
    norms = {part: weights.norm(f"{site}.{part.removesuffix('_norm')}") for part in NORMS}
    return layer_of(linears, norms)


def _parted(together: Dense, count: int) -> list[Dense]:
    """Take Linears apart that `joined` put side by side.

    Raises:
        ValueError: their columns are no multiple of ``count``.
    """

    def parts(array: Array) -> list[Array]:
        return [np.ascontiguousarray(part) for part in np.split(array, count, axis=-1)]

    branches = [
        [Branch(*own) for own in zip(*map(parts, (b.weight, b.bias, b.links, b.top)), strict=True)]
        for b in together.branches
    ]
    return [
        Dense(weight, bias, tuple(branch[number] for branch in branches), together.activation)
        for number, (weight, bias) in enumerate(zip(parts(together.weight), parts(together.bias), strict=True))
    ]


def _dense_state(name: str, dense: Dense) -> dict[str, Array]:
    return {f"{name}.weight": np.ascontiguousarray(dense.weight.T), f"{name}.bias": dense.bias}


def _norm_state(name: str, norm: Norm) -> dict[str, Array]:
    return {f"{name}.weight": norm.gamma, f"{name}.bias": norm.beta}


def _state(network: Network, encoder: PreTrainedModel) -> dict[str, Tensor]:
    """Return what to load into an encoder: its own pooler, where it has one and the network has none."""
    import torch

    config: Any = encoder.config
    read = {name: torch.tensor(array) for name, array in encoder_state(network, config.type_vocab_size).items()}
    own = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith(_POOLER)}
    pooler = {name: read.get(name, tensor) for name, tensor in own.items()}
    return {name: tensor for name, tensor in read.items() if not name.startswith(_POOLER)} | pooler
