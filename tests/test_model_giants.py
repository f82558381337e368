"""Giants: the encoders of other architectures, trained, saved, loaded, exported."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forging import forge, refused, replace
from giants import KINDS, TEXTS, giant_settings, mpnet_tokenizer, roberta_tokenizer, write_encoder
from safetensors.torch import load_file, save_file
from toy import tiny_settings

import gkiller
from gkiller.errors import ExportError, ModelFormatError, ModelNotFoundError, SettingsError
from gkiller.model.directory import load_model
from gkiller.model.network import build_classifier
from gkiller.model.pretrained import load_tokenizer
from gkiller.scoring.models import score_texts
from gkiller.tokens.batches import tokenize
from gkiller.training.train import TrainResult, train

COUNTED = ("mpnet", "roberta")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def encoder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return write_encoder(tmp_path_factory.mktemp(kind) / "encoder", kind)


@pytest.fixture(scope="module")
def trained(encoder: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path | TrainResult:
    """A trained giant of each architecture; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
        patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
        settings = giant_settings(encoder, f"data.source={prepared}")
        return train(settings, out=tmp_path_factory.mktemp("runs"), name="giant")


@pytest.fixture
def copied(trained: TrainResult, tmp_path: Path) -> Path:
    return shutil.copytree(trained.run.model, tmp_path / "model")


# -- the network ------------------------------------------------------------------------------------


def test_it_computes_what_transformers_computes(kind: str, encoder: Path) -> None:
    """Padding, positions and pooling: against transformers' own model on each comment alone."""
    from transformers import AutoModel

    settings = giant_settings(encoder).model
    tokenizer = load_tokenizer(settings)
    model = build_classifier(settings, ("toxicity", "threat"), tokenizer.get_vocab_size()).eval()
    own = AutoModel.from_pretrained(encoder).eval()
    tokens = tokenize(tokenizer, TEXTS)
    assert tokens.pad == (1 if kind in COUNTED else 0)
    assert tokens.lengths.max() == 16  # every position that there is
    ids, mask = map(torch.from_numpy, tokens.pad_batch(np.arange(len(TEXTS))))
    with torch.inference_mode():
        found = model(ids, mask)
        alone = [own(input_ids=row[m.bool()][None])[0].mean(1) for row, m in zip(ids, mask, strict=True)]
        expected = model.classifier(torch.cat(alone))
    assert float((found - expected).abs().max()) < 1e-5
    assert float(found.std(0).min()) > 1e-3


def test_what_is_loaded_in_a_new_process_is_what_was_trained(trained: TrainResult) -> None:
    code = (
        "import sys, numpy as np; from gkiller.model.directory import load_model\n"
        "from gkiller.scoring.models import score_texts\n"
        f"np.save(sys.argv[2], score_texts(load_model(sys.argv[1]), {TEXTS!r}))"
    )
    out = trained.run.path / "scores.npy"
    subprocess.run([sys.executable, "-c", code, str(trained.run.model), str(out)], check=True, timeout=120)
    weights = load_file(trained.run.model / "model.safetensors")
    best = next(trained.run.checkpoints.glob("best-*")) / "weights.safetensors"
    for name, tensor in load_file(best).items():
        assert torch.equal(weights[name], tensor), name
    scores = score_texts(load_model(trained.run.model), TEXTS)
    np.testing.assert_array_equal(np.load(out), scores)
    assert scores.std() > 1e-3


