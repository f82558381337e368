"""Rows in chunks.

Their limits depend on the rows alone, so that a resumed job meets the same ones; only where rows are answered
as they come does a chunk end early.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gkiller.inference.batches import CHUNK_CHARACTERS
from gkiller.inference.bulk.keeping import extent
from gkiller.inference.bulk.reading import Row

OnError = Literal["fail", "skip"]


@dataclass
class Chunk:
    """Rows that are scored and written together.

    Attributes:
        first: number of the first row, bad ones included.
        last: number of the last row.
        rows: numbers of the good rows.
        texts: their comments.
        ids: their ids.
        kept: values of their other columns, where any are kept.
        skipped: bad rows, as messages.
        digest: SHA-256 of every good row up to the last, in hex.
        due: whether its answers, and all before, are due now, as the next row has not come yet.
    """

    first: int
    last: int = 0
    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[str | int | float | None] = field(default_factory=list)
    kept: list[tuple[Any, ...]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""
    due: bool = False


def chunked(
    rows: Iterator[Row | None], size: int, on_error: OnError, *, live: bool = False
) -> Iterator[Chunk]:
    """Divide rows into chunks of ``size``, or less when their comments are long.

    Args:
        rows: in order, numbered from 1 without gaps; None says that the next one has not come yet.
        size: most rows of a chunk.
        on_error: "fail" raises a bad row's error (earlier chunks are handed on by then), "skip" leaves the
            row out.
        live: whether a chunk, be it without a row, ends where the next row has not come yet.

    Raises:
        GkillerError: a bad row, with "fail".
    """
    seen = hashlib.sha256()
    chunk: Chunk | None = None
    characters, last = 0, 0
    for row in rows:
        if row is None:
            if live and last:
                chunk = chunk or Chunk(last + 1, last)
                chunk.due = True
                yield _closed(chunk, seen)
                chunk = None
            continue
        if row.fault is not None and on_error == "fail":
            raise row.fault
        if chunk is None:
            chunk, characters = Chunk(row.number), 0
        chunk.last = last = row.number
        if row.fault is not None:
            chunk.skipped.append(f"{row.fault.where}: {row.fault.what}")
        else:
            chunk.rows.append(row.number)
            chunk.texts.append(row.text)
            chunk.ids.append(row.id)
            chunk.kept.append(row.kept)
            characters += len(row.text) + sum(map(extent, row.kept))
        if chunk.last - chunk.first + 1 >= size or characters >= CHUNK_CHARACTERS:
            yield _closed(chunk, seen)
            chunk = None
    if chunk is not None:
        yield _closed(chunk, seen)


def _closed(chunk: Chunk, seen: hashlib._Hash) -> Chunk:
    seen.update(repr((chunk.rows, chunk.ids)).encode())
    if any(chunk.kept):
        seen.update(repr(chunk.kept).encode("utf-8", "surrogatepass"))
    seen.update("\0".join(chunk.texts).encode("utf-8", "surrogatepass"))
    chunk.digest = seen.copy().hexdigest()
    return chunk
