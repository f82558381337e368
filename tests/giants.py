"""Small encoders of random weights, one of each architecture, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from toy import FRIENDLY, RUDE, comment, tiny_settings, toy_tokenizer, vocabulary
from transformers import BertConfig, PreTrainedTokenizerFast

from gkiller.model.pretrained import ARCHITECTURES, new_encoder
from gkiller.settings.definition import Settings

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


def tiny_bert(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    return BertConfig(vocab_size=len(vocabulary()), max_position_embeddings=64, **sizes, **changes)


def save_transformers(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer(), model_max_length=64, **names).save_pretrained(folder)
    return folder


TEXTS = [
    *(comment(number, number % 2 == 0) for number in range(12)),
    "",
    "you fool",
    "idiot clown",
    "[SEP] <pad> Ünïcode \u4f60\u597d",
    "s " * 60,
]


def giant_settings(encoder: Path, *overrides: Any) -> Settings:
    changes = ("train.epochs=1", "train.lr=0.01", "dendrites.enabled=false", "model.arch=giant")
    own = ("model.pooling=mean", f"model.encoder={encoder}", "train.token_dropout=0", *overrides)
    return tiny_settings(*changes, *own)
