"""Batches: every row once, of similar length, and the same ones for the same seed and epoch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.tokens.batches import Tokens, scoring_batches, training_batches

lengths_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=300).map(np.array)


def tokens(rows: list[Any], pad: int = 0) -> Tokens:
    starts = np.cumsum([0, *(len(row) for row in rows)])
    return Tokens(np.array([i for row in rows for i in row], dtype=np.int32), starts, pad)


@given(lengths_of_rows, st.integers(1, 17), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_every_row_once(lengths: Any, size: Any, seed: Any, epoch: Any) -> None:
    batches = training_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)  # as many steps as the trainer counts
    assert max(map(len, batches)) <= size


@given(lengths_of_rows, st.integers(1, 17), st.integers(0, 9), st.integers(0, 9))
def test_order_depends_on_seed_and_epoch_alone(lengths: Any, size: Any, seed: Any, epoch: Any) -> None:
    np.random.seed(1)
    first = training_batches(lengths, size, seed, epoch)
    np.random.seed(2)
    again = training_batches(lengths, size, seed, epoch)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]


def test_other_epochs_and_seeds_have_other_orders() -> None:
    lengths = np.full(64, 5)
    orders = {
        tuple(np.concatenate(training_batches(lengths, 8, seed, epoch))) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_rows_of_a_batch_have_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 128, 5000)
    batches = training_batches(lengths, 32, 0, 0)
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    shuffled = np.random.default_rng(1).permutation(len(lengths))
    at_random = sum(lengths[shuffled[i : i + 32]].max() * 32 for i in range(0, len(lengths), 32))
    assert padded / lengths.sum() < 1.1 < at_random / lengths.sum()


def test_batches_are_not_in_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 128, 2000)
    means = [lengths[batch].mean() for batch in training_batches(lengths, 32, 0, 0)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


@given(lengths_of_rows, st.integers(1, 17))
def test_scoring_batches_are_sorted(lengths: Any, size: Any) -> None:
    order = np.concatenate(list(scoring_batches(lengths, size)))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert lengths[order].tolist() == sorted(lengths.tolist())


rows = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), min_size=1, max_size=20)


@given(rows, st.data())
def test_pad_batch(rows: Any, data: Any) -> None:
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8)))
    ids, mask = tokens(rows, pad=0).pad_batch(chosen)
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape == mask.shape == (len(chosen), max(len(rows[i]) for i in chosen))
    for line, row in enumerate(chosen):
        length = len(rows[row])
        assert ids[line].tolist() == rows[row] + [0] * (ids.shape[1] - length)
        assert mask[line].tolist() == [1] * length + [0] * (ids.shape[1] - length)


@pytest.mark.parametrize("pad", [0, 7])
def test_the_padding_id_is_the_tokenizer_s(pad: int) -> None:
    ids, _ = tokens([[1, 2, 3], [4]], pad).pad_batch(np.array([0, 1]))
    assert ids.tolist() == [[1, 2, 3], [4, pad, pad]]


@given(rows, st.data())
def test_some_comments_are_replaced(rows: Any, data: Any) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    some = st.lists(st.integers(100, 199), max_size=12)
    others = data.draw(st.lists(some, min_size=len(places), max_size=len(places)))
    found = tokens(rows, pad=7).replaced(np.array(places, np.int64), tokens(others))
    expected = [others[places.index(i)] if i in places else row for i, row in enumerate(rows)]
    assert found.ids.tolist() == tokens(expected).ids.tolist()
    assert found.starts.tolist() == tokens(expected).starts.tolist()
    assert (found.ids.dtype, found.starts.dtype, found.pad) == (np.int32, np.int64, 7)  # type: ignore[comparison-overlap]


@given(rows, st.data())
def test_some_comments_are_taken(rows: Any, data: Any) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    found = tokens(rows).taken(np.array(places, np.int64))
    assert found.ids.tolist() == tokens([rows[place] for place in places]).ids.tolist()
    assert found.starts.tolist() == tokens([rows[place] for place in places]).starts.tolist()


def test_lengths() -> None:
    found = tokens([[1, 2, 3], [], [4]])
    assert found.lengths.tolist() == [3, 0, 1]
    assert len(found) == 3
