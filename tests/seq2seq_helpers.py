"""A tiny T5 of random weights, saved as the hub has such models."""

from __future__ import annotations

from pathlib import Path

import torch
from toy import toy_tokenizer


def write_seq2seq(folder: Path, *, ends: bool = True, seed: int = 0) -> Path:
    """Save a model whose answers are random words; they end at the latest at the longest length, or never."""
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=toy_tokenizer(), pad_token="[PAD]", eos_token="[SEP]", unk_token="[UNK]"
    )
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    torch.manual_seed(seed)
    config = T5Config(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        initializer_factor=5.0,
        pad_token_id=pad,
        eos_token_id=end,
        decoder_start_token_id=pad,
    )
    model = T5ForConditionalGeneration(config)
    if ends:
        model.generation_config.forced_eos_token_id = end
    else:
        model.generation_config.suppress_tokens = [end]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
