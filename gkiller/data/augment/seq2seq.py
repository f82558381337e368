"""Sequence-to-sequence models of any architecture that transformers knows, read from a directory.

Nothing is fetched, no code of the directory is run, and weights are read from safetensors alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.data.readers import MAX_FIELD_CHARACTERS
from gkiller.errors import GkillerError, ModelFormatError, ModelNotFoundError, is_fault_of_input
from gkiller.private import quiet_transformers
from gkiller.storage.files import sha256_file
from gkiller.wording import one_line

if TYPE_CHECKING:
    from gkiller.settings import AugmentSettings


LONGEST = 256
"""Tokens of a text; of a longer one the end would be cut, and with it what its label stands on."""

BEAMS = 4

PARAPHRASE = "paraphrase"
"""The name of the kind of change."""

_REMEDY = (
    "name a directory that transformers' save_pretrained wrote, with config.json, its tokenizer and model.safetensors"
)

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class Seq2Seq:
    """A model with its tokenizer, on the CPU in float32."""

    def __init__(self, model: Any, tokenizer: Any, digest: str, where: str) -> None:
        self.digest = digest
        self._model = model
        self._tokenizer = tokenizer
        self._where = where
        end = model.generation_config.eos_token_id
        self._ends = end if isinstance(end, list) else [] if end is None else [end]

    def generate(self, texts: Sequence[str], batch_size: int) -> list[str | None]:
        """Return the best answer of a beam search to each of n texts, without sampling.

        An answer is None where the text has over `LONGEST` tokens, or the answer does not end within twice
        the tokens of the longest text in its batch.

        Raises:
            ModelFormatError: the model cannot compute an answer.
        """
        answers: list[str | None] = [None] * len(texts)
        with quiet_transformers(), _faults(self._where):
            lengths = [len(ids) for ids in self._tokenizer(list(texts))["input_ids"]] if texts else []
            fitting = [at for at, length in enumerate(lengths) if length <= LONGEST]
            fitting.sort(key=lambda at: lengths[at])  # little padding
            for start in range(0, len(fitting), batch_size):
                batch = fitting[start : start + batch_size]
                found = self._answer([texts[at] for at in batch], 2 * lengths[batch[-1]] + 8)
                for at, answer in zip(batch, found, strict=True):
                    answers[at] = answer
        return answers

    def _answer(self, texts: list[str], most: int) -> list[str | None]:
        import torch

        tokens = self._tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            ids = self._model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                num_beams=BEAMS,
                do_sample=False,
                max_new_tokens=most,
            )
        # The first token starts an answer, and in some models it is the one that ends them.
        ended = [not self._ends or any(end in row for end in self._ends) for row in ids[:, 1:].tolist()]
        decoded = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text if whole else None for text, whole in zip(decoded, ended, strict=True)]


def load_seq2seq(path: str) -> Seq2Seq:
    """Load a model and its tokenizer from a directory.

    Raises:
        ModelNotFoundError: there is no directory with a config.json.
        ModelFormatError: it is no seq2seq model, lacks weights in safetensors, brings code of its own, or its
            tokenizer cannot be read or does not belong to it.
    """
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            "no seq2seq model there: config.json is missing" if folder.is_dir() else "no such directory",
            where=path,
            remedy=_REMEDY,
        )
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ModelFormatError("there is no model.safetensors", where=path, remedy=_REMEDY)
    with quiet_transformers(), _faults(path):
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **common)
        loaded: Any = AutoModelForSeq2SeqLM.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **common
        )
        model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelFormatError(f"the model lacks weights, first {missing[0]}", where=path, remedy=_REMEDY)
    pieces = len(tokenizer)
    known = model.get_input_embeddings().num_embeddings
    if pieces > known:
        raise ModelFormatError(
            f"the tokenizer has {pieces} pieces and the model knows {known}",
            where=path,
            remedy="use the tokenizer that came with the model",
        )
    model.eval()
    return Seq2Seq(model, tokenizer, sha256_file(weights), path)


@contextmanager
def _faults(where: str) -> Iterator[None]:
    """Turn what transformers, torch and tokenizers raise about a model into a ModelFormatError."""
    try:
        yield
    except BaseException as error:
        # tokenizers raises Exception itself, and a panic of its Rust code is not even that.
        if isinstance(error, GkillerError) or not is_fault_of_input(error):
            raise
        raise ModelFormatError(
            f"the seq2seq model cannot be used: {one_line(error)}", where=where, remedy=_REMEDY
        ) from error


class Paraphraser:
    """Sends texts through one seq2seq model, or through several one after the other.

    One model paraphrases; a second that translates back what the first translated gives back-translations
    (Sennrich et al. 2016; Edunov et al. 2018).

    Why the label survives: a good model keeps the meaning. Limits: nothing checks that it did. Paraphrasers
    and translators are trained on polite text and tend to drop insults, slang and misspelt words, so toxic
    comments can come back harmless: look at a sample before you train on them. Texts of over `LONGEST`
    tokens, and answers that do not end, are left out.

    Raises:
        ModelNotFoundError: a model is not there.
        ModelFormatError: a model cannot be read.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        self._models = [load_seq2seq(path) for path in settings.seq2seq]
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
