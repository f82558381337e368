"""A tokenizer from a tokenizer.json that anybody may have written; nothing here needs torch.

Two families of special tokens are read, told apart by what the file's post-processor puts before a comment:
BERT's ([CLS] comment [SEP], [PAD], [UNK], [MASK]) and RoBERTa's (<s> comment </s>, <pad>, <unk>, <mask>),
which MPNet has too. A vocabulary may hold the other family's as ordinary pieces, as MPNet's does.

Two kinds of tokenizers are read: word pieces (BERT, DistilBERT, MPNet), made of `_PARTS`; and RoBERTa's
byte-level BPE, made of `_BYTE_LEVEL_PARTS`, without its random dropout and with all 256 bytes in its
vocabulary, so that no comment has an unknown piece. Its one regular expression is the library's own.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer, pre_tokenizers

from gkiller.errors import ModelFormatError, ModelNotFoundError, is_fault_of_input
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.visible import READINGS
from gkiller.wording import one_line

COUNTED_FROM_PADDING: Final = ("mpnet", "roberta")
"""Values of model_type whose first token has the position pad_token_id + 1: of 514 positions 512 are used."""
MAX_TOKENIZER_BYTES: Final = 32 * 2**20
"""Of a tokenizer.json; that of the multilingual BERT has 2 MiB."""


class SpecialTokens(NamedTuple):
    """The special tokens of a family, by name; a tokenizer must have all but the last."""

    pad: str
    unknown: str
    first: str
    last: str
    mask: str


class SpecialIds(NamedTuple):
    """The ids of a tokenizer's special tokens; one without a mask token has None there."""

    pad: int
    unknown: int
    first: int
    last: int
    mask: int | None

    @property
    def kept(self) -> tuple[int, ...]:
        """Padding and ends: what is never hidden, and never drawn."""
        return self.pad, self.first, self.last


BERT: Final = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA: Final = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")

