"""Teachers: trained classifiers, or files of their scores, that a student learns from; and comments without labels.

A classifier scores every comment once. What it says of a list of comments is kept in a sealed directory,
under a fingerprint of the teacher and the comments, so that other runs, and this one when it goes on, read
the same bytes. Until all are scored, parts of the list are kept so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import texts_digest
from gkiller.data.rows import fold_text, folded_hash
from gkiller.data.scorefiles import is_score_file, read_scores
from gkiller.errors import ColumnError, EmptyDataError, FormatError, RowError, ScoreRangeError, SettingsError
from gkiller.inference.bulk.reading import from_file
from gkiller.model.directory import load_model
from gkiller.model.layout import FORMAT_VERSION, META, consistent, find_model, read_labels, require_weights, unbroken
from gkiller.model.pretrained import is_local, loading
from gkiller.model.sequence import (
    fetch_classifier,
    is_gkiller,
    load_classifier,
    name_of,
    no_label,
    read_outputs,
    read_tokenizer,
    weights_digest,
)
from gkiller.storage.files import make_directory, remove_leftovers, sha256_file, writing
from gkiller.storage.sealed import unseal
from gkiller.tokens.batches import scoring_batches, tokenize
from gkiller.tokens.encoding import clean
from gkiller.tokens.wordpiece import special_ids
from gkiller.training.checkpoint import new_arrays, read_arrays
from gkiller.training.runtime import mixed_precision, resolve_precision
from gkiller.wording import Progress, counted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gkiller.data.scorefiles import ScoreFile
    from gkiller.settings.definition import DistillSettings, Settings
    from gkiller.training.runtime import Ranks

EXTREME: Final = 1e-4
"""Scores are taken no nearer to 0 and 1 than this: the logit of a rounded 0 would be without bounds."""
PREFIX: Final = "transfer-"
"""What the id of a transfer comment begins with; its row follows."""
_LOGITS, _STATES, _LOCK = "logits.f32", "states.f16", ".lock"
_PART: Final = 8192
"""Comments after which scores are kept: a scoring that is killed loses no more."""
_LONGEST: Final = 512
"""Tokens of a comment read by a teacher that states no limit of its own."""
Logits = npt.NDArray[np.float32]
Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps ids and mask to one logit per label, (rows, L), and token vectors, (rows, tokens, hidden)."""
Opened = tuple[Network, "Tokenizer", int, int]
"""A network on its device, its own tokenizer, the padding id, and the hidden size."""


