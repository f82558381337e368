"""The lean graph: a network's own operators, joined where that is faster.

It is built from the weights, operator by operator, instead of being searched out of an exported graph. Each
of the `Rewrites` leaves the function as it is; ``experiments/export_steps.py`` times each alone. Weights are
named after their place: `gkiller.deployment.restore` reads them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gkiller.deployment.arithmetic import CONTRIB, Nodes, Ranges, Scheme, arithmetic_of, embedding_rows, stored
from gkiller.deployment.weights import Dense, Layer, Network, Norm, joinable, joined

if TYPE_CHECKING:
    import onnx

LOWEST = float(np.finfo(np.float32).min)
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}


@dataclass(frozen=True)
class Rewrites:
    """What is done differently from the training network; every one can be left out."""

    fold_types: bool = True
    join_qkv: bool = True
    join_dendrites: bool = False
    fuse_attention: bool = True  # onnxruntime's MultiHeadAttention instead of its parts
    fuse_norms: bool = False
    fuse_gelu: bool = True
    pool_by_product: bool = True  # the mean over tokens is a product with the mask
    last_position: bool = True  # with the pooling "cls", the last layer is computed for [CLS] alone


NONE = Rewrites(False, False, False, False, False, False, False, False)
"""The network as it is written."""


def build(
    network: Network,
    scheme: Scheme | None = None,
    rewrites: Rewrites | None = None,
    *,
    ranges: Ranges | None = None,
    expose: bool = False,
) -> onnx.ModelProto:
    """Build a graph from ``input_ids`` and ``attention_mask``, (rows, tokens), to ``logits``, (rows, L).

    The sigmoid of a logit is the score, whatever the network's head.

    Args:
        scheme: what the numbers are; float32 by default.
        expose: make the inputs of these places outputs too, under their names, as (rows * tokens, in).

    Raises:
        KeyError: a range is missing.
    """
    chosen = rewrites or Rewrites()
    if expose:
        chosen = replace(chosen, last_position=False)  # every place sees every token
    writer = _Writer(network, scheme or Scheme(), chosen, ranges, expose)
    writer.write()
    outputs: dict[str, tuple[int | str, ...]] = {"logits": ("rows", network.head.width)}
    outputs.update({site: ("tokens_in_all", "features") for site in writer.sites})
    shape = ("rows", "tokens")
    return writer.nodes.model({"input_ids": shape, "attention_mask": shape}, outputs, "sigmoid(logits) are the scores")


class _Writer:
    """Writes one graph. Token vectors are (rows * tokens, hidden) between the layers."""

    def __init__(
        self, network: Network, scheme: Scheme, rewrites: Rewrites, ranges: Ranges | None, expose: bool
    ) -> None:
        self.nodes = Nodes()
        self.sites: list[str] = []
        self._network = network
        self._scheme = scheme
        self._rewrites = rewrites
        self._arithmetic = arithmetic_of(self.nodes, scheme, ranges)
        self._expose = expose
        self._half = scheme.weights != "fp32"

    def write(self) -> None:
        """Write everything."""
        network, nodes = self._network, self.nodes
        shape = nodes.add("Shape", "input_ids")
        self._cube = nodes.add("Concat", shape, nodes.integers(network.hidden), axis=0)
        self._rows = nodes.integers(-1, network.hidden)
        self._mask = self._attention_mask()
        x = nodes.add("Reshape", self._embed(shape), self._rows)
        first_only = network.pooling == "cls" and self._rewrites.last_position
        for number, layer in enumerate(network.layers):
            last = number == len(network.layers) - 1
            x = self._layer(f"layer.{number}", layer, x, first=last and first_only)
        pooled = self._pool(x, first=first_only and bool(network.layers))
        head = stored(nodes, network.head.weight, "head")
        nodes.add("Gemm", pooled, head, nodes.constant(network.head.bias, "head.bias"), output="logits")

    # -- embeddings and pooling ---------------------------------------------------------------

    def _embed(self, shape: str) -> str:
        network, nodes = self._network, self.nodes
        words = embedding_rows(nodes, network.words, "input_ids", self._scheme)
        table = network.positions + network.types if self._rewrites.fold_types else network.positions
        length = nodes.add("Slice", shape, nodes.integers(1), nodes.integers(2))
        rows = stored(nodes, table, "positions", half=self._half)
        positions = nodes.add("Slice", rows, nodes.integers(0), length, nodes.integers(0))
        if not self._rewrites.fold_types:
            words = nodes.add("Add", words, nodes.constant(network.types, "types"))
        if self._rewrites.fuse_norms:
            positions = nodes.add("Unsqueeze", positions, nodes.integers(0))
        return self._add_and_norm("embeddings", words, positions, network.norm)

    def _pool(self, x: str, *, first: bool) -> str:
        """Return (rows, features) for the head."""
        network, nodes = self._network, self.nodes
        if network.pooling == "cls":
            assert network.pooler is not None  # a network that pools so has one
            cls = x if first else self._first_of(x)
            return nodes.add("Tanh", self._dense("pooler", cls, [network.pooler])[0])
        tokens = nodes.add("Reshape", x, self._cube)
        mean = self._mean(tokens)
        if network.pooling == "mean":
            return mean
        real = nodes.add("Unsqueeze", nodes.add("Cast", "attention_mask", to=9), nodes.integers(2))
        shown = nodes.add("Where", real, tokens, nodes.number(LOWEST))
        most = nodes.add("ReduceMax", shown, nodes.integers(1), keepdims=0)
        return nodes.add("Concat", mean, most, axis=-1)

    def _mean(self, tokens: str) -> str:
        nodes = self.nodes
        mask = nodes.add("Cast", "attention_mask", to=1)
        count = nodes.add("ReduceSum", mask, nodes.integers(1), keepdims=1)
        count = nodes.add("Max", count, nodes.number(1.0))
        if self._rewrites.pool_by_product:
            share = nodes.add("Unsqueeze", nodes.add("Div", mask, count), nodes.integers(1))
            return nodes.add("Squeeze", nodes.add("MatMul", share, tokens), nodes.integers(1))
        kept = nodes.add("Mul", tokens, nodes.add("Unsqueeze", mask, nodes.integers(2)))
        return nodes.add("Div", nodes.add("ReduceSum", kept, nodes.integers(1), keepdims=0), count)

    def _first_of(self, x: str) -> str:
        """Return each row's first token vector, (rows, hidden)."""
        nodes = self.nodes
        zero = nodes.constant(np.array(0, np.int64))
        return nodes.add("Gather", nodes.add("Reshape", x, self._cube), zero, axis=1)

    # -- a layer ------------------------------------------------------------------------------

    def _layer(self, site: str, layer: Layer, x: str, *, first: bool) -> str:
        """Return the layer's token vectors; those of the first tokens alone when ``first``."""
        own = self._first_of(x) if first else x
        if first:
            [query] = self._dense(f"{site}.qkv", own, [layer.query])
            key, value = self._side_by_side(f"{site}.qkv", x, [layer.key, layer.value])
        else:
            query, key, value = self._side_by_side(f"{site}.qkv", x, [layer.query, layer.key, layer.value])
        mixed = self._attend(query, key, value, first=first)
        [mixed] = self._dense(f"{site}.mix", mixed, [layer.mix])
        own = self._add_and_norm(f"{site}.mix", mixed, own, layer.mix_norm)
        [wide] = self._dense(f"{site}.up", own, [layer.up])
        [narrow] = self._dense(f"{site}.down", self._act(wide), [layer.down])
        return self._add_and_norm(f"{site}.down", narrow, own, layer.down_norm)

    def _side_by_side(self, site: str, x: str, parts: list[Dense]) -> list[str]:
        if not (self._rewrites.join_qkv and joinable(parts)):
            return self._dense(site, x, parts)
        [together] = self._dense(site, x, [joined(parts)])
        return self.nodes.add_many("Split", [together], len(parts), axis=-1, num_outputs=len(parts))

    def _attend(self, query: str, key: str, value: str, *, first: bool) -> str:
        nodes, heads = self.nodes, self._network.heads
        query = nodes.add("Unsqueeze", query, nodes.integers(1)) if first else nodes.add("Reshape", query, self._cube)
        key, value = (nodes.add("Reshape", part, self._cube) for part in (key, value))
        if self._rewrites.fuse_attention:
            inputs = (query, key, value, "", self._mask)
            seen = nodes.add("MultiHeadAttention", *inputs, domain=CONTRIB, num_heads=heads)
        else:
            seen = self._attend_in_parts(query, key, value)
        return nodes.add("Reshape", seen, self._rows)

    def _attend_in_parts(self, query: str, key: str, value: str) -> str:
        nodes, network = self.nodes, self._network
        size = network.hidden // network.heads
        apart = nodes.integers(0, 0, network.heads, size)

        def headed(part: str, order: list[int]) -> str:
            return nodes.add("Transpose", nodes.add("Reshape", part, apart), perm=order)

        affinity = nodes.add("MatMul", headed(query, [0, 2, 1, 3]), headed(key, [0, 2, 3, 1]))
        affinity = nodes.add("Mul", affinity, nodes.number(1.0 / math.sqrt(size)))
        weights = nodes.add("Softmax", nodes.add("Add", affinity, self._mask), axis=-1)
        seen = nodes.add("MatMul", weights, headed(value, [0, 2, 1, 3]))
        seen = nodes.add("Transpose", seen, perm=[0, 2, 1, 3])
        return nodes.add("Reshape", seen, nodes.integers(0, 0, network.hidden))

    def _attention_mask(self) -> str:
        """Return what the attention wants: int32 (rows, tokens), or float32 to add, (rows, 1, 1, tokens)."""
        nodes = self.nodes
        if self._rewrites.fuse_attention:
            return nodes.add("Cast", "attention_mask", to=6)
        hidden = nodes.add("Sub", nodes.number(1.0), nodes.add("Cast", "attention_mask", to=1))
        return nodes.add("Mul", nodes.add("Unsqueeze", hidden, nodes.integers(1, 2)), nodes.number(LOWEST))

    def _act(self, x: str) -> str:
        nodes, act = self.nodes, self._network.act
        if act == "Relu":
            return nodes.add("Relu", x)
        if act == "GeluTanh":
            return nodes.add("Gelu", x, approximate="tanh")
        if self._rewrites.fuse_gelu:
            return nodes.add("Gelu", x)
        error = nodes.add("Erf", nodes.add("Div", x, nodes.number(math.sqrt(2.0))))
        grown = nodes.add("Mul", x, nodes.add("Add", error, nodes.number(1.0)))
        return nodes.add("Mul", grown, nodes.number(0.5))

    def _add_and_norm(self, site: str, x: str, other: str, norm: Norm) -> str:
        nodes = self.nodes
        gamma = nodes.constant(norm.gamma, f"{site}.gamma")
        beta = nodes.constant(norm.beta, f"{site}.beta")
        if self._rewrites.fuse_norms:
            inputs = (x, other, gamma, beta)
            return nodes.add("SkipLayerNormalization", *inputs, domain=CONTRIB, epsilon=norm.epsilon)
        total = nodes.add("Add", x, other)
        return nodes.add("LayerNormalization", total, gamma, beta, axis=-1, epsilon=norm.epsilon)

    # -- Linears and their dendrites -----------------------------------------------------------

    def _dense(self, site: str, x: str, parts: list[Dense]) -> list[str]:
        """Return the outputs of Linears of one input, dendrites included."""
        if self._expose and site not in self.sites:
            self.sites.append(self.nodes.add("Identity", x, output=site))
        return [self._with_dendrites(site, x, part) for part in parts]

    def _with_dendrites(self, site: str, x: str, part: Dense) -> str:
        weights = [part.weight, *(branch.weight for branch in part.branches)]
        biases = [part.bias, *(branch.bias for branch in part.branches)]
        nodes = self.nodes
        if self._rewrites.join_dendrites and part.branches:
            wide = np.concatenate(weights, axis=1), np.concatenate(biases)
            [whole] = self._arithmetic.multiply(site, x, [wide[0]], [wide[1]])
            output, *drives = nodes.add_many("Split", [whole], len(weights), axis=-1, num_outputs=len(weights))
        else:
            output, *drives = self._arithmetic.multiply(site, x, weights, biases)
        fired: list[str] = []
        for branch, drive in zip(part.branches, drives, strict=True):
            for link, earlier in zip(branch.links, fired, strict=True):
                linked = nodes.add("Mul", earlier, nodes.constant(link, f"{site}.link"))
                drive = nodes.add("Add", drive, linked)
            fired.append(nodes.add(_ACTIVATIONS[part.activation], drive))
            topped = nodes.add("Mul", fired[-1], nodes.constant(branch.top, f"{site}.top"))
            output = nodes.add("Add", output, topped)
        return output
