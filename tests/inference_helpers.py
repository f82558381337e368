"""A model directory with a tiny hand-made ONNX graph, in a moment and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy import RUDE, comment, toy_tokenizer

from gkiller.inference.bulk.formats import Shape
from gkiller.inference.bulk.job import Job, Outcome, make_writer, run
from gkiller.inference.bulk.reading import Row, Source
from gkiller.inference.bulk.sinks import FileSink
from gkiller.inference.classifier import Classifier
from gkiller.storage.files import sha256_file
from gkiller.storage.sealed import digest_of

LABELS = ("toxicity", "insult")
MAX_LENGTH = 16


def graph(vocabulary: dict[str, int], labels: int = len(LABELS), seed: int = 0) -> bytes:
    """Logits are a linear function of the mean embedding; rude words raise the first label."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 0.5, (len(vocabulary), 4)).astype(np.float32)
    table[:, 0] = -0.5
    table[[vocabulary[word] for word in RUDE], 0] = 40
    head = np.eye(4, labels, dtype=np.float32)
    initializers = {
        "table": table,
        "head": head,
        "bias": np.full(labels, -1, np.float32),
        "last": np.array([2], np.int64),
        "middle": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "head", "bias"], ["logits"]),
    ]
    shape = ("rows", "tokens")
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("rows", labels))],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],  # type: ignore[arg-type]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_model(folder: Path, *, int8: bool = True, fp32: bool = True, **changes: object) -> Path:
    """Write a model directory; ``changes`` replace keys of gkiller.json."""
    tokenizer = toy_tokenizer()
    vocabulary = tokenizer.get_vocab()
    (folder / "onnx").mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "README.md").write_text("# a toy\n", encoding="utf-8")
    config = {"max_position_embeddings": MAX_LENGTH, "vocab_size": len(vocabulary)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if fp32:
        (folder / "onnx/model.onnx").write_bytes(graph(vocabulary))
    if int8:
        (folder / "onnx/model.int8.onnx").write_bytes(graph(vocabulary, seed=1))
    seal(folder, **changes)
    return folder


def seal(folder: Path, **changes: object) -> None:
    """Write gkiller.json for the files that are there."""
    metadata = {
        "format_version": 1,
        "labels": list(LABELS),
        "max_length": MAX_LENGTH,
        "thresholds": {label: {"value": 0.5} for label in LABELS},
        **changes,
    }
    metadata.setdefault("files", listed(folder))
    text = json.dumps({**metadata, "digest": digest_of(metadata)})
    (folder / "gkiller.json").write_text(text, encoding="utf-8")


def listed(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that are there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "gkiller.json")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


TEXTS = [comment(i, i % 4 == 0) for i in range(23)]


class KilledError(Exception):
    pass


def breaking(texts: list[Any], row: int, ids: bool = False) -> Source:
    """A source that breaks when ``row`` is asked for."""

    def rows() -> Iterator[Any]:
        for number, text in enumerate(texts, start=1):
            if number == row:
                raise KilledError
            yield Row(number, text, f"id{number}" if ids else None)

    return Source("test", ids, rows)


def job(clf: Classifier, **changes: Any) -> Job:
    named = {key: changes.pop(key) for key in ("ids", "text", "only_flagged") if key in changes}
    return Job(clf, Shape(clf.labels, clf.limits(), **named), **{"chunk_rows": 4, **changes})


def to_file(
    clf: Classifier, path: Path, source: Source, *, resume: Any = False, force: Any = False, **changes: Any
) -> Outcome:
    work = job(clf, ids=source.has_ids, **changes)
    form, _, packed = path.name.partition(".")[2].partition(".")
    writer = make_writer(form, work.shape, packed=bool(packed), explain=work.explain)  # type: ignore[arg-type]
    sink = FileSink(path, writer, work.settings(form, packed=bool(packed)), resume, force)  # type: ignore[arg-type]
    return run(work, source, sink, writer)
