"""Fixed random token sequences with their scores: the gate that runs again on another machine.

int8 arithmetic differs between processors: without VNNI, sums of two products are cut at 16 bits. A model
directory therefore holds token sequences, drawn at random so that no comment is given away, with the scores
that each graph gave where it was made. Some are longer than the network reads at once: they have windows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gkiller.errors import ExportError, ModelFormatError
from gkiller.inference.session import INPUTS, OUTPUT, Ids, Scores, Session
from gkiller.model.layout import (
    FORMAT_VERSION,
    LIMITS,
    META,
    PROBES,
    find_model,
    read_labels,
    read_thresholds,
    unbroken,
)
from gkiller.storage.environment import CPU_FLAGS, read_cpu
from gkiller.storage.sealed import Sealed, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.batches import Network, Read, Tokens, scoring_batches, windowed
from gkiller.tokens.wordpiece import special_ids
from gkiller.wording import Progress, one_line

if TYPE_CHECKING:
    import onnx

    from gkiller.inference.ort import onnxruntime
    from gkiller.model.directory import LoadedModel

COUNT: Final = 64
LONG: Final = 8  # of them, those that are longer than a window
SEED: Final = 0
VERSION: Final = 2
OLDER: Final = 1  # without a window: no sequence is longer than the network reads at once
DIGITS: Final = 6


def session(graph: bytes | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Load a graph on one thread of the CPU."""
    from gkiller.inference.ort import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(running: onnxruntime.InferenceSession, ids: Ids, mask: Ids, outputs: Sequence[str] = (OUTPUT,)) -> list[Any]:
    """Return the outputs of a graph for ids and mask, int64 (rows, tokens)."""
    found: list[Any] = running.run(list(outputs), dict(zip(INPUTS, (ids, mask), strict=True)))
    return found


