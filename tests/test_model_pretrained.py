"""Pretrained encoders, from a directory and from a hub that does not answer."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import tiny_settings, toy_tokenizer, vocabulary
from transformers import BertConfig, BertModel
from transformers.utils import logging

import gkiller
from gkiller.errors import HubUnavailableError, ModelFormatError, ModelNotFoundError
from gkiller.model import pretrained
from gkiller.model.network import ToxicityClassifier, build_classifier
from gkiller.model.pretrained import load_tokenizer

VOCABULARY = len(vocabulary())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny encoder with its tokenizer, as transformers saves it."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    with pretrained.loading("a test"):
        BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(toy_tokenizer().to_str(), encoding="utf-8")
    return folder


@pytest.fixture
def encoder(original: dict[str, bytes], tmp_path: Path) -> Path | str:
    return shutil.copytree(original, tmp_path / "encoder")  # type: ignore[arg-type]


def build(encoder: Path | str, *overrides: Any) -> ToxicityClassifier:
    settings = tiny_settings(f"model.encoder={encoder}", *overrides)
    tokenizer = load_tokenizer(settings.model)
    return build_classifier(settings.model, ("toxicity",), tokenizer.get_vocab_size())


def reconfigure(encoder: Path, **values: Any) -> None:
    path = encoder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


@pytest.mark.parametrize("pooling", ["mean_max", "cls"])
def test_weights_are_the_encoder_s(encoder: Path, pooling: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = build(encoder, f"model.pooling={pooling}", "model.dropout=0.4", "model.attention_dropout=0.1")
    weights = load_file(encoder / "model.safetensors")
    for name, parameter in model.bert.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert any("pooler" in name for name, _ in model.bert.named_parameters()) is (pooling == "cls")
    assert (model.dropout.p, model.bert.config.attention_probs_dropout_prob) == (0.4, 0.1)
    assert capfd.readouterr() == ("", "")


def test_transformers_is_as_talkative_as_before(encoder: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    build(encoder)
    reconfigure(encoder, model_type="distilbert")
    with pytest.raises(ModelFormatError):
        build(encoder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_half_precision_weights_become_float32(encoder: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(encoder / "model.safetensors")
    save_file({n: t.half() for n, t in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    reconfigure(encoder, dtype="float16")
    assert {p.dtype for p in build(encoder).parameters()} == {torch.float32}


def test_its_tokenizer_is_used(encoder: Path) -> None:
    own = toy_tokenizer()
    own.add_tokens(["zebra"])
    (encoder / "tokenizer.json").write_text(own.to_str(), encoding="utf-8")
    assert load_tokenizer(tiny_settings(f"model.encoder={encoder}").model).token_to_id("zebra") == VOCABULARY


def test_an_older_vocabulary_file_is_used(encoder: Path) -> None:
    (encoder / "tokenizer.json").unlink()
    (encoder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tiny_settings(f"model.encoder={encoder}").model)
    assert tokenizer.encode("Good work").ids == toy_tokenizer().encode("Good work").ids


def test_pickled_weights_are_refused(encoder: Path) -> None:
    torch.save(load_file(encoder / "model.safetensors"), encoder / "pytorch_model.bin")
    (encoder / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError) as caught:
        build(encoder)
    assert "pickled .bin files are not read" in caught.value.remedy


def shorten(encoder: Path) -> None:
    path = encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:400])


def larger_tokenizer(encoder: Path) -> None:
    own = toy_tokenizer()
    own.add_tokens(["zebra", "lion"])
    (encoder / "tokenizer.json").write_text(own.to_str(), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda e: reconfigure(e, model_type="distilbert"), "model_type is 'distilbert'"),
        (lambda e: (e / "config.json").write_text("{}"), "model_type"),
        (lambda e: (e / "config.json").write_text("{"), "not a valid JSON"),
        (lambda e: (e / "config.json").write_text("[]"), "cannot be read"),
        (lambda e: reconfigure(e, hidden_size="many"), "hidden_size"),
        (lambda e: reconfigure(e, hidden_size=10**9), "hidden_size '1000000000' is not in"),
        (lambda e: reconfigure(e, num_hidden_layers=10**6), "num_hidden_layers '1000000' is not in"),
        (lambda e: reconfigure(e, is_decoder=True), "is_decoder True"),
        (lambda e: reconfigure(e, position_embedding_type="relative_key"), "position_embedding_type"),
        (lambda e: reconfigure(e, quantization_config={"quant_method": "evil"}), "quantization_config"),
        (lambda e: (e / "config.json").write_text('{"a":' * 100_000), "cannot be read"),
        (lambda e: reconfigure(e, hidden_size=32), "embeddings.LayerNorm.bias has the shape [16]"),
        (lambda e: reconfigure(e, vocab_size=20), "word_embeddings.weight has the shape"),
        (lambda e: reconfigure(e, num_hidden_layers=2), "lacks weights, first encoder.layer.1"),
        (shorten, "cannot be read"),
        (larger_tokenizer, f"{VOCABULARY + 2} pieces and the encoder knows {VOCABULARY}"),
        (lambda e: (e / "tokenizer.json").unlink(), "without a tokenizer.json"),
    ],
    ids=[
        "other model",
        "no type",
        "bad JSON",
        "list",
        "type",
        "gigantic",
        "deep",
        "decoder",
        "positions",
        "quantized",
        "nested",
        "width",
        "vocabulary",
        "layers",
        "short",
        "tokenizer",
        "no tokenizer",
    ],
)
def test_what_does_not_fit_is_refused(
    encoder: Path, spoil: Callable[..., Any], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(encoder)
    with pytest.raises(ModelFormatError) as caught:
        build(encoder)
    assert said in caught.value.what
    assert caught.value.where == str(encoder)
    assert caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_code_in_the_directory_is_not_run_and_nobody_is_asked(
    encoder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (encoder / "evil.py").write_text("import sys; sys.evil = True\nclass C: pass\n", encoding="utf-8")
    reconfigure(encoder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.C"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(ModelFormatError):
        build(encoder)
    assert not hasattr(sys, "evil")
    assert capfd.readouterr() == ("", "")


MARKING = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import BertConfig, BertModel, BertTokenizer
class Config(BertConfig): pass
class Model(BertModel): pass
class Tokenizer(BertTokenizer): pass
"""
CODE = {
    "AutoConfig": "modeling_evil.Config",
    "AutoModel": "modeling_evil.Model",
    "AutoTokenizer": ["modeling_evil.Tokenizer", "modeling_evil.Tokenizer"],
}


