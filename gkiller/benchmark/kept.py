"""Scores that are kept: an unchanged system does not score the same comments twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from gkiller.benchmark.systems import Scores, SystemSpec
from gkiller.data.load import texts_digest
from gkiller.files import atomic_directory, sha256_file
from gkiller.sealed import SealBrokenError, seal, unseal

_SEAL: Final = "scores.json"
_FILE: Final = "scores.f64"
_VERSION: Final = 1
_PACKAGES: Final = ("gkiller", "torch", "onnxruntime", "scikit-learn", "tokenizers", "numpy")
_SIZE: Final = 8
"""Bytes of a score."""


class KeptScores:
    """The scores of one system, in a directory for each set of comments.

    Args:
        folder: holds the directories, each named by a fingerprint of everything that its scores depend on:
            the system's files, limits and reading, the comments, and the versions of the packages.
        spec: of the system.
    """

    def __init__(self, folder: Path, spec: SystemSpec) -> None:
        self._folder = folder
        self._labels = len(spec.labels)
        files = [sha256_file(Path(file)) for file in spec.files]
        limits = (spec.kind, spec.runtime, spec.labels, spec.max_length, spec.batch_size, spec.pad)
        # Older scores are of truncated comments, and their names say nothing of the reading.
        reading = [spec.long_text] if spec.max_length and spec.long_text != "truncate" else []
        self._facts: list[Any] = [files, limits, [version(package) for package in _PACKAGES], *reading]

    def scores(self, texts: Sequence[str], compute: Callable[[], Scores]) -> Scores:
        """Return the scores of n comments, float64 (n, L): those that are kept, else computed and kept.

        Raises:
            OutputError: they cannot be written.
        """
        facts = json.dumps([*self._facts, texts_digest(texts)])
        place = self._folder / hashlib.sha256(facts.encode()).hexdigest()[:32]
        shape = (len(texts), self._labels)
        try:
            size = shape[0] * shape[1] * _SIZE
            found = unseal(place, _SEAL, version=_VERSION, keep={_FILE: size}, exact=True).kept[_FILE]
            return np.frombuffer(found, np.float64).reshape(shape)
        except (SealBrokenError, OSError, ValueError):
            scores = compute()
        with atomic_directory(place) as temporary:
            (temporary / _FILE).write_bytes(np.ascontiguousarray(scores, np.float64).tobytes())
            seal(temporary, _SEAL, {"format_version": _VERSION})
        return scores