def score_tokens(
    running: onnxruntime.InferenceSession, tokens: Tokens, batch_size: int = 64, progress: Progress | None = None
) -> Scores:
    """Return the scores of n tokenized comments, float64 of shape (n, L)."""
    found: dict[int, npt.NDArray[np.float32]] = {}
    for rows in scoring_batches(tokens.lengths, batch_size):
        [logits] = run(running, *tokens.pad_batch(rows))
        found.update(zip(rows.tolist(), logits, strict=True))
        if progress is not None:
            progress(len(found), len(tokens))
    return sigmoid(np.stack([found[row] for row in range(len(tokens))]))


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Return the scores of logits."""
    # Both forms are exact; each is used where it cannot overflow.
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))


@dataclass(frozen=True)
class Probes:
    """Token sequences and what scores they got."""

    ids: tuple[tuple[int, ...], ...]
    window: int | None  # most tokens that are read at once, [CLS] and [SEP] included; None in older files
    reference: Scores  # (n, L), the trained model's scores
    scores: dict[str, Scores]  # (n, L) by graph, such as "onnx/model.onnx"

    @property
    def read(self) -> Read:
        """The windows of the sequences."""
        first, *_, last = self.ids[0]
        inner = [list(sequence[1:-1]) for sequence in self.ids]
        return windowed(inner, self.window or max(map(len, self.ids)), [first], [last], pad=0)

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
        return replace(self, scores={**self.scores, name: scores})


def new_probes(loaded: LoadedModel) -> Probes:
    """Draw sequences, and score them with the trained model."""
    import torch

    def network(ids: Ids, mask: Ids) -> Scores:
        scores: Any = loaded.model.probabilities(loaded.model(torch.from_numpy(ids), torch.from_numpy(mask)))
        found: Scores = scores.double().numpy()
        return found

    probes = Probes(_draw(loaded), loaded.max_length, np.zeros((COUNT, len(loaded.labels))), {})
    with torch.inference_mode():
        reference: Scores = probes.read.highest(_alone(probes.read, network))
    return replace(probes, reference=reference)


def score_probes(probes: Probes, graph: bytes) -> Scores:
    """Score the sequences with a graph, (n, L)."""
    running, read = session(graph), probes.read
    found: Scores = read.highest(sigmoid(_alone(read, lambda ids, mask: run(running, ids, mask)[0])))
    return found


def _alone(read: Read, network: Network) -> npt.NDArray[Any]:
    """Return what a network gives to each window alone, so that no other has a part in it."""
    return np.concatenate([network(*read.tokens.pad_batch(np.array([row]))) for row in range(len(read.tokens))])


def read_probes(data: bytes, where: str) -> Probes:
    """Read the content of the file; a ModelFormatError for one that is not ours."""
    try:
        value = parse_json(data)
        if value["version"] not in (OLDER, VERSION):
            raise ValueError(f"version {value['version']!r} is unknown")
        ids = tuple(tuple(int(i) for i in sequence) for sequence in value["ids"])
        if not ids or min(map(len, ids)) < 2:
            raise ValueError("a sequence lacks its ends")
        window = value["window"] if value["version"] == VERSION else None
        if value["version"] == VERSION and (type(window) is not int or window < 3):
            raise ValueError(f"a window of {str(window)[:80]} tokens")
        scores = {str(name): _table(rows, len(ids)) for name, rows in value["scores"].items()}
        return Probes(ids, window, _table(value["reference"], len(ids)), scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"not a list of probes: {one_line(error)}"
        raise ModelFormatError(what, where=where, remedy="export the model again") from error


def _draw(loaded: LoadedModel) -> tuple[tuple[int, ...], ...]:
    tokenizer = loaded.tokenizer
    ids = special_ids(tokenizer)
    special = {*ids.kept, ids.mask}
    pieces = np.array([i for i in range(tokenizer.get_vocab_size()) if i not in special])
    random = np.random.default_rng(SEED)
    drawn, size = [], loaded.max_length - 1
    for low, high in [(0, size)] * (COUNT - LONG) + [(size, 3 * size)] * LONG:
        length = int(random.integers(low, high))
        drawn.append((ids.first, *map(int, random.choice(pieces, length)), ids.last))
    return tuple(drawn)


def _rounded(scores: Scores) -> list[list[float]]:
    return [[round(float(value), DIGITS) for value in row] for row in scores]


def _table(rows: Any, count: int) -> Scores:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or len(table) != count or not np.isfinite(table).all():
        raise ValueError(f"scores of shape {table.shape} for {count} sequences")
    return table


@dataclass(frozen=True)
class Recheck:
    """How a graph scores here."""

    file: str
    probes: int
    max_difference: float
    from_reference: float
    flips: int  # decisions that differ from those where it was exported, at the stored thresholds
    score_difference: float
    flip_share: float
    missing_flags: tuple[str, ...]
    decisions: int

    @property
    def passed(self) -> bool:
        """Whether both limits are kept."""
        return self.max_difference <= self.score_difference and self.flips <= self.flip_share * self.decisions


def recheck(path: str | Path) -> list[Recheck]:
    """Score the probes with every graph that is there; the weights and the other graphs need not be.

    Raises:
        ExportError: the model has no graph.
        ModelTamperedError: a graph or the probes are not what was written.
        ModelFormatError: its probes, or what it says of a graph, are not readable; a graph does not run here.
    """
    directory = find_model(path)
    content = _unseal(directory, {}).content
    exports: dict[str, Any] = content.get("exports") or {}
    files = sorted(file for file in exports if (directory / file).is_file())
    if not files:
        raise ExportError("the model has no graph yet", where=str(directory), remedy=f"run: gkiller export {directory}")
    stored = _unseal(directory, {name: LIMITS[name] for name in (PROBES, *files)}).kept
    probes = read_probes(stored[PROBES], str(directory / PROBES))
    labels = read_labels(content["labels"])
    cuts, here = np.array(list(read_thresholds(content["thresholds"], labels).values())), read_cpu()[1]
    found = []
    for file in files:
        facts, there = exports[file], probes.scores[file]
        where = str(directory / file)
        try:
            logits = _alone(probes.read, Session(stored[file], where, len(labels), []).run)
        except ModelFormatError as error:
            error.what = f"onnxruntime {version('onnxruntime')} cannot run the graph here: {error.what}"
            made_with = f"it was exported with onnxruntime {facts['onnxruntime']}"
            error.remedy = f"{made_with}: install that, or export the model again"
            raise
        scores = probes.read.highest(sigmoid(logits))
        if not scores.shape == there.shape == probes.reference.shape:
            what = f"the stored scores are not of the {len(labels)} labels"
            raise ModelFormatError(what, where=where, remedy="export the model again")
        limits = facts["gate"]["limits"]
        found.append(
            Recheck(
                file=file,
                probes=len(scores),
                max_difference=float(np.abs(scores - there).max()),
                from_reference=float(np.abs(scores - probes.reference).max()),
                flips=int(((scores >= cuts) != (there >= cuts)).sum()),
                score_difference=float(limits["score_difference"]),
                flip_share=float(limits["flips"]),
                missing_flags=tuple(flag for flag in CPU_FLAGS if flag in facts["cpu_flags"] and flag not in here),
                decisions=int(scores.size),
            )
        )
    return found


def _unseal(directory: Path, keep: Mapping[str, int]) -> Sealed:
    with unbroken():
        return unseal(directory, META, version=FORMAT_VERSION, keep=keep, check="kept")