@pytest.fixture
def mark(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | str:
    """A file that the encoder's code would write, if anything ran it."""
    found = tmp_path / "ran"
    (encoder / "modeling_evil.py").write_text(MARKING.format(mark=str(found)), encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    return found


def test_the_code_would_run_if_it_were_trusted(
    encoder: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the next tests rely on: transformers does run it when it is told to."""
    from transformers import dynamic_module_utils

    reconfigure(encoder, auto_map=CODE)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pretrained.loading("a test"):
        dynamic_module_utils.get_class_from_dynamic_module("modeling_evil.Config", str(encoder))
    assert mark.exists()


def test_code_of_a_bert_encoder_is_not_run(encoder: Path, mark: Path) -> None:
    reconfigure(encoder, auto_map=CODE, trust_remote_code=True, custom_pipelines={"x": {"impl": "x"}})
    assert type(build(encoder).bert) is BertModel
    assert not mark.exists()


def test_code_of_a_tokenizer_is_not_run(encoder: Path, mark: Path) -> None:
    (encoder / "tokenizer.json").unlink()
    (encoder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    content = {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": CODE["AutoTokenizer"]}}
    (encoder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFormatError):
        load_tokenizer(tiny_settings(f"model.encoder={encoder}").model)
    assert not mark.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "dtype", "num_labels"])
def test_no_other_key_of_the_configuration_is_used(encoder: Path, key: str) -> None:
    reconfigure(encoder, **{key: 10**12 if key == "num_labels" else "evil/kernel"})
    config = build(encoder).bert.config
    assert config._attn_implementation in ("sdpa", "eager")
    assert config.num_labels == 2


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.ckpt"])
def test_only_safetensors_are_read(encoder: Path, name: str) -> None:
    (encoder / "model.safetensors").rename(encoder / name)
    with pytest.raises(ModelFormatError):
        build(encoder)


def test_an_adapter_beside_the_encoder_is_not_loaded(encoder: Path, tmp_path: Path) -> None:
    content = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "elsewhere")}
    (encoder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    weights = load_file(encoder / "model.safetensors")
    for name, parameter in build(encoder).bert.named_parameters():
        assert torch.equal(parameter, weights[name]), name


@pytest.mark.parametrize("part", ["Precompiled", "Nothing"])
def test_a_tokenizer_that_makes_its_library_panic_or_refuse(
    encoder: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(toy_tokenizer().to_str())
    content["normalizer"] = {"type": part, "precompiled_charsmap": "AAAA"}
    (encoder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="the encoder cannot be read"):
        pretrained.load_own_tokenizer(tiny_settings(f"model.encoder={encoder}").model)


def test_an_interrupt_is_no_fault_of_the_encoder() -> None:
    with pytest.raises(KeyboardInterrupt), pretrained.loading("here"):
        raise KeyboardInterrupt


def test_code_is_trusted_nowhere_in_the_package() -> None:
    found = [
        (path.name, argument)
        for path in Path(gkiller.__file__).parent.rglob("*.py")
        for argument in re.findall(r"trust_remote_code\s*=\s*(\w+)", path.read_text("utf-8"))
    ]
    assert found
    assert {argument for _, argument in found} == {"False"}


def test_more_positions_than_it_has(encoder: Path) -> None:
    with pytest.raises(ModelFormatError) as caught:
        build(encoder, "model.max_length=33")
    assert "model.max_length to 32" in caught.value.remedy


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_no_such_directory(path: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no such directory") as caught:
        build(path)
    assert caught.value.where == path


def test_a_directory_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json is missing"):
        build(tmp_path)


# -- the hub, which these tests never ask ---------------------------------------------------------


class Refusing:
    """Stands for the hub's client; raises what it is made with."""

    asked = 0

    def __init__(self, error: Any) -> None:
        self.error = error

    def __call__(self) -> Any:
        return self

    def model_info(self, repository: str, *, revision: Any, timeout: Any) -> None:
        assert timeout <= 10
        Refusing.asked += 1
        raise self.error


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing(ConnectionError("Name or service not known")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    before = Refusing.asked
    with pytest.raises(HubUnavailableError) as caught:
        build("google/bert_uncased_L-2_H-128_A-2")
    assert Refusing.asked == before + 1
    assert "Name or service not known" in caught.value.what
    assert "model.encoder=fresh" in caught.value.remedy


def test_a_repository_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.errors as errors

    refused = errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)
    Exception.__init__(refused, "404 not found")
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing(refused))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(HubUnavailableError, match="refused"):
        build("nobody/nothing")


def test_a_name_that_is_neither_path_nor_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelNotFoundError, match="neither a directory nor a hub id"):
        build("a b/c")


def test_offline_by_choice_reads_the_cache_alone(monkeypatch: pytest.MonkeyPatch, tokenizer_file: Path) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing(AssertionError("it asked")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailableError, match="the hub gave no encoder"):
        build("nobody/no-such-encoder", f"model.tokenizer={tokenizer_file}")


@pytest.mark.parametrize(
    ("reference", "local"),
    [("org/name", False), ("name", False), ("./name", True), ("/a/b", True), ("~/a", True), ("a/b/c", True)],
)
def test_paths_and_ids(reference: str, local: bool) -> None:
    assert pretrained.is_local(reference) is local
