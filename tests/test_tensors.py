"""Tensors from safetensors bytes: what the library writes is read, and the header is believed in nothing."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from gkiller.storage.tensors import ITEM_BYTES, check_shapes, read_header, read_tensors

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.dictionaries(
    st.text("abc./_", min_size=1, max_size=9), st.tuples(SHAPES, st.sampled_from(sorted(TYPES))), max_size=5
)
SMALL = save({"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.int64)}, {"format": "pt"})


@given(TENSORS)
def test_what_safetensors_writes_is_read(described: Any) -> None:
    before = {name: torch.ones(shape).to(TYPES[dtype]) for name, (shape, dtype) in described.items()}
    data = save(before)
    header = read_header(data)
    assert {name: (info.shape, info.dtype) for name, info in header.items()} == described
    check_shapes(header, {name: shape for name, (shape, _) in described.items()})
    after = read_tensors(data)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19_280])
def test_a_header_whose_length_looks_like_another_format_is_read(length: int) -> None:
    """Its first two bytes are those of a pickle, or of a zip archive."""
    tensors = {f"{number:0120}": torch.ones(1) for number in range(length // 200)}
    bare = int.from_bytes(save(tensors, {"n": ""})[:8], "little")
    data = save(tensors, {"n": "x" * (length - bare)})
    assert int.from_bytes(data[:8], "little") == length
    assert read_header(data).keys() == tensors.keys()


def test_all_types_that_are_read_are_known() -> None:
    assert TYPES.keys() == ITEM_BYTES.keys()
    for name, dtype in TYPES.items():
        assert torch.empty(0, dtype=dtype).element_size() == ITEM_BYTES[name]


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_tensors_or_a_value_error(at: Any, difference: Any) -> None:
    data = bytearray(SMALL)
    data[at] ^= difference
    try:
        read_tensors(bytes(data))
    except ValueError:
        return


@given(st.integers(0, len(SMALL) - 1))
def test_every_shorter_file_is_refused(length: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_tensors(SMALL[:length])


@given(st.binary(min_size=1, max_size=40))
def test_every_longer_file_is_refused(tail: Any) -> None:
    with pytest.raises(ValueError, match="the file has"):
        read_tensors(SMALL + tail)


@given(st.binary(max_size=100))
def test_any_bytes_give_tensors_or_a_value_error(data: Any) -> None:
    try:
        read_tensors(data)
    except ValueError:
        return


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_not_finite(value: float, dtype: Any) -> None:
    bad = torch.zeros(1000, dtype=dtype)
    bad[777] = value
    with pytest.raises(ValueError, match=r"^bad holds values that are not finite$"):
        read_tensors(save({"good": torch.ones(3), "bad": bad}))


def test_types_and_shapes_are_compared_first() -> None:
    with pytest.raises(ValueError, match="b has the type 'I64', and BF16, F16, F32 are read"):
        read_tensors(SMALL, dtypes=("F32", "F16", "BF16"))
    with pytest.raises(ValueError, match="1 tensors are missing, first c"):
        read_tensors(SMALL, expected={"a": (3,), "b": (2, 2), "c": ()})
    with pytest.raises(ValueError, match="1 tensors belong to nothing, first b"):
        read_tensors(SMALL, expected={"a": (3,)})
    with pytest.raises(ValueError, match=r"b has the shape \[2, 2\], not \[4\]"):
        read_tensors(SMALL, expected={"a": (3,), "b": (4,)})


def test_a_library_that_is_stricter_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def refuse(data: Any) -> None:
        raise SafetensorError("no")

    monkeypatch.setattr("safetensors.torch.load", refuse)
    with pytest.raises(ValueError, match="not safetensors: no"):
        read_tensors(SMALL)


def test_a_header_may_be_padded_with_spaces() -> None:
    length = int.from_bytes(SMALL[:8], "little")
    header = json.dumps(json.loads(SMALL[8 : 8 + length])).encode() + b" " * 9
    data = len(header).to_bytes(8, "little") + header + SMALL[8 + length :]
    assert torch.equal(read_tensors(data)["a"], torch.arange(3.0))
