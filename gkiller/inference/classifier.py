"""The classifier that users load."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Reversible, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt

from gkiller.errors import GkillerError, RowError, ScoreRangeError, SettingsError
from gkiller.inference.results import Contribution, Prediction, deciding_labels, reached
from gkiller.inference.session import Logits, Scored, Scores, Session, Stop, Work, aside, end
from gkiller.tokens.batches import (
    CHUNK_CHARACTERS,
    CHUNK_ROWS,
    LongText,
    Windows,
    batches,
    in_chunks,
    make_windows,
    pad,
)
from gkiller.tokens.encoding import Encoder
from gkiller.wording import did_you_mean

_AHEAD = 2  # chunks at work at the same time: one is tokenized while another is scored
Thresholds = float | Mapping[str, float] | None
Key = TypeVar("Key")


class Classifier:
    """Scores comments; `load` makes one. It may be used from several threads and after a fork.

    A pickle of it holds the path and the digest: the process that unpickles it loads the model there, and
    raises ModelTamperedError where that is another one now. A copy shares the loaded model.

    Any text has an answer: what the tokenizer does not know is [UNK], an empty text or one of white space
    alone is scored as a comment without a word, characters that show nothing are ignored, and a lone
    surrogate counts as U+FFFD; see `gkiller.tokens.visible`.

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
        self.precision = precision
        self.threads = threads
        self.path = path
        self.digest = digest
        self._session = session
        self._encoder = encoder
        self._reopen = reopen
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    def __repr__(self) -> str:
        return f"Classifier({str(self.path)!r}, labels={list(self.labels)}, precision={self.precision!r})"

    def __reduce__(self) -> tuple[object, ...]:
        where = str(self.path.absolute()), self.digest, self.precision
        return self._reopen, (*where, self.threads, dict(self.thresholds))

    def __copy__(self) -> Classifier:
        return Classifier(
            self._session,
            self._encoder,
            labels=self.labels,
            thresholds=self.thresholds,
            precision=self.precision,
            threads=self.threads,
            path=self.path,
            digest=self.digest,
        )

    def __deepcopy__(self, memo: object) -> Classifier:
        return self.__copy__()

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self,
        texts: str,
        *,
        thresholds: Thresholds = None,
        labels: Iterable[str] | None = None,
        long_text: LongText = "window",
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        texts: Iterable[str],
        *,
        thresholds: Thresholds = None,
        labels: Iterable[str] | None = None,
        long_text: LongText = "window",
    ) -> list[Prediction]: ...

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        thresholds: Thresholds = None,
        labels: Iterable[str] | None = None,
        long_text: LongText = "window",
    ) -> Prediction | list[Prediction]:
        """Score a comment, or several.

        Args:
            thresholds: instead of the stored ones: a number for all labels, or by label.
            labels: those that decide whether a comment is flagged, instead of `flag_labels`.
            long_text: a comment longer than the network reads at once is read in overlapping windows, whose
                highest score counts ("window"), or its end is left unread and said so ("truncate").

        Returns:
            A prediction for a string; else a list of them, in the comments' order.

        Raises:
            RowError: something that is no string, or a set, which has no order.
            ScoreRangeError: a threshold outside 0..1.
            SettingsError: an unknown label in ``thresholds`` or ``labels``, or an unknown ``long_text``.
        """
        limits = self.limits(thresholds)
        deciding = self.flag_labels if labels is None else deciding_labels(labels, self.labels)
        single = isinstance(texts, str)
        predictions: list[Prediction] = []
        for scored in self._score(_listed([texts] if isinstance(texts, str) else texts), long_text):
            predictions += self.predictions(scored, limits, deciding)
        return predictions[0] if single else predictions

    def predict_proba(self, texts: Iterable[str], *, long_text: LongText = "window") -> Scores:
        """Return the scores of n comments: float64 of shape (n, L), in 0..1, columns as `labels`.

        Args:
            long_text: as in `predict`.

        Raises:
            RowError: something that is no string, or a set, which has no order.
            SettingsError: an unknown ``long_text``.
        """
        listed = _listed([texts] if isinstance(texts, str) else texts)
        parts = [scored.scores for scored in self._score(listed, long_text)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)))

    def explain(self, text: str, *, units: int = 512) -> list[Contribution]:
        """Return what each word of a comment adds to the scores; see `gkiller.inference.explain`.

        Args:
            units: most stretches to tell apart; in a comment of more words each stretch is several.

        Raises:
            RowError: something that is no string.
            SettingsError: ``units`` is no whole number, or below 1.
        """
        from gkiller.inference.explain import contributions

        return contributions(self._session, self._encoder, self.labels, _listed([text])[0], units)

    def limits(self, thresholds: Thresholds = None) -> dict[str, float]:
        """Return the thresholds by label, the stored ones where none is given.

        Raises:
            ScoreRangeError: one is outside 0..1.
            SettingsError: one is for an unknown label.
        """
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
        """Return scores as predictions, flagged at the thresholds of :meth:`limits`.

        Args:
            deciding: the labels that decide, in the model's order; by default `flag_labels`.
        """
        names = self.flag_labels if deciding is None else deciding
        columns = [self.labels.index(label) for label in names]
        flags = reached(scored.scores, self.labels, limits, names)[:, columns]
        rows = zip(
            scored.scores.tolist(), flags.tolist(), scored.windows.tolist(), scored.truncated.tolist(), strict=True
        )
        return [
            Prediction(dict(zip(self.labels, row, strict=True)), dict(zip(names, flagged, strict=True)), windows, cut)
            for row, flagged, windows, cut in rows
        ]

    def stream(
        self,
        chunks: Iterable[tuple[Key, Sequence[str]]],
        *,
        long_text: LongText = "window",
        due: Callable[[Key], bool] | None = None,
    ) -> Iterator[tuple[Key, Scored]]:
        """Score chunks of comments one after the other, in bounded memory.

        The scores depend on how the comments are divided into chunks (by rounding, and with dynamic int8
        by the range of values in a batch), on nothing else: neither on time nor on the threads.

        Args:
            long_text: as in `predict`.
            due: whether a chunk's scores are wanted before another is read, as that may take long.

        Yields:
            The first of each pair, and its comments' scores; also of those before a chunk that fails.

        Raises:
            RowError: something that is no string.
            SettingsError: an unknown ``long_text``.
        """
        if long_text not in get_args(LongText):
            raise SettingsError(
                f"no such way with long texts: {long_text!r}", remedy=did_you_mean(str(long_text), get_args(LongText))
            )
        waiting: deque[tuple[Key, Work]] = deque()
        try:
            yield from self._stream(chunks, long_text, due, waiting)
        finally:  # its caller may have stopped
            for _, work in waiting:
                work.stop()

    def _stream(
        self,
        chunks: Iterable[tuple[Key, Sequence[str]]],
        long_text: LongText,
        due: Callable[[Key], bool] | None,
        waiting: deque[tuple[Key, Work]],
    ) -> Iterator[tuple[Key, Scored]]:
        source, fault = iter(chunks), None
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

    def _score(self, texts: list[str], long_text: LongText) -> Iterator[Scored]:
        for _, scored in self.stream(
            ((None, chunk) for chunk in in_chunks(texts, CHUNK_ROWS, CHUNK_CHARACTERS)), long_text=long_text
        ):
            yield scored

    def _begin(self, texts: list[str], long_text: LongText) -> Work:
        """Tokenize comments, each different one once, and let the threads score them."""
        place: dict[str, int] = {}
        back = [place.setdefault(text, len(place)) for text in texts]
        windows = make_windows([self._encoder.ids(text) for text in place], self._encoder.content, long_text)
        parts = list(batches(windows))
        pool = self._threads() if self.threads > 1 and len(parts) > 1 else None
        stop = Stop()
        answers: Sequence[Logits | Future[Logits]]
        if pool is not None:
            answers = [pool.submit(self._run, windows, rows, stop) for rows in parts]
        elif len(parts) > 1:  # one thread for all of them: starting one takes as long as a short batch
            answers = aside(lambda: [self._run(windows, rows, stop) for rows in parts], partial(end, stop))
        else:
            answers = [self._run(windows, rows, stop) for rows in parts]
        return Work(windows, parts, answers, np.array(back, np.int64), len(self.labels), stop)

    def _run(self, windows: Windows, rows: npt.NDArray[np.int64], stop: Stop) -> Logits:
        return self._session.run(*pad(windows, rows, self._encoder), stop)

    def _threads(self) -> ThreadPoolExecutor:
        """Return the threads; a forked process does not inherit its parent's."""
        if self._pool is None or self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="gkiller")
            self._pool_process = os.getpid()
        return self._pool


def _listed(texts: object) -> list[str]:
    """Return the comments as a list.

    Raises:
        RowError: one is no string, or they have no order or cannot be listed.
    """
    # A mapping or a table would give its keys or columns instead of comments.
    whole = isinstance(texts, bytes | bytearray | memoryview | Mapping) or getattr(texts, "ndim", 1) != 1
    if isinstance(texts, Set) and not isinstance(texts, Reversible):
        raise RowError(
            f"comments in a {type(texts).__name__} have no order, so their scores could not be told apart",
            remedy="give a list; sorted(...) makes one",
        )
    if whole or not isinstance(texts, Iterable):
        raise RowError(
            f"comments must be a str or a list of str, not {type(texts).__name__}",
            remedy="decode bytes, and give an empty string for a missing comment",
        )
    listed = list(texts)
    for number, text in enumerate(listed, start=1):
        if not isinstance(text, str):
            raise RowError(
                f"a comment must be a str, not {type(text).__name__}",
                where=f"comment {number:,}",
                remedy="decode bytes, and give an empty string for a missing comment",
            )
    return listed
