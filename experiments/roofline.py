"""How fast could it be? Measured rates of this machine, the work of a comment, and where the time goes.

    python experiments/roofline.py runs/NAME --data prepared/ --report docs/roofline.md

Takes, on one thread: the rate of products of the network's shapes in float32 and in int8, the rate of copying
memory, the tokenizer's rate, and onnxruntime's own profile of the model's graphs on real comments. From the
products alone follows a bound on comments per second, which the measured rate is compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from document import insert
from onnx import TensorProto, helper, numpy_helper

from gkiller.data.load import read_prepared
from gkiller.inference.ort import onnxruntime
from gkiller.model.directory import LoadedModel, load_model
from gkiller.tokens.batches import Tokens, scoring_batches, tokenize

BATCH = 16
GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model.int8.onnx"}
KINDS = {
    "matrix products": (
        "MatMul",
        "Gemm",
        "FusedMatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "QGemm",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "FusedGemm",
    ),
    "attention": ("MultiHeadAttention", "Attention", "Softmax", "QAttention"),
    "embeddings": ("Gather", "EmbedLayerNormalization", "GatherND"),
    "normalisation and activations": (
        "LayerNormalization",
        "SkipLayerNormalization",
        "Gelu",
        "BiasGelu",
        "FastGelu",
        "Sigmoid",
        "Tanh",
        "Relu",
        "QLinearSigmoid",
        "Erf",
    ),
    "quantizing": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}


def best(call: Callable[[], object], repeats: int = 30) -> float:
    """Return the shortest time of a call, in seconds: what the machine can do when nobody disturbs it."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def run_all(running: Any, batches: Sequence[dict[str, Any]]) -> None:
    """Run an onnxruntime session on every batch."""
    for batch in batches:
        running.run(None, batch)


