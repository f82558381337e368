"""The classifier that users load."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Reversible, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt

from gkiller.errors import GkillerError, RowError, ScoreRangeError, SettingsError
from gkiller.inference.results import Contribution, Prediction, deciding_labels, reached
from gkiller.inference.session import Logits, Scored, Scores, Session, Stop, Work, aside, end
from gkiller.tokens.batches import LongText, Tokens, call_batches, in_chunks, window_starts, windowed
from gkiller.tokens.encoding import Encoder
from gkiller.wording import did_you_mean

Thresholds = float | Mapping[str, float] | None
Names = Iterable[str] | None
Key = TypeVar("Key")
Ints = npt.NDArray[np.int64]
_AHEAD = 2  # chunks at work at the same time: one is tokenized while another is scored
_ROWS_AT_ONCE = 4096  # of an explanation


class Classifier:
    """Scores comments; `load` makes one. It may be used from several threads and after a fork.

    Its pickle holds the model's path and digest: unpickling loads it again, or raises ModelTamperedError where
    another model is there now. A copy shares the loaded model.

    Any text has an answer: an unknown word is [UNK], an empty text is a comment without a word, characters that show
    nothing are ignored, and a lone surrogate counts as U+FFFD; see `gkiller.tokens.visible`.

    Attributes:
        labels: in the order of the columns of `predict_proba`.
        flag_labels: the labels that decide whether a comment is flagged.
        precision: of the graph: "int8", "fp32" or "fp16".
    """

    def __init__(
        self,
        session: Session,
        encoder: Encoder,
        *,
        labels: tuple[str, ...],
        thresholds: Mapping[str, float],
        precision: str,
        threads: int,
        path: Path,
        digest: str = "",
        flag_labels: Sequence[str] | None = None,
        reopen: Callable[..., Classifier] | None = None,
    ) -> None:
        self.labels = labels
        self.thresholds = dict(thresholds)
        self.flag_labels = labels if flag_labels is None else tuple(flag_labels)
        self.max_length = encoder.content + 2
        self.precision, self.threads, self.path, self.digest = precision, threads, path, digest
        self._session, self._encoder, self._reopen = session, encoder, reopen
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    def __repr__(self) -> str:
        return f"Classifier({str(self.path)!r}, labels={list(self.labels)}, precision={self.precision!r})"

    def __reduce__(self) -> tuple[object, ...]:
        where = str(self.path.absolute()), self.digest, self.precision
        return self._reopen, (*where, self.threads, dict(self.thresholds))

    def __copy__(self) -> Classifier:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, thresholds=dict(self.thresholds))
        return other

    def __deepcopy__(self, memo: object) -> Classifier:
        return self.__copy__()

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self, texts: str, *, thresholds: Thresholds = ..., labels: Names = ..., long_text: LongText = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self, texts: Iterable[str], *, thresholds: Thresholds = ..., labels: Names = ..., long_text: LongText = ...
    ) -> list[Prediction]: ...

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        thresholds: Thresholds = None,
        labels: Names = None,
        long_text: LongText = "window",
    ) -> Prediction | list[Prediction]:
        """Score a comment, or several.

        Args:
            thresholds: instead of the stored ones: a number for all labels, or by label.
            labels: those that decide whether a comment is flagged, instead of `flag_labels`.
            long_text: a comment longer than the network reads at once is read in overlapping windows, whose
                highest score counts ("window"), or its end is left unread and said so ("truncate").

        Raises:
            RowError: something that is no string, or a set, which has no order.
            ScoreRangeError: a threshold outside 0..1.
            SettingsError: an unknown label in ``thresholds`` or ``labels``, or an unknown ``long_text``.
        """
        limits = self.limits(thresholds)
        deciding = self.flag_labels if labels is None else deciding_labels(labels, self.labels)
        parts = [self.predictions(scored, limits, deciding) for scored in self._score(texts, long_text)]
        predictions = list(chain.from_iterable(parts))
        return predictions[0] if isinstance(texts, str) else predictions

    def predict_proba(self, texts: Iterable[str], *, long_text: LongText = "window") -> Scores:
        """Return the scores of n comments: float64 of shape (n, L), in 0..1, columns as `labels`; see `predict`."""
        parts = [scored.scores for scored in self._score(texts, long_text)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)))

    def explain(self, text: str, *, units: int = 512) -> list[Contribution]:
        """Return what each word of a comment adds to the scores; see `contributions`.

        Args:
            units: most stretches to tell apart; in a comment of more words each stretch is several.
        """
        return contributions(self._session, self._encoder, self.labels, _listed([text])[0], units)

    def limits(self, thresholds: Thresholds = None) -> dict[str, float]:
        """Return the thresholds by label, the stored ones where none is given; errors as of `predict`."""
        if thresholds is None:
            return dict(self.thresholds)
        given = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(self.labels, thresholds)
        for label, value in given.items():
            if label not in self.thresholds:
                raise SettingsError(f"the model has no label {label!r}", remedy=did_you_mean(str(label), self.labels))
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
                raise ScoreRangeError(f"the threshold {value!r} of {label} is not a number in 0..1")
        return {label: float(given.get(label, stored)) for label, stored in self.thresholds.items()}

    def predictions(
        self, scored: Scored, limits: Mapping[str, float], deciding: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Return scores as predictions, flagged at `limits`.

        Args:
            deciding: the labels that decide, in the model's order; by default `flag_labels`.
        """
        names = self.flag_labels if deciding is None else deciding
        columns = [self.labels.index(label) for label in names]
        flags = reached(scored.scores, self.labels, limits, names)[:, columns]
        rows = (values.tolist() for values in (scored.scores, flags, scored.windows, scored.truncated))
        return [
            Prediction(dict(zip(self.labels, row, strict=True)), dict(zip(names, flagged, strict=True)), windows, cut)
            for row, flagged, windows, cut in zip(*rows, strict=True)
        ]

    def stream(
        self,
        chunks: Iterable[tuple[Key, Sequence[str]]],
        *,
        long_text: LongText = "window",
        due: Callable[[Key], bool] | None = None,
    ) -> Iterator[tuple[Key, Scored]]:
        """Score chunks of comments one after the other, in bounded memory.

        The scores depend on how the comments are divided into chunks (by rounding, and with dynamic int8 by the range
        of values in a batch), but neither on time nor on the threads. Chunks before one that fails are still scored.

        Args:
            due: whether a chunk's scores are wanted before another is read, as that may take long.
        """
        ways = get_args(LongText)
        if long_text not in ways:
            raise SettingsError(f"unknown long_text {long_text!r}", remedy=did_you_mean(str(long_text), ways))
        source, fault, waiting = iter(chunks), None, deque[tuple[Key, Work]]()
        try:
            while True:
                try:
                    key, texts = next(source)
                    work = self._begin(_listed(texts), long_text)
                except StopIteration:
                    break
                except GkillerError as error:  # of this chunk; the ones before it are good
                    fault = error
                    break
                waiting.append((key, work))
                keep = 0 if due is not None and due(key) else _AHEAD - 1
                while len(waiting) > keep:
                    done, work = waiting.popleft()
                    yield done, work.result()
            for done, work in waiting:
                yield done, work.result()
            if fault is not None:
                raise fault
        finally:  # its caller may have stopped
            for _, work in waiting:
                work.stop()

    def _score(self, texts: Iterable[str], long_text: LongText) -> Iterator[Scored]:
        chunks = ((None, chunk) for chunk in in_chunks(_listed(texts)))
        return (scored for _, scored in self.stream(chunks, long_text=long_text))

    def _begin(self, texts: list[str], long_text: LongText) -> Work:
        """Tokenize comments, each different one once, and let the threads score them."""
        place: dict[str, int] = {}
        back = np.array([place.setdefault(text, len(place)) for text in texts], np.int64)
        encoder, stop = self._encoder, Stop()
        ids = [encoder.ids(text) for text in place]
        read = windowed(ids, self.max_length, [encoder.cls], [encoder.sep], encoder.pad, long_text)
        parts = list(call_batches(read.tokens.lengths))
        answers: Sequence[Logits | Future[Logits]]
        if self.threads > 1 and len(parts) > 1:
            pool = self._threads()
            answers = [pool.submit(self._run, read.tokens, rows, stop) for rows in parts]
        elif len(parts) > 1:  # one thread for all of them: starting one takes as long as a short batch
            answers = aside(lambda: [self._run(read.tokens, rows, stop) for rows in parts], partial(end, stop))
        else:
            answers = [self._run(read.tokens, rows, stop) for rows in parts]
        return Work(read, parts, answers, back, len(self.labels), stop)

    def _run(self, tokens: Tokens, rows: Ints, stop: Stop) -> Logits:
        return self._session.run(*tokens.pad_batch(rows), stop)

    def _threads(self) -> ThreadPoolExecutor:
        """Return the threads; a forked process does not inherit its parent's."""
        if self._pool is None or self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="gkiller")
            self._pool_process = os.getpid()
        return self._pool


