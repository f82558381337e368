"""Tokenizers: find the one that the settings ask for, and load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import ModelFormatError, ModelNotFoundError
from gkiller.model.layout import MAX_TOKENIZER_BYTES, TOKENIZER, default_model, is_default, settled
from gkiller.model.pretrained import is_local, load_own_tokenizer, locate
from gkiller.model.wordpiece import REMEDY, parse_tokenizer

if TYPE_CHECKING:
    from gkiller.settings.definition import ModelSettings


def load_tokenizer(settings: ModelSettings) -> Tokenizer:
    """Load the tokenizer that the settings ask for.

    ``model.tokenizer`` when set; else the pretrained encoder's own; else the one gkiller ships.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is not a tokenizer that BERT can use.
        HubUnavailableError: the hub cannot be reached.
    """
    settings = settled(settings)
    if settings.tokenizer is not None:
        return read_tokenizer(Path(settings.tokenizer).expanduser(), settings.max_length)
    if is_default(settings.encoder):
        return read_tokenizer(default_model() / TOKENIZER, settings.max_length)
    if settings.encoder == "fresh":
        return read_tokenizer(tokenizer_path(), settings.max_length)
    folder = Path(locate(settings)[0])
    if is_local(settings.encoder) and (folder / "tokenizer.json").is_file():
        return read_tokenizer(folder / "tokenizer.json", settings.max_length)
    return _convert(settings)


def read_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """Read a tokenizer from a ``tokenizer.json``, or from a directory that has one; see `parse_tokenizer`.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is not a tokenizer that BERT can use.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        with path.open("rb") as source:
            data = source.read(MAX_TOKENIZER_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            "no such tokenizer", where=str(path), remedy="name a tokenizer.json file"
        ) from error
    except OSError as error:
        what = f"the tokenizer cannot be read: {error}"
        raise ModelFormatError(what, where=str(path), remedy=REMEDY) from error
    return parse_tokenizer(data, str(path), max_length)


def _convert(settings: ModelSettings) -> Tokenizer:
    """Let transformers find the encoder's tokenizer, which can be an older vocab.txt."""
    own = getattr(load_own_tokenizer(settings), "backend_tokenizer", None)
    # Where it finds no vocabulary, transformers makes a tokenizer that knows the special tokens alone.
    if own is None or own.get_vocab_size() <= len(own.get_added_tokens_decoder()):
        raise ModelFormatError(
            "the encoder came without a tokenizer.json or vocab.txt",
            where=settings.encoder,
            remedy="set model.tokenizer to the tokenizer.json that belongs to it",
        )
    return parse_tokenizer(own.to_str(), settings.encoder, settings.max_length)