@dataclass(frozen=True)
class Teacher:
    """A classifier to learn from, or what one has said."""

    name: str
    folder: Path
    own: bool  # whether it is a gkiller model rather than one of transformers
    labels: tuple[str, ...]
    digest: str
    scores: ScoreFile | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what a manifest records of it."""
        return {"name": self.name, "labels": list(self.labels), "sha256": self.digest}


@dataclass(frozen=True)
class Lesson:
    """What teachers say of n comments."""

    logits: Logits  # (n, L), the mean over the teachers that have a comment's label; NaN where none has
    # for each teacher (n, its width), the mean of a comment's token vectors in the last layer; () where not learnt
    hidden: tuple[npt.NDArray[np.float16], ...]
    each: tuple[Logits, ...]  # for each teacher (n, L), NaN where it lacks a label or the comment


def find_teachers(references: Sequence[str], labels: Sequence[str]) -> tuple[Teacher, ...]:
    """Find teachers, without reading their weights.

    Args:
        references: gkiller runs or models, or classifiers of transformers: directories or hub ids; or files of scores.

    Raises:
        DataError, ScoreRangeError: a file of scores cannot be read, or a row is broken.
        ModelNotFoundError, HubUnavailableError: one is not there.
        ModelFormatError, ModelTamperedError: one is no classifier, or cannot be read.
        LabelMismatchError: one has none of the labels.
    """
    return tuple(_find(reference, labels) for reference in references)


def _find(reference: str, labels: Sequence[str]) -> Teacher:
    if is_score_file(reference):
        path, file = Path(reference).expanduser(), read_teacher(reference, labels)
        return Teacher(path.name, path, False, file.labels, sha256_file(path), file)
    own = is_gkiller(reference)
    if own:
        folder = find_model(reference)
        require_weights(folder)
        with unbroken():
            sealed = unseal(folder, META, version=FORMAT_VERSION, keep={}, check="kept")
        with consistent(folder):
            names = read_labels(sealed.content["labels"])
        shared = [label for label in labels if label in names]
        digest, name = sealed.digest, name_of(folder)
    else:
        folder = fetch_classifier(
            reference,
            what="this teacher is an encoder without a classifier",
            remedy=f"fine-tune it: gkiller train --arch giant --base-model {reference}; name that run",
        )
        outputs = read_outputs(str(folder), labels)
        names, shared = outputs.names, list(outputs.columns)
        digest = hashlib.sha256(json.dumps(weights_digest(folder), sort_keys=True).encode()).hexdigest()
        name = name_of(folder) if is_local(reference) else reference
    if not shared:
        raise no_label(names, labels, reference, "name a teacher of one of these labels, or other labels")
    return Teacher(name, folder, own, tuple(shared), digest)


def taught_by(teachers: Sequence[Teacher]) -> str:
    """Return teachers for a reader, such as "a, b: the mean of 2 teachers"."""
    names = ", ".join(teacher.name for teacher in teachers)
    return names if len(teachers) == 1 else f"{names}: the mean of {counted(len(teachers), 'teacher')}"


# -- files of scores --------------------------------------------------------------------------------


def read_teacher(name: str, labels: Sequence[str]) -> ScoreFile:
    """Read a file of scores to learn from, as ``gkiller predict --with-text`` writes it.

    Raises:
        DataError, LabelMismatchError, ScoreRangeError: it is empty, or as `read_scores`.
        RowError: its rows have neither comments nor ids, so they cannot be found.
    """
    found = read_scores(name, labels)
    if not found.records.count:
        raise EmptyDataError("the score file has no rows", where=name, remedy="score the comments again")
    if not found.records.texts and not found.records.ids:
        what = "its rows have neither comments nor ids, so nothing tells whose scores they are"
        raise RowError(what, where=name, remedy="add the column text (gkiller predict --with-text writes it)")
    return found


def logits_of(file: ScoreFile, texts: Sequence[str], ids: Sequence[str]) -> Logits:
    """Return the logits of comments by a file's scores, (n, its labels); NaN where it has no such comment.

    Comments are found by their texts, but for case and white space, or where the file has none by their ids;
    of several rows of one comment the first counts.
    """
    own: list[bytes | str] = list(file.records.ids)
    keys: list[bytes | str] = list(ids)
    if file.records.texts:
        own, keys = [folded_hash(text) for text in file.records.texts], [folded_hash(text) for text in texts]
    rows = {key: row for row, key in reversed(list(enumerate(own)))}
    places = np.array([rows.get(key, -1) for key in keys], dtype=np.intp)
    scores: npt.NDArray[np.float64] = file.scores.clip(EXTREME, 1 - EXTREME)
    logits = np.log(scores / (1 - scores)).astype(np.float32)[places]
    logits[places < 0] = np.nan
    return logits


def coverage(name: str, logits: Logits, where: str) -> str:
    """Return in words how many of n training comments a score file has, by its logits (n, L); else a RowError."""
    known = int((~np.isnan(logits)).any(1).sum())
    if not known:
        remedy = "score those: their texts, or without texts their ids, must be the data's"
        raise RowError("it has scores for none of the training comments", where=where, remedy=remedy)
    return f"teacher {name}: has {known:,} of {counted(len(logits), 'training comment')}"


# -- what teachers say ------------------------------------------------------------------------------


def lesson(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[str],
    settings: DistillSettings,
    cache: Path,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
) -> Lesson:
    """Return what teachers say of comments: from the cache where it is there, else computed by all ranks and kept.

    Raises:
        OutputError: there is no room for it on the disk, or it cannot be written.
        ScoreRangeError: a logit is not a number.
        SettingsError: hidden states are to be learnt from a file of scores.
        ModelError: a teacher cannot be read.
    """
    each, hidden = [], []
    for teacher in teachers:
        if teacher.scores is None:
            found = _scores(teacher, texts, settings, cache, device, ranks, progress)
            logits, states = found[_LOGITS], found.get(_STATES)
            hidden += [] if states is None else [states]
        elif settings.hidden_weight:
            what = "a file of scores has no hidden states to learn from"
            remedy = "leave distill.hidden_weight at 0, or name the classifier itself"
            raise SettingsError(what, where=str(teacher.folder), remedy=remedy)
        else:
            logits = logits_of(teacher.scores, texts, ids)
        full = np.full((len(texts), len(labels)), np.nan, np.float32)
        full[:, [labels.index(label) for label in teacher.labels]] = logits
        each.append(full)
    return Lesson(mean_logits(each), tuple(hidden), tuple(each))


def mean_logits(each: Sequence[Logits]) -> Logits:
    """Return the mean of several teachers' logits, (n, L); those that lack a label (NaN) do not count."""
    known = np.stack([~np.isnan(one) for one in each]).sum(0)
    total = np.stack([np.nan_to_num(one, nan=0.0) for one in each]).sum(0)
    mean = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    return mean.astype(np.float32)


