"""A small hand-made corpus, a small vocabulary and small settings, for tests that train."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from gkiller.settings import Settings, resolve

FRIENDLY = (
    "thank you for the careful edit of this page",
    "please add a source to the second paragraph",
    "good work on the map of the old town",
    "we should talk about the title before the move",
    "the photo of the bridge is from last summer",
    "nice catch the date was wrong by a year",
    "can someone check the numbers in the table",
    "welcome to the project and have fun here",
)
RUDE = ("idiot", "fool", "clown", "moron", "loser", "dimwit")
THREATS = ("watch your back", "you will regret it")
OPENERS = ("well", "so", "hm", "look", "sure", "right", "now", "still")
SIX = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
CANONICAL_SIX = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")

TINY = (
    "model.layers=1",
    "model.hidden=16",
    "model.heads=2",
    "model.ffn=16",
    "model.max_length=16",
    "train.epochs=2",
    "train.batch_size=16",
    "train.threads=1",
    "train.device=cpu",
    "dendrites.epochs=2",
    "dendrites.joint_epochs=1",
    "evaluation.resamples=10",
)


def comment(number: int, rude: bool) -> str:
    """The same number gives the same comment."""
    draw = random.Random(f"{number}-{rude}")
    words = [draw.choice(OPENERS), *draw.choice(FRIENDLY).split(), str(number)]
    if rude:
        words.insert(draw.randrange(1, len(words)), draw.choice(RUDE))
    return " ".join(words)


def toy_rows(count: int) -> list[tuple[str, str, int]]:
    """Identifier, comment and label; every fourth is rude."""
    return [(f"row{i}", comment(i, i % 4 == 0), int(i % 4 == 0)) for i in range(count)]


def six_label_rows(count: int) -> list[tuple[object, ...]]:
    """Rows in the layout of the Kaggle file: id, comment_text and six 0/1 columns."""
    rows: list[tuple[object, ...]] = []
    for i, text, rude in toy_rows(count):
        number = int(i.removeprefix("row"))
        threat = int(rude and number % 8 == 0)
        body = f'{text},\n"{THREATS[number % 2]}"' if threat else text
        rows.append((i, body, rude, int(rude and number % 12 == 0), threat, threat, rude, int(number % 5 == 0)))
    return rows


def write_toy_csv(path: Path, count: int = 160) -> Path:
    return _write(path, ("id", "text", "toxicity"), toy_rows(count))


def write_six_label_csv(path: Path, count: int = 200) -> Path:
    return _write(path, ("id", "comment_text", *SIX), six_label_rows(count))


def _write(path: Path, header: tuple[str, ...], rows: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def vocabulary() -> list[str]:
    """Special tokens, the corpus's words, and pieces for what it lacks."""
    words = {w for text in (*FRIENDLY, *RUDE, *THREATS, *OPENERS) for w in text.split()}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{c}" for c in letters), *sorted(words - set(letters)), *',.!"[]']
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]


def toy_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of about 150 pieces, built as BERT's is."""
    entries = {piece: number for number, piece in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(entries, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", entries["[SEP]"]), ("[CLS]", entries["[CLS]"]))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def tiny_settings(*overrides: str) -> Settings:
    """Settings of a network that trains in a second; nothing is read from the environment."""
    return resolve(overrides=[*TINY, *overrides], environ={}, directory=Path(__file__).parent).settings


def record_path(place: Path, run: str, path: str) -> None:
    """Let a run's manifest record where its data are."""
    file = place / "runs" / run / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["data"]["path"] = path
    file.write_text(json.dumps(manifest))
