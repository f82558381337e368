"""Thousands of mutations of a model directory: each an error that says so, or the very same model."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import Mutation, contents, mutations, reseal, restore
from giants import KINDS
from saved_models import save, save_giant

from gkiller.errors import GkillerError, ModelFormatError, ModelTamperedError
from gkiller.model.directory import load_model
from gkiller.scoring.models import score_texts

TEXTS = ["good work on the map", "you idiot [SEP] 中文 🙂", "", "x" * 300]
CHUNKS, EACH = 12, 100  # twice: 2,400 mutations
GIANT_EACH = 300


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a model directory."""
    return contents(save(tmp_path_factory.mktemp("saved") / "model"))


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "bert"])
def giant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a giant's model directory."""
    folder = tmp_path_factory.mktemp(request.param)
    return contents(save_giant(folder / "model", request.param, folder / "encoder"))


def mutated(files: dict[str, bytes], folder: Path, mutation: Mutation) -> Path:
    restore(folder, files)
    mutation.apply(folder)
    return folder


@contextmanager
def reported(seed: int, mutation: Mutation) -> Iterator[None]:
    """Say which mutation it was, and let none take half a gigabyte."""
    try:
        with little_memory():
            yield
    except BaseException as error:
        error.add_note(f"seed {seed}, mutation {mutation.description}")
        raise


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail when the process has needed half a gigabyte more than ever before; where that is told."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        yield
        return
    unit = 1 if sys.platform == "darwin" else 1024
    before = getrusage(RUSAGE_SELF).ru_maxrss
    yield
    assert (getrusage(RUSAGE_SELF).ru_maxrss - before) * unit < 2**29


def same(folder: Path, before: Any) -> bool:
    """Whether no file has changed, but for the spelling of gkiller.json: its digest is of its content."""
    try:
        after = contents(folder)
        kept = json.loads(after.pop("gkiller.json")) == json.loads(before["gkiller.json"])
    except (KeyError, ValueError):
        return False
    return kept and after == {k: v for k, v in before.items() if k != "gkiller.json"}


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns, and the error that it raises when that is one of ours."""
    try:
        return call(*arguments), None
    except GkillerError as error:
        return None, error


def check_damaged(folder: Path, before: dict[str, bytes]) -> bool:
    """Without new digests: refused, or not damaged at all. Returns whether it was refused."""
    _, error = attempt(load_model, folder)
    if error is None:
        assert same(folder, before)
        return False
    assert error.what
    assert str(folder) in error.where
    return True


def check_forged(folder: Path) -> bool:
    """With right digests: refused, or a model that holds together. Returns whether it was refused."""
    loaded, error = attempt(load_model, folder)
    if loaded is None:
        assert error.what
        return True
    assert all(bool(torch.isfinite(p).all()) for p in loaded.model.parameters())
    assert loaded.thresholds.keys() == set(loaded.labels)
    assert all(0 <= threshold <= 1 for threshold in loaded.thresholds.values())
    scores, error = attempt(score_texts, loaded, TEXTS)
    if scores is None:
        assert "not a number" in error.what
        return True
    assert scores.shape == (len(TEXTS), len(loaded.labels))
    assert ((scores >= 0) & (scores <= 1)).all()
    return False


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damage_is_noticed(original: dict[str, bytes], tmp_path: Path, chunk: int) -> None:
    refused = 0
    for mutation in mutations(original, chunk, EACH):
        folder = mutated(original, tmp_path / "model", mutation)
        with reported(chunk, mutation):
            refused += check_damaged(folder, original)
    assert refused > EACH * 0.9


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_forger_makes_no_wreck(original: dict[str, bytes], tmp_path: Path, chunk: int) -> None:
    refused = 0
    for mutation in mutations(original, 1000 + chunk, EACH):
        folder = mutated(original, tmp_path / "model", mutation)
        reseal(folder, "gkiller.json")
        with reported(1000 + chunk, mutation):
            refused += check_forged(folder)
    assert 0.2 * EACH < refused < EACH  # otherwise the digests alone were tested, or nothing was


def test_damage_of_a_giant_is_noticed(giant: dict[str, bytes], tmp_path: Path) -> None:
    refused = 0
    for mutation in mutations(giant, 2000, EACH):
        folder = mutated(giant, tmp_path / "model", mutation)
        with reported(2000, mutation):
            refused += check_damaged(folder, giant)
    assert refused > EACH * 0.9


def test_a_forger_makes_no_wreck_of_a_giant(giant: dict[str, bytes], tmp_path: Path) -> None:
    refused = 0
    for mutation in mutations(giant, 3000, GIANT_EACH):
        folder = mutated(giant, tmp_path / "model", mutation)
        reseal(folder, "gkiller.json")
        with reported(3000, mutation):
            refused += check_forged(folder)
    assert 0.2 * GIANT_EACH < refused < GIANT_EACH


def test_the_same_seed_gives_the_same_mutations(original: dict[str, bytes], tmp_path: Path) -> None:
    for one, other in zip(mutations(original, 3, 40), mutations(original, 3, 40), strict=True):
        first = contents(mutated(original, tmp_path / "a" / "model", one))
        second = contents(mutated(original, tmp_path / "b" / "model", other))
        assert (one.description, first) == (other.description, second)


def test_an_untouched_model_is_accepted(original: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    restore(folder, original)
    scores = score_texts(load_model(folder), TEXTS)
    assert not check_damaged(folder, original)
    reseal(folder, "gkiller.json")
    assert not check_forged(folder)
    np.testing.assert_array_equal(score_texts(load_model(folder), TEXTS), scores)


def test_the_check_of_a_forgery_can_fail(original: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    restore(folder, original)
    content = json.loads((folder / "gkiller.json").read_text())
    content["thresholds"]["threat"]["value"] = 2
    (folder / "gkiller.json").write_text(json.dumps(content))
    with pytest.raises(ModelTamperedError):
        load_model(folder)
    reseal(folder, "gkiller.json")
    with pytest.raises(ModelFormatError, match="the threshold '2' is not in"):
        load_model(folder)
