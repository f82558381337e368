"""The lean graph: a network's own operators, joined where that is faster, in float32, float16 storage or int8.

It is built from the weights, operator by operator, instead of being searched out of an exported graph. Each
of the `Rewrites` leaves the function as it is; ``experiments/export_steps.py`` times each alone. Weights are
named after their place: `gkiller.deployment.weights` reads them back.

Int8 follows the affine scheme of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018): weights symmetric with a scale per output column, activations
with one scale and zero point for the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from gkiller.deployment.weights import Array, Dense, Layer, Network, Norm, joinable, joined
from gkiller.inference.session import INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


OPSET: Final = 20
"""Of ONNX's own operators; the first with Gelu. onnxruntime reads it since 1.17."""
IR_VERSION: Final = 9
"""The file format that belongs to `OPSET`."""
CONTRIB: Final = "com.microsoft"
"""onnxruntime's own operators; every build of it for the CPU has them."""
LEVELS: Final = 255  # steps of an unsigned byte
LOWEST = float(np.finfo(np.float32).min)
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}

Shape = tuple[int | str, ...]
Range = tuple[float, float]
Ranges = Mapping[str, Range]
"""The least and the greatest input of each place that multiplies, by its name."""


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

    def number(self, value: float) -> str:
        """Store one float32."""
        return self.constant(np.array(value, np.float32), "number")

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


