"""Fixed random token sequences with their scores: the gate that runs again on another machine.

int8 arithmetic differs between processors: without VNNI, sums of two products are cut at 16 bits. A model
directory therefore holds token sequences, drawn at random so that no comment is given away, with the scores
that each graph gave where it was made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.deployment.runtime import session, tokens_of
from gkiller.errors import ModelFormatError, one_line
from gkiller.model.wordpiece import special_ids
from gkiller.strict_json import parse_json

if TYPE_CHECKING:
    import onnx

    from gkiller.model.directory import LoadedModel
    from gkiller.ort import onnxruntime

COUNT: Final = 64
SEED: Final = 0
VERSION: Final = 1
DIGITS: Final = 6

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probes:
    """Token sequences and what scores they got.

    Attributes:
        ids: the sequences, [CLS] and [SEP] included.
        reference: (n, L), the trained model's scores.
        scores: (n, L) by graph, such as "onnx/model.onnx".
    """

    ids: tuple[tuple[int, ...], ...]
    reference: Scores
    scores: dict[str, Scores]

    def text(self) -> str:
        """Return the content of the file."""
        value = {
            "version": VERSION,
            "seed": SEED,
            "ids": [list(sequence) for sequence in self.ids],
            "reference": _rounded(self.reference),
            "scores": {name: _rounded(scores) for name, scores in sorted(self.scores.items())},
        }
        return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"

    def with_scores(self, name: str, scores: Scores) -> Probes:
        """Return the same with the scores of one more graph."""
        return Probes(self.ids, self.reference, {**self.scores, name: scores})


def new_probes(loaded: LoadedModel) -> Probes:
    """Draw sequences and score each alone with the trained model."""
    import torch

    ids = _draw(loaded)
    rows = []
    with torch.inference_mode():
        for sequence in ids:
            batch = torch.tensor([sequence])
            logits = loaded.model(batch, torch.ones_like(batch))
            rows.append(loaded.model.probabilities(logits)[0].double().numpy())
    return Probes(ids, np.stack(rows), {})


def score_probes(probes: Probes, graph: bytes | onnx.ModelProto | onnxruntime.InferenceSession) -> Scores:
    """Score each sequence alone with a graph, so that no other one has a part in it; (n, L)."""
    from gkiller.deployment.runtime import score_tokens

    running = graph if hasattr(graph, "run") else session(graph)
    return score_tokens(running, tokens_of(probes.ids, pad=0), batch_size=1)


def read_probes(data: bytes, where: str) -> Probes:
    """Read the content of the file.

    Raises:
        ModelFormatError: it is not one of ours.
    """
    try:
        value: dict[str, Any] = parse_json(data)
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']!r} is unknown")
        probes = Probes(
            tuple(tuple(int(i) for i in sequence) for sequence in value["ids"]),
            _table(value["reference"], len(value["ids"])),
            {str(name): _table(rows, len(value["ids"])) for name, rows in value["scores"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFormatError(
            f"not a list of probes: {one_line(error)}", where=where, remedy="export the model again"
        ) from error
    return probes


def _draw(loaded: LoadedModel) -> tuple[tuple[int, ...], ...]:
    tokenizer = loaded.tokenizer
    ids = special_ids(tokenizer)
    special = {*ids.kept, ids.mask}
    pieces = np.array([i for i in range(tokenizer.get_vocab_size()) if i not in special])
    random = np.random.default_rng(SEED)
    drawn = []
    for _ in range(COUNT):
        length = int(random.integers(0, loaded.max_length - 1))
        drawn.append((ids.first, *map(int, random.choice(pieces, length)), ids.last))
    return tuple(drawn)


def _rounded(scores: Scores) -> list[list[float]]:
    return [[round(float(value), DIGITS) for value in row] for row in scores]


def _table(rows: Any, count: int) -> Scores:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or len(table) != count or not np.isfinite(table).all():
        raise ValueError(f"scores of shape {table.shape} for {count} sequences")
    return table
