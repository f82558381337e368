"""Tokenizers: load one, and turn comments into token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import ModelFormatError, ModelNotFoundError
from gkiller.model.pretrained import is_local, load_own_tokenizer, locate

if TYPE_CHECKING:
    from gkiller.settings.definition import ModelSettings

REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_REMEDY = "name a tokenizer.json that was saved for a BERT model, or use the one gkiller ships"


def parse_tokenizer(text: str, where: str, max_length: int) -> Tokenizer:
    """Make a tokenizer from its JSON text, truncating at ``max_length`` tokens and never padding.

    Special tokens written out in a comment ("[SEP]") are read as ordinary text.

    Raises:
        ModelFormatError: the text is not a tokenizer, or lacks BERT's special tokens, or does not put them
            around a comment.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise ModelFormatError(f"not a tokenizer: {error}", where=where, remedy=_REMEDY) from error
    missing = [token for token in REQUIRED_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise ModelFormatError(f"the tokenizer has no {', '.join(missing)}", where=where, remedy=_REMEDY)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    tokenizer.encode_special_tokens = True
    if tokenizer.encode("").tokens != ["[CLS]", "[SEP]"]:
        what = "the tokenizer does not put [CLS] before and [SEP] after a comment"
        raise ModelFormatError(what, where=where, remedy=_REMEDY)
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
    folder = Path(locate(settings)[0])
    if is_local(settings.encoder) and (folder / "tokenizer.json").is_file():
        return _read(folder / "tokenizer.json", settings.max_length)
    return _convert(settings)


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
        what = f"the tokenizer cannot be read: {error}"
        raise ModelFormatError(what, where=str(path), remedy=_REMEDY) from error
    return parse_tokenizer(text, str(path), max_length)


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
