"""A trained network as plain arrays: what a lean graph is built from, and what is read back out of one.

`gkiller.deployment.lean` names every weight after its place, and writes the weights of one place in one order. Here
they are read in that order. What int8 or float16 rounded stays rounded: a value of an int8 matrix differs from the
trained one by at most half of its scale.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gkiller.errors import ExportError
from gkiller.inference.loading import graph_name
from gkiller.model.layout import CONFIG, FORMAT_VERSION, LIMITS, META, consistent, unbroken
from gkiller.model.network import DendriticLinear, Description, Pooling, read_description
from gkiller.model.pretrained import check_fits, encoder_config, new_encoder
from gkiller.storage.sealed import unseal
from gkiller.storage.strict_json import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from gkiller.model.network import ToxicityClassifier
    from gkiller.settings.definition import ModelSettings

Array = npt.NDArray[np.float32]
ACTIVATIONS: Final = {
    **dict.fromkeys(("gelu", "gelu_python"), "Gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "GeluTanh"),
    "relu": "Relu",
}
"""The feed-forward non-linearities of a BERT configuration that a graph can be built of."""
LINEARS: Final = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
"""The Linears of a `Layer`, by what BERT calls them in its own."""
NORMS: Final = {"mix_norm": "attention.output.LayerNorm", "down_norm": "output.LayerNorm"}
"""The same for the LayerNorms."""
_STORED: Final = {"float32", "float16", "int8"}  # what the weights of a lean graph are stored as
_POOLER: Final = "pooler."
_NO_WEIGHTS: Final = ("constant", "integers", "number")  # places of constants that belong to operators
_RANGES: Final = (".step", ".zero")  # ends of the places that hold the ranges of a static int8 graph


class Branch(NamedTuple):
    """A dendrite of a `Dense`."""

    weight: Array  # (in, out)
    bias: Array  # (out,)
    links: Array  # (k, out), from the k earlier dendrites
    top: Array  # (out,)


@dataclass(frozen=True)
class Dense:
    """A Linear with its dendrites, if any."""

    weight: Array  # (in, out): transposed, as a graph multiplies
    bias: Array  # (out,)
    branches: tuple[Branch, ...] = ()
    activation: str = "sigmoid"


@dataclass(frozen=True)
class Norm:
    """A LayerNorm: gamma and beta, both (hidden,)."""

    gamma: Array
    beta: Array
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One encoder layer, in the order of computation."""

    query: Dense
    key: Dense
    value: Dense
    mix: Dense
    mix_norm: Norm
    up: Dense
    down: Dense
    down_norm: Norm


@dataclass(frozen=True)
class Network:
    """Everything that inference uses."""

    words: Array  # (pieces, hidden)
    positions: Array  # (max_length, hidden), without the positions that no comment reaches
    types: Array  # (hidden,), the one token type that there is
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    act: str  # the feed-forward non-linearity, a value of ACTIVATIONS
    pooling: Pooling
    pooler: Dense | None  # BERT's pooler, for the pooling "cls" only
    head: Dense

    @property
    def hidden(self) -> int:
        """Width of a token's vector."""
        return int(self.words.shape[1])


def leanable(model: ToxicityClassifier) -> bool:
    """Whether `network_of` can read a classifier: others than BERT are deployed as plain graphs."""
    return bool(model.bert.config.model_type == "bert")


