"""The plain graph, which is what torch's own exporter makes of a network, and int8 candidates of both kinds of graph.

Candidates are made, measured on validation comments, and one is chosen.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.deployment.lean import OPSET, Range, Scheme, build
from gkiller.deployment.parity import Limits, Parity, ParityRows, compare
from gkiller.deployment.probes import run, score_tokens, session
from gkiller.deployment.weights import leanable, network_of
from gkiller.inference.session import INPUTS, OUTPUT
from gkiller.tokens.batches import Tokens, scoring_batches
from gkiller.wording import Progress, staged

if TYPE_CHECKING:
    import onnx

    from gkiller.deployment.weights import Network
    from gkiller.model.directory import LoadedModel
    from gkiller.model.network import ToxicityClassifier

BINS: Final = 2048
CALIBRATION_BATCH: Final = 32
COVERED: Final = 0.9999  # share of the values that the narrower static ranges cover
TIED: Final = 0.1  # candidates whose speeds differ by less than this share are as fast as each other
TIMED_ROWS: Final = 256
BATCH: Final = 16
ROUNDS: Final = 3


class ScoringNetwork(nn.Module):
    """A classifier whose outputs are one logit per label, (rows, L): the sigmoid of each is the score."""

    def __init__(self, model: ToxicityClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask, int64 (rows, tokens), to logits (rows, L)."""
        return self.model.label_logits(self.model(input_ids, attention_mask))


def export_plain(model: ToxicityClassifier, max_length: int) -> onnx.ModelProto:
    """Export a folded classifier with torch's exporter; the interface is that of `gkiller.deployment.lean.build`."""
    return export_network(ScoringNetwork(model), max_length)


def export_network(network: nn.Module, max_length: int) -> onnx.ModelProto:
    """Export a network from ids and mask, int64 (rows, tokens, both dynamic), to logits (rows, L)."""
    ids = torch.ones((2, min(8, max_length)), dtype=torch.int64)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", min=2, max=max_length)
    shape = {0: rows, 1: tokens}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            network.eval(),
            (ids, torch.ones_like(ids)),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=(shape, shape),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # without a file name it is returned
    proto: onnx.ModelProto = program.model_proto
    # Its recorded shapes are not needed, and wrong once a tool changes a tensor's type.
    del proto.graph.value_info[:]
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own talk off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def find_ranges(
    network: Network, tokens: Tokens, share: float = 1.0, progress: Progress | None = None
) -> dict[str, Range]:
    """Run the float32 graph on comments and return the range of each place that multiplies, by its name.

    Args:
        share: of the values that a range covers, centred; 1 for the least and the greatest.
    """
    running = session(build(network, expose=True))
    sites = [output.name for output in running.get_outputs() if output.name != OUTPUT]
    batches = list(scoring_batches(tokens.lengths, CALIBRATION_BATCH))
    passes = 1 if share >= 1 else 2
    spans = {site: _Span() for site in sites}
    for number in range(passes):
        for done, rows in enumerate(batches):
            ids, mask = tokens.pad_batch(rows)
            real = mask.reshape(-1) == 1
            for site, values in zip(sites, run(running, ids, mask, sites), strict=True):
                kept = values[real] if len(values) == len(real) else values  # a pooler sees a row, not tokens
                spans[site].widen(kept) if number == 0 else spans[site].count(kept)
            if progress is not None:
                progress(number * len(batches) + done + 1, passes * len(batches))
    return {site: span.range(share) for site, span in spans.items()}


class _Span:
    """The least and greatest value seen, and a histogram between them."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._counts: npt.NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)

    def widen(self, values: npt.NDArray[Any]) -> None:
        """Take values in, first pass."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def count(self, values: npt.NDArray[Any]) -> None:
        """Take the same values in, second pass."""
        self._counts += np.histogram(values, bins=BINS, range=(self._low, self._high))[0]

    def range(self, share: float) -> Range:
        """Return the centred range that covers a share of the values."""
        total = int(self._counts.sum())
        if share >= 1 or not total:
            return self._low, self._high
        edges = np.linspace(self._low, self._high, BINS + 1)
        running, tail = np.cumsum(self._counts) / total, (1 - share) / 2
        first = int(np.searchsorted(running, tail, side="right"))
        last = int(np.searchsorted(running, 1 - tail, side="left"))
        return float(edges[first]), float(edges[min(last, BINS - 1) + 1])


@dataclass(frozen=True)
class Candidate:
    """A way to make a network int8."""

    name: str
    scheme: Scheme
    covered: float = 1.0  # share of the values that its static ranges cover


CANDIDATES: Final = (
    Candidate("static", Scheme("int8", "int8")),
    Candidate(f"static, {COVERED:.2%} of values", Scheme("int8", "int8"), COVERED),
    Candidate("static, 7-bit weights", Scheme("int8", "int8", bits=7)),
    Candidate("static, one scale per matrix", Scheme("int8", "int8", per_column=False)),
    Candidate("dynamic", Scheme("int8", "int8", activations="dynamic")),
    Candidate("dynamic, 7-bit weights", Scheme("int8", "int8", activations="dynamic", bits=7)),
)


