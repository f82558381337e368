"""Small encoders of random weights, one of each architecture, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from toy import FRIENDLY, RUDE, toy_tokenizer, vocabulary

from gkiller.model.architectures import ARCHITECTURES, new_encoder

KINDS = tuple(ARCHITECTURES)
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
ENDS = ("<s>", "<pad>", "</s>", "<unk>")


def mpnet_tokenizer() -> Tokenizer:
    """Word pieces behind RoBERTa's special tokens; as in MPNet, BERT's are there too, as ordinary pieces."""
    pieces = [*ENDS, *vocabulary(), "<mask>"]
    entries = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(entries, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*ENDS, "[UNK]", "<mask>"])
    return tokenizer


def roberta_tokenizer() -> Tokenizer:
    """A byte-level BPE of all bytes and a few merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted({f"Ġ{word}" for text in (*FRIENDLY, *RUDE) for word in text.split()})
    merges = list(dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word))))
    pieces = dict.fromkeys([*ENDS, *letters, *("".join(pair) for pair in merges), "<mask>"])
    entries = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(entries, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens([*ENDS, "<mask>"])
    return tokenizer


def tokenizer_of(kind: str) -> Tokenizer:
    return {"mpnet": mpnet_tokenizer, "roberta": roberta_tokenizer}.get(kind, toy_tokenizer)()


def write_encoder(folder: Path, kind: str, **changes: object) -> Path:
    """Save an encoder of 16 usable positions with its tokenizer."""
    import transformers

    torch.manual_seed(0)
    tokenizer = tokenizer_of(kind)
    counted = kind in ("mpnet", "roberta")
    values = SMALL | {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 18 if counted else 16,
        "initializer_range": 0.2,
        **({"pad_token_id": 1, "type_vocab_size": 1} if kind == "roberta" else {}),
    }
    config = getattr(transformers, ARCHITECTURES[kind].stem + "Config")(**(values | changes))
    if kind == "distilbert":
        config.hidden_dim = SMALL["intermediate_size"]
    new_encoder(config, pooler=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    return folder


def giant_config(kind: str, folder: Path) -> dict[str, object]:
    """Return the config.json of a saved model directory."""
    content: dict[str, object] = json.loads((folder / "config.json").read_text())
    assert content["model_type"] == kind
    return content
