"""A BERT tokenizer from a tokenizer.json that anybody may have written; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer

from gkiller.errors import ModelFormatError, is_fault_of_input, one_line
from gkiller.model.layout import MAX_TOKENIZER_BYTES
from gkiller.strict_json import parse_json

REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

_PARTS = {
    "normalizer": {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents"},
    "pre_tokenizer": {"BertPreTokenizer", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"},
    "model": {"WordPiece", "WordLevel"},
    "post_processor": {"BertProcessing", "TemplateProcessing"},
    "decoder": {"WordPiece"},
}
"""What a BERT tokenizer is made of. Others can hold regular expressions that take for ever on some comment,
or texts that grow with each character, or they crash on some inputs."""
_MAX_WORD = 1000
"""Characters of a word that WordPiece looks at: its time grows with their square."""
REMEDY = "name a tokenizer.json that was saved for a BERT model, or use the one gkiller ships"


def parse_tokenizer(text: str | bytes, where: str, max_length: int) -> Tokenizer:
    """Make a tokenizer from its JSON text, truncating at ``max_length`` tokens and never padding.

    Special tokens written out in a comment ("[SEP]") are read as ordinary text.

    Raises:
        ModelFormatError: the text is not a tokenizer, has other parts than a BERT tokenizer's, lacks BERT's
            special tokens, or does not put them around a comment.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with _parsing(where):
        if len(data) > MAX_TOKENIZER_BYTES:
            raise ValueError(f"it has more than the {MAX_TOKENIZER_BYTES:,} bytes that are allowed")
        _check_parts(parse_json(data))
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
        if type(tokenizer.model).__name__ not in _PARTS["model"]:
            raise ValueError(f"its model is {type(tokenizer.model).__name__}")
    missing = [token for token in REQUIRED_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise ModelFormatError(f"the tokenizer has no {', '.join(missing)}", where=where, remedy=REMEDY)
    with _parsing(where):
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        tokenizer.encode_special_tokens = True
        empty, ends = tokenizer.encode(""), ["[CLS]", "[SEP]"]
        wraps = empty.tokens == ends and empty.ids == [tokenizer.token_to_id(token) for token in ends]
    if not wraps:
        what = "the tokenizer does not put [CLS] before and [SEP] after a comment"
        raise ModelFormatError(what, where=where, remedy=REMEDY)
    return tokenizer


def check_vocabulary(tokenizer: Tokenizer, known: Any) -> None:
    """Compare a tokenizer with the number of pieces that the network knows.

    Raises:
        ValueError: the tokenizer can give the network a piece that it does not know.
    """
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
        if is_fault_of_input(error):
            what = f"not a tokenizer: {one_line(error)}"
            raise ModelFormatError(what, where=where, remedy=REMEDY) from error
        raise


def _check_parts(content: dict[str, Any]) -> None:
    """Demand the parts of a BERT tokenizer.

    Raises:
        ValueError: a part is another one.
    """
    for part, types in _PARTS.items():
        for kind in _types(content.get(part), part):
            if kind not in types:
                known = ", ".join(sorted(types))
                raise ValueError(f"its {part} is {str(kind)[:80]!r}, and BERT's is one of {known}")
    model = content["model"]
    if not isinstance(model.get("vocab"), dict) or model.get("unk_token") not in model["vocab"]:
        raise ValueError("its unk_token is not in its vocabulary")
    if not 1 <= model.get("max_input_chars_per_word", 1) <= _MAX_WORD:
        raise ValueError(f"max_input_chars_per_word is not in 1..{_MAX_WORD}")
    post = content.get("post_processor") or {}
    if post.get("type") == "TemplateProcessing":
        used = {piece["SpecialToken"]["id"] for piece in post["single"] if "SpecialToken" in piece}
        if not used <= post["special_tokens"].keys():
            raise ValueError("its post_processor uses a special token that it does not define")
        if (times := sum("Sequence" in piece for piece in post["single"])) != 1:
            raise ValueError(f"its post_processor has the comment {times} times, not once")


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