def _scores(
    teacher: Teacher,
    texts: Sequence[str],
    settings: DistillSettings,
    cache: Path,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
) -> dict[str, npt.NDArray[Any]]:
    """Return a teacher's logits, (n, its labels), and its hidden states where they are learnt, by file name."""
    numbers = resolve_precision(settings.precision, device)
    facts = (
        teacher.digest,
        teacher.labels,
        settings.hidden_weight > 0,
        numbers,
        texts_digest(texts),
        torch.__version__,
    )
    place = cache / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    with contextlib.ExitStack() as stack:
        if ranks.first:
            make_directory(cache)
            with writing(cache):
                stack.enter_context(FileLock(cache / _LOCK))  # other runs share the cache
            remove_leftovers(cache, keep=(_LOCK,))
        if not ranks.from_first(ranks.first and read_arrays(place) is not None):
            starts = range(0, len(texts), _PART)
            parts = [cache / f"{place.name}-{start}" for start in starts]
            opened: Opened | None = None
            for start, part in zip(starts, parts, strict=True):
                if ranks.from_first(ranks.first and read_arrays(part) is not None):
                    continue
                opened = opened or _open(teacher, device)
                scored = range(start, min(start + _PART, len(texts)))
                found = _compute(teacher, opened, texts, scored, settings, device, ranks, progress)
                if ranks.first:
                    _keep(part, [found])
            if ranks.first:
                _keep(place, [read_arrays(part) or {} for part in parts])
        if ranks.first:
            for part in cache.glob(f"{place.name}-*"):  # also those that a kill after joining has left
                shutil.rmtree(part, ignore_errors=True)
        ranks.from_first(None)  # nobody reads before it is written
    kept = read_arrays(place)
    assert kept is not None, place
    return kept