def test_the_manifest_and_the_card_say_what_it_is(kind: str, trained: TrainResult) -> None:
    assert trained.manifest["network"]["arch"] == "giant"
    assert trained.manifest["network"]["model_type"] == kind
    assert f"{kind}, 3 layers, hidden size 16" in (trained.run.model / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_its_graph_scores_as_it_does_without_torch(
    kind: str, copied: Path, prepared: Path, form: str, call: Callable[..., Any]
) -> None:
    command = ("export", copied) if form == "fp32" else ("quantize", copied)
    limits = () if form == "fp32" else ("--set", "deployment.int8_flips=0.2")
    code, _, err = call(*command, "--data", prepared, *limits)
    assert code == 0, err
    loaded = load_model(copied)
    classifier = gkiller.load(copied, precision=form)  # type: ignore[arg-type]
    lengths = tokenize(loaded.tokenizer, TEXTS).lengths
    whole = [text for text, length in zip(TEXTS, lengths, strict=True) if length < 16]
    assert len(whole) > 5
    difference = np.abs(classifier.predict_proba(whole) - score_texts(loaded, whole)).max()
    assert difference < (1e-5 if form == "fp32" else 0.1)
    (facts,) = loaded.metadata["exports"].values()
    assert facts["graph"] == ("lean" if kind == "bert" else "plain")
    assert classifier.explain("you absolute fool")
    assert classifier.predict(TEXTS[-1]).scores  # in windows
    if form == "int8":
        assert call("export", copied, "--data", prepared)[0] == 0
        sizes = [(copied / "onnx" / name).stat().st_size for name in ("model.int8.onnx", "model.onnx")]
        assert sizes[0] < sizes[1]


def test_the_other_commands_take_it(copied: Path, prepared: Path, call: Callable[..., Any]) -> None:
    for command in (("evaluate", "--resamples", 10), ("threshold",)):
        code, out, err = call(command[0], copied, "--data", prepared, *command[1:], "--json")
        assert code == 0, err
        assert "toxicity" in out
    assert load_model(copied).thresholds.keys() == {"toxicity"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bert"], indirect=True)
def test_what_only_bert_has_is_refused(trained: TrainResult, tmp_path: Path) -> None:
    from gkiller.deployment.deploy import export_onnx, save_trimmed
    from gkiller.settings import DeploymentSettings

    loaded = load_model(trained.run.model)
    with pytest.raises(ExportError, match="fp16"):
        export_onnx(loaded, None, DeploymentSettings(), out=tmp_path / "out", precision="fp16")
    with pytest.raises(ExportError, match="cannot be trimmed"):
        save_trimmed(loaded, TEXTS, 50, tmp_path / "trimmed")


# -- hostile directories ------------------------------------------------------------------------------


def configure(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    replace(folder, "config.json", {k: v for k, v in (content | changes).items() if v is not ...})


def test_sizes_that_lie_allocate_nothing(kind: str, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.model.network.new_classifier", lambda *_: pytest.fail("it was built"))
    hidden, layers = ("dim", "n_layers") if kind == "distilbert" else ("hidden_size", "num_hidden_layers")
    configure(copied, vocab_size=2_000_000, **{hidden: 16_384})
    refused(copied, "has the shape")
    configure(copied, **{layers: 256})
    refused(copied, "the network needs more than 4096 tensors")
    configure(copied, **{layers: 10**9})
    refused(copied, layers)


def test_positions_that_are_not_there(kind: str, copied: Path) -> None:
    content = json.loads((copied / "gkiller.json").read_text())
    assert content["max_length"] == 16
    forge(copied, max_length=17)
    refused(copied, "max_length 17 is not in 2..16")
    with pytest.raises(ModelFormatError, match="max_length"):
        gkiller_load_without_graph(copied)


def gkiller_load_without_graph(folder: Path) -> None:
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "model.onnx").write_bytes(b"none")
    forge(folder)
    gkiller.load(folder)


LIES = (
    (KINDS, {"model_type": "xlnet"}, "the model_type is 'xlnet', and not one of bert"),
    (KINDS, {"model_type": ["bert"]}, "the model_type is"),
    (KINDS, {"auto_map": {"AutoModel": "evil.Model"}}, "can bring code along"),
    (("bert", "distilbert"), {"pad_token_id": 10**6}, "pad_token_id"),
    (COUNTED, {"pad_token_id": 10**6}, "max_length"),
    (KINDS, {"is_decoder": True}, "another network"),
    (("distilbert",), {"sinusoidal_pos_embds": True}, "sinusoidal_pos_embds"),
    (("distilbert",), {"n_heads": 3}, "dim 16 is no multiple of n_heads"),
    (("distilbert",), {"activation": "os.system"}, "activation 'os.system' is unknown"),
    (("mpnet",), {"relative_attention_num_buckets": 8}, "relative_attention_num_buckets"),
    (("mpnet",), {"pad_token_id": 0}, "pad_token_id 0 is not MPNet's 1"),
    (("roberta",), {"pad_token_id": None}, "max_length"),
    (("roberta",), {"pad_token_id": 0}, "pads with 1, and the network counts positions from 0"),
    (("roberta",), {"pad_token_id": 17}, "max_length"),
    (("bert",), {"model_type": "roberta"}, ""),
    (("bert",), {"model_type": "mpnet"}, ""),
)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [(kind, changes, said) for kinds, changes, said in LIES for kind in kinds],
    indirect=["kind"],
)
def test_a_configuration_that_lies(kind: str, copied: Path, changes: Any, said: str) -> None:
    configure(copied, **changes)
    refused(copied, said)


def test_a_tensor_too_many_or_too_few(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, "extra": torch.zeros(1)}, copied / "model.safetensors")
    forge(copied)
    refused(copied, "first extra")
    save_file({key: value for key, value in weights.items() if key != name}, copied / "model.safetensors")
    forge(copied)
    refused(copied, f"first {name}")


def changed(tokenizer: Any, change: Callable[..., Any]) -> dict[str, Any]:
    content = json.loads(tokenizer.to_str())
    change(content)
    return content


@pytest.mark.parametrize(
    ("made", "change", "said"),
    [
        (roberta_tokenizer, lambda t: t["model"].update(dropout=0.1), "its dropout is '0.1'"),
        (roberta_tokenizer, lambda t: t["model"].update(byte_fallback=True), "its byte_fallback is 'True'"),
        (roberta_tokenizer, lambda t: t["model"].update(continuing_subword_prefix="##"), "prefix"),
        (roberta_tokenizer, lambda t: t["model"].update(end_of_word_suffix="x"), "suffix"),
        (roberta_tokenizer, lambda t: t["model"]["vocab"].pop("!"), "lacks 1 of the 256 bytes"),
        (roberta_tokenizer, lambda t: t["model"].update(merges=[["q", "zz"]]), "not a tokenizer"),
        (roberta_tokenizer, lambda t: t["model"].update(vocab=[]), "vocabulary is not an object"),
        (roberta_tokenizer, lambda t: t["model"].update(type="WordPiece"), "its model is 'WordPiece'"),
        (roberta_tokenizer, lambda t: t["model"].update(type="Unigram"), "its model is 'Unigram'"),
        (
            roberta_tokenizer,
            lambda t: t.update(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "aaa"}),
            "its normalizer is 'Replace', and a byte-level tokenizer's is none",
        ),
        (
            roberta_tokenizer,
            lambda t: t.update(
                pre_tokenizer={"type": "Sequence", "pretokenizers": [t["pre_tokenizer"], {"type": "Split"}]}
            ),
            "its pre_tokenizer is 'ByteLevel', and BERT's is",
        ),
        (roberta_tokenizer, lambda t: t["post_processor"].update(cls=["</s>", 2]), "it has no [PAD]"),
        (roberta_tokenizer, lambda t: t["post_processor"].update(sep=["<s>", 0]), "does not put <s>"),
        (roberta_tokenizer, lambda t: t["post_processor"].pop("cls"), "not a tokenizer"),
        (mpnet_tokenizer, lambda t: t["post_processor"].update(cls=["<s>", 9]), "does not put <s>"),
        (mpnet_tokenizer, lambda t: t["model"].update(type="BPE", merges=[]), "its model is 'BPE'"),
        (mpnet_tokenizer, lambda t: t["model"].update(unk_token="zebra"), "unk_token"),
        (mpnet_tokenizer, lambda t: t.update(decoder={"type": "ByteLevel"}), "its decoder is 'ByteLevel'"),
    ],
    ids=range(18),
)
def test_a_tokenizer_that_is_hostile(
    made: Callable[..., Any], change: Callable[..., Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed(made(), change)))
    with pytest.raises(ModelFormatError) as caught:
        load_tokenizer(tiny_settings(f"model.tokenizer={path}").model)
    assert said in caught.value.what


