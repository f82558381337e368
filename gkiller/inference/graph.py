"""What an ONNX graph that anybody may have written may hold, read off its bytes before onnxruntime sees them.

`check_graph` demands what gkiller's own exports have: their operators, in the order of their use, without
control flow, functions, or weights in other files. Two kinds of harm are bounded:

* **Before scoring**: while it opens a graph, onnxruntime computes what does not depend on a comment. Such operators may
  make only about as many numbers as the file has bytes. It also packs weights for each operator that uses them.
* **While scoring**: sizes depend on the comments. `gkiller.inference.session` bounds the memory.

Not bounded is the time of one operator within that memory. The file is read by hand because an installation
for inference alone has no parser of ONNX; the format is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, Final, NamedTuple

_ELEMENTWISE: Final = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Erf", "GreaterOrEqual", "IsNaN", "Less", "Log"),
        *("Max", "Min", "Mul", "Neg", "Not", "Pow", "Sub", "Where"),
    }
)
_SAME_SIZE: Final = frozenset(
    {"Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_SIZED_BY_VALUES: Final = frozenset({"Expand", "Range"})  # their sizes are numbers in their inputs
OPERATORS: Final[dict[str, frozenset[str]]] = {
    "": _ELEMENTWISE.union(
        _SAME_SIZE,
        _SIZED_BY_VALUES,
        ("Concat", "CumSum", "DynamicQuantizeLinear", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm"),
        ("HardSwish", "LayerNormalization", "LeakyRelu", "MatMul", "MatMulInteger", "Mish", "ReduceMax"),
        ("ReduceSum", "Relu", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Tanh"),
    ),
    "com.microsoft": frozenset({"MatMulIntegerToFloat", "MultiHeadAttention", "SkipLayerNormalization"}),
}
"""By domain: of the lean graph with all its rewrites, and of torch's export of every encoder and its int8."""
MAX_FIELDS: Final = 250_000
"""Of all messages that are looked into; a network of 24 layers has about 50,000."""
FOLDED: Final = 1 << 24
"""Numbers that may be computed of constants alone, beyond one for each byte of the file."""
_USES: Final = 32
"""How often operators may use a constant, on average over the file: onnxruntime packs its numbers anew
for each. Networks whose layers share their weights use them 24 times."""
_MOST_DIMENSIONS: Final = 8
_ITEM_BYTES: Final = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}  # by TensorProto.DataType
Span = tuple[int, int]


class _Kind(NamedTuple):
    """A message of onnx.proto: the wire type of each field that is read, and which can be repeated."""

    name: str
    fields: dict[int, int]
    repeated: frozenset[int] = frozenset()


_MODEL = _Kind("model", {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2}, frozenset({8, 14}))
_GRAPH = _Kind("graph", {1: 2, 2: 2, 5: 2, 10: 2, 11: 2, 12: 2, 13: 2, 16: 2}, frozenset({1, 5, 11, 12, 13, 16}))
_NODE = _Kind("node", {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 9: 2}, frozenset({1, 2, 5, 9}))
_ATTRIBUTE = _Kind("attribute", {1: 2, 2: 5, 3: 0, 4: 2, 8: 0, 13: 2, 20: 0}, frozenset({8}))
_TENSOR = _Kind("tensor", {1: 0, 2: 0, 4: 2, 5: 2, 7: 2, 8: 2, 9: 2, 10: 2, 12: 2, 14: 0, 16: 2}, frozenset({1, 16}))
_DATA = (4, 5, 7, 9, 10)
_VALUE = _Kind("input", {1: 2, 2: 2, 3: 2, 4: 2}, frozenset({4}))
_TYPE = _Kind("type", {1: 2, 6: 2})
_TENSOR_TYPE = _Kind("type", {1: 0, 2: 2})
_SHAPE = _Kind("shape", {1: 2}, frozenset({1}))
_DIMENSION = _Kind("dimension", {2: 2, 3: 2})
_NAMES: Final = {
    ("model", 20): "a training of its own",
    ("model", 25): "functions of its own",
    ("graph", 15): "sparse weights",
    ("attribute", 6): "a graph inside an operator",
    ("attribute", 11): "graphs inside an operator",
    ("tensor", 13): "weights in another file",
    ("dimension", 1): "an input of a fixed size",
}