_PARTS = {
    "normalizer": {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Replace", "Strip", "StripAccents"},
    "pre_tokenizer": {"BertPreTokenizer", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"},
    "model": {"WordPiece", "WordLevel"},
    "post_processor": {"BertProcessing", "RobertaProcessing", "TemplateProcessing"},
    "decoder": {"WordPiece"},
}
"""What a tokenizer of word pieces is made of. Others can hold regular expressions that take for ever on some comment,
or texts that grow with each character, or they crash on some inputs. A Replace must be one of `READINGS`, or of one
character by one character, such as a letter of another script that looks like a Latin one."""

_BYTE_LEVEL_PARTS: dict[str, set[str]] = {
    "normalizer": set(),
    "pre_tokenizer": {"ByteLevel"},
    "model": {"BPE"},
    "post_processor": {"RobertaProcessing", "TemplateProcessing"},
    "decoder": {"ByteLevel"},
}
_BYTE_LEVEL_MODEL: dict[str, tuple[Any, ...]] = {
    "dropout": (None,),
    "byte_fallback": (None, False),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
"""What the BPE of a byte-level tokenizer must say, or leave out: anything else makes its pieces random, or
another kind of BPE."""
_MAX_REPLACED = 256  # characters that a normalizer may replace: it goes through a comment once for each
_MAX_PARTS = 16  # of a post-processor; of a normalizer or pre-tokenizer, others, each of which goes through a comment
_MAX_WORD = 200  # characters of a word that WordPiece looks at: its time grows with their square
_MAX_ADDED = 2000  # tokens added to a vocabulary
_MAX_TOKEN = 200  # characters of an added token, and of what is written for or before each piece of a comment
REMEDY = "name a tokenizer.json that was saved for a BERT model, or use the one gkiller ships"
_POSTS_WITH_ENDS = ("BertProcessing", "RobertaProcessing")


def parse_tokenizer(text: str | bytes, where: str, max_length: int) -> Tokenizer:
    """Make a tokenizer from its JSON text, truncating at ``max_length`` tokens and never padding.

    Special tokens written out in a comment ("[SEP]") are read as ordinary text.

    Raises:
        ModelFormatError: the text is not a tokenizer, has other parts than those that are read, lacks its
            family's special tokens, or does not put them around a comment.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with _parsing(where):
        if len(data) > MAX_TOKENIZER_BYTES:
            raise ValueError(f"it has more than the {MAX_TOKENIZER_BYTES:,} bytes that are allowed")
        content = parse_json(data)
        _check_parts(content)
        names = _family(content.get("post_processor"))
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
        if type(tokenizer.model).__name__ not in _parts_of(content)["model"]:
            raise ValueError(f"its model is {type(tokenizer.model).__name__}")
        if missing := [token for token in names[:-1] if tokenizer.token_to_id(token) is None]:
            raise ValueError(f"it has no {', '.join(missing)}")
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        tokenizer.encode_special_tokens = True
        empty, ends = tokenizer.encode(""), [names.first, names.last]
        if empty.tokens != ends or empty.ids != [tokenizer.token_to_id(token) for token in ends]:
            raise ValueError(f"it does not put {names.first} before and {names.last} after a comment")
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Return the special tokens of a tokenizer that `parse_tokenizer` made."""
    ends = tokenizer.encode("").tokens
    names = ROBERTA if ends[:1] == [ROBERTA.first] else BERT
    found = [tokenizer.token_to_id(token) for token in names[:-1]]
    pad, unknown, first, last = (-1 if number is None else number for number in found)
    return SpecialIds(pad, unknown, first, last, tokenizer.token_to_id(names.mask))


def check_padding(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Raise a ValueError where the network counts positions from another padding than the tokenizer's."""
    pad, known = special_ids(tokenizer).pad, config.get("pad_token_id")
    if config.get("model_type") in COUNTED_FROM_PADDING and pad != known:
        raise ValueError(f"the tokenizer pads with {pad}, and the network counts positions from {known}")


def check_vocabulary(tokenizer: Tokenizer, known: Any) -> None:
    """Raise a ValueError where the tokenizer has a piece beyond the number that the network knows."""
    if type(known) is not int:
        raise ValueError(f"vocab_size {str(known)[:80]!r} is not a number of pieces")
    if tokenizer.get_vocab_size() > known:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} pieces, the network knows {known}")
    largest = max(tokenizer.get_vocab().values())
    if largest >= known:
        raise ValueError(f"the tokenizer has a piece numbered {largest}, the network knows {known} pieces")


@contextmanager
def _parsing(where: str) -> Iterator[None]:
    """Turn what the tokenizers library raises, a panic of its Rust code included, into one error."""
    try:
        yield
    except BaseException as error:
        if not is_fault_of_input(error):
            raise
        raise ModelFormatError(f"not a tokenizer: {one_line(error)}", where=where, remedy=REMEDY) from error


def _parts_of(content: dict[str, Any]) -> dict[str, set[str]]:
    """Return the parts that a tokenizer may have: a byte-level BPE's, or those of word pieces."""
    pre = content.get("pre_tokenizer")
    byte_level = isinstance(pre, dict) and pre.get("type") == "ByteLevel"
    return _BYTE_LEVEL_PARTS if byte_level else _PARTS


def _family(post: Any) -> SpecialTokens:
    """Return the family whose first token a checked post-processor puts before a comment; else BERT's."""
    if not isinstance(post, dict):
        return BERT
    if post.get("type") in _POSTS_WITH_ENDS:
        first = post["cls"][0]
    else:
        first = next((piece["SpecialToken"]["id"] for piece in post["single"] if "SpecialToken" in piece), "")
    return ROBERTA if first == ROBERTA.first else BERT


def _check_parts(content: dict[str, Any]) -> None:
    """Raise a ValueError where a tokenizer has other parts than those that are read."""
    parts = _parts_of(content)
    whose = "BERT's" if parts is _PARTS else "a byte-level tokenizer's"
    for part, types in parts.items():
        for kind in _types(content.get(part), part):
            if kind not in types:
                known = f"one of {', '.join(sorted(types))}" if types else "none"
                raise ValueError(f"its {part} is {str(kind)[:80]!r}, and {whose} is {known}")
    _check_replaced(content.get("normalizer"))
    _check_sizes(content)
    model = content["model"]
    if not isinstance(model.get("vocab"), dict):
        raise ValueError("its vocabulary is not an object")
    (_check_word_pieces if parts is _PARTS else _check_byte_level)(model)
    post = content.get("post_processor") or {}
    if post.get("type") == "TemplateProcessing":
        used = {piece["SpecialToken"]["id"] for piece in post["single"] if "SpecialToken" in piece}
        if not used <= post["special_tokens"].keys():
            raise ValueError("its post_processor uses a special token that it does not define")
        if (times := sum("Sequence" in piece for piece in post["single"])) != 1:
            raise ValueError(f"its post_processor has the comment {times} times, not once")


def _check_replaced(normalizer: dict[str, Any] | None) -> None:
    """Demand that a character is replaced once at most, so that no comment grows with each part."""
    replaced = [one for one in normalizers_in(normalizer) if one["type"] == "Replace"]
    for one in replaced:
        characters = one["pattern"].get("String"), one["content"]
        if not is_reading(one) and not all(isinstance(text, str) and len(text) == 1 for text in characters):
            raise ValueError("its normalizer replaces something else than one character by one character")
    if len(replaced) > _MAX_REPLACED:
        raise ValueError(f"its normalizer replaces {len(replaced):,} characters, not {_MAX_REPLACED:,} at most")
    if len({json.dumps(one["pattern"], sort_keys=True) for one in replaced}) < len(replaced):
        raise ValueError("its normalizer replaces a character twice")
    if any(unicodedata.normalize("NFKD", one["content"]) != one["content"] for one in replaced):
        raise ValueError("its normalizer replaces a character by one that is made of others")


def _check_sizes(content: dict[str, Any]) -> None:
    """Demand no more parts and no longer texts than tokenizers have: time and memory grow with them."""
    sizes = {
        "normalizer": [one for one in normalizers_in(content.get("normalizer")) if one["type"] != "Replace"],
        "pre_tokenizer": (content.get("pre_tokenizer") or {}).get("pretokenizers", []),
        "post_processor": (content.get("post_processor") or {}).get("single", []),
    }
    for name, parts in sizes.items():
        if len(parts) > _MAX_PARTS:
            raise ValueError(f"its {name} has {len(parts):,} parts, not {_MAX_PARTS} at most")
    added = content.get("added_tokens") or []
    if len(added) > _MAX_ADDED:
        raise ValueError(f"it has {len(added):,} added tokens, not {_MAX_ADDED:,} at most")
    model = content["model"]
    texts = [token["content"] for token in added]
    texts += [model.get(key) or "" for key in ("unk_token", "continuing_subword_prefix")]
    if any(len(text) > _MAX_TOKEN for text in texts):
        raise ValueError(f"one of its tokens has more than {_MAX_TOKEN} characters")
    # The library looks back to a comment's beginning at each.
    if any(token.get("lstrip") and not token.get("special") for token in added):
        raise ValueError("an added token that is not special takes the spaces before it")


def normalizers_in(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the parts of a checked normalizer, as a tokenizer.json has them, in their order."""
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer["type"] == "Sequence" else [normalizer]


def is_reading(normalizer: Mapping[str, Any]) -> bool:
    """Return whether a part of a normalizer, as a tokenizer.json has it, is one of `READINGS`."""
    replaces = normalizer["type"] == "Replace"
    return replaces and (normalizer["pattern"].get("Regex"), normalizer["content"]) in READINGS


def _check_word_pieces(model: dict[str, Any]) -> None:
    if model.get("unk_token") not in model["vocab"]:
        raise ValueError("its unk_token is not in its vocabulary")
    if not 1 <= model.get("max_input_chars_per_word", 1) <= _MAX_WORD:
        raise ValueError(f"max_input_chars_per_word is not in 1..{_MAX_WORD}")


def _check_byte_level(model: dict[str, Any]) -> None:
    for key, allowed in _BYTE_LEVEL_MODEL.items():
        if model.get(key) not in allowed:
            raise ValueError(f"its {key} is {str(model[key])[:80]!r}")
    lacking = set(pre_tokenizers.ByteLevel.alphabet()) - model["vocab"].keys()
    if lacking:
        raise ValueError(f"its vocabulary lacks {len(lacking)} of the 256 bytes")


def _types(part: Any, name: str) -> list[Any]:
    """Return the types of a part, or of those in a sequence of them; none for an optional part."""
    if part is None and name != "model":
        return []
    if not isinstance(part, dict):
        raise ValueError(f"its {name} is not an object")
    if name == "model" and "type" not in part and "continuing_subword_prefix" in part:
        return ["WordPiece" if "merges" not in part else "BPE"]  # older files do not name it
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}.get(name)
    if part.get("type") != "Sequence" or inner is None:
        return [part.get("type")]
    return [item.get("type") if isinstance(item, dict) else None for item in part[inner]]


def read_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """Read a tokenizer from a ``tokenizer.json``, or from a directory that has one; see `parse_tokenizer`.

    Raises:
        ModelNotFoundError: no such file.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        with path.open("rb") as source:
            data = source.read(MAX_TOKENIZER_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError("no such tokenizer", where=str(path), remedy="name a tokenizer.json file") from error
    except OSError as error:
        raise ModelFormatError(f"the tokenizer cannot be read: {error}", where=str(path), remedy=REMEDY) from error
    return parse_tokenizer(data, str(path), max_length)
