"""What does deployment gain? torch, ONNX as exported, the lean graph and int8, of one model.

    python experiments/deployment.py runs/NAME --data prepared/ --threads 1,2 --report docs/performance.md

Size is of every file needed to predict. F1 (at the stored thresholds) and average precision are means over
labels on the validation and the test split, with 95 % bootstrap intervals. All speeds include the tokenizer
and are taken in turns after a warm-up. With several threads, onnxruntime scores that many batches at a time,
one thread each, and torch uses its own threads. "gkiller.load" is what users run: it remembers the ids of
words, of which the warm-up has filled the store, and reads long comments in windows, where the others cut
them; "truncated" cuts as well. Single comments are each timed right after another of the same system, as in a
program that scores one after the other, and on one thread only: at this size more do not help, and the idle
threads of several sessions disturb each other. Each number of threads is a process of its own, because the
tokenizer's and torch's threads are set once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from document import insert

from gkiller import load
from gkiller.benchmark.plan import Seconds, in_turns, take_turns
from gkiller.benchmark.processes import child_environment
from gkiller.data.load import read_prepared
from gkiller.deployment.lean import Scheme, build
from gkiller.deployment.probes import score_tokens, session
from gkiller.deployment.quantize import CANDIDATES, export_plain, find_ranges
from gkiller.deployment.weights import network_of
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.results import Figure
from gkiller.model.directory import LoadedModel, load_model
from gkiller.model.layout import BESIDE
from gkiller.scoring.models import score_texts
from gkiller.settings import EvaluationSettings
from gkiller.tokens.batches import scoring_batches, tokenize

BATCH = 16
LENGTHS = (32, 128)
TORCH = "torch fp32"
SHIPPED = "gkiller.load,"
SPLITS = ("valid", "test")


def graphs_of(loaded: LoadedModel, texts: list[str]) -> dict[str, bytes]:
    """Return every graph that is compared; int8 is the model's own when it has one."""
    network = network_of(loaded.model, loaded.max_length)
    assert loaded.path is not None
    own = loaded.path / "onnx/model.int8.onnx"
    if own.is_file():
        small = own.read_bytes()
    else:
        ranges = find_ranges(network, tokenize(loaded.tokenizer, texts))
        small = build(network, CANDIDATES[0].scheme, ranges=ranges).SerializeToString()
    return {
        "ONNX fp32, as exported": export_plain(loaded.model, loaded.max_length).SerializeToString(),
        "ONNX fp32, lean": build(network, Scheme()).SerializeToString(),
        "ONNX int8, lean": small,
    }


def qualities(loaded: LoadedModel, graphs: dict[str, bytes], data: str, resamples: int) -> dict[str, Any]:
    """Return F1 and average precision by system and split."""
    dataset = read_prepared(Path(data))
    labels = [label for label in loaded.labels if label in dataset.labels]
    columns = [dataset.labels.index(label) for label in labels]
    own = [loaded.labels.index(label) for label in labels]
    settings = EvaluationSettings(resamples=resamples)
    found: dict[str, Any] = {}
    for name in SPLITS:
        split = dataset.split(name)
        tokens = tokenize(loaded.tokenizer, split.texts)
        scores = {TORCH: score_texts(loaded, split.texts, 64, long_text="truncate")}
        scores |= {system: score_tokens(session(graph), tokens, BATCH) for system, graph in graphs.items()}
        for system, table in scores.items():
            result = evaluate(
                labels, split.labels[:, columns], table[:, own], split.weights, loaded.thresholds, settings
            )
            macro = result.macro
            cells = {"n": result.rows, "f1": cell(macro.stored.f1), "ap": cell(macro.ap)}
            found.setdefault(system, {})[name] = cells
    return found


