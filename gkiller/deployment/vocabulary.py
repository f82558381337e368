"""Other vocabularies for a trained network.

A smaller one has the pieces that a reference corpus uses, and single characters for the rest. A larger one
has more pieces, each of which is read as a piece that was there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from gkiller.data.labels import FLAG_LABELS
from gkiller.errors import ExportError
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.directory import LoadedModel, load_model, save_model
from gkiller.model.network import add_dendrites, new_classifier
from gkiller.tokens.batches import tokenize
from gkiller.tokens.wordpiece import parse_tokenizer

if TYPE_CHECKING:
    from gkiller.model.network import ToxicityClassifier

CONTINUATION: Final = "##"
TRIMMED: Final = "vocabulary"
"""What a trimmed model says of it, in the training that gkiller.json tells of."""
_WORDS: Final = "bert.embeddings.word_embeddings.weight"


def save_trimmed(loaded: LoadedModel, texts: Sequence[str], most: int, folder: Path) -> LoadedModel:
    """Save a model that knows fewer pieces, and load it.

    Kept are special tokens, single characters (so that a word whose piece is gone is still spelt out, and not
    [UNK]), and of the other pieces those that ``texts`` use most.

    Args:
        most: pieces kept in all; special tokens and characters are kept even beyond it.

    Raises:
        ExportError: the encoder is not BERT, the tokenizer not WordPiece, or there is nothing to leave out.
    """
    content = _word_pieces(loaded, "trimmed", "leave out --vocabulary")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    kept = _kept(vocabulary, {token["content"] for token in content["added_tokens"]}, loaded, texts, most)
    if len(kept) >= len(vocabulary):
        raise ExportError(
            f"all {len(vocabulary):,} pieces are kept, so there is nothing to trim",
            where=str(loaded.path),
            remedy="ask for fewer with --vocabulary",
        )
    text = _as_text(_renumbered(content, kept))
    parse_tokenizer(text, str(loaded.path), loaded.max_length)
    metadata = loaded.metadata
    save_model(
        folder,
        _with_rows(loaded.model, [vocabulary[piece] for piece in kept]),
        text,
        labels=loaded.labels,
        thresholds=metadata["thresholds"],
        flag_labels=metadata.get(FLAG_LABELS),
        max_length=loaded.max_length,
        card=(loaded.path / "README.md").read_text("utf-8") if loaded.path else "",
        training={**metadata["training"], TRIMMED: {"kept": len(kept), "of": len(vocabulary)}},
    )
    return load_model(folder)


def with_pieces(loaded: LoadedModel, alike: Mapping[str, str]) -> tuple[ToxicityClassifier, str]:
    """Return a network that knows more pieces, and its tokenizer.json.

    WordPiece takes the longest piece that a word begins with, so a new piece also changes longer words that
    begin with it, or go on with it where it begins with "##".

    Returns:
        The network, whose new rows of the word embedding come last, and the tokenizer's JSON.

    Raises:
        ExportError: the encoder is not BERT, or the tokenizer not WordPiece.
        ValueError: a new piece is in the vocabulary, or the piece that it is like is not.
    """
    content = _word_pieces(loaded, "enlarged", "leave the vocabulary as it is")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    if there := alike.keys() & vocabulary.keys():
        raise ValueError(f"{min(there)!r} is in the vocabulary already")
    if lacking := set(alike.values()) - vocabulary.keys():
        raise ValueError(f"{min(lacking)!r} is not in the vocabulary")
    rows = [*range(loaded.tokenizer.get_vocab_size()), *(vocabulary[piece] for piece in alike.values())]
    numbers = dict(zip(alike, range(loaded.tokenizer.get_vocab_size(), len(rows)), strict=True))
    larger = {**content, "model": {**content["model"], "vocab": {**vocabulary, **numbers}}}
    return _with_rows(loaded.model, rows), _as_text(larger)


def _word_pieces(loaded: LoadedModel, changed: str, remedy: str) -> dict[str, Any]:
    """Return the JSON of the tokenizer, which is of word pieces, of a BERT."""
    kind = loaded.model.bert.config.model_type
    what = f"a {kind} encoder"
    if kind == "bert":
        content: dict[str, Any] = json.loads(loaded.tokenizer.to_str())
        if content["model"].get("type") == "WordPiece":
            return content
        what = f"a {content['model'].get('type')} tokenizer"
    raise ExportError(f"the vocabulary of {what} cannot be {changed}", where=str(loaded.path), remedy=remedy)


def _as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _kept(
    vocabulary: dict[str, int], special: set[str], loaded: LoadedModel, texts: Sequence[str], most: int
) -> list[str]:
    """Return the pieces to keep, in the order of their ids."""
    always = {piece for piece in vocabulary if piece in special or len(piece.removeprefix(CONTINUATION)) == 1}
    counts = Counter(tokenize(loaded.tokenizer, texts).ids.tolist())
    others = sorted(
        (piece for piece, number in vocabulary.items() if counts[number] and piece not in always),
        key=lambda piece: (-counts[vocabulary[piece]], vocabulary[piece]),
    )
    chosen = always | set(others[: max(0, most - len(always))])
    return sorted(chosen, key=vocabulary.__getitem__)


def _renumbered(content: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    """Return the tokenizer's JSON with the kept pieces alone, numbered from 0."""
    numbers = {piece: number for number, piece in enumerate(kept)}
    processor = dict(content["post_processor"] or {})
    for end in ("sep", "cls"):
        if end in processor:
            processor[end] = [processor[end][0], numbers[processor[end][0]]]
    if "special_tokens" in processor:
        processor["special_tokens"] = {
            name: {**token, "ids": [numbers[piece] for piece in token["tokens"]]}
            for name, token in processor["special_tokens"].items()
        }
    return {
        **content,
        "padding": None,
        "truncation": None,
        "added_tokens": [{**token, "id": numbers[token["content"]]} for token in content["added_tokens"]],
        "post_processor": processor,
        "model": {**content["model"], "vocab": numbers},
    }


def _with_rows(model: ToxicityClassifier, rows: list[int]) -> ToxicityClassifier:
    """Return the same network with these rows of the word embedding, in their order."""
    config = type(model.bert.config).from_dict({**model.bert.config.to_dict(), "vocab_size": len(rows)})
    modules = dendritic_modules(model)
    with torch.random.fork_rng(devices=[]):
        other = new_classifier(config, model.labels, model.pooling)
        add_dendrites(
            other,
            {name: len(module.dendrites) for name, module in modules.items()},
            next((module.activation for module in modules.values()), "sigmoid"),
        )
    state = dict(model.named_parameters())
    other.load_state_dict({**state, _WORDS: state[_WORDS][rows]})
    return other.eval()
