"""Which values reach each product of a network, on validation comments: the ranges of static int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.data.batches import scoring_batches
from gkiller.deployment.lean import build
from gkiller.deployment.runtime import session

if TYPE_CHECKING:
    from gkiller.data.batches import Tokens
    from gkiller.deployment.arithmetic import Range
    from gkiller.deployment.weights import Network

BINS: Final = 2048
BATCH: Final = 32


def find_ranges(
    network: Network,
    tokens: Tokens,
    share: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Range]:
    """Run the float32 graph on comments and return the range of each place that multiplies.

    Args:
        network: the weights.
        tokens: calibration comments; padding is left out.
        share: of the values that a range covers, centred; 1 for the least and the greatest.
        progress: called with the batches done and their number, over both passes.

    Returns:
        (least, greatest) by the place's name.
    """
    running = session(build(network, expose=True))
    sites = [output.name for output in running.get_outputs() if output.name != "logits"]
    batches = list(scoring_batches(tokens.lengths, BATCH))
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
