"""Rows in chunks, whose limits depend on the rows alone: a resumed job meets the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gkiller.inference.batches import CHUNK_CHARACTERS
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
        skipped: bad rows, as messages.
        digest: SHA-256 of every good row up to the last, in hex.
    """

    first: int
    last: int = 0
    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[str | int | float | None] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""


def chunked(rows: Iterator[Row], size: int, on_error: OnError) -> Iterator[Chunk]:
    """Divide rows into chunks of ``size``, or less when their comments are long.

    Args:
        rows: in order, numbered from 1 without gaps.
        size: most rows of a chunk.
        on_error: "fail" raises a bad row's error (earlier chunks are handed on by then), "skip" leaves the
            row out.

    Raises:
        GkillerError: a bad row, with "fail".
    """
    seen = hashlib.sha256()
    chunk: Chunk | None = None
    characters = 0
    for row in rows:
        if row.fault is not None and on_error == "fail":
            raise row.fault
        if chunk is None:
            chunk, characters = Chunk(row.number), 0
        chunk.last = row.number
        if row.fault is not None:
            chunk.skipped.append(f"{row.fault.where}: {row.fault.what}")
        else:
            chunk.rows.append(row.number)
            chunk.texts.append(row.text)
            chunk.ids.append(row.id)
            characters += len(row.text)
        if chunk.last - chunk.first + 1 >= size or characters >= CHUNK_CHARACTERS:
            yield _closed(chunk, seen)
            chunk = None
    if chunk is not None:
        yield _closed(chunk, seen)


def _closed(chunk: Chunk, seen: hashlib._Hash) -> Chunk:
    seen.update(repr((chunk.rows, chunk.ids)).encode())
    seen.update("\0".join(chunk.texts).encode("utf-8", "surrogatepass"))
    chunk.digest = seen.copy().hexdigest()
    return chunk