def product_rate(rows: int, inner: int, columns: int, kind: str) -> float:
    """Return multiply-adds per second of a product with constant weights, in onnxruntime, one thread.

    Args:
        rows: tokens at once.
        inner: features in.
        columns: features out.
        kind: "fp32" or "int8" (uint8 inputs, int8 weights, QLinearMatMul).
    """
    draw = np.random.default_rng(0)
    if kind == "fp32":
        weights = numpy_helper.from_array(draw.standard_normal((inner, columns)).astype(np.float32), "w")
        node, element = helper.make_node("MatMul", ["x", "w"], ["y"]), TensorProto.FLOAT
        constants, given = [weights], draw.standard_normal((rows, inner)).astype(np.float32)
    else:
        scalars = {"a": np.float32(0.02), "az": np.uint8(128), "b": np.float32(0.02), "bz": np.int8(0)}
        constants = [numpy_helper.from_array(np.array(v), n) for n, v in scalars.items()]
        constants += [numpy_helper.from_array(np.array(np.float32(0.1)), "c")]
        constants += [numpy_helper.from_array(np.array(np.uint8(128)), "cz")]
        constants += [numpy_helper.from_array(draw.integers(-64, 64, (inner, columns)).astype(np.int8), "w")]
        node = helper.make_node("QLinearMatMul", ["x", "a", "az", "w", "b", "bz", "c", "cz"], ["y"])
        element, given = TensorProto.UINT8, draw.integers(0, 255, (rows, inner)).astype(np.uint8)
    info = [helper.make_tensor_value_info(n, element, s) for n, s in (("x", [rows, inner]), ("y", [rows, columns]))]
    graph = helper.make_graph([node], "product", info[:1], info[1:], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    running = session(model.SerializeToString())
    return rows * inner * columns / best(lambda: running.run(None, {"x": given}))


def session(graph: bytes, profile: str = "") -> onnxruntime.InferenceSession:
    """Return a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def copy_rate(megabytes: int = 256) -> float:
    """Return bytes read and written per second when a large array is copied."""
    source = np.ones(megabytes << 17)
    target = np.empty_like(source)
    return 2 * source.nbytes / best(lambda: np.copyto(target, source), 10)


def products_per_token(loaded: LoadedModel) -> int:
    """Return the multiply-adds of the encoder's Linears for a token, dendrites included."""
    total = 0
    for name, parameter in loaded.model.named_parameters():
        if ".encoder." in name and parameter.ndim == 2 and name.endswith("weight"):
            total += parameter.numel()
    return total


def attention_per_comment(loaded: LoadedModel, lengths: Any) -> float:
    """Return the mean multiply-adds of attention's two products over comments of these lengths."""
    config = loaded.model.bert.config
    return float(np.mean(2.0 * config.num_hidden_layers * config.hidden_size * np.square(lengths, dtype=float)))


def feed(tokens: Tokens) -> list[dict[str, Any]]:
    """Return the batches as the graph takes them."""
    found = []
    for rows in scoring_batches(tokens.lengths, BATCH):
        ids, mask = tokens.pad_batch(rows)
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


def profile(graph: bytes, batches: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of onnxruntime's time by kind of operator."""
    with tempfile.TemporaryDirectory() as folder:
        running = session(graph, str(Path(folder) / "profile"))
        for batch in batches:
            running.run(None, batch)
        events = json.loads(Path(running.end_profiling()).read_text("utf-8"))
    spent = Counter[str]()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    shares = {kind: sum(spent.pop(op, 0) for op in ops) / total for kind, ops in KINDS.items()}
    largest = ", ".join(op for op, _ in spent.most_common(4))
    return {**shares, f"other ({largest})": sum(spent.values()) / total}


def measure(loaded: LoadedModel, texts: list[str]) -> str:
    """Return the tables in Markdown."""
    tokens = tokenize(loaded.tokenizer, texts)
    lengths, batches = tokens.lengths, feed(tokens)
    hidden, inner = loaded.model.bert.config.hidden_size, loaded.model.bert.config.intermediate_size
    shapes = {
        "Q, K and V in one": (hidden, 3 * hidden),
        "attention output": (hidden, hidden),
        "FFN in": (hidden, inner),
        "FFN out": (inner, hidden),
    }
    rows = int(np.mean([batch["input_ids"].size for batch in batches]))
    rates = {name: {kind: product_rate(rows, *shape, kind) for kind in GRAPHS} for name, shape in shapes.items()}
    lines = [
        f"Products of {rows} tokens (the mean batch of {BATCH} comments), one thread, the best of 30:",
        "",
        "| product | fp32, GMAC/s | int8, GMAC/s |",
        "|---|---|---|",
    ]
    lines += [f"| {n} | {r['fp32'] / 1e9:.1f} | {r['int8'] / 1e9:.1f} |" for n, r in rates.items()]
    work = products_per_token(loaded) * float(lengths.mean()) + attention_per_comment(loaded, lengths)
    start = time.perf_counter()
    tokenize(loaded.tokenizer, texts)
    tokenizing = (time.perf_counter() - start) / len(texts)
    lines += [
        "",
        f"Copying memory: {copy_rate() / 1e9:.1f} GB/s. A comment has {lengths.mean():.1f} tokens on average "
        f"(at most {loaded.max_length}) and {work / 1e6:.2f} million multiply-adds; tokenizing takes "
        f"{tokenizing * 1e6:.0f} µs for it.",
        "",
    ]
    lines += [
        "| graph | bound by products, comments/s | measured, graph alone | share of the bound |",
        "|---|---|---|---|",
    ]
    profiles: dict[str, dict[str, float]] = {}
    for kind, file in GRAPHS.items():
        assert loaded.path is not None
        graph = (loaded.path / file).read_bytes()
        running = session(graph)
        seconds = min(best(partial(run_all, running, batches), 3), 1e9)
        weights = {n: s[0] * s[1] for n, s in shapes.items()}
        rate = sum(weights.values()) / sum(w / rates[n][kind] for n, w in weights.items())
        bound, found = rate / work, len(texts) / seconds
        lines.append(f"| {kind} | {bound:,.0f} | {found:,.0f} | {found / bound:.0%} |")
        profiles[kind] = profile(graph, batches)
    lines += ["", "Where the graph's time goes, by onnxruntime's own profile:", ""]
    for kind, shares in profiles.items():
        lines.append(f"- {kind}: " + "; ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory or a run, exported and quantized")
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--rows", type=int, default=4000, help="comments")
    parser.add_argument("--name", default="roofline", help="of the marks in the report")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables into FILE")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    text = measure(loaded, read_prepared(arguments.data).split("test").texts[: arguments.rows])
    if arguments.report:
        insert(arguments.report, text, arguments.name)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
