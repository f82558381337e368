"""Mutations of a checkpoint: each an error that says so, or the very same checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import contents, mutations, reseal, restore
from training_helpers import checkpoint, same

from gkiller.errors import ResumeError
from gkiller.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gkiller.training.phases import Position

CHUNKS, EACH = 10, 100  # twice: 2,000 mutations


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(folder, checkpoint())
    return contents(folder)


@pytest.fixture(scope="module")
def expected(original: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("read") / "checkpoint"
    restore(folder, original)
    return load_checkpoint(folder)


def equal(one: Any, other: Any) -> bool:
    """Whether two checkpoints are the same, whatever fields they have."""
    return vars(one).keys() == vars(other).keys() and all(
        _equal(value, vars(other)[name]) for name, value in vars(one).items()
    )


def _equal(
    one: Position | dict[str, torch.Tensor] | list[dict[str, list[Any] | str]],
    other: Position | dict[str, torch.Tensor] | list[dict[str, list[Any] | str]],
) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and any(isinstance(value, torch.Tensor) for value in one.values()):
        return same(one, other)  # type: ignore[arg-type]
    return type(one) is type(other) and repr(one) == repr(other)


def attempt(folder: Path) -> tuple[Any, ...]:
    """Return the checkpoint, or the error that says why there is none."""
    try:
        return load_checkpoint(folder), None
    except ResumeError as error:
        return None, error


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damage_is_noticed(original: dict[str, bytes], expected: Checkpoint, tmp_path: Path, chunk: int) -> None:
    refused = 0
    folder = tmp_path / "checkpoint"
    for mutation in mutations(original, chunk, EACH):
        restore(folder, original)
        mutation.apply(folder)
        found, error = attempt(folder)
        if found is None:
            assert error.what, mutation.description
            assert str(folder) in error.where, mutation.description
            refused += 1
        else:
            assert equal(found, expected), mutation.description
    assert refused > EACH * 0.9


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_forger_makes_no_crash(original: dict[str, bytes], tmp_path: Path, chunk: int) -> None:
    """With right digests it may be another checkpoint; it is never another exception."""
    folder = tmp_path / "checkpoint"
    for mutation in mutations(original, 1000 + chunk, EACH):
        restore(folder, original)
        mutation.apply(folder)
        reseal(folder, "state.json")
        found, error = attempt(folder)
        assert found is not None or error.what, mutation.description


def test_an_untouched_checkpoint_is_accepted(original: dict[str, bytes], expected: Checkpoint, tmp_path: Path) -> None:
    restore(tmp_path / "checkpoint", original)
    assert equal(load_checkpoint(tmp_path / "checkpoint"), expected)
    assert not equal(checkpoint(epoch=4), checkpoint(epoch=5))
    assert not equal(checkpoint(value=1.0), checkpoint(value=2.0))
