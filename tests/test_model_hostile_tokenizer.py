"""Model directories that somebody made to do harm: the tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import refused, replace
from toy import toy_tokenizer

from gkiller.model.directory import load_model
from gkiller.tokens.visible import READINGS


def tokenizer(change: Callable[..., Any]) -> dict[str, Any]:
    content = json.loads(toy_tokenizer().to_str())
    change(content)
    return content


def template(
    content: dict[str, Any],
    single: Any = ("[CLS]", None, "[SEP]"),
    ids: dict[str, list[int]] | None = None,
    defined: tuple[Any, ...] = ("[CLS]", "[SEP]"),
) -> None:
    pieces = [
        {"SpecialToken": {"id": name, "type_id": 0}} if name else {"Sequence": {"id": "A", "type_id": 0}}
        for name in single
    ]
    ids = ids or {"[CLS]": [2], "[SEP]": [3]}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": pieces,
        "special_tokens": {name: {"id": name, "ids": ids[name], "tokens": [name]} for name in defined},
    }


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
CUT = {"direction": "Left", "max_length": 1, "strategy": "OnlyFirst", "stride": 9}


def replaces(pattern: int | str = "а", content: int | str = "a", times: int = 1) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    return {"type": "Sequence", "normalizers": [one] * times}


ANYTHING = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["model"]["vocab"].update(good=156), "numbered 156"),
        (lambda t: t["model"]["vocab"].update(good=4_000_000_000), "numbered 4000000000"),
        (lambda t: t["model"]["vocab"].update(good=2**32), "not a tokenizer"),
        (lambda t: t["model"]["vocab"].update(good=-1), "not a tokenizer"),
        (lambda t: t["model"]["vocab"].update(good=1.5), "not a tokenizer"),
        (lambda t: t["model"]["vocab"].update(zebra=7), "157 pieces"),
        (lambda t: t["model"].update(vocab=[]), "vocabulary"),
        (lambda t: t["model"].update(unk_token="zebra"), "unk_token"),
        (lambda t: t["model"].update(unk_token=["[UNK]"]), "not a tokenizer"),
        (lambda t: t["model"].update(max_input_chars_per_word=10**9), "max_input_chars_per_word"),
        (lambda t: t["model"].update(max_input_chars_per_word="9"), "not a tokenizer"),
        (lambda t: t["model"].update(type="BPE", merges=[["a", "b"]]), "'BPE'"),
        (lambda t: t["model"].pop("type") and t["model"].update(merges=[["a", "b"]]), "'BPE'"),
        (lambda t: t.update(model={"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}), "'Unigram'"),
        (lambda t: t.update(model={"type": "Sequence", "models": [t["model"]]}), "'Sequence'"),
        (lambda t: t.update(model=None), "model is not an object"),
        (lambda t: t.pop("model"), "model is not an object"),
        (lambda t: t.update(pre_tokenizer=SPLIT), "'Split'"),
        (lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]}), "'Split'"),
        (lambda t: t.update(normalizer=ANYTHING), "replaces something else"),
        (lambda t: t.update(normalizer=ANYTHING | {"content": ""}), "replaces something else"),
        (
            lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": READINGS[0][0]}, "content": "b"}),
            "replaces something else",
        ),
        (lambda t: t.update(normalizer=replaces(content="a" * 1000)), "replaces something else"),
        (lambda t: t.update(normalizer=replaces(content="")), "replaces something else"),
        (lambda t: t.update(normalizer=replaces(content=5)), "replaces something else"),
        (lambda t: t.update(normalizer=replaces("ab")), "replaces something else"),
        (lambda t: t.update(normalizer=replaces(5)), "replaces something else"),
        (lambda t: t.update(normalizer=replaces(times=257)), "257 characters"),
        (lambda t: t.update(normalizer={"type": "Replace", "content": "a"}), "not a tokenizer"),
        (lambda t: t.update(normalizer={"type": "Replace", "pattern": "a"}), "not a tokenizer"),
        (lambda t: t.update(normalizer={"type": "Sequence", "normalizers": 5}), "not a tokenizer"),
        (lambda t: t.update(normalizer={"type": "Sequence"}), "not a tokenizer"),
        (lambda t: t.update(normalizer={"type": ["Lowercase"]}), "not a tokenizer"),
        (lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AA"}), "'Precompiled'"),
        (lambda t: t.update(normalizer={"type": "BertNormalizer"}), "not a tokenizer"),
        (lambda t: t.update(decoder={"type": "Evil"}), "'Evil'"),
        (lambda t: t.update(version="9"), "not a tokenizer"),
        (lambda t: t.update(added_tokens=5), "not a tokenizer"),
        (lambda t: t["post_processor"].update(sep=["[SEP]", 999_999]), "does not put [CLS]"),
        (lambda t: t["post_processor"].update(cls=["[CLS]", 5]), "does not put [CLS]"),
        (lambda t: t.update(post_processor=None), "does not put [CLS]"),
        (lambda t: template(t, ids={"[CLS]": [99_999], "[SEP]": [3]}), "does not put [CLS]"),
        (lambda t: template(t, defined=("[CLS]",)), "does not define"),
        (lambda t: template(t, single=("[CLS]", None, "[SEP]", "[SEP]")), "does not put [CLS]"),
        (lambda t: template(t, single=("[CLS]", "[SEP]")), "0 times"),
        (lambda t: template(t, single=("[CLS]", None, None, "[SEP]")), "2 times"),
    ],
    ids=range(46),
)
def test_a_tokenizer_that_is_hostile(saved: Path, change: Callable[..., Any], said: str) -> None:
    replace(saved, "tokenizer.json", tokenizer(change))
    refused(saved, said)


def added(number: Any = 1, **changes: Any) -> Any:
    """Change a tokenizer: more tokens that are looked for in a comment."""
    one = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}

    def change(content: Any) -> None:
        vocabulary = content["model"]["vocab"]
        for name in list(vocabulary)[:number] * (number // len(vocabulary) + 1):
            content["added_tokens"].append(one | {"id": vocabulary[name], "content": name} | changes)

    return change


def unknown(content: dict[str, Any]) -> None:
    """Each unknown word gives a megabyte."""
    content["model"]["vocab"]["u" * 10**6] = content["model"]["vocab"].pop("[UNK]")
    content["model"]["unk_token"] = "u" * 10**6


def expanded(content: dict[str, Any]) -> None:
    """Each step makes three spaces of one."""
    steps = [{"type": "NFKD"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\ufdfa"}]
    content["normalizer"] = {"type": "Sequence", "normalizers": steps * 8}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFKD"}] * 100_000}),
            "100,000 parts",
        ),
        (
            lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 1000}),
            "1,000 parts",
        ),
        (lambda t: t.update(normalizer=replaces(times=1000)), "1,000 characters"),
        (lambda t: t.update(normalizer=replaces(times=2)), "a character twice"),
        (lambda t: t.update(normalizer=replaces(content="\ufdfa")), "made of others"),
        (expanded, "a character twice"),
        (lambda t: template(t, single=("[CLS]", None, *["[SEP]"] * 1000)), "1,002 parts"),
        (lambda t: t["model"].update(max_input_chars_per_word=1000), "max_input_chars_per_word"),
        (lambda t: t["model"].update(continuing_subword_prefix="#" * 10**6), "more than 200 characters"),
        (unknown, "more than 200 characters"),
        (added(2000), "added tokens"),
        (added(content="a" * 201), "more than 200 characters"),
        (added(lstrip=True), "takes the spaces before it"),
    ],
)
def test_a_tokenizer_whose_time_or_memory_grows(saved: Path, change: Callable[..., Any], said: str) -> None:
    replace(saved, "tokenizer.json", tokenizer(change))
    refused(saved, said)


@pytest.mark.parametrize(
    "change",
    [
        template,
        lambda t: t["model"].pop("type"),  # as older files have it
        lambda t: t.update(truncation={"direction": "Left", "max_length": 1, "strategy": "OnlyFirst", "stride": 9}),
        lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}),
        lambda t: t.update(normalizer=replaces()),
    ],
)
def test_tokenizers_that_are_not_hostile(saved: Path, change: Callable[..., Any]) -> None:
    replace(saved, "tokenizer.json", tokenizer(change))
    loaded = load_model(saved)
    assert loaded.tokenizer.encode("good work").tokens == ["[CLS]", "good", "work", "[SEP]"]


def test_a_panic_of_the_library_is_an_error_of_the_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gkiller.tokens.wordpiece._check_parts", lambda content: None)
    replace(saved, "tokenizer.json", tokenizer(lambda t: t.update(normalizer=CHARSMAP)))
    refused(saved, "not a tokenizer: Precompiled")
    assert "panicked" in capfd.readouterr().err  # the library's own words; they cannot be held back


def test_an_interrupt_is_not_taken_for_a_panic(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(content: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gkiller.tokens.wordpiece._check_parts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_model(saved)
