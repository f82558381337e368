"""Tokenizers: load one, and turn comments into token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import HubUnavailableError, ModelFormatError, ModelNotFoundError
from gkiller.model.classifier import is_local

if TYPE_CHECKING:
    from gkiller.settings.definition import ModelSettings

REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def parse_tokenizer(text: str, where: str, max_length: int) -> Tokenizer:
    """Make a tokenizer from its JSON text, truncating at ``max_length`` tokens and never padding.

    Special tokens written out in a comment ("[SEP]") are read as ordinary text.

    Raises:
        ModelFormatError: the text is not a tokenizer, or lacks BERT's special tokens.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise ModelFormatError(f"not a tokenizer: {error}", where=where) from error
    missing = [token for token in REQUIRED_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise ModelFormatError(f"the tokenizer has no {', '.join(missing)}", where=where)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(settings: ModelSettings) -> Tokenizer:
    """Load the tokenizer that the settings ask for.

    ``model.tokenizer`` when set; else the pretrained encoder's own; else the one gkiller ships.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is not a tokenizer that BERT can use.
        HubUnavailableError: the hub cannot be reached.
    """
    if settings.tokenizer is not None:
        return _read(Path(settings.tokenizer).expanduser(), settings.max_length)
    if settings.encoder == "fresh":
        return _read(tokenizer_path(), settings.max_length)
    if is_local(settings.encoder):
        return _read(Path(settings.encoder).expanduser() / "tokenizer.json", settings.max_length)
    return _download(settings)


def _read(path: Path, max_length: int) -> Tokenizer:
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            "no such tokenizer", where=str(path), remedy="name a tokenizer.json file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"the tokenizer cannot be read: {error}", where=str(path)) from error
    return parse_tokenizer(text, str(path), max_length)


def _download(settings: ModelSettings) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        wrapped = AutoTokenizer.from_pretrained(settings.encoder, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise HubUnavailableError(
            "the hub gave no tokenizer for this encoder",
            where=settings.encoder,
            remedy="check the id and the connection, or set model.tokenizer to a tokenizer.json file",
        ) from error
    text: str = wrapped.backend_tokenizer.to_str()
    return parse_tokenizer(text, settings.encoder, settings.max_length)