def check_graph(data: bytes) -> None:
    """Raise a ValueError unless a graph holds only what gkiller's own exports do; see the module."""
    reader = _Reader(data)
    model = reader.read((0, len(data)), _MODEL)
    if 7 not in model:
        raise ValueError("it has no graph")
    graph = reader.read(model[7][0], _GRAPH)
    tensors = _Tensors(dict(_tensor(reader, span) for span in graph[5]), len(data))
    for span in graph[11]:
        tensors.take(_input(reader, span))
    for span in graph[1]:
        tensors.apply(*_node(reader, span))


class _Tensors:
    """What is known of a graph's tensors before a comment is read; ``size`` is the file's in bytes."""

    def __init__(self, weights: dict[str, int], size: int) -> None:
        self._constant = weights  # and all that may be computed of them: how many numbers at most
        self._other: set[str] = set()
        # Of those: whose sizes are 1 or not known before a comment is read, one at least; and their shapes.
        self._open, self._shapes = set[str](), set[str]()
        self._left, self._left_to_pack = FOLDED + size, FOLDED + _USES * size

    def take(self, name: str) -> None:
        if name in self._constant:
            raise ValueError(f"the input {name[:80]!r} is a weight, too")
        self._other.add(name)
        self._open.add(name)

    def apply(self, operator: str, inputs: list[str], outputs: list[str]) -> None:
        """Add what an operator makes.

        Raises:
            ValueError: it uses what is not there yet, or too much could be computed before a comment is read.
        """
        for name in inputs:
            if name not in self._constant and name not in self._other:
                raise ValueError(f"an operator {operator} uses {name[:80]!r}, which no earlier one makes")
        if any(name in self._constant or name in self._other for name in outputs):
            raise ValueError(f"an operator {operator} makes what is there already")
        count = self._foldable(operator, inputs)
        if count is None:
            self._left_to_pack -= sum(self._constant.get(name, 0) for name in inputs)
            if self._left_to_pack < 0:
                raise ValueError("its operators use the same weights too often")
            self._other.update(outputs)
            self._follow_sizes(operator, inputs, outputs)
            return
        self._left -= count * len(outputs)
        if self._left < 0:
            raise ValueError(f"an operator {operator} makes too many numbers before a comment is read")
        self._constant.update(dict.fromkeys(outputs, count))

    def _foldable(self, operator: str, inputs: list[str]) -> int | None:
        """Return how many numbers an operator makes of constants at most; None where it has other inputs."""
        if operator == "Shape":  # what is computed of a comment may have the same shape for all comments
            return None if inputs[0] in self._open else _MOST_DIMENSIONS
        if any(name in self._other for name in inputs):
            return None
        if operator in _SIZED_BY_VALUES:
            raise ValueError(f"an operator {operator} has constants alone as its inputs")
        counts = [max(1, self._constant[name]) for name in inputs]
        if operator in _SAME_SIZE:
            return counts[0]
        # Of a product, or of operands that are repeated to one shape; and of a concatenation.
        return max(math.prod(counts), sum(counts))

    def _follow_sizes(self, operator: str, inputs: list[str], outputs: list[str]) -> None:
        """Note whose sizes stay open, of outputs that depend on a comment."""
        first, some = inputs[0] in self._open, any(name in self._open for name in inputs)
        alike = all(name in self._open or self._constant.get(name) == 1 for name in inputs)
        if operator == "Shape":
            self._shapes.update(outputs)
        elif (
            operator == "Range"
            or (operator in ("Unsqueeze", "Transpose") and first)
            or (operator == "Expand" and first and inputs[-1] in self._shapes)
            or (operator in _ELEMENTWISE and some and alike)
        ):
            self._open.update(outputs)


