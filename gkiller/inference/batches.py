"""Token ids to batches: windows of long comments, sorted by length, padded on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from gkiller.inference.encoding import Encoder

LongText = Literal["window", "truncate"]
Ints = npt.NDArray[np.int64]

BATCH_ROWS = 16
BATCH_TOKENS = 512
"""A batch has at most so many rows, and so many tokens with its padding: what one call works on then stays in
a core's cache. benchmarks/inference_batches.py compares sizes."""

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 4 << 20
"""So much of long inputs is tokenized and scored together."""

OVERLAP = 8
"""Neighbouring windows share at least an eighth of their length, so that no phrase is only seen cut."""


@dataclass(frozen=True)
class Windows:
    """Pieces of comments that fit the network.

    Attributes:
        flat: every comment's token ids, one after the other.
        first: where each window starts in ``flat``.
        length: how many tokens it has.
        owner: which comment it belongs to.
        count: windows of each comment, at least 1.
        truncated: for each comment, whether its end is in no window.
    """

    flat: Ints
    first: Ints
    length: Ints
    owner: Ints
    count: Ints
    truncated: npt.NDArray[np.bool_]


def window_starts(tokens: int, size: int) -> Ints:
    """Return where the windows of a long comment start: evenly spaced, the last one at the end.

    Args:
        tokens: of the comment.
        size: tokens of a window.
    """
    if tokens <= size:
        return np.zeros(1, np.int64)
    stride = max(1, size - size // OVERLAP)
    steps = -(-(tokens - size) // stride)
    return np.arange(steps + 1) * (tokens - size) // steps


def make_windows(ids: Sequence[list[int]], size: int, long_text: LongText) -> Windows:
    """Cut comments into windows.

    Args:
        ids: token ids of n comments.
        size: most tokens of a window.
        long_text: "window" covers every token, "truncate" reads the first ``size`` alone.
    """
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(ids) else lengths
    flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    long = lengths > size
    count = np.ones(len(ids), np.int64)
    owner = np.arange(len(ids))
    first, truncated = offsets, long
    if long_text == "window" and long.any():
        starts = [window_starts(int(lengths[i]), size) for i in np.flatnonzero(long)]
        count[long] = [len(s) for s in starts]
        owner = np.repeat(owner, count)
        first = np.repeat(offsets, count)
        first[long[owner]] += np.concatenate(starts)
    if long_text == "window":
        truncated = np.zeros_like(long)
    return Windows(flat, first, np.minimum(lengths, size)[owner], owner, count, truncated)


def batches(windows: Windows) -> Iterator[Ints]:
    """Yield the windows' positions in batches of like length; they depend on the lengths alone."""
    order = np.argsort(-windows.length, kind="stable")
    start = 0
    while start < len(order):
        longest = int(windows.length[order[start]]) + 2
        rows = min(BATCH_ROWS, max(1, BATCH_TOKENS // longest))
        yield order[start : start + rows]
        start += rows


def pad(windows: Windows, rows: Ints, encoder: Encoder) -> tuple[Ints, Ints]:
    """Return ids and mask, both int64 of shape (rows, tokens), [CLS] and [SEP] included."""
    length = windows.length[rows]
    width = int(length.max()) if len(rows) else 0
    position = np.arange(width)
    real = position < length[:, None]
    ids = np.full((len(rows), width + 2), encoder.pad, np.int64)
    ids[:, 0] = encoder.cls
    ids[:, 1:-1][real] = windows.flat[(windows.first[rows][:, None] + position)[real]]
    ids[np.arange(len(rows)), length + 1] = encoder.sep
    return ids, (np.arange(width + 2) < length[:, None] + 2).astype(np.int64)


def in_chunks(
    texts: Sequence[str], rows: int = CHUNK_ROWS, characters: int = CHUNK_CHARACTERS
) -> Iterator[Sequence[str]]:
    """Divide comments into chunks of at most so many rows and characters, at least one comment each."""
    start, size = 0, 0
    for position, text in enumerate(texts):
        if position > start and (position - start >= rows or size + len(text) > characters):
            yield texts[start:position]
            start, size = position, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]
