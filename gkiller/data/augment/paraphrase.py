"""Paraphrases and back-translations, by seq2seq models on this disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gkiller.data.rows import MAX_FIELD_CHARACTERS

if TYPE_CHECKING:
    from gkiller.model.seq2seq import Seq2Seq
    from gkiller.settings import AugmentSettings

PARAPHRASE = "paraphrase"
"""The kind's name."""


class Paraphraser:
    """Sends texts through one seq2seq model, or through several one after the other.

    One model paraphrases; a second that translates back what the first translated gives back-translations
    (Sennrich et al. 2016; Edunov et al. 2018).

    Why the label survives: a good model keeps the meaning. Limits: nothing checks that it did. Paraphrasers
    and translators are trained on polite text and tend to drop insults, slang and misspelt words, so toxic
    comments can come back harmless: look at a sample before you train on them. Texts of over
    `gkiller.model.seq2seq.LONGEST` tokens, and answers that do not end, are left out.

    Args:
        settings: the models, the prefix and the batch size.

    Raises:
        ModelNotFoundError: a model is not there.
        ModelFormatError: a model cannot be read.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        from gkiller.model.seq2seq import load_seq2seq

        self._models: list[Seq2Seq] = [load_seq2seq(path) for path in settings.seq2seq]
        self._prefix = settings.seq2seq_prefix
        self._batch_size = settings.seq2seq_batch_size

    @property
    def digests(self) -> list[str]:
        """The SHA-256 of each model's weights, in order."""
        return [model.digest for model in self._models]

    def paraphrase(self, texts: Sequence[str]) -> list[str | None]:
        """Return what the models make of n texts; None where it is nothing, the text itself, or not whole."""
        answers: list[str | None] = list(texts)
        for model in self._models:
            left = [at for at, answer in enumerate(answers) if answer is not None]
            given = [self._prefix + str(answers[at]) for at in left]
            for at, answer in zip(left, model.generate(given, self._batch_size), strict=True):
                answers[at] = answer
        return [
            None if answer is None or _useless(answer, text) else answer
            for answer, text in zip(answers, texts, strict=True)
        ]


def _useless(answer: str, text: str) -> bool:
    return not answer.strip() or answer == text or "\0" in answer or len(answer) > MAX_FIELD_CHARACTERS