class _Writer(Nodes):
    """Writes one graph. Token vectors are (rows * tokens, hidden) between the layers."""

    def __init__(self, network: Network, scheme: Scheme, rewrites: Rewrites, ranges: Ranges, expose: bool) -> None:
        super().__init__()
        self.sites: list[str] = []
        self._network, self._scheme, self._rewrites, self._expose = network, scheme, rewrites, expose
        self._ranges = ranges
        self._quantized: dict[str, list[str]] = {}  # an input that was made bytes once is not made so again

    def write(self) -> None:
        network = self._network
        shape = self.add("Shape", "input_ids")
        self._cube = self.add("Concat", shape, self.integers(network.hidden), axis=0)
        self._rows = self.integers(-1, network.hidden)
        self._mask = self._attention_mask()
        x = self.add("Reshape", self._embed(shape), self._rows)
        first_only = network.pooling == "cls" and self._rewrites.last_position
        for number, layer in enumerate(network.layers):
            last = number == len(network.layers) - 1
            x = self._layer(f"layer.{number}", layer, x, first=last and first_only)
        pooled = self._pool(x, first=first_only and bool(network.layers))
        head = self._stored(network.head.weight, "head")
        self.add("Gemm", pooled, head, self.constant(network.head.bias, "head.bias"), output="logits")

    # -- embeddings and pooling ---------------------------------------------------------------

    def _embed(self, shape: str) -> str:
        network = self._network
        words = self._words()
        table = network.positions + network.types if self._rewrites.fold_types else network.positions
        length = self.add("Slice", shape, self.integers(1), self.integers(2))
        rows = self._stored(table, "positions", half=self._scheme.weights != "fp32")
        positions = self.add("Slice", rows, self.integers(0), length, self.integers(0))
        if not self._rewrites.fold_types:
            words = self.add("Add", words, self.constant(network.types, "types"))
        if self._rewrites.fuse_norms:
            positions = self.add("Unsqueeze", positions, self.integers(0))
        return self._add_and_norm("embeddings", words, positions, network.norm)

    def _pool(self, x: str, *, first: bool) -> str:
        """Return (rows, features) for the head."""
        network = self._network
        if network.pooler is not None:  # of the pooling "cls"
            cls = x if first else self._first_of(x)
            return self.add("Tanh", self._dense("pooler", cls, [network.pooler])[0])
        tokens = self.add("Reshape", x, self._cube)
        mean = self._mean(tokens)
        if network.pooling == "mean":
            return mean
        real = self.add("Unsqueeze", self.add("Cast", "attention_mask", to=9), self.integers(2))
        shown = self.add("Where", real, tokens, self.number(LOWEST))
        most = self.add("ReduceMax", shown, self.integers(1), keepdims=0)
        return self.add("Concat", mean, most, axis=-1)

    def _mean(self, tokens: str) -> str:
        mask = self.add("Cast", "attention_mask", to=1)
        count = self.add("ReduceSum", mask, self.integers(1), keepdims=1)
        count = self.add("Max", count, self.number(1.0))
        if self._rewrites.pool_by_product:
            share = self.add("Unsqueeze", self.add("Div", mask, count), self.integers(1))
            return self.add("Squeeze", self.add("MatMul", share, tokens), self.integers(1))
        kept = self.add("Mul", tokens, self.add("Unsqueeze", mask, self.integers(2)))
        return self.add("Div", self.add("ReduceSum", kept, self.integers(1), keepdims=0), count)

    def _first_of(self, x: str) -> str:
        """Return each row's first token vector, (rows, hidden)."""
        zero = self.constant(np.array(0, np.int64))
        return self.add("Gather", self.add("Reshape", x, self._cube), zero, axis=1)

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
        return self.add_many("Split", [together], len(parts), axis=-1, num_outputs=len(parts))

    def _attend(self, query: str, key: str, value: str, *, first: bool) -> str:
        heads = self._network.heads
        query = self.add("Unsqueeze", query, self.integers(1)) if first else self.add("Reshape", query, self._cube)
        key, value = (self.add("Reshape", part, self._cube) for part in (key, value))
        if self._rewrites.fuse_attention:
            seen = self.add("MultiHeadAttention", query, key, value, "", self._mask, domain=CONTRIB, num_heads=heads)
        else:
            seen = self._attend_in_parts(query, key, value)
        return self.add("Reshape", seen, self._rows)

    def _attend_in_parts(self, query: str, key: str, value: str) -> str:
        network = self._network
        size = network.hidden // network.heads
        apart = self.integers(0, 0, network.heads, size)

        def headed(part: str, order: list[int]) -> str:
            return self.add("Transpose", self.add("Reshape", part, apart), perm=order)

        affinity = self.add("MatMul", headed(query, [0, 2, 1, 3]), headed(key, [0, 2, 3, 1]))
        affinity = self.add("Mul", affinity, self.number(1.0 / math.sqrt(size)))
        weights = self.add("Softmax", self.add("Add", affinity, self._mask), axis=-1)
        seen = self.add("MatMul", weights, headed(value, [0, 2, 1, 3]))
        seen = self.add("Transpose", seen, perm=[0, 2, 1, 3])
        return self.add("Reshape", seen, self.integers(0, 0, network.hidden))

    def _attention_mask(self) -> str:
        """Return what the attention wants: int32 (rows, tokens), or float32 to add, (rows, 1, 1, tokens)."""
        if self._rewrites.fuse_attention:
            return self.add("Cast", "attention_mask", to=6)
        hidden = self.add("Sub", self.number(1.0), self.add("Cast", "attention_mask", to=1))
        return self.add("Mul", self.add("Unsqueeze", hidden, self.integers(1, 2)), self.number(LOWEST))

    def _act(self, x: str) -> str:
        act = self._network.act
        if act == "Relu":
            return self.add("Relu", x)
        if act == "GeluTanh":
            return self.add("Gelu", x, approximate="tanh")
        if self._rewrites.fuse_gelu:
            return self.add("Gelu", x)
        error = self.add("Erf", self.add("Div", x, self.number(math.sqrt(2.0))))
        grown = self.add("Mul", x, self.add("Add", error, self.number(1.0)))
        return self.add("Mul", grown, self.number(0.5))

    def _add_and_norm(self, site: str, x: str, other: str, norm: Norm) -> str:
        gamma, beta = self.constant(norm.gamma, f"{site}.gamma"), self.constant(norm.beta, f"{site}.beta")
        if self._rewrites.fuse_norms:
            inputs = x, other, gamma, beta
            return self.add("SkipLayerNormalization", *inputs, domain=CONTRIB, epsilon=norm.epsilon)
        total = self.add("Add", x, other)
        return self.add("LayerNormalization", total, gamma, beta, axis=-1, epsilon=norm.epsilon)

    # -- Linears and their dendrites -----------------------------------------------------------

    def _dense(self, site: str, x: str, parts: list[Dense]) -> list[str]:
        """Return the outputs of Linears of one input, dendrites included."""
        if self._expose and site not in self.sites:
            self.sites.append(self.add("Identity", x, output=site))
        return [self._with_dendrites(site, x, part) for part in parts]

    def _with_dendrites(self, site: str, x: str, part: Dense) -> str:
        weights = [part.weight, *(branch.weight for branch in part.branches)]
        biases = [part.bias, *(branch.bias for branch in part.branches)]
        if self._rewrites.join_dendrites and part.branches:
            wide = np.concatenate(weights, axis=1)
            [whole] = self._multiply(site, x, [wide], [np.concatenate(biases)])
            output, *drives = self.add_many("Split", [whole], len(weights), axis=-1, num_outputs=len(weights))
        else:
            output, *drives = self._multiply(site, x, weights, biases)
        fired: list[str] = []
        for branch, drive in zip(part.branches, drives, strict=True):
            for link, earlier in zip(branch.links, fired, strict=True):
                drive = self.add("Add", drive, self.add("Mul", earlier, self.constant(link, f"{site}.link")))
            fired.append(self.add(_ACTIVATIONS[part.activation], drive))
            topped = self.add("Mul", fired[-1], self.constant(branch.top, f"{site}.top"))
            output = self.add("Add", output, topped)
        return output

    # -- weights -------------------------------------------------------------------------------

    def _multiply(self, site: str, x: str, weights: list[Array], biases: list[Array]) -> list[str]:
        """Return x @ weight + bias for each pair: x of shape (rows, in), weights (in, out), biases (out,)."""
        multiply = self._in_bytes if self._scheme.weights == "int8" else self._in_floats
        return [multiply(site, x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def _in_floats(self, site: str, x: str, weight: Array, bias: Array) -> str:
        matrix = self._stored(weight, site, half=self._scheme.weights == "fp16")
        return self.add("Gemm", x, matrix, self.constant(bias, f"{site}.bias"))

    def _in_bytes(self, site: str, x: str, weight: Array, bias: Array) -> str:
        """Multiply bytes, with sums in int32 and results in float32."""
        if x not in self._quantized:
            self._quantized[x] = self._bytes_of(site, x)
        data, scale, zero = self._quantized[x]
        whole, steps = quantized_columns(weight, self._scheme.bits, per_column=self._scheme.per_column)
        matrix, sizes = self.constant(whole, site), self.constant(steps, f"{site}.scale")
        added = self.constant(bias, f"{site}.bias")
        return self.add("MatMulIntegerToFloat", data, matrix, scale, sizes, zero, "", added, domain=CONTRIB)

    def _bytes_of(self, site: str, x: str) -> list[str]:
        """Return the names of an input as bytes, of their scale and of their zero point."""
        if self._scheme.activations == "dynamic":
            return self.add_many("DynamicQuantizeLinear", [x], 3)
        step, offset = byte_scale(self._ranges[site])
        scale, zero = self.constant(step, f"{site}.step"), self.constant(offset, f"{site}.zero")
        return [self.add("QuantizeLinear", x, scale, zero), scale, zero]

    def _stored(self, array: Array, hint: str, *, half: bool = False) -> str:
        """Store an array, as float16 if wanted; onnxruntime makes it float32 once, when it loads the graph."""
        if not half:
            return self.constant(array, hint)
        return self.add("Cast", self.constant(array.astype(np.float16), hint), to=1)

    def _words(self) -> str:
        """Return the rows of the word embedding; an int8 table has a scale per row."""
        table, kind = self._network.words, self._scheme.embeddings
        if kind != "int8":
            return self.add("Gather", self._stored(table, "words", half=kind == "fp16"), "input_ids")
        whole, steps = quantized_columns(np.ascontiguousarray(table.T), 8, per_column=True)
        rows = self.add("Cast", self.add("Gather", self.constant(whole.T, "words"), "input_ids"), to=1)
        return self.add("Mul", rows, self.add("Gather", self.constant(steps[:, None], "words.scale"), "input_ids"))


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
    writer = _Writer(network, scheme or Scheme(), chosen, ranges or {}, expose)
    writer.write()
    outputs: dict[str, Shape] = {"logits": ("rows", network.head.weight.shape[1])}
    outputs |= dict.fromkeys(writer.sites, ("tokens_in_all", "features"))
    return writer.model(dict.fromkeys(INPUTS, ("rows", "tokens")), outputs, "sigmoid(logits) are the scores")


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
