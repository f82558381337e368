"""The plain graph: what torch's own exporter makes of a network."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.deployment.lean import OPSET, Ranges, Scheme, build
from gkiller.deployment.parity import Limits, Parity, ParityRows, compare
from gkiller.deployment.probes import score_tokens, session
from gkiller.tokens.batches import Tokens, scoring_batches
from gkiller.wording import Progress, silent, staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from gkiller.deployment.lean import Range
    from gkiller.deployment.weights import Network
    from gkiller.inference.ort import onnxruntime
    from gkiller.model.network import ToxicityClassifier
    from gkiller.tokens.batches import Tokens


class ScoringNetwork(nn.Module):
    """A classifier whose outputs are one logit per label, (rows, L): the sigmoid of each is the score."""

    def __init__(self, model: ToxicityClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask, int64 (rows, tokens), to logits (rows, L)."""
        return self.model.label_logits(self.model(input_ids, attention_mask))


def export_plain(model: ToxicityClassifier, max_length: int) -> onnx.ModelProto:
    """Export a folded classifier with torch's current exporter.

    Returns:
        A graph of opset `OPSET` with the interface of `gkiller.deployment.lean.build`; rows and tokens are
        dynamic, and the weights are inside.
    """
    return export_network(ScoringNetwork(model), max_length)


def export_network(network: nn.Module, max_length: int) -> onnx.ModelProto:
    """Export a network with torch's current exporter; as `export_plain`.

    Args:
        network: maps ids and mask, int64 (rows, tokens), to logits (rows, L).
    """
    ids = torch.ones((2, min(8, max_length)), dtype=torch.int64)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", min=2, max=max_length)
    shape = {0: rows, 1: tokens}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            network.eval(),
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
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


BINS: Final = 2048

CALIBRATION_BATCH: Final = 32


def find_ranges(
    network: Network, tokens: Tokens, share: float = 1.0, progress: Progress | None = None
) -> dict[str, Range]:
    """Run the float32 graph on comments and return the range of each place that multiplies.

    Args:
        share: of the values that a range covers, centred; 1 for the least and the greatest.

    Returns:
        (least, greatest) by the place's name.
    """
    running = session(build(network, expose=True))
    sites = [output.name for output in running.get_outputs() if output.name != "logits"]
    batches = list(scoring_batches(tokens.lengths, CALIBRATION_BATCH))
    passes = 1 if share >= 1 else 2
    spans = {site: _Span() for site in sites}
    for number in range(passes):
        for done, rows in enumerate(batches):
            ids, mask = tokens.pad_batch(rows)
            found = running.run(sites, {"input_ids": ids, "attention_mask": mask})
            real = mask.reshape(-1) == 1
            for site, values in zip(sites, found, strict=True):
                kept = values[real] if len(values) == len(real) else values  # a pooler sees a row, not tokens
                spans[site].widen(kept) if number == 0 else spans[site].count(kept)
            if progress is not None:
                progress(number * len(batches) + done + 1, passes * len(batches))
    return {site: span.range(share) for site, span in spans.items()}


