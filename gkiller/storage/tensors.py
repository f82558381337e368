"""Tensors from safetensors bytes that anybody may have written. Pickles and archives are never opened.

The header is read here because the library takes a name twice, unknown keys and any number of dimensions, and it
checks sizes only where it copies the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gkiller.storage.strict_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 4 * 2**20  # a BERT-Large with five dendrites on each Linear has under 1 MiB
MAX_NAME = 200
MAX_DIMENSIONS = 8
ITEM_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""Bytes of a number, by the types that are read at all."""
FLOATS: Final = frozenset({"F32", "F16", "BF16"})
"""Types that weights may have."""
_LENGTH = 8  # bytes of the header's length, little-endian
_OTHERS = {
    b"PK": "a zip archive or a torch pickle file",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle file"),
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"(\xb5/\xfd": "a zstandard file",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a pointer to a file of Git LFS, not the file",
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor."""

    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(data: bytes, dtypes: Collection[str] = tuple(ITEM_BYTES)) -> dict[str, TensorInfo]:
    """Read what the tensors are, without allocating any.

    Raises:
        ValueError: the header is not safetensors', is longer than `MAX_HEADER_BYTES`, names a tensor twice,
            a type that is not among ``dtypes``, or sizes that are not exactly those of the bytes that follow.
    """
    for start, what in _OTHERS.items():
        # The length of a header, which "{" follows, may look like another format's mark.
        if data.startswith(start) and not data.startswith(b"{", _LENGTH):
            raise ValueError(f"this is {what}, and only safetensors is read")
    length = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or not 2 <= length <= len(data) - _LENGTH:
        raise ValueError("not safetensors: the header's length is not that of a header in this file")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {length:,} bytes, and {MAX_HEADER_BYTES:,} are allowed")
    header = parse_json(data[_LENGTH : _LENGTH + length])
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ValueError("not safetensors: __metadata__ is not an object of texts")
    found = {name: _entry(name, entry, dtypes) for name, entry in header.items()}
    at, size = 0, len(data) - _LENGTH - length
    for name, info in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != at:
            raise ValueError(f"{name} {'overlaps another tensor' if info.start < at else 'leaves a gap before it'}")
        at = info.end
    if at != size:
        raise ValueError(f"the tensors have {at:,} bytes, and the file has {size:,} for them")
    return found


def check_shapes(found: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError where a tensor is missing, not wanted, or of another shape."""
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"{len(missing)} tensors are missing, first {missing[0]}")
    if extra := [name for name in found if name not in expected]:
        raise ValueError(f"{len(extra)} tensors belong to nothing, first {extra[0]}")
    for name, shape in expected.items():
        if found[name].shape != tuple(shape):
            raise ValueError(f"{name} has the shape {list(found[name].shape)}, not {list(shape)}")


def read_tensors(
    data: bytes, *, dtypes: Collection[str] = tuple(ITEM_BYTES), expected: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, on the CPU.

    Args:
        data: the whole file; the caller has bounded its size, and what is allocated is bounded by it.
        expected: the names and shapes that are wanted, compared before anything is allocated.

    Raises:
        ValueError: as `read_header` and `check_shapes`, or a number is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = read_header(data, dtypes)
    if expected is not None:
        check_shapes(header, expected)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"not safetensors: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    return tensors


def _entry(name: str, entry: Any, dtypes: Collection[str]) -> TensorInfo:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"{name[:80]!r} is not a tensor's name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: not a tensor's description")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise ValueError(f"{name} has the type {str(dtype)[:20]!r}, and {', '.join(sorted(dtypes))} are read")
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has invalid sizes")
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"{name} has the shape {shape} of {dtype} and {end - start} bytes")
    return TensorInfo(dtype, tuple(shape), start, end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**48 for size in value)
