"""Tokenizers: special tokens in comments are text, and long comments are cut."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from toy import tiny_settings, toy_tokenizer, vocabulary

from gkiller.errors import ModelFormatError, ModelNotFoundError
from gkiller.model.pretrained import load_tokenizer
from gkiller.tokens.batches import tokenize
from gkiller.tokens.wordpiece import parse_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CACHED = parse_tokenizer(toy_tokenizer().to_str(), "here", 16)


def shipped(*overrides: Any) -> Any:
    return load_tokenizer(tiny_settings(*overrides).model)


def test_the_shipped_tokenizer_wraps_a_comment() -> None:
    tokenizer = shipped()
    tokens = tokenizer.encode("You are kind.").tokens
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert "[UNK]" not in tokens
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("word", SPECIAL)
def test_special_tokens_in_a_comment_are_text(word: str) -> None:
    tokenizer = shipped()
    tokens = tokenizer.encode(f"a {word} b").tokens
    assert word not in tokens[1:-1]
    assert len(tokens) > 5  # the brackets and the word are pieces of their own


@given(st.text(max_size=60), st.sampled_from(SPECIAL), st.text(max_size=60))
def test_no_comment_makes_a_special_token(before: Any, word: Any, after: Any) -> None:
    ids = CACHED.encode(before + word + after).ids
    special = {CACHED.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")}
    assert not special & set(ids[1:-1])
    assert len(ids) <= 16


@pytest.mark.parametrize("length", [8, 16, 32])
def test_long_comments_are_cut_and_stay_wrapped(length: int) -> None:
    tokenizer = shipped(f"model.max_length={length}")
    tokens = tokenizer.encode("good " * 100).tokens
    assert len(tokens) == length
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert len(tokenizer.encode("good").tokens) == 3  # and short ones are not padded


def test_settings_of_the_file_do_not_matter() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    parsed = parse_tokenizer(tokenizer.to_str(), "here", 16)
    assert len(parsed.encode("good").ids) == 3
    assert len(parsed.encode("good " * 50).ids) == 16


def test_a_file_can_be_named_or_its_folder(tokenizer_file: Path) -> None:
    by_file = load_tokenizer(tiny_settings(f"model.tokenizer={tokenizer_file}").model)
    by_folder = load_tokenizer(tiny_settings(f"model.tokenizer={tokenizer_file.parent}").model)
    assert by_file.to_str() == by_folder.to_str()
    assert by_file.get_vocab_size() == len(vocabulary())


def test_tokenize_keeps_order_and_counts(tokenizer_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_settings(f"model.tokenizer={tokenizer_file}").model)
    texts = ["good work", "", "the map of the old town", "x" * 500]
    tokens = tokenize(tokenizer, texts)
    assert len(tokens) == 4
    for row, text in enumerate(texts):
        ids = tokens.ids[tokens.starts[row] : tokens.starts[row + 1]].tolist()
        assert ids == tokenizer.encode(text).ids
    assert tokens.pad == 0


def test_nothing_to_tokenize(tokenizer_file: Path) -> None:
    tokens = tokenize(load_tokenizer(tiny_settings(f"model.tokenizer={tokenizer_file}").model), [])
    assert (len(tokens), tokens.ids.size) == (0, 0)


def lacking(token: Any) -> Any:
    tokenizer = json.loads(toy_tokenizer().to_str())
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] != token]
    tokenizer["model"]["vocab"] = {k: v for k, v in tokenizer["model"]["vocab"].items() if k != token}
    return json.dumps(tokenizer)


def unwrapped() -> Any:
    tokenizer = json.loads(toy_tokenizer().to_str())
    tokenizer["post_processor"] = None
    return json.dumps(tokenizer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a tokenizer"),
        ("{}", "not a tokenizer"),
        ("[1, 2]", "not a tokenizer"),
        (Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str(), "has no [PAD], [UNK], [CLS], [SEP]"),
        (lacking("[PAD]"), "has no [PAD]"),
        (unwrapped(), "does not put [CLS]"),
    ],
    ids=["empty", "object", "list", "other", "lacking", "unwrapped"],
)
def test_what_bert_cannot_use_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelFormatError) as caught:
        load_tokenizer(tiny_settings(f"model.tokenizer={path}").model)
    assert said in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_tokenizer(tiny_settings(f"model.tokenizer={tmp_path / 'none.json'}").model)
    assert "none.json" in caught.value.where
    bad = tmp_path / "latin.json"
    bad.write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(ModelFormatError, match="can't decode byte 0xe9"):
        load_tokenizer(tiny_settings(f"model.tokenizer={bad}").model)
