"""A trained network as plain arrays: what a graph is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.errors import ExportError
from gkiller.model.network import DendriticLinear, Pooling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from gkiller.model.network import ToxicityClassifier

Array = npt.NDArray[np.float32]

ACTIVATIONS: Final = {
    "gelu": "Gelu",
    "gelu_python": "Gelu",
    "gelu_new": "GeluTanh",
    "gelu_fast": "GeluTanh",
    "gelu_pytorch_tanh": "GeluTanh",
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


@dataclass(frozen=True)
class Branch:
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

    @property
    def width(self) -> int:
        """Outputs."""
        return int(self.weight.shape[1])


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
    """Read a folded classifier.

    Raises:
        ExportError: its configuration asks for something that no graph is built for.
    """
    bert: Any = model.bert
    config = bert.config
    if not leanable(model):
        raise ExportError(
            f"no lean graph can be built of a {config.model_type} encoder",
            where="config.json",
            remedy="its plain graph can: gkiller export --plain",
        )
    if config.hidden_act not in ACTIVATIONS:
        raise ExportError(
            f"no graph can be built of a network with hidden_act {config.hidden_act!r}",
            where="config.json",
            remedy=f"known are {', '.join(ACTIVATIONS)}",
        )
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


def joined(parts: list[Dense]) -> Dense:
    """Put Linears of the same input side by side: their outputs are the columns of one.

    The parts must have equally many dendrites of one activation; see `joinable`.
    """

    def beside(arrays: list[Array]) -> Array:
        return np.concatenate(arrays, axis=-1)

    branches = tuple(
        Branch(
            beside([b.weight for b in same]),
            beside([b.bias for b in same]),
            beside([b.links for b in same]),
            beside([b.top for b in same]),
        )
        for same in zip(*(part.branches for part in parts), strict=True)
    )
    return Dense(beside([p.weight for p in parts]), beside([p.bias for p in parts]), branches, parts[0].activation)


def joinable(parts: list[Dense]) -> bool:
    """Return whether `joined` can put these side by side."""
    return len({(len(part.branches), part.activation if part.branches else "") for part in parts}) == 1


def layer_of(linears: Mapping[str, Dense], norms: Mapping[str, Norm]) -> Layer:
    """Return a layer of its parts, by the names of `LINEARS` and `NORMS`."""
    return Layer(
        query=linears["query"],
        key=linears["key"],
        value=linears["value"],
        mix=linears["mix"],
        mix_norm=norms["mix_norm"],
        up=linears["up"],
        down=linears["down"],
        down_norm=norms["down_norm"],
    )


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
    linears = {part: _dense(layer.get_submodule(name)) for part, name in LINEARS.items()}
    norms = {part: _norm(layer.get_submodule(name)) for part, name in NORMS.items()}
    return layer_of(linears, norms)


def head_of(model: ToxicityClassifier) -> Dense:
    """Return the head with one logit per label.

    A softmax over two logits is a sigmoid of their difference, so the two-class head folds into one column.
    """
    head = _dense(model.classifier)
    if model.labels > 1:
        return head
    return Dense(head.weight[:, 1:] - head.weight[:, :1], head.bias[1:] - head.bias[:1])
