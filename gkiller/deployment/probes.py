"""Fixed random token sequences with their scores: the gate that runs again on another machine.

int8 arithmetic differs between processors: without VNNI, sums of two products are cut at 16 bits. A model
directory therefore holds token sequences, drawn at random so that no comment is given away, with the scores
that each graph gave where it was made. Some are longer than the network reads at once: they have windows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.deployment.runtime import score_tokens, session
from gkiller.errors import ModelFormatError, one_line
from gkiller.model.reading import windowed
from gkiller.model.wordpiece import special_ids
from gkiller.strict_json import parse_json

if TYPE_CHECKING:
    import onnx

    from gkiller.model.directory import LoadedModel
    from gkiller.model.reading import Read
    from gkiller.ort import onnxruntime

COUNT: Final = 64
LONG: Final = 8
"""Of them, those that are longer than a window."""
SEED: Final = 0
VERSION: Final = 2
OLDER: Final = 1
"""Without a window: no sequence is longer than the network reads at once."""
DIGITS: Final = 6

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probes:
    """Token sequences and what scores they got.

    Attributes:
        ids: the sequences, [CLS] and [SEP] included.
        window: most tokens that are read at once, [CLS] and [SEP] included; None in older files.
        reference: (n, L), the trained model's scores.
        scores: (n, L) by graph, such as "onnx/model.onnx".
    """

    ids: tuple[tuple[int, ...], ...]
    window: int | None
    reference: Scores
    scores: dict[str, Scores]

    @property
    def read(self) -> Read:
        """The windows of the sequences."""
        longest = max(map(len, self.ids))
        first, *_, last = self.ids[0]
        inner = [list(sequence[1:-1]) for sequence in self.ids]
        return windowed(inner, self.window or longest, [first], [last], pad=0)

    def text(self) -> str:
        """Return the content of the file."""
        value = {
            "version": OLDER if self.window is None else VERSION,
            "seed": SEED,
            **({} if self.window is None else {"window": self.window}),
            "ids": [list(sequence) for sequence in self.ids],
            "reference": _rounded(self.reference),
            "scores": {name: _rounded(scores) for name, scores in sorted(self.scores.items())},
        }
        return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"

    def with_scores(self, name: str, scores: Scores) -> Probes:
        """Return the same with the scores of one more graph."""
        return Probes(self.ids, self.window, self.reference, {**self.scores, name: scores})


def new_probes(loaded: LoadedModel) -> Probes:
    """Draw sequences and score each window alone with the trained model."""
    import torch

    probes = Probes(_draw(loaded), loaded.max_length, np.zeros((COUNT, len(loaded.labels))), {})
    read, rows = probes.read, []
    with torch.inference_mode():
        for window in range(len(read.tokens)):
            ids, mask = map(torch.from_numpy, read.tokens.pad_batch(np.array([window])))
            rows.append(loaded.model.probabilities(loaded.model(ids, mask))[0].double().numpy())
    return replace(probes, reference=read.highest(np.stack(rows)))


def score_probes(probes: Probes, graph: bytes | onnx.ModelProto | onnxruntime.InferenceSession) -> Scores:
    """Score each window alone with a graph, so that no other has a part in it; of each sequence, (n, L)."""
    running = graph if hasattr(graph, "run") else session(graph)
    read = probes.read
    found: Scores = read.highest(score_tokens(running, read.tokens, batch_size=1))
    return found


def read_probes(data: bytes, where: str) -> Probes:
    """Read the content of the file.

    Raises:
        ModelFormatError: it is not one of ours.
    """
    try:
        value: dict[str, Any] = parse_json(data)
        if value["version"] not in (OLDER, VERSION):
            raise ValueError(f"version {value['version']!r} is unknown")
        probes = Probes(
            _sequences(value["ids"]),
            _window(value["window"]) if value["version"] == VERSION else None,
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
    for number in range(COUNT):
        size = loaded.max_length - 1
        low, high = (size, 3 * size) if number >= COUNT - LONG else (0, size)
        length = int(random.integers(low, high))
        drawn.append((ids.first, *map(int, random.choice(pieces, length)), ids.last))
    return tuple(drawn)


def _sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    found = tuple(tuple(int(i) for i in sequence) for sequence in value)
    if not found or min(map(len, found)) < 2:
        raise ValueError("a sequence lacks its ends")
    return found


def _window(value: Any) -> int:
    if type(value) is not int or value < 3:
        raise ValueError(f"a window of {str(value)[:80]} tokens")
    return value


def _rounded(scores: Scores) -> list[list[float]]:
    return [[round(float(value), DIGITS) for value in row] for row in scores]


def _table(rows: Any, count: int) -> Scores:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or len(table) != count or not np.isfinite(table).all():
        raise ValueError(f"scores of shape {table.shape} for {count} sequences")
    return table