# -- settings and encoders ------------------------------------------------------------------------


def test_a_giant_brings_its_own_defaults_below_everything_else() -> None:
    from gkiller.settings import resolve

    asked = {"model.arch": "giant", "model.encoder": "some/encoder"}
    found = resolve(flags=asked, environ={})
    assert not found.settings.dendrites.enabled
    assert found.origins["train.lr"] == "arch giant"
    assert found.settings.train.lr < resolve(environ={}).settings.train.lr
    assert resolve(flags={**asked, "train.lr": "0.5"}, environ={}).settings.train.lr == 0.5
    assert resolve(preset="seed", flags=asked, environ={}).settings.model.pooling == "cls"
    assert resolve(flags={"model.arch": "tiny"}, environ={}).settings == resolve(environ={}).settings


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "model.arch 'giant' needs a pretrained encoder"),
        ({"model.encoder": "a/b", "dendrites.enabled": True}, "dendrites.enabled must be false"),
    ],
)
def test_what_a_giant_cannot_be(flags: dict[str, Any], said: str) -> None:
    from gkiller.settings import resolve

    with pytest.raises(SettingsError, match=said):
        resolve(flags={"model.arch": "giant", **flags}, environ={})


def test_a_tiny_model_is_bert(kind: str, encoder: Path) -> None:
    settings = tiny_settings(f"model.encoder={encoder}").model
    if kind == "bert":
        assert build_classifier(settings, ("toxicity",), 156).bert.config.model_type == "bert"
        return
    with pytest.raises(ModelFormatError, match=f"{kind}', and gkiller trains 'bert' models") as caught:
        build_classifier(settings, ("toxicity",), 10)
    assert "--arch giant" in caught.value.remedy