def network_of(model: ToxicityClassifier, max_length: int) -> Network:
    """Read a folded classifier; an ExportError where no graph is built for its configuration."""
    bert: Any = model.bert
    config = bert.config
    if not leanable(model):
        what, remedy = f"a {config.model_type} encoder", "its plain graph can: gkiller export --plain"
        raise ExportError(f"no lean graph can be built of {what}", where="config.json", remedy=remedy)
    if config.hidden_act not in ACTIVATIONS:
        what = f"no graph can be built of a network with hidden_act {config.hidden_act!r}"
        raise ExportError(what, where="config.json", remedy=f"known are {', '.join(ACTIVATIONS)}")
    embeddings = bert.embeddings
    return Network(
        words=_array(embeddings.word_embeddings.weight),
        positions=_array(embeddings.position_embeddings.weight)[:max_length],
        types=_array(embeddings.token_type_embeddings.weight)[0],
        norm=_norm(embeddings.LayerNorm),
        layers=tuple(_layer(layer) for layer in bert.encoder.layer),
        heads=int(config.num_attention_heads),
        act=ACTIVATIONS[config.hidden_act],
        pooling=model.pooling,
        pooler=_dense(bert.pooler.dense) if model.pooling == "cls" else None,
        head=head_of(model),
    )


def head_of(model: ToxicityClassifier) -> Dense:
    """Return the head with one logit per label.

    A softmax over two logits is a sigmoid of their difference, so the two-class head folds into one column.
    """
    head = _dense(model.classifier)
    if model.labels > 1:
        return head
    return Dense(head.weight[:, 1:] - head.weight[:, :1], head.bias[1:] - head.bias[:1])


def joinable(parts: list[Dense]) -> bool:
    """Return whether `joined` can put these side by side: equally many dendrites of one activation."""
    return len({(len(part.branches), part.activation if part.branches else "") for part in parts}) == 1


def joined(parts: list[Dense]) -> Dense:
    """Put Linears of the same input side by side: their outputs are the columns of one."""

    def beside(arrays: tuple[Array, ...]) -> Array:
        return np.concatenate(arrays, axis=-1)

    alike = zip(*(part.branches for part in parts), strict=True)
    branches = tuple(Branch(*map(beside, zip(*same, strict=True))) for same in alike)
    weight, bias = map(beside, zip(*((part.weight, part.bias) for part in parts), strict=True))
    return Dense(weight, bias, branches, parts[0].activation)


def _parted(together: Dense, count: int) -> list[Dense]:
    """Take Linears apart that `joined` put side by side; a ValueError where the columns are no multiple."""

    def parts(array: Array) -> list[Array]:
        return [np.ascontiguousarray(part) for part in np.split(array, count, axis=-1)]

    branches = [[Branch(*own) for own in zip(*map(parts, branch), strict=True)] for branch in together.branches]
    return [
        Dense(weight, bias, tuple(branch[number] for branch in branches), together.activation)
        for number, (weight, bias) in enumerate(zip(parts(together.weight), parts(together.bias), strict=True))
    ]


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(_array(module.weight), _array(module.bias), float(module.eps))


def _dense(module: nn.Linear) -> Dense:
    weight, bias = _array(module.weight.T), _array(module.bias)
    if not isinstance(module, DendriticLinear):
        return Dense(weight, bias)
    tops = _array(module.dendrite_tops)
    branches = []
    for k, dendrite in enumerate(module.dendrites):
        links = _array(module.dendrite_links[k - 1]) if k else np.zeros((0, len(bias)), np.float32)
        # A ModuleList hands out plain modules.
        branches.append(Branch(_array(dendrite.weight.T), _array(dendrite.bias), links, tops[k]))  # type: ignore[arg-type]
    return Dense(weight, bias, tuple(branches), module.activation)


def _layer(layer: Any) -> Layer:
    parts: dict[str, Any] = {part: _dense(layer.get_submodule(name)) for part, name in LINEARS.items()}
    return Layer(**parts | {part: _norm(layer.get_submodule(name)) for part, name in NORMS.items()})


