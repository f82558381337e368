"""Int8 candidates: made, measured on validation comments, and one chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.batches import Tokens, scoring_batches
from gkiller.deployment.arithmetic import Ranges, Scheme
from gkiller.deployment.calibrate import find_ranges
from gkiller.deployment.lean import build
from gkiller.deployment.parity import Limits, Parity, ParityRows, compare
from gkiller.deployment.runtime import score_tokens, session

if TYPE_CHECKING:
    from gkiller.deployment.weights import Network
    from gkiller.ort import onnxruntime

Progress = Callable[[str, int, int | None], None]

COVERED: Final = 0.9999
"""Share of the values that the narrower static ranges cover."""
TIED: Final = 0.1
"""Candidates whose speeds differ by less than this share are as fast as each other."""
TIMED_ROWS: Final = 256
BATCH: Final = 16
ROUNDS: Final = 3


@dataclass(frozen=True)
class Candidate:
    """A way to make a network int8.

    Attributes:
        name: in words.
        scheme: what its numbers are.
        covered: share of the values that its static ranges cover.
    """

    name: str
    scheme: Scheme
    covered: float = 1.0


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
    """A measured candidate.

    Attributes:
        candidate: what it is.
        graph: the file's content.
        parity: against the trained model.
        rate: comments per second, graph alone, one thread.
    """

    candidate: Candidate
    graph: bytes
    parity: Parity
    rate: float

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
        network: the weights.
        rows: validation comments with the trained model's scores; the first ``calibration_rows`` of them
            give the static ranges.
        limits: that a candidate must keep.
        calibration_rows: see above.
        candidates: which.
        progress: called with the stage, what is done of it and how much there is.
    """
    tell = progress or silent
    ranges = _ranges(network, rows.tokens, calibration_rows, candidates, tell)
    graphs = [
        build(network, one.scheme, ranges=ranges.get(one.covered, {})).SerializeToString()
        for one in candidates
    ]
    return measure(candidates, graphs, rows, limits, tell)


def measure(
    candidates: Sequence[Candidate],
    graphs: Sequence[bytes],
    rows: ParityRows,
    limits: Limits,
    tell: Progress,
) -> list[Tried]:
    """Compare the graphs of candidates with the trained model, and time them."""
    loaded = [session(graph) for graph in graphs]
    parities = []
    for done, running in enumerate(loaded):
        tell("comparing", done, len(loaded))
        parities.append(compare(rows, score_tokens(running, rows.tokens, BATCH), limits))
    tell("timing", 0, None)
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
        (one for one in passed if one.rate >= bar),
        key=lambda one: (one.parity.flips, one.parity.max_difference),
    )


def _ranges(
    network: Network, tokens: Tokens, most: int, candidates: Sequence[Candidate], tell: Progress
) -> dict[float, Ranges]:
    """Return the static ranges for each share of values that a candidate asks for."""
    shares = {one.covered for one in candidates if one.scheme.activations == "static"}
    few = _first(tokens, most)
    return {
        share: find_ranges(network, few, share, lambda done, total: tell("calibrating", done, total))
        for share in sorted(shares)
    }


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


def silent(stage: str, done: int, total: int | None) -> None:
    """Take a report that nobody wants."""