@pytest.mark.parametrize("kind_of_file", ["xlnet", None, {"a": 1}])
def test_an_encoder_that_is_no_giant(kind_of_file: dict[str, int] | str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind_of_file}))
    with pytest.raises(ModelFormatError, match="gkiller trains giants of bert, distilbert, mpnet, roberta"):
        build_classifier(giant_settings(tmp_path).model, ("toxicity",), 10)


def test_code_that_an_encoder_brings_is_not_run(kind: str, encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    content = json.loads((folder / "config.json").read_text())
    brought = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
    (folder / "config.json").write_text(json.dumps({**content, "auto_map": brought}))
    settings = giant_settings(folder).model
    tokenizer = load_tokenizer(settings)
    model = build_classifier(settings, ("toxicity",), tokenizer.get_vocab_size())
    assert model.bert.config.model_type == kind
    assert not hasattr(model.bert.config, "auto_map")
    assert not (tmp_path / "ran").exists()


def test_an_encoder_whose_weights_are_others(kind: str, encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "word_embeddings" in name)
    save_file({**weights, name: torch.zeros(3, 16)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFormatError, match=r"word_embeddings.weight has the shape \[3, 16\]"):
        build_classifier(giant_settings(folder).model, ("toxicity",), 10)
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFormatError, match=r"lacks weights, first .*word_embeddings.weight"):
        build_classifier(giant_settings(folder).model, ("toxicity",), 10)


def test_an_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        build_classifier(giant_settings(tmp_path / "absent").model, ("toxicity",), 10)


def test_more_tokens_than_positions(kind: str, encoder: Path) -> None:
    settings = giant_settings(encoder, "model.max_length=17").model
    with pytest.raises(ModelFormatError, match="17 is more than the encoder's 16 positions"):
        build_classifier(settings, ("toxicity",), 10)


def test_the_pooler_is_asked_of_those_that_have_one(kind: str, encoder: Path) -> None:
    settings = giant_settings(encoder, "model.pooling=cls").model
    if kind == "distilbert":
        with pytest.raises(ModelFormatError, match="has no pooler"):
            build_classifier(settings, ("toxicity",), 10)
    else:
        assert build_classifier(settings, ("toxicity",), 10).bert.pooler is not None


def test_base_model_is_another_name_of_encoder(
    call: Callable[..., Any], encoder: Path, prepared: Path, no_plots: None
) -> None:
    code, out, err = call(
        *("train", "--data", prepared, "--arch", "giant", "--base-model", encoder, "--epochs", 1),
        *("--max-length", 16, "--threads", 1, "--device", "cpu", "--resamples", 10, "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["dendrites_kept"] == 0
