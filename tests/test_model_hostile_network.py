"""Model directories that somebody made to do harm: the configuration, the weights, other formats."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forging import forge, refused, replace
from safetensors.torch import load_file, save_file
from toy import toy_tokenizer

from gkiller.errors import ScoreRangeError
from gkiller.model.directory import load_model
from gkiller.scoring.models import score_texts
from gkiller.storage import tensors

QUERY = "bert.encoder.layer.0.attention.self.query"


# -- the configuration ----------------------------------------------------------------------------


def configure(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    own = changes.pop("gkiller", {})
    content["gkiller"] |= own
    replace(folder, "config.json", content | changes)


SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size"),
)


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2**31, 10**9, 10**30, 16.0, "16", True, None, [16]])
def test_a_size_that_is_none(saved: Path, key: str, value: Any) -> None:
    configure(saved, **{key: value})
    refused(saved, "max_length" if key == "max_position_embeddings" and value in (0, -1) else "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 256}, "the network needs more than 4108 tensors"),
        ({"num_hidden_layers": 2}, "the network needs more than 44 tensors"),
        ({"hidden_size": 16_384}, "has the shape [156, 16], not [156, 16384]"),
        ({"vocab_size": 2_000_000}, "has the shape [156, 16], not [2000000, 16]"),
        ({"intermediate_size": 65_536}, "not [65536"),
        ({"max_position_embeddings": 65_536}, "not [65536, 16]"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"gkiller": {"dendrites": {QUERY: 1000}}}, "the network needs more than 2016 tensors"),
        ({"gkiller": {"dendrites": {QUERY: 10**9}}}, "cannot have 1000000000 dendrites"),
        ({"gkiller": {"dendrites": {QUERY: True}}}, "cannot have True dendrites"),
        ({"gkiller": {"dendrites": {QUERY: 1.0}}}, "cannot have 1.0 dendrites"),
        ({"gkiller": {"dendrites": [QUERY]}}, "not counts by module"),
        ({"gkiller": {"dendrites": {"__class__": 1}}}, "not a Linear"),
        ({"gkiller": {"dendrites": {"": 1}}}, "not a Linear"),
        ({"gkiller": {"dendrites": {"bert.config": 1}}}, "not a Linear"),
        ({"gkiller": {"activation": "__import__"}}, "'__import__' is unknown"),
        ({"gkiller": {"activation": ["tanh"]}}, "['tanh'] is unknown"),
        ({"gkiller": {"activation": None}}, "None is unknown"),
        ({"gkiller": {"pooling": ["mean"]}}, "['mean'] is unknown"),
        ({"gkiller": {"labels": "toxicity"}}, "labels"),
        ({"gkiller": {"labels": ["toxicity"]}}, "labels"),
        ({"hidden_act": "os.system"}, "'os.system' is unknown"),
        ({"hidden_act": {"a": 1}}, "is unknown"),
        ({"pad_token_id": 156}, "pad_token_id"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"pad_token_id": False}, "pad_token_id"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob"),
        ({"hidden_dropout_prob": "0"}, "hidden_dropout_prob"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps"),
        ({"initializer_range": 1e300}, "initializer_range"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_that_lies(saved: Path, changes: Any, said: str) -> None:
    configure(saved, **changes)
    refused(saved, said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "modeling_evil.Config", "AutoModel": "modeling_evil.Model"}),
        ("custom_pipelines", {"text-classification": {"impl": "modeling_evil.Pipe"}}),
        ("trust_remote_code", True),
        ("_attn_implementation", "evil/kernel"),
        ("attn_implementation", "evil/kernel"),
        ("quantization_config", {"quant_method": "evil"}),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("chunk_size_feed_forward", 7),
        ("position_embedding_type", "relative_key"),
        ("pruned_heads", {"0": [0]}),
    ],
)
def test_a_key_that_brings_code_or_another_network(saved: Path, key: str, value: Any) -> None:
    (saved / "modeling_evil.py").write_text(f"open({str(saved / 'ran')!r}, 'w')\n")
    configure(saved, **{key: value})
    refused(saved, key)
    assert not (saved / "ran").exists()


def test_no_other_key_reaches_transformers(saved: Path) -> None:
    configure(saved, evil="x", id2label={"0": "x"}, torch_dtype="float16", output_attentions=True)
    config = load_model(saved).model.bert.config
    assert not hasattr(config, "evil")
    assert not config.output_attentions
    assert config.dtype is None


# -- the weights ----------------------------------------------------------------------------------


def raw(entries: Any, size: Any, notes: Any = None) -> Any:
    """A safetensors file of a header and so many zeros."""
    header = json.dumps(entries | ({"__metadata__": notes} if notes is not None else {})).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def entry(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = entry([2], 0, 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (struct.pack("<Q", 2**63) + b"{}", "header's length"),
        (struct.pack("<Q", 10**9) + b"{}", "header's length"),
        (struct.pack("<Q", 0), "header's length"),
        (b"\x02", "header's length"),
        (b"", "header's length"),
        (struct.pack("<Q", 4 * 2**20 + 1) + b" " * (4 * 2**20 + 1), "4,194,304 are allowed"),
        (struct.pack("<Q", 10_000) + b'{"a":' * 2000, "nested deeper"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "twice"),
        (raw({"a": GOOD, "b": entry([2], 4, 12)}, 12), "overlaps"),
        (raw({"a": GOOD, "b": entry([2], 12, 20)}, 20), "leaves a gap"),
        (raw({"a": entry([2], 4, 12)}, 12), "leaves a gap"),
        (raw({"a": GOOD}, 9), "the file has 9"),
        (raw({"a": GOOD}, 7), "the file has 7"),
        (raw({"a": entry([2], 0, 2**40)}, 8), "bytes"),
        (raw({"a": entry([2**40], 0, 2**42)}, 8), "the file has 8"),
        (raw({"a": entry([2**62, 4], 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry([-2], 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry([2.0], 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry([True, 2], 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry("2", 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry([1] * 8 + [2], 0, 8)}, 8), "invalid sizes"),
        (raw({"a": entry([2], 8, 0)}, 8), "bytes"),
        (raw({"a": entry([2], -8, 0)}, 8), "invalid sizes"),
        (raw({"a": entry([2], 0, 8, "I32")}, 8), "type 'I32'"),
        (raw({"a": entry([1], 0, 8, "F64")}, 8), "type 'F64'"),
        (raw({"a": entry([8], 0, 8, "F8_E4M3")}, 8), "type 'F8_E4M3'"),
        (raw({"a": entry([2], 0, 8, None)}, 8), "type 'None'"),
        (raw({"a": entry([2], 0, 8, ["F32"])}, 8), "type"),
        (raw({"a": 1}, 0), "description"),
        (raw({"a": {**GOOD, "code": "x"}}, 8), "description"),
        (raw({"a": {"dtype": "F32"}}, 0), "description"),
        (raw({"": GOOD}, 8), "name"),
        (raw({"a\x1b": GOOD}, 8), "name"),
        (raw({"a" * 201: GOOD}, 8), "name"),
        (raw({}, 0, {"format": 1}), "__metadata__"),
        (raw({}, 0, ["pt"]), "__metadata__"),
        (raw({}, 0), "the network needs more than 28 tensors, and the file has 0"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_header_that_lies(saved: Path, data: bytes, said: str) -> None:
    replace(saved, "model.safetensors", data)
    refused(saved, said)


def weights(folder: Path, change: Callable[..., Any]) -> None:
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")
    forge(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("classifier.weight"), "1 tensors are missing, first classifier.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 tensors belong to nothing, first extra"),
        (lambda w: w.update({"classifier.bias": torch.zeros(1)}), "classifier.bias has the shape [1], not [2]"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2, 1)}), "classifier.bias has the shape [2, 1]"),
        (lambda w: w.update({"classifier.bias": torch.zeros(())}), "classifier.bias has the shape []"),
        (lambda w: w.update({"classifier.bias": torch.zeros(0)}), "classifier.bias has the shape [0]"),
        (lambda w: w["classifier.bias"].fill_(float("nan")), "classifier.bias holds values"),
        (lambda w: w[f"{QUERY}.dendrite_tops"].view(-1)[:1].fill_(float("inf")), f"{QUERY}.dendrite_tops holds"),
        (lambda w: w["bert.embeddings.word_embeddings.weight"][155].fill_(float("-inf")), "not finite"),
        (lambda w: w.update({"classifier.bias": torch.full((2,), 1e30).bfloat16() * 1e30}), "not finite"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2, dtype=torch.int64)}), "type 'I64'"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2, dtype=torch.float64)}), "type 'F64'"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2, dtype=torch.complex64)}), "type 'C64'"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2, dtype=torch.bool)}), "type 'BOOL'"),
        (lambda w: w["bert.embeddings.LayerNorm.weight"].fill_(3e38), "scores of an empty comment"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_weights_that_do_not_fit(saved: Path, change: Callable[..., Any], said: str) -> None:
    weights(saved, change)
    refused(saved, said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(saved: Path, dtype: Any) -> None:
    weights(saved, lambda w: w.update({name: tensor.to(dtype) for name, tensor in w.items()}))
    assert {p.dtype for p in load_model(saved).model.parameters()} == {torch.float32}


def test_weights_that_overflow_on_some_comments_alone(saved: Path) -> None:
    word = toy_tokenizer().token_to_id("idiot")
    weights(saved, lambda w: w["bert.embeddings.word_embeddings.weight"][word].fill_(3e38))
    loaded = load_model(saved)
    assert score_texts(loaded, ["good work"]).shape == (1, 2)
    with pytest.raises(ScoreRangeError, match="comment 2: the model's score") as caught:
        score_texts(loaded, ["good work", "you idiot"])
    assert str(saved) in caught.value.where


def test_nothing_is_allocated_for_shapes_that_lie(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.model.network.new_classifier", lambda *_: pytest.fail("it was built"))
    configure(saved, vocab_size=2_000_000, hidden_size=16_384)
    refused(saved, "has the shape")


# -- other formats under these names --------------------------------------------------------------


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.mark), "w")


def zip_bomb() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", bytes(20_000_000))
    return made.getvalue()


def torch_file(mark: Path) -> bytes:
    made = io.BytesIO()
    torch.save({"classifier.bias": Bomb(mark)}, made)
    return made.getvalue()


@pytest.mark.parametrize("name", ["gkiller.json", "config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["zip", "gzip", "torch", "pickle 0", "pickle 2", "pickle 5", "lfs", "html"])
def test_another_format_is_never_opened(saved: Path, name: str, kind: str) -> None:
    mark = saved.parent / "ran"
    data = {
        "zip": zip_bomb,
        "gzip": lambda: b"\x1f\x8b\x08" + zlib.compress(bytes(20_000_000)),
        "torch": lambda: torch_file(mark),
        "pickle 0": lambda: pickle.dumps(Bomb(mark), 0),
        "pickle 2": lambda: pickle.dumps(Bomb(mark), 2),
        "pickle 5": lambda: pickle.dumps(Bomb(mark), 5),
        "lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "html": lambda: b"<!doctype html><title>Not found</title>",
    }[kind]()
    assert len(data) < 100_000
    (saved / name).write_bytes(data)
    if name != "gkiller.json":
        forge(saved)
    refused(saved, "safetensors" if name == "model.safetensors" else "")
    assert not mark.exists()


def test_the_formats_are_named() -> None:
    said = {
        "zip archive": zip_bomb(),
        "a pickle": pickle.dumps(1),
        "gzip": b"\x1f\x8b\x08",
        "LFS": b"version https://git-lfs.x",
    }
    for what, data in said.items():
        with pytest.raises(ValueError, match=what):
            tensors.read_header(data)