def cell(figure: Figure) -> str:
    """Return a figure with its interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def speeds(loaded: LoadedModel, graphs: dict[str, bytes], texts: list[str], threads: int, rounds: int) -> Any:
    """Return comments per second and single-comment latencies by system, for one number of threads."""
    import torch

    torch.set_num_threads(threads)
    whole: dict[str, Callable[[], object]] = {TORCH: partial(score_texts, loaded, texts, BATCH, long_text="truncate")}
    for name, graph in graphs.items():
        whole[name] = partial(end_to_end, loaded, session(graph), texts, threads)
    for precision in shipped(loaded):
        classifier = load(str(loaded.path), precision=precision, threads=threads)
        whole[f"{SHIPPED} {precision}"] = partial(classifier.predict_proba, texts)
        cut = partial(classifier.predict_proba, texts, long_text="truncate")
        whole[f"{SHIPPED} {precision}, truncated"] = cut
    seconds = in_turns(whole, max(1, rounds // 3))
    rows = {name: {"rate": len(texts) / float(np.median(values))} for name, values in seconds.items()}
    for length in LENGTHS if threads == 1 else ():
        sample = long_texts(loaded, texts, length)
        loaded.tokenizer.enable_truncation(min(length, loaded.max_length))
        single: dict[str, Callable[[], object]] = {TORCH: Turn(sample, partial(one_torch, loaded))}
        for name, graph in graphs.items():
            single[name] = Turn(sample, partial(one_graph, loaded, session(graph)))
        for precision in shipped(loaded):
            classifier = load(str(loaded.path), precision=precision, threads=threads)
            single[f"{SHIPPED} {precision}, truncated"] = Turn(
                sample, partial(classifier.predict_proba, long_text="truncate")
            )
        for name, values in after_its_own(single, rounds * 30, 30).items():
            rows[name][f"p50 {length}"], rows[name][f"p95 {length}"] = (
                float(value) * 1e3 for value in np.quantile(values, (0.5, 0.95))
            )
        loaded.tokenizer.enable_truncation(loaded.max_length)
    return rows


def shipped(loaded: LoadedModel) -> list[Literal["fp32", "int8"]]:
    """Return the precisions that the model directory holds graphs of."""
    assert loaded.path is not None
    files: dict[Literal["fp32", "int8"], str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model.int8.onnx"}
    return [precision for precision, file in files.items() if (loaded.path / file).is_file()]


def after_its_own(calls: dict[str, Callable[[], object]], rounds: int, warm_up: int) -> dict[str, Seconds]:
    """Time calls in turns, each right after one of its own, as when comment after comment is scored.

    What it needs is in the processor's caches then.
    """
    staged = {name: [lambda turn, call=call: call()] * 2 for name, call in calls.items()}
    return {name: values[:, 1] for name, values in take_turns(staged, rounds, warm_up).items()}


class Turn:
    """Calls a function with the next of some texts each time."""

    def __init__(self, texts: list[str], function: Callable[[str], object]) -> None:
        self._texts = texts
        self._function = function
        self._next = 0

    def __call__(self) -> object:
        """Take a text."""
        self._next = (self._next + 1) % len(self._texts)
        return self._function(self._texts[self._next])


def end_to_end(loaded: LoadedModel, running: Any, texts: list[str], threads: int) -> None:
    """Tokenize and score all texts, ``threads`` batches at a time."""
    tokens = tokenize(loaded.tokenizer, texts)

    def score(rows: Any) -> object:
        ids, mask = tokens.pad_batch(rows)
        return running.run(["logits"], {"input_ids": ids, "attention_mask": mask})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, list(scoring_batches(tokens.lengths, BATCH))))


def one_torch(loaded: LoadedModel, text: str) -> object:
    """Score one text with torch, up to the limit of the tokenizer."""
    import torch

    ids, mask = map(torch.from_numpy, tokenize(loaded.tokenizer, [text]).pad_batch(np.array([0])))
    with torch.inference_mode():
        return loaded.model.probabilities(loaded.model(ids, mask)).numpy()


def one_graph(loaded: LoadedModel, running: Any, text: str) -> object:
    """Score one text with onnxruntime."""
    ids = np.array([loaded.tokenizer.encode(text).ids], dtype=np.int64)
    return running.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})


def long_texts(loaded: LoadedModel, texts: list[str], length: int, count: int = 20) -> list[str]:
    """Return real comments, joined until each has the tokens wanted."""
    found: list[str] = []
    current = ""
    for text in texts:
        current = f"{current} {text}".strip()
        if len(loaded.tokenizer.encode(current).ids) >= min(length, loaded.max_length):
            found.append(current)
            current = ""
        if len(found) == count:
            break
    return found or [current]


def sizes(loaded: LoadedModel, graphs: dict[str, bytes]) -> dict[str, float]:
    """Return the MB of all files needed to predict."""
    assert loaded.path is not None
    beside = sum((loaded.path / name).stat().st_size for name in BESIDE)
    weights = (loaded.path / "model.safetensors").stat().st_size
    return {TORCH: (weights + beside) / 1e6} | {n: (len(g) + beside) / 1e6 for n, g in graphs.items()}


def report(found: dict[str, Any], times: dict[str, Any], rows: int) -> str:
    """Return the tables in Markdown."""
    first = next(iter(found["quality"].values()))
    counts = ", ".join(f"{split} n = {first[split]['n']:,}" for split in SPLITS)
    lines = [counts + ".", "", "| system | MB | valid F1 | valid AP | test F1 | test AP |", "|---|---|---|---|---|---|"]
    for system, size in found["sizes"].items():
        quality = found["quality"][system]
        cells = [quality[split][key] for split in SPLITS for key in ("f1", "ap")]
        lines.append(f"| {system} | {size:.2f} | {' | '.join(cells)} |")
    for threads, systems in times.items():
        lengths = LENGTHS if threads == "1" else ()
        head = "".join(f" p50 / p95 ms, {length} tokens |" for length in lengths)
        lines += [
            "",
            f"{threads} thread(s), {rows:,} comments:",
            "",
            f"| system | comments/s |{head}",
            "|---|---|" + "---|" * len(lengths),
        ]
        for system, row in systems.items():
            cells = [
                f" {row[f'p50 {n}']:.2f} / {row[f'p95 {n}']:.2f} |" if f"p50 {n}" in row else " |" for n in lengths
            ]
            lines.append(f"| {system} | {row['rate']:,.0f} |{''.join(cells)}")
    return "\n".join(lines) + "\n"


def child(arguments: argparse.Namespace, threads: int) -> Any:
    """Time one number of threads in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(threads)]
    done = subprocess.run(command, env=child_environment(threads), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def comments(data: str, count: int) -> list[str]:
    """Return comments of the test and the training split."""
    dataset = read_prepared(Path(data))
    return [*dataset.split("test").texts, *dataset.split("train").texts][:count]


def main() -> None:
    """Measure what is asked for, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory or a run")
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--rows", type=int, default=20_000, help="comments for the throughput")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--name", default="tables", help="of the marks in FILE")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables into FILE")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    texts = comments(arguments.data, arguments.rows)
    graphs = graphs_of(loaded, read_prepared(arguments.data).split("valid").texts[:1000])
    if arguments.child:
        sys.stdout.write(json.dumps(speeds(loaded, graphs, texts, arguments.child, arguments.rounds)))
        return
    found = {"sizes": sizes(loaded, graphs), "quality": qualities(loaded, graphs, arguments.data, arguments.resamples)}
    times = {threads: child(arguments, int(threads)) for threads in arguments.threads.split(",")}
    text = report(found, times, len(texts))
    if arguments.report:
        insert(arguments.report, text, arguments.name)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
