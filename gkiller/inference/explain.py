"""What each word adds to a score, by occlusion.

A stretch of the comment is hidden behind [MASK] tokens, one for each of its tokens, and the fall of every
label's log-odds is its contribution: M. D. Zeiler and R. Fergus, "Visualizing and Understanding
Convolutional Networks", ECCV 2014, for images; J. Li, W. Monroe and D. Jurafsky, "Understanding Neural
Networks through Representation Erasure", 2016 (arXiv:1612.08220), for words. Log-odds rather than
probability: where a score is near 1, hiding one of two rude words barely moves it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gkiller.errors import SettingsError
from gkiller.inference.results import Contribution
from gkiller.inference.session import Logits, Session
from gkiller.tokens.batches import Windows, batches, pad, window_starts
from gkiller.tokens.encoding import Encoder, Word

_ROWS_AT_ONCE = 4096


def contributions(
    session: Session, encoder: Encoder, labels: Sequence[str], text: str, units: int
) -> list[Contribution]:
    """Return what each word of a comment adds to the log-odds of each label.

    A comment longer than the network reads at once is read in windows, as when it is scored: a word counts
    by how far the highest window falls when it is hidden in every window that holds it.

    Raises:
        SettingsError: ``units`` is no whole number, or below 1.
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise SettingsError(f"units must be a whole number from 1 on, not {units!r}")
    words = _group(encoder.words(text), units)
    if not words:
        return []
    flat = np.array([token for word in words for token in word.ids], np.int64)
    lengths = np.array([len(word.ids) for word in words])
    ends = np.cumsum(lengths)
    falls = _falls(session, encoder, flat, ends - lengths, ends)
    return [
        Contribution(text[word.start : word.end], word.start, word.end, dict(zip(labels, row.tolist(), strict=True)))
        for word, row in zip(words, falls, strict=True)
    ]


def _group(words: list[Word], units: int) -> list[Word]:
    """Join words in a row so that at most ``units`` stretches are left."""
    size = -(-len(words) // units) if words else 1
    if size == 1:
        return words
    groups = [words[start : start + size] for start in range(0, len(words), size)]
    return [Word(group[0].start, group[-1].end, [token for word in group for token in word.ids]) for group in groups]


def _falls(
    session: Session,
    encoder: Encoder,
    flat: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return float64 of shape (stretches, L): log-odds of the comment less those without the stretch."""
    size = encoder.content
    starts = window_starts(len(flat), size)
    stops = np.minimum(starts + size, len(flat))
    # Every window as it is, then every window with every stretch that it holds hidden in turn.
    held = (begins[:, None] < stops) & (ends[:, None] > starts)
    stretch, window = np.nonzero(held)
    whole = _logits(session, encoder, flat, starts, stops - starts, None, None)
    hidden = _logits(session, encoder, flat, starts[window], (stops - starts)[window], begins[stretch], ends[stretch])
    falls = np.empty((len(begins), whole.shape[1]))
    for number in range(len(begins)):
        changed = whole.copy()
        mine = stretch == number
        changed[window[mine]] = hidden[mine]
        falls[number] = whole.max(0).astype(np.float64) - changed.max(0)
    return falls


def _logits(
    session: Session,
    encoder: Encoder,
    flat: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64] | None,
    ends: npt.NDArray[np.int64] | None,
) -> Logits:
    """Return float32 logits (rows, L) of windows, each with the stretch begins..ends masked."""
    parts = []
    for start in range(0, len(first), _ROWS_AT_ONCE):
        chosen = slice(start, start + _ROWS_AT_ONCE)
        count = np.ones(len(first[chosen]), np.int64)
        windows = Windows(flat, first[chosen], length[chosen], np.arange(len(count)), count, np.zeros(len(count), bool))
        answer: list[tuple[npt.NDArray[np.int64], Logits]] = []
        for rows in batches(windows):
            ids, mask = pad(windows, rows, encoder)
            if begins is not None and ends is not None:
                start_of = windows.first[rows]
                place = start_of[:, None] + np.arange(ids.shape[1]) - 1
                low = np.maximum(begins[chosen][rows], start_of)
                high = np.minimum(ends[chosen][rows], start_of + windows.length[rows])
                ids[(place >= low[:, None]) & (place < high[:, None])] = encoder.mask
            answer.append((rows, session.run(ids, mask)))
        order = np.concatenate([rows for rows, _ in answer])
        part = np.empty_like(logits := np.concatenate([logits for _, logits in answer]))
        part[order] = logits
        parts.append(part)
    return np.concatenate(parts)
