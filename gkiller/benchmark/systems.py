"""What is compared: systems behind one small protocol, each described by plain values.

A `SystemSpec` can be written as JSON, so that a child process, with its threads set before any library is
imported, opens the same system. All neural systems share one way through: their tokenizer, comments sorted by
length, batches padded to their longest comment, then the network. A tokenizer that reads word by word, as
BERT's and MPNet's do, keeps the ids of words, and long comments are read in windows, as `gkiller.load` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gkiller.deployment.probes import session, sigmoid
from gkiller.errors import ModelFormatError
from gkiller.inference.graph import check_graph
from gkiller.model.layout import GRAPHS
from gkiller.tokens.batches import Reader, Tokens, scoring_batches
from gkiller.wording import one_line

if TYPE_CHECKING:
    from torch import nn

    from gkiller.tokens.batches import LongText, Read


Scores = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Network = Callable[[Ids, Ids], Logits]
Kind = Literal["gkiller", "transformers", "probe", "linear", "static"]
Runtime = Literal["torch fp32", "onnx fp32", "onnx int8", "scikit-learn", "numpy"]
Trained = Literal["whole", "head", "nothing"]
Role = Literal["model", "giant", "rival"]
ONNX: Final[dict[Runtime, Literal["fp32", "int8"]]] = {"onnx fp32": "fp32", "onnx int8": "int8"}


@dataclass(frozen=True)
class SystemSpec:
    """One row of the table."""

    name: str
    kind: Kind
    runtime: Runtime
    path: str
    labels: tuple[str, ...]
    parameters: int
    files: tuple[str, ...]
    max_length: int = 0
    role: Role = "rival"
    # the "whole" network, its "head" alone on a frozen encoder, or "nothing": random weights
    trained: Trained = "whole"
    note: str = ""
    graph: str = ""
    tokenizer: str = ""
    pad: int = 0
    batch_size: int = 16
    long_text: LongText = "window"

    @property
    def key(self) -> str:
        """What tells it from the other rows."""
        return f"{self.name}, {self.runtime}"

    @property
    def scored(self) -> bool:
        """Whether its scores mean anything; those of random weights do not."""
        return self.trained != "nothing"

    @property
    def bytes(self) -> int:
        """Size of every file needed to predict."""
        return sum(Path(file).stat().st_size for file in self.files)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SystemSpec:
        """Read what `asdict` gave, after its way through JSON."""
        lists = {name: tuple(values[name]) for name in ("labels", "files")}
        return cls(**{**values, **lists})


class System(Protocol):
    """Something that scores comments in two steps, which are timed apart."""

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> Any:
        """Turn comments into what the network takes: tokens or features."""

    def run(self, prepared: Any) -> Scores:
        """Return the scores, float64 of shape (n, L), in 0..1."""

    def length(self, text: str) -> int | None:
        """Return how many tokens are read of a comment; None where tokens are not counted."""


class TokenSystem:
    """A reader and a network.

    Args:
        network: maps ids and mask, int64 (rows, tokens), to one logit per label, float32 (rows, L).
    """

    def __init__(self, reader: Reader, network: Network, *, batch_size: int, workers: int = 1) -> None:
        self._reader, self._network, self._batch_size = reader, network, batch_size
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> Read:
        """Tokenize comments, and cut them into windows."""
        return self._reader.read(texts, limit)

    def run(self, prepared: Read) -> Scores:
        """Score windows, those of a batch of like length, and take the highest of each comment."""
        batches = list(scoring_batches(prepared.tokens.lengths, self._batch_size))
        score = self._score(prepared.tokens)
        logits = list(map(score, batches) if self._pool is None else self._pool.map(score, batches))
        scores = sigmoid(np.concatenate(logits))
        back = np.empty(len(scores), np.int64)
        back[np.concatenate(batches)] = np.arange(len(scores))
        found: Scores = prepared.highest(scores[back])
        return found

    def _score(self, tokens: Tokens) -> Callable[[npt.NDArray[np.int64]], Logits]:
        return lambda rows: self._network(*tokens.pad_batch(rows))

    def length(self, text: str) -> int:
        """Return how many tokens are read of a comment, in all its windows."""
        return len(self._reader.read([text]).tokens.ids)


def open_system(spec: SystemSpec, threads: int = 1) -> System:
    """Load a system.

    ONNX graphs score ``threads`` batches at a time, each on one thread, as `gkiller.load` does; torch uses
    its own threads within a batch. Nothing of torch is imported for an ONNX runtime.

    Raises:
        GkillerError: it cannot be loaded.
    """
    if spec.kind == "linear":
        from gkiller.benchmark.linear import load_linear

        return load_linear(Path(spec.path))
    if spec.kind == "static":
        from gkiller.benchmark.linear import load_static

        return load_static(Path(spec.path))
    from tokenizers import Tokenizer

    if spec.runtime in ONNX:
        network, workers = _open_graph(spec), threads
    else:
        network, workers = _open_torch(spec, threads), 1
    tokenizer = Tokenizer.from_file(spec.tokenizer)
    reader = Reader(tokenizer, spec.max_length, spec.long_text, spec.pad)
    return TokenSystem(reader, network, batch_size=spec.batch_size, workers=workers)


def _open_torch(spec: SystemSpec, threads: int) -> Network:
    """Open a network that torch runs on so many threads."""
    import torch

    torch.set_num_threads(threads)
    module = module_of(spec).eval()

    def network(ids: Ids, mask: Ids) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        return logits

    return network


def module_of(spec: SystemSpec) -> nn.Module:
    """Return a system's torch network, which gives one logit per label."""
    from gkiller.deployment.quantize import ScoringNetwork
    from gkiller.model.directory import load_model
    from gkiller.model.sequence import load_classifier

    if spec.kind == "transformers":
        return load_classifier(spec.path, spec.labels)[0]
    return ScoringNetwork(load_model(spec.path).model)


def _open_graph(spec: SystemSpec) -> Network:
    with _running(spec):
        graph = Path(spec.graph).read_bytes()
        if spec.kind == "gkiller":  # others were exported for this benchmark, and may have other operators
            check_graph(graph)
        running = session(graph)

    def network(ids: Ids, mask: Ids) -> Logits:
        with _running(spec):
            answer: Any = running.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        logits: Logits = answer[0]
        if logits.shape != (len(ids), len(spec.labels)):
            what = f"the graph answers {logits.shape} to {len(ids)} comments and {len(spec.labels)} labels"
            raise ModelFormatError(what, where=spec.graph, remedy="export the model again")
        return logits

    return network


@contextmanager
def _running(spec: SystemSpec) -> Iterator[None]:
    """Turn a graph that does not run into an error of the model."""
    try:
        yield
    except Exception as error:  # onnxruntime's own errors have no other class in common
        what = f"the graph cannot be run: {one_line(error)}"
        raise ModelFormatError(what, where=spec.graph, remedy="export the model again") from error


def score(system: System, texts: Sequence[str]) -> Scores:
    """Return the scores of n comments, float64 of shape (n, L)."""
    return system.run(system.prepare(texts))


def graph_file(directory: Path, runtime: Runtime) -> Path | None:
    """Return a gkiller model's graph for a runtime, None where it has none."""
    precision = ONNX.get(runtime)
    path = directory / GRAPHS[precision] if precision else None
    return path if path is not None and path.is_file() else None