def _listed(texts: object) -> list[str]:
    """Return the comments as a list; a RowError for what is none, or has no order."""
    if isinstance(texts, str):
        return [texts]
    kind, remedy = type(texts).__name__, "decode bytes, and give an empty string for a missing comment"
    if isinstance(texts, Set) and not isinstance(texts, Reversible):
        raise RowError(f"comments in a {kind} have no order", remedy="give a list; sorted(...) makes one")
    # A mapping or a table would give its keys or columns instead of comments.
    whole = isinstance(texts, bytes | bytearray | memoryview | Mapping) or getattr(texts, "ndim", 1) != 1
    if whole or not isinstance(texts, Iterable):
        raise RowError(f"comments must be a str or a list of str, not {kind}", remedy=remedy)
    listed = list(texts)
    for number, text in enumerate(listed, start=1):
        if not isinstance(text, str):
            what = f"a comment must be a str, not {type(text).__name__}"
            raise RowError(what, where=f"comment {number:,}", remedy=remedy)
    return listed


def contributions(
    session: Session, encoder: Encoder, labels: Sequence[str], text: str, units: int
) -> list[Contribution]:
    """Return what each word of a comment adds to the log-odds of each label, by occlusion.

    A stretch is hidden behind [MASK] tokens, one for each of its tokens, and the fall of every label's log-odds is its
    contribution: M. D. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, for
    images; J. Li, W. Monroe and D. Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016
    (arXiv:1612.08220), for words. Log-odds rather than probability: where a score is near 1, hiding one of two rude
    words barely moves it. Of a comment of several windows, a word counts by how far the highest window falls when it
    is hidden in every window that holds it.
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise SettingsError(f"units must be a whole number from 1 on, not {units!r}")
    words = encoder.words(text)
    size = -(-len(words) // units)
    groups = [words[start : start + size] for start in range(0, len(words), size or 1)]
    if not groups:
        return []
    ids = [token for word in words for token in word.ids]
    ends = np.cumsum([sum(len(word.ids) for word in group) for group in groups])
    falls = _falls(session, encoder, ids, np.concatenate([[0], ends[:-1]]), ends)
    places = [(group[0].start, group[-1].end) for group in groups]
    return [
        Contribution(text[start:end], start, end, dict(zip(labels, row.tolist(), strict=True)))
        for (start, end), row in zip(places, falls, strict=True)
    ]


def _falls(session: Session, encoder: Encoder, ids: list[int], begins: Ints, ends: Ints) -> npt.NDArray[np.float64]:
    """Return float64 of shape (stretches, L): log-odds of the comment less those without the stretch."""
    tokens = windowed([ids], encoder.content + 2, [encoder.cls], [encoder.sep], encoder.pad).tokens
    starts = window_starts(len(ids), encoder.content)
    # Every window as it is, then every window with every stretch that it holds hidden in turn.
    stretch, window = np.nonzero((begins[:, None] < starts + tokens.lengths - 2) & (ends[:, None] > starts))
    nothing = np.zeros(len(starts), np.int64)
    whole = _logits(session, encoder, tokens, np.arange(len(starts)), nothing, nothing)
    at = 1 - starts[window]  # [CLS] is at 0
    hidden = _logits(session, encoder, tokens, window, begins[stretch] + at, ends[stretch] + at)
    falls = np.empty((len(begins), whole.shape[1]))
    for number in range(len(begins)):
        changed = whole.copy()
        mine = stretch == number
        changed[window[mine]] = hidden[mine]
        falls[number] = whole.max(0).astype(np.float64) - changed.max(0)
    return falls


def _logits(session: Session, encoder: Encoder, tokens: Tokens, window: Ints, begins: Ints, ends: Ints) -> Logits:
    """Return float32 logits (rows, L) of windows, each with its tokens begins..ends masked, but not its ends."""
    lengths, parts = tokens.lengths[window], []
    for start in range(0, len(window), _ROWS_AT_ONCE):
        answers, order = [], []
        for batch in call_batches(lengths[start : start + _ROWS_AT_ONCE]):
            rows = batch + start
            ids, mask = tokens.pad_batch(window[rows])
            place = np.arange(ids.shape[1])
            low, high = np.maximum(begins[rows], 1), np.minimum(ends[rows], lengths[rows] - 1)
            ids[(place >= low[:, None]) & (place < high[:, None])] = encoder.mask
            answers.append(session.run(ids, mask))
            order.append(batch)
        parts.append(np.concatenate(answers)[np.argsort(np.concatenate(order))])
    return np.concatenate(parts)