PLAIN_CANDIDATES: Final = (
    Candidate("onnxruntime dynamic", Scheme("int8", "int8", "dynamic")),
    Candidate("onnxruntime dynamic, fp32 embeddings", Scheme("int8", "fp32", "dynamic")),
    Candidate("onnxruntime dynamic, 7-bit weights", Scheme("int8", "int8", "dynamic", 7)),
    Candidate("onnxruntime dynamic, 7-bit weights, fp32 embeddings", Scheme("int8", "fp32", "dynamic", 7)),
)
"""Ways to make a plain graph int8: its products of weights always, its tables of embeddings or not."""


@dataclass(frozen=True)
class Tried:
    """A measured candidate."""

    candidate: Candidate
    graph: bytes
    parity: Parity
    rate: float  # comments per second, graph alone, one thread

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        facts = {"name": self.candidate.name, "bytes": len(self.graph), "comments_per_second": self.rate}
        return {**facts, "parity": self.parity.as_dict()}


def try_candidates(
    loaded: LoadedModel, rows: ParityRows, limits: Limits, most: int, portable: bool, tell: Progress
) -> list[Tried]:
    """Make and measure the int8 graphs of a model; its first ``most`` comments give the static ranges."""
    lean = leanable(loaded.model)
    candidates = [one for one in (CANDIDATES if lean else PLAIN_CANDIDATES) if not portable or one.scheme.bits < 8]
    if not lean:
        tell(0, None, "building the graph")
        plain = export_plain(loaded.model, loaded.max_length)
        return _measured(candidates, [quantize_plain(plain, one.scheme) for one in candidates], rows, limits, tell)
    network, few = network_of(loaded.model, loaded.max_length), _first(rows.tokens, most)
    shares = sorted({one.covered for one in candidates if one.scheme.activations == "static"})
    ranges = {share: find_ranges(network, few, share, staged(tell, "calibrating")) for share in shares}
    graphs = [build(network, one.scheme, ranges=ranges.get(one.covered)).SerializeToString() for one in candidates]
    return _measured(candidates, graphs, rows, limits, tell)


def _measured(
    candidates: Sequence[Candidate], graphs: Sequence[bytes], rows: ParityRows, limits: Limits, tell: Progress
) -> list[Tried]:
    """Compare the graphs of candidates with the trained model, and time them in turns: other work meets all alike."""
    loaded = [session(graph) for graph in graphs]
    parities = []
    for done, running in enumerate(loaded):
        tell(done, len(loaded), "comparing")
        parities.append(compare(rows, score_tokens(running, rows.tokens, BATCH), limits))
    tell(0, None, "timing")
    few = _first(rows.tokens, TIMED_ROWS)
    batches = [few.pad_batch(chosen) for chosen in scoring_batches(few.lengths, BATCH)]
    seconds = np.full((ROUNDS, len(loaded)), np.inf)
    for turn in range(ROUNDS):
        for place, running in enumerate(loaded):
            start = time.perf_counter()
            for ids, mask in batches:
                run(running, ids, mask)
            seconds[turn, place] = time.perf_counter() - start
    rates = [float(len(few) / best) for best in seconds.min(axis=0)]
    return [Tried(*one) for one in zip(candidates, graphs, parities, rates, strict=True)]


def _first(tokens: Tokens, most: int) -> Tokens:
    return Tokens(tokens.ids, tokens.starts[: most + 1], tokens.pad)


def choose(tried: Sequence[Tried]) -> Tried | None:
    """Return the best candidate that passed, None when none did.

    A static one is preferred to a dynamic one, whose score of a comment depends on its batch. Of those as
    fast as the fastest, within `TIED`, it is the one with the fewest flips and the smallest difference.
    """
    every = [one for one in tried if one.parity.passed]
    passed = [one for one in every if one.candidate.scheme.activations == "static"] or every
    bar = max((one.rate for one in passed), default=0.0) * (1 - TIED)
    return min((one for one in passed if one.rate >= bar), key=faithfulness, default=None)


def faithfulness(one: Tried) -> tuple[int, float]:
    """Return what orders candidates: flips, then the largest difference."""
    return one.parity.flips, one.parity.max_difference


def quantize_plain(graph: onnx.ModelProto, scheme: Scheme) -> bytes:
    """Return a plain graph with int8 weights; its other inputs are made bytes batch by batch.

    Of the scheme, ``bits``, ``per_column`` and ``embeddings`` count.
    """
    from gkiller.inference.ort import quantization

    tools = quantization()
    source = copy.deepcopy(graph)
    # The preparation that onnxruntime advises is what torch's exporter has done; so it says nothing.
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with TemporaryDirectory(prefix="gkiller-int8-") as folder:
        target = Path(folder) / "model.int8.onnx"
        tools.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if scheme.embeddings == "int8" else [])],
            per_channel=scheme.per_column,
            reduce_range=scheme.bits < 8,
            weight_type=tools.QuantType.QInt8,
        )
        return target.read_bytes()
