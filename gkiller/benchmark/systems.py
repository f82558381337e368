"""What is compared: systems behind one small protocol, each described by plain values.

A `SystemSpec` can be written as JSON, so that a child process, with its threads set before any library is
imported, opens the same system. All neural systems share one way through: their tokenizer, comments sorted by
length, batches padded to their longest comment, then the network. A tokenizer that reads word by word, as
BERT's and MPNet's do, keeps the ids of words, as `gkiller.load` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gkiller.data.batches import Tokens, end_to_end, scoring_batches, tokenize
from gkiller.deployment.runtime import session, sigmoid
from gkiller.errors import ModelFormatError, one_line
from gkiller.inference.encoding import Encoder
from gkiller.inference.graph import check_graph
from gkiller.model.layout import GRAPHS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
    """One row of the table.

    Attributes:
        name: of the model.
        kind: how it is opened.
        runtime: what runs it.
        path: its directory.
        labels: in the order of its scores' columns.
        parameters: that prediction uses.
        files: every file needed to predict.
        max_length: tokens read of a comment; 0 where a system does not count tokens.
        role: the model that the benchmark is about, the giant, or another rival.
        trained: the "whole" network, its "head" alone on a frozen encoder, or "nothing": random weights.
        note: what a reader of the table must know of it.
        graph: the ONNX file, for the ONNX runtimes.
        tokenizer: its tokenizer.json.
        pad: the tokenizer's padding id.
        batch_size: comments per batch.
    """

    name: str
    kind: Kind
    runtime: Runtime
    path: str
    labels: tuple[str, ...]
    parameters: int
    files: tuple[str, ...]
    max_length: int = 0
    role: Role = "rival"
    trained: Trained = "whole"
    note: str = ""
    graph: str = ""
    tokenizer: str = ""
    pad: int = 0
    batch_size: int = 16

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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SystemSpec:
        """Read what `as_dict` gave."""
        lists = {name: tuple(values[name]) for name in ("labels", "files")}
        return cls(**{**values, **lists})


class System(Protocol):
    """Something that scores comments in two steps, which are timed apart."""

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> Any:
        """Turn comments into what the network takes: tokens or features.

        Args:
            texts: n comments.
            limit: tokens read of each, where it is less than the system's own limit.
        """

    def run(self, prepared: Any) -> Scores:
        """Return the scores, float64 of shape (n, L), in 0..1."""

    def length(self, text: str) -> int | None:
        """Return how many tokens a comment has, at most the limit; None where tokens are not counted."""


class TokenSystem:
    """A tokenizer and a network.

    Args:
        tokenizer: of the network.
        network: maps ids and mask, int64 (rows, tokens), to one logit per label, float32 (rows, L).
        pad: the padding id.
        max_length: tokens read of a comment.
        batch_size: comments per batch.
        workers: batches scored at a time.
        encoder: of the tokenizer, where it reads word by word; it then takes the tokenizer's place.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        network: Network,
        *,
        pad: int,
        max_length: int,
        batch_size: int,
        workers: int = 1,
        encoder: Encoder | None = None,
    ) -> None:
        self._tokenizer, self._network, self._encoder = tokenizer, network, encoder
        self._pad, self._max_length, self._batch_size = pad, max_length, batch_size
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        tokenizer.no_padding()
        self._limit(None)

    def _limit(self, limit: int | None) -> None:
        self._tokenizer.enable_truncation(min(limit or self._max_length, self._max_length))

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> Tokens:
        """Tokenize comments."""
        if self._encoder is not None:
            return end_to_end([self._ids(self._encoder, text, limit) for text in texts], self._pad)
        if limit is None:
            return replace(tokenize(self._tokenizer, texts), pad=self._pad)
        self._limit(limit)
        try:
            return self.prepare(texts)
        finally:
            self._limit(None)

    def _ids(self, encoder: Encoder, text: str, limit: int | None = None) -> list[int]:
        most = min(limit or self._max_length, self._max_length) - 2
        return [encoder.cls, *encoder.ids(text)[:most], encoder.sep]

    def run(self, prepared: Tokens) -> Scores:
        """Score tokens, the comments of a batch of like length."""
        batches = list(scoring_batches(prepared.lengths, self._batch_size))
        score = self._score(prepared)
        logits = list(map(score, batches) if self._pool is None else self._pool.map(score, batches))
        scores = sigmoid(np.concatenate(logits))
        back = np.empty(len(scores), np.int64)
        back[np.concatenate(batches)] = np.arange(len(scores))
        return scores[back]

    def _score(self, tokens: Tokens) -> Callable[[npt.NDArray[np.int64]], Logits]:
        return lambda rows: self._network(*tokens.pad_batch(rows))

    def length(self, text: str) -> int:
        """Return how many tokens a comment has, at most the limit."""
        return int(self.prepare([text]).lengths[0])


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
        from gkiller.benchmark.static import load_static

        return load_static(Path(spec.path))
    from tokenizers import Tokenizer

    if spec.runtime in ONNX:
        network, workers = _open_graph(spec), threads
    else:
        from gkiller.benchmark.networks import open_network

        network, workers = open_network(spec, threads), 1
    tokenizer = Tokenizer.from_file(spec.tokenizer)
    tokenizer.encode_special_tokens = True  # what a comment spells like [SEP] is text
    return TokenSystem(
        tokenizer,
        network,
        pad=spec.pad,
        max_length=spec.max_length,
        batch_size=spec.batch_size,
        workers=workers,
        encoder=_encoder(spec),
    )


def _encoder(spec: SystemSpec) -> Encoder | None:
    """Return what keeps the ids of words; None for a tokenizer that does not read word by word."""
    try:
        encoder = Encoder(Path(spec.tokenizer).read_bytes(), spec.tokenizer, spec.max_length)
    except ModelFormatError:
        return None  # not one of those that gkiller trains with
    return encoder if encoder.by_word else None


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
