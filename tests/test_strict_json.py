"""JSON that is read in one way only."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.storage.strict_json import MAX_DEPTH, parse_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.booleans())
def test_what_is_written_is_what_is_read(value: Any, escaped: Any) -> None:
    try:
        data = json.dumps(value, ensure_ascii=escaped).encode("utf-8")
    except UnicodeEncodeError:
        return
    assert parse_json(data) == value


@given(st.binary(max_size=60))
def test_bytes_give_an_object_or_a_value_error(data: Any) -> None:
    try:
        assert isinstance(parse_json(data), dict)
    except ValueError:
        return


@given(st.text(alphabet='{}[]":,\\u0dDeE+-.19 aNIfnty', max_size=40))
def test_what_looks_like_json_gives_an_object_or_a_value_error(text: Any) -> None:
    try:
        found = parse_json(text.encode())
    except ValueError:
        return
    assert found == json.loads(text)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("depth", "read"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (100_000, False)])
@pytest.mark.parametrize("opening", [b'{"a":', b'{"a":['])
def test_depth(depth: int, read: bool, opening: bytes) -> None:
    brackets = len(opening) - 4
    data = opening * (depth // brackets) + b'{"a":' * (depth % brackets) + b"1"
    data += b"}" * (depth % brackets) + {1: b"}", 2: b"]}"}[brackets] * (depth // brackets)
    if read:
        assert parse_json(data)
        return
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(data)


@pytest.mark.parametrize("data", [b'{"a": 1, "a": 1}', b'{"b": [{"a": 1, "\\u0061": 2}]}'])
def test_a_key_that_is_there_twice(data: bytes) -> None:
    with pytest.raises(ValueError, match="'a' is there twice"):
        parse_json(data)


def test_a_million_keys_take_time_in_proportion() -> None:
    """A search for each key among all would take hours."""
    program = (
        "from gkiller.storage.strict_json import parse_json\n"
        "keys = [*range(10**6), 10**6 - 1]\n"
        "try: parse_json(('{' + ','.join(f'\"k{key}\":1' for key in keys) + '}').encode())\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "the key 'k999999' is there twice\n"


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "9" * 400, "1e999"])
def test_a_number_of_thousands_of_digits(number: str) -> None:
    with pytest.raises(ValueError, match=r"digits|too large"):
        parse_json(f'{{"a": [{number}]}}'.encode())