def _keep(place: Path, parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Keep the arrays of parts that follow each other, as one list."""
    first = parts[0]
    shapes = {name: [sum(len(part[name]) for part in parts), *first[name].shape[1:]] for name in first}
    with new_arrays(place, shapes) as temporary:
        for name in first:
            with (temporary / name).open("wb") as file:
                for part in parts:
                    file.write(part[name].tobytes())


def _compute(
    teacher: Teacher,
    opened: Opened,
    texts: Sequence[str],
    scored: range,
    settings: DistillSettings,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
) -> dict[str, npt.NDArray[Any]]:
    """Score a range of the comments, each rank some of the batches; by file name."""
    network, tokenizer, pad, width = opened
    tokens = replace(tokenize(tokenizer, texts[scored.start : scored.stop]), pad=pad)
    logits = torch.zeros(len(scored), len(teacher.labels))
    states = torch.zeros(len(scored), width, dtype=torch.float16) if settings.hidden_weight > 0 else None
    done = 0
    with torch.inference_mode(), mixed_precision(settings.precision, device):
        for number, rows in enumerate(scoring_batches(tokens.lengths, settings.batch_size)):
            if number % ranks.size != ranks.rank:
                continue
            ids, mask = (torch.from_numpy(part).to(device) for part in tokens.pad_batch(rows))
            found, vectors = network(ids, mask)
            places = torch.from_numpy(rows)
            logits[places] = found.float().cpu()
            if states is not None:
                kept = mask.unsqueeze(-1)
                mean = (vectors.float() * kept).sum(1) / kept.sum(1).clamp(min=1)
                states[places] = mean.half().cpu()
            done += len(rows)
            all_done = scored.start + min(done * ranks.size, len(scored))
            progress(all_done, len(texts), f"scoring with {teacher.name}")
    arrays = {_LOGITS: ranks.add(logits)} | ({} if states is None else {_STATES: ranks.add(states)})
    whole = torch.stack([array.isfinite().all(1) for array in arrays.values()]).all(0)
    if not bool(whole.all()):
        raise ScoreRangeError(
            "the teacher's score of a comment is not a number",
            where=f"{teacher.name}, comment {scored[int((~whole).nonzero()[0, 0])] + 1}",
            remedy="its weights overflow: name another teacher",
        )
    return {name: array.numpy() for name, array in arrays.items()}


def _open(teacher: Teacher, device: torch.device) -> Opened:
    from tokenizers import Tokenizer

    if teacher.own:
        loaded = load_model(teacher.folder)
        model, columns = loaded.model.to(device), [loaded.labels.index(label) for label in teacher.labels]

        def own(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            encoded: Any = model.bert(input_ids=ids, attention_mask=mask)
            return model.label_logits(model.classify(encoded, mask))[:, columns], encoded[0]

        pad = max(0, special_ids(loaded.tokenizer).pad)
        return own, loaded.tokenizer, pad, int(model.bert.config.hidden_size)
    classifier, _ = load_classifier(str(teacher.folder), teacher.labels)
    with loading(str(teacher.folder)):
        text, pad, most = read_tokenizer(teacher.folder)
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(most, _LONGEST))
    tokenizer.encode_special_tokens = True
    network: Any = classifier.network
    return classifier.to(device).with_tokens, tokenizer, pad, int(network.config.hidden_size)


# -- comments without labels ------------------------------------------------------------------------


def transfer_texts(settings: Settings, dataset: Dataset) -> dict[int, str]:
    """Return the comments of the transfer file that are new, by their row, counted from 1; {} without a file.

    Blank comments are left out, and those of any split of the data set, in whatever case and spacing: a
    validation or test comment must not be learnt, not even from a teacher. ``data.split_seed`` draws where
    ``distill.transfer_rows`` is less than there is; a DataError where the file cannot be read, or has no new comment.
    """
    own = settings.distill
    if own.transfer is None:
        return {}
    try:
        source = from_file(Path(own.transfer).expanduser(), own.transfer, text_column=own.transfer_column)
    except ColumnError as error:
        remedy = "name the comments' column: --set distill.transfer_column=NAME"
        raise ColumnError(error.what.replace(" (--text-column)", ""), where=error.where, remedy=remedy) from error
    except FormatError as error:
        remedy = error.remedy.replace("; else name the format with --input-format", "")
        raise FormatError(error.what, where=error.where, remedy=remedy) from error
    seen = {fold_text(text) for split in dataset.splits.values() for text in split.texts} | {""}
    found: dict[int, str] = {}
    for row in filter(None, source.rows()):
        if row.fault is not None:
            if settings.data.on_error == "refuse":
                raise row.fault
            continue
        text = clean(row.text)
        folded = fold_text(text)
        if folded not in seen:
            seen.add(folded)
            found[row.number] = text
    if not found:
        what = "the file has no comments that are new to the data"
        raise EmptyDataError(what, where=own.transfer, remedy="name other comments, or leave --transfer out")
    if own.transfer_rows is None or own.transfer_rows >= len(found):
        return found
    chosen = np.random.default_rng(settings.data.split_seed).permutation(len(found))[: own.transfer_rows]
    rows = list(found)
    return {rows[place]: found[rows[place]] for place in np.sort(chosen)}


def with_transfer(dataset: Dataset, texts: Mapping[int, str]) -> Dataset:
    """Return the data set with more training comments, whose labels are unknown.

    Row 7 has the id "transfer-7", whatever else is taken, so that a file of scores can name it.
    """
    train, count = dataset.split("train"), len(texts)
    if not count:
        return dataset
    unknown = np.full((count, len(dataset.labels)), np.nan, np.float32)
    joined = Split(
        ids=[*train.ids, *(f"{PREFIX}{row}" for row in texts)],
        texts=[*train.texts, *texts.values()],
        labels=np.concatenate([train.labels, unknown]),
        weights=np.concatenate([train.weights, np.ones(count)]),
    )
    return Dataset(dataset.labels, {**dataset.splits, "train": joined}, dataset.manifest)