def _node(reader: _Reader, span: Span) -> tuple[str, list[str], list[str]]:
    """Return a node's operator, and the names of its inputs and outputs."""
    fields = reader.read(span, _NODE)
    operator, domain = reader.text(fields, 4), reader.text(fields, 7)
    if operator not in OPERATORS.get(domain, ()):
        full = f"{domain}.{operator}" if domain else operator
        raise ValueError(f"the operator {full[:80]!r} is not one that gkiller's exports use")
    for attribute in fields[5]:
        reader.read(attribute, _ATTRIBUTE)
    inputs, outputs = ([name for name in map(reader.decoded, fields[number]) if name] for number in (1, 2))
    if not inputs or not outputs:
        raise ValueError(f"an operator {operator} without inputs or outputs")
    return operator, inputs, outputs


def _tensor(reader: _Reader, span: Span) -> tuple[str, int]:
    """Return a weight's name, and how many numbers it has: no more than there are bytes for."""
    fields = reader.read(span, _TENSOR)
    name, kind = reader.text(fields, 8), next(iter(fields[2]), 0)
    if kind not in _ITEM_BYTES:
        raise ValueError(f"the weight {name[:80]!r} is of the type {kind}, which is not read")
    if any(fields[14]):
        raise ValueError(f"the weight {name[:80]!r} is stored in another file")
    if len(fields[1]) > _MOST_DIMENSIONS:
        raise ValueError(f"the weight {name[:80]!r} has {len(fields[1])} dimensions")
    count = math.prod(fields[1])
    there = sum(end - start for number in _DATA for start, end in fields[number])
    item = _ITEM_BYTES[kind] if fields[9] else 1  # else of variable length, a byte at least
    if count * item > there:
        raise ValueError(f"the weight {name[:80]!r} has {count:,} numbers in {there:,} bytes")
    return name, count


def _input(reader: _Reader, span: Span) -> str:
    """Return an input's name; it may not be of a fixed size, of which constants could be made."""
    value = reader.read(span, _VALUE)
    for kind in value[2]:
        for tensor in reader.read(kind, _TYPE)[1]:
            for shape in reader.read(tensor, _TENSOR_TYPE)[2]:
                for dimension in reader.read(shape, _SHAPE)[1]:
                    reader.read(dimension, _DIMENSION)
    return reader.text(value, 1)


class _Reader:
    """Reads the fields of messages, in one way only: what readers could take differently is refused."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_FIELDS

    def read(self, span: Span, kind: _Kind) -> dict[int, list[Any]]:
        """Return the fields of a message by number: numbers, and the places of anything longer.

        Raises:
            ValueError: it is not protobuf, or a field is unknown or there twice, or there are too many.
        """
        found: dict[int, list[Any]] = defaultdict(list)
        at, end = span
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS:,} entries")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if kind.fields.get(number) != wire:
                what = _NAMES.get((kind.name, number), f"an unknown field {number} of a {kind.name}")
                raise ValueError(f"it holds {what}")
            if number in found and number not in kind.repeated:
                raise ValueError(f"the field {number} of a {kind.name} is there twice")
            value, at = self._value(wire, at, end)
            found[number].append(value)
        return found

    def text(self, fields: dict[int, list[Any]], number: int) -> str:
        """Return a field of text; "" where there is none."""
        return self.decoded(fields[number][0]) if fields[number] else ""

    def decoded(self, span: Span) -> str:
        return self._data[slice(*span)].decode("utf-8")

    def _value(self, wire: int, at: int, end: int) -> tuple[Any, int]:
        if wire == 0:
            return self._varint(at, end)
        if wire == 5:
            start, size = at, 4
        else:
            size, start = self._varint(at, end)
        if size > end - start:
            raise ValueError("it ends too early")
        return (start, start + size), start + size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64 or (shift and not byte):
                    break
                return value, at
        raise ValueError("it is no ONNX file")
