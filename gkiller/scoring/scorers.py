"""One `Scorer` for a gkiller model, a classifier of transformers or a file of scores, and its opener."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.data.dataset import FloatArray
from gkiller.data.scorefiles import join, read_scores
from gkiller.wording import Progress, nearest

if TYPE_CHECKING:
    from gkiller.data.load import Labelled
    from gkiller.settings.definition import Settings

STORED = "stored in the model"
BY_FLAGS = "where the file's flags part its scores"
UNKNOWN = "a file of scores does not tell whether its model was trained, or its threshold tuned, on these rows"


Score = Callable[[Sequence[str], Progress | None], FloatArray]
"""Maps n comments to scores, float64 of shape (n, L); told of the comments done and n."""


@dataclass(frozen=True)
class Scorer:
    """A model that scores comments."""

    name: str
    labels: tuple[str, ...]
    score: Score
    # stored in it, by label; empty for a classifier of transformers; of a file of scores of the labels that it has
    # flags of
    thresholds: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None  # a gkiller model's directory, else None
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: str = STORED
    notes: tuple[str, ...] = ()
    # long_text and max_length, as comments are read; of a file of scores the former, None where it is not known
    reading: Mapping[str, Any] = field(default_factory=dict)


def open_scorer(reference: str, labels: Sequence[str], settings: Settings) -> Scorer:
    """Open a gkiller model or run, or a sequence classifier of transformers (directory or hub id).

    A classifier of transformers reads ``model.max_length`` tokens of a comment at once; a gkiller model as
    many as it was trained with; longer comments as ``evaluation.long_text`` says.

    Args:
        labels: of the data; a classifier of transformers has those of them that its outputs are named by.

    Raises:
        ModelError, HubUnavailableError: it cannot be had or read.
        LabelMismatchError: it has none of the labels.
    """
    from gkiller.model.sequence import fetch_classifier, is_gkiller
    from gkiller.scoring.models import load_any, score_any

    size, long_text = settings.evaluation.batch_size, settings.evaluation.long_text
    if is_gkiller(reference) or names_nothing(reference):
        loaded = load_any(reference)  # of what is no model it says what is near

        def own(texts: Sequence[str], progress: Progress | None) -> FloatArray:
            return score_any(loaded, texts, size, progress, long_text=long_text)

        tuned = loaded.metadata["thresholds"]
        reading = {"long_text": long_text, "max_length": loaded.max_length}
        return Scorer(reference, loaded.labels, own, loaded.thresholds, loaded.path, tuned, reading=reading)
    folder = fetch_classifier(
        reference,
        what="this is an encoder without a classifier, so it has no scores",
        remedy=f"fine-tune it: gkiller train --arch giant --base-model {reference}",
    )
    return _of_transformers(reference, folder, labels, settings)


def scorer_of_file(name: str, found: Labelled, *, given: Collection[str] = ()) -> Scorer:
    """Return a file of scores as the model that gave them, of the comments to measure on and no others.

    Args:
        given: labels whose threshold is known already, so that their flags are not read.

    Raises:
        DataError, EvaluationError: see ``read_scores`` and ``join``.
    """
    file = read_scores(name, found.dataset.labels)
    places, how = join(file.records, found.rows)
    unknown = [label for label in file.decided if label not in given]
    thresholds = {label: file.threshold(file.labels.index(label)) for label in unknown}

    def score(texts: Sequence[str], progress: Progress | None) -> FloatArray:
        assert texts is found.rows.texts, name
        return file.scores[places]

    notes, reading = (how, f"{name}: {UNKNOWN}"), {"long_text": file.long_text}
    return Scorer(name, file.labels, score, thresholds, origin=BY_FLAGS, notes=notes, reading=reading)


def names_nothing(reference: str) -> bool:
    """Whether a reference is a path or a misspelt name of an installed model, and no model is there."""
    from gkiller.model.layout import installed_models
    from gkiller.model.pretrained import is_local

    path = Path(reference).expanduser()
    beside = len(path.parts) > 1 and path.parent.is_dir()  # "runs/smal" is no hub id where runs/ is
    misspelt = "/" not in reference and nearest(reference, installed_models())
    return bool(is_local(reference) or beside or misspelt) and not (path / "config.json").is_file()


def _of_transformers(reference: str, folder: Path, labels: Sequence[str], settings: Settings) -> Scorer:
    from tokenizers import Tokenizer

    from gkiller.model.pretrained import loading
    from gkiller.model.sequence import load_classifier, read_tokenizer
    from gkiller.scoring.models import by_torch
    from gkiller.tokens.batches import Reader

    network, found = load_classifier(str(folder), labels)
    with loading(reference):
        text, pad, most = read_tokenizer(folder)
    length, long_text = min(most, settings.model.max_length), settings.evaluation.long_text
    reader = Reader(Tokenizer.from_str(text), length, long_text, pad)

    def score(texts: Sequence[str], progress: Progress | None) -> FloatArray:
        size = settings.evaluation.batch_size
        return by_torch(
            reader, lambda ids, mask: network(ids, mask).double().sigmoid(), texts, len(found), size, progress
        )

    return Scorer(reference, found, score, reading={"long_text": long_text, "max_length": length})