def read_network(graph: bytes, description: Description) -> Network:
    """Read the weights of a lean graph as `gkiller.deployment.deploy` writes it: the inverse of `build`.

    Positions come with the token type's vector added to them, as the graph has them; ``types`` is 0.

    Raises:
        ValueError: it is no lean graph, or not of this network: a weight is missing, left over, not finite or not of
            the shape that its place asks for.
    """
    config: Any = description.config
    if config.model_type != "bert" or config.hidden_act not in ACTIVATIONS:
        raise ValueError("no lean graph is built of such a network")
    weights = _Weights(graph, description)
    words = weights.matrix("words")
    network = Network(
        words=words,
        positions=weights.matrix("positions"),
        types=np.zeros(words.shape[1], np.float32),
        norm=weights.norm("embeddings"),
        layers=tuple(weights.layer(number) for number in range(config.num_hidden_layers)),
        heads=config.num_attention_heads,
        act=ACTIVATIONS[config.hidden_act],
        pooling=description.pooling,
        pooler=weights.dense("pooler", 0) if description.pooling == "cls" else None,
        head=Dense(weights.matrix("head"), weights.take("head.bias")),
    )
    weights.finish()
    return network


class _Weights:
    """The weights of a graph by their place, each list in the order in which they were written."""

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

    def layer(self, number: int) -> Layer:
        """Return a layer; the query stands by itself where it is computed for [CLS] alone."""
        grown, site = self._description.dendrites, f"layer.{number}"
        counts = {part: grown.get(f"bert.encoder.{site}.{name}", 0) for part, name in LINEARS.items()}
        last = number == self._description.config.num_hidden_layers - 1
        alone = last and self._description.pooling == "cls"
        parts: dict[str, Any] = {}
        for group in (["query"], ["key", "value"]) if alone else (["query", "key", "value"],):
            place, own = f"{site}.qkv", [counts[part] for part in group]
            apart = len(set(own)) > 1  # else they were written as one, as `joinable` says
            found = [self.dense(place, n) for n in own] if apart else _parted(self.dense(place, own[0]), len(own))
            parts |= zip(group, found, strict=True)
        parts |= {part: self.dense(f"{site}.{part}", counts[part]) for part in ("mix", "up", "down")}
        return Layer(**parts | {part: self.norm(f"{site}.{part.removesuffix('_norm')}") for part in NORMS})

    def finish(self) -> None:
        """Raise a ValueError where a weight is left."""
        for place, arrays in self._left.items():
            if arrays and place not in _NO_WEIGHTS and not place.endswith(_RANGES):
                raise ValueError(f"the graph has more weights {place!r} than its network")


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


def _dense_state(name: str, dense: Dense) -> dict[str, Array]:
    return {f"{name}.weight": np.ascontiguousarray(dense.weight.T), f"{name}.bias": dense.bias}


def _norm_state(name: str, norm: Norm) -> dict[str, Array]:
    return {f"{name}.weight": norm.gamma, f"{name}.bias": norm.beta}


def deployed_encoder(directory: Path, settings: ModelSettings, vocab_size: int) -> PreTrainedModel:
    """Return the encoder of a model's graph, to be trained on: its neurons, without dendrites.

    A pooler that ``settings.pooling`` asks for and the graph lacks has random weights (torch's global generator).

    Args:
        directory: of the model, as of `gkiller.model.layout.deployed_directory`.

    Raises:
        ModelFormatError: it is too small for the tokenizer or for ``max_length``; others as of `read_deployed`.
    """
    import torch

    network, description = read_deployed(directory)
    with consistent(directory):
        content = {
            **description.config.to_dict(),
            "max_position_embeddings": len(network.positions),
            "hidden_dropout_prob": settings.dropout,
            "attention_probs_dropout_prob": settings.attention_dropout,
        }
        config: Any = encoder_config(content)
        check_fits(config, settings, vocab_size)
        encoder = new_encoder(config, pooler=settings.pooling == "cls")
        read = {name: torch.tensor(array) for name, array in encoder_state(network, config.type_vocab_size).items()}
        pooler = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith(_POOLER)}
        others = {name: tensor for name, tensor in read.items() if not name.startswith(_POOLER)}
        encoder.load_state_dict(others | {name: read.get(name, tensor) for name, tensor in pooler.items()})
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