class _Span:
    """The least and greatest value seen, and a histogram between them."""

    def __init__(self) -> None:
        self._low = np.inf
        self._high = -np.inf
        self._counts: npt.NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)

    def widen(self, values: npt.NDArray[Any]) -> None:
        """Take values in, first pass."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def count(self, values: npt.NDArray[Any]) -> None:
        """Take the same values in, second pass."""
        counts, _ = np.histogram(values, bins=BINS, range=(self._low, self._high))
        self._counts += counts

    def range(self, share: float) -> Range:
        """Return the centred range that covers a share of the values."""
        total = int(self._counts.sum())
        if share >= 1 or not total:
            return self._low, self._high
        edges = np.linspace(self._low, self._high, BINS + 1)
        running = np.cumsum(self._counts) / total
        tail = (1 - share) / 2
        first = int(np.searchsorted(running, tail, side="right"))
        last = int(np.searchsorted(running, 1 - tail, side="left"))
        return float(edges[first]), float(edges[min(last, BINS - 1) + 1])


COVERED: Final = 0.9999

"""Share of the values that the narrower static ranges cover."""

TIED: Final = 0.1

"""Candidates whose speeds differ by less than this share are as fast as each other."""

TIMED_ROWS: Final = 256

BATCH: Final = 16

ROUNDS: Final = 3


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


@dataclass(frozen=True)
class Tried:
    """A measured candidate."""

    candidate: Candidate
    graph: bytes
    parity: Parity
    rate: float  # comments per second, graph alone, one thread

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "name": self.candidate.name,
            "bytes": len(self.graph),
            "comments_per_second": self.rate,
            "parity": self.parity.as_dict(),
        }


def try_candidates(
    network: Network,
    rows: ParityRows,
    limits: Limits,
    calibration_rows: int,
    *,
    candidates: Sequence[Candidate] = CANDIDATES,
    progress: Progress | None = None,
) -> list[Tried]:
    """Make and measure candidates.

    Args:
        rows: validation comments with the trained model's scores; the first ``calibration_rows`` of them
            give the static ranges.
    """
    tell = progress or silent
    ranges = _ranges(network, rows.tokens, calibration_rows, candidates, tell)
    graphs = [build(network, one.scheme, ranges=ranges.get(one.covered, {})).SerializeToString() for one in candidates]
    return measure(candidates, graphs, rows, limits, tell)


def measure(
    candidates: Sequence[Candidate], graphs: Sequence[bytes], rows: ParityRows, limits: Limits, tell: Progress
) -> list[Tried]:
    """Compare the graphs of candidates with the trained model, and time them."""
    loaded = [session(graph) for graph in graphs]
    parities = []
    for done, running in enumerate(loaded):
        tell(done, len(loaded), "comparing")
        parities.append(compare(rows, score_tokens(running, rows.tokens, BATCH), limits))
    tell(0, None, "timing")
    rates = _rates(loaded, rows.tokens)
    return [Tried(*one) for one in zip(candidates, graphs, parities, rates, strict=True)]


def choose(tried: Sequence[Tried]) -> Tried | None:
    """Return the best candidate that passed, None when none did.

    A static one is preferred to a dynamic one, whose score of a comment depends on its batch. Of those as
    fast as the fastest, within `TIED`, it is the one with the fewest flips and the smallest difference.
    """
    every = [one for one in tried if one.parity.passed]
    passed = [one for one in every if one.candidate.scheme.activations == "static"] or every
    if not passed:
        return None
    bar = max(one.rate for one in passed) * (1 - TIED)
    return min(
        (one for one in passed if one.rate >= bar), key=lambda one: (one.parity.flips, one.parity.max_difference)
    )


def _ranges(
    network: Network, tokens: Tokens, most: int, candidates: Sequence[Candidate], tell: Progress
) -> dict[float, Ranges]:
    """Return the static ranges for each share of values that a candidate asks for."""
    shares = {one.covered for one in candidates if one.scheme.activations == "static"}
    few = _first(tokens, most)
    return {share: find_ranges(network, few, share, staged(tell, "calibrating")) for share in sorted(shares)}


def _first(tokens: Tokens, most: int) -> Tokens:
    return Tokens(tokens.ids, tokens.starts[: most + 1], tokens.pad)


def _rates(loaded: Sequence[onnxruntime.InferenceSession], tokens: Tokens) -> list[float]:
    """Time the graphs in turns, so that what else the machine does meets them alike."""
    few = _first(tokens, TIMED_ROWS)
    batches = [few.pad_batch(rows) for rows in scoring_batches(few.lengths, BATCH)]
    seconds = np.full((ROUNDS, len(loaded)), np.inf)
    for turn in range(ROUNDS):
        for place, running in enumerate(loaded):
            start = time.perf_counter()
            for ids, mask in batches:
                running.run(["logits"], {"input_ids": ids, "attention_mask": mask})
            seconds[turn, place] = time.perf_counter() - start
    return [float(len(few) / best) for best in seconds.min(axis=0)]


PLAIN_CANDIDATES: Final = (
    Candidate("onnxruntime dynamic", Scheme("int8", "int8", activations="dynamic")),
    Candidate("onnxruntime dynamic, fp32 embeddings", Scheme("int8", "fp32", activations="dynamic")),
    Candidate("onnxruntime dynamic, 7-bit weights", Scheme("int8", "int8", activations="dynamic", bits=7)),
    Candidate(
        "onnxruntime dynamic, 7-bit weights, fp32 embeddings", Scheme("int8", "fp32", activations="dynamic", bits=7)
    ),
)

"""Ways to make a plain graph int8: its products of weights always, its tables of embeddings or not."""


def quantize_plain(graph: onnx.ModelProto, scheme: Scheme) -> bytes:
    """Return a plain graph with int8 weights; its other inputs are made bytes batch by batch.

    Args:
        graph: of `gkiller.deployment.quantize.export_plain`; it is not changed.
        scheme: int8 weights and dynamic activations; ``bits``, ``per_column`` and ``embeddings`` count.
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
