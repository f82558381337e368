"""Scores of the bench that are kept, and when they are computed again."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkiller.benchmark import quality as kept
from gkiller.benchmark.quality import KeptScores
from gkiller.benchmark.systems import SystemSpec

TEXTS = ["you are kind", "you \ud800 fool", ""]


@pytest.fixture
def spec(tmp_path: Path) -> SystemSpec:
    (tmp_path / "graph.onnx").write_bytes(b"graph")
    (tmp_path / "tokenizer.json").write_bytes(b"tokens")
    files = tuple(str(tmp_path / name) for name in ("graph.onnx", "tokenizer.json"))
    labels = ("toxicity", "threat")
    return SystemSpec("x", "gkiller", "onnx fp32", str(tmp_path), labels, 10, files, max_length=16)


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., Any]:
    """Ask for a system's scores; each time they are computed they are others."""
    numbers = count(1)

    def ask(spec: Any, texts: Any = TEXTS) -> Any:
        made = []

        def compute() -> Any:
            made.append(np.arange(len(texts) * 2.0).reshape(-1, 2) / 10 + next(numbers))
            return made[0]

        found = KeptScores(tmp_path / "scores", spec).scores(texts, compute)
        assert found.shape == (len(texts), 2)
        assert found.dtype == np.float64
        if made:
            np.testing.assert_array_equal(found, made[0])
        return found.tolist(), bool(made)

    return ask


def test_an_unchanged_system_scores_the_same_comments_once(spec: SystemSpec, scored: Callable[..., Any]) -> None:
    first, computed = scored(spec)
    assert computed
    assert scored(spec) == (first, False)
    assert scored(replace(spec, name="called otherwise", role="giant")) == (first, False)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 8},
        {"long_text": "truncate"},
        {"runtime": "onnx int8"},
        {"labels": ("threat", "toxicity")},
        {"batch_size": 2},
    ],
)
def test_another_system_scores_anew(spec: SystemSpec, scored: Callable[..., Any], change: dict[str, Any]) -> None:
    scored(spec)
    assert scored(replace(spec, **change))[1]


def test_other_files_comments_and_versions_are_scored_anew(
    spec: SystemSpec, scored: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = scored(spec)
    assert scored(spec, TEXTS[:2])[1]
    assert scored(spec, TEXTS[::-1])[1]
    (tmp_path / "graph.onnx").write_bytes(b"another")
    assert scored(spec)[1]
    (tmp_path / "graph.onnx").write_bytes(b"graph")
    assert scored(spec) == (first, False)
    monkeypatch.setattr(kept, "version", lambda package: "0")
    assert scored(spec)[1]


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 48])
def test_damaged_scores_are_computed_again(
    spec: SystemSpec, scored: Callable[..., Any], tmp_path: Path, damage: bytes
) -> None:
    scored(spec)
    [file] = (tmp_path / "scores").glob("*/scores.f64")
    file.write_bytes(damage)
    again, computed = scored(spec)
    assert computed
    assert scored(spec) == (again, False)


def test_scores_kept_before_windows_were_read_count_as_truncated(
    spec: SystemSpec, scored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names say nothing of the reading, as those of truncated comments do still."""
    digests = []
    monkeypatch.setattr(kept, "unseal", lambda place, *args, **kwargs: digests.append(place.name) or 1 / 0)  # type: ignore[func-returns-value]
    for long_text in ("truncate", "window"):
        with pytest.raises(ZeroDivisionError):
            scored(replace(spec, long_text=long_text))
    files = [kept.sha256_file(kept.Path(file)) for file in spec.files]
    limits = (spec.kind, spec.runtime, spec.labels, spec.max_length, spec.batch_size, spec.pad)
    before = [files, limits, [kept.version(one) for one in kept._PACKAGES], kept.texts_digest(TEXTS)]
    named = sha256(json.dumps(before).encode()).hexdigest()[:32]
    assert digests[0] == named != digests[1]
