"""Train the WordPiece tokenizer that gkiller ships, gkiller/assets/tokenizer.json.

Usage: python tools/train_tokenizer.py DIRECTORY [--vocab-size 16384]

DIRECTORY holds Parquet files with a ``text`` column. The asset was made from the training splits of
public moderation corpora (Jigsaw, Civil Comments, OLID, EDOS, HatEval, HatemojiBuild, ToxiGen and others).
Only word pieces are kept, no text. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ASSET = Path(__file__).resolve().parent.parent / "gkiller" / "assets" / "tokenizer.json"
ALPHABET_SIZE = 400
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids 0..4, the order BERT's code expects


def texts(directory: Path) -> Iterator[list[str]]:
    """Yield batches of comments from every Parquet file, in name order."""
    for path in sorted(directory.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=["text"]):
            yield [text for text in batch.column(0).to_pylist() if text]


def alphabet(directory: Path, normalizer: normalizers.Normalizer, size: int) -> list[str]:
    """Return the ``size`` most frequent characters after normalisation; ties in code-point order."""
    counts: Counter[str] = Counter()
    for batch in texts(directory):
        for text in batch:
            counts.update(normalizer.normalize_str(text))
    frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    return sorted(frequent[:size])


def vocabulary(directory: Path, vocab_size: int) -> dict[str, int]:
    """Learn the word pieces and their ids.

    The trainer numbers the continuing characters ("##a") in the order it meets them, which differs
    from run to run, and breaks ties between merges by these numbers. Declaring them all beforehand,
    as if they were special tokens, makes the result the same each time.
    """
    tokenizer = blank(models.WordPiece(unk_token="[UNK]"))
    characters = alphabet(directory, tokenizer.normalizer, ALPHABET_SIZE)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=3,
        special_tokens=SPECIAL + characters + [f"##{c}" for c in characters],
        initial_alphabet=characters,
        limit_alphabet=ALPHABET_SIZE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(directory), trainer)
    vocab: dict[str, int] = tokenizer.get_vocab()
    return vocab


def blank(model: models.Model) -> Tokenizer:
    """Return a lower-casing tokenizer in BERT's conventions around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def train(directory: Path, vocab_size: int) -> Tokenizer:
    """Train the tokenizer."""
    vocab = vocabulary(directory, vocab_size)
    tokenizer = blank(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vocab-size", type=int, default=16_384)
    parser.add_argument("--out", type=Path, default=ASSET)
    arguments = parser.parse_args()
    train(arguments.directory, arguments.vocab_size).save(str(arguments.out))
