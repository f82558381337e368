"""Seq2seq models from a directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from giants import write_encoder
from seq2seq_helpers import write_seq2seq

from gkiller.data.augment.seq2seq import LONGEST, Paraphraser, load_seq2seq
from gkiller.errors import ModelFormatError, ModelNotFoundError
from gkiller.settings import AugmentSettings

TEXTS = ["you are kind", "thank you for the help with this", "you fool", "good"] * 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any] | Path:
    return write_seq2seq(tmp_path_factory.mktemp("seq2seq") / "model")


def test_answers_come_in_the_order_of_the_texts(saved: Path) -> None:
    model = load_seq2seq(str(saved))
    alone = [model.generate([text], 1)[0] for text in TEXTS]
    assert len(set(alone)) > 1
    assert any(alone)
    by_length = sorted(TEXTS, key=len)
    assert model.generate(by_length, 1) == [alone[TEXTS.index(text)] for text in by_length]
    assert model.generate(TEXTS, 4) == model.generate(TEXTS, 4)
    assert model.generate([], 4) == []
    assert not any("[" in answer for answer in alone if answer)


def test_texts_that_do_not_fit_and_answers_that_do_not_end_are_none(saved: Path, tmp_path: Path) -> None:
    model = load_seq2seq(str(saved))
    assert model.generate(["good " * (LONGEST + 1)], 4) == [None]
    endless = load_seq2seq(str(write_seq2seq(tmp_path / "endless", ends=False)))
    assert endless.generate(TEXTS, 4) == [None] * len(TEXTS)


def test_a_chain_sends_answers_on_with_the_prefix(saved: Path) -> None:
    chain = Paraphraser(AugmentSettings(seq2seq=(str(saved), str(saved)), seq2seq_prefix="thank you "))
    model = load_seq2seq(str(saved))
    first = model.generate([f"thank you {text}" for text in TEXTS], 16)
    through = [at for at, answer in enumerate(first) if answer is not None]
    second = model.generate([f"thank you {first[at]}" for at in through], 16)
    expected = dict(zip(through, second, strict=True))
    found = chain.paraphrase(TEXTS)
    assert any(found)
    for at, (text, answer) in enumerate(zip(TEXTS, found, strict=True)):
        wanted = expected.get(at)
        assert answer == (wanted if wanted and wanted != text else None)
    assert chain.digests == [model.digest] * 2


def damage(folder: Path, what: str) -> str:
    """Break a saved model; return what the error says."""
    config = json.loads((folder / "config.json").read_text())
    if what == "no weights":
        (folder / "model.safetensors").unlink()
        return "there is no model.safetensors"
    if what == "broken weights":
        (folder / "model.safetensors").write_bytes(b"\xff" * 100)
        return "cannot be used"
    if what == "other weights":
        config["num_layers"] = 2
        (folder / "config.json").write_text(json.dumps(config))
        return "lacks weights, first encoder.block.1"
    if what == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        return "cannot be used"
    if what == "small vocabulary":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"] |= {f"more{i}": len(tokenizer["model"]["vocab"]) + i for i in range(9)}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        return "pieces and the model knows"
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForSeq2SeqLM": "code.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code of the model was run')\n")
    return "cannot be used"


@pytest.mark.parametrize(
    "what", ["no weights", "broken weights", "other weights", "no tokenizer", "small vocabulary", "own code"]
)
def test_what_is_broken_is_named(tmp_path: Path, what: str) -> None:
    folder = write_seq2seq(tmp_path / "model")
    said = damage(folder, what)
    with pytest.raises(ModelFormatError) as caught:
        load_seq2seq(str(folder))
    assert said in caught.value.what
    assert caught.value.where == str(folder)


def test_encoders_and_places_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be used"):
        load_seq2seq(str(write_encoder(tmp_path / "bert", "bert")))
    with pytest.raises(ModelNotFoundError, match="no such directory"):
        load_seq2seq(str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFoundError, match=r"config\.json is missing"):
        load_seq2seq(str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="no such directory"):
        load_seq2seq("google/t5-small")  # a hub id is not asked for
