"""The model directory: what is saved is what is loaded, and nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import LABELS, network, save
from toy import toy_tokenizer
from transformers import BertForSequenceClassification

from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError, OutputError
from gkiller.model import directory as room
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.directory import load_model, rewrite_model
from gkiller.model.layout import find_model
from gkiller.scoring.models import score_texts
from gkiller.storage.files import atomic_directory, sha256_file
from gkiller.storage.sealed import digest_of, seal

TEXTS = ["good work on the map", "you idiot", "", "[SEP] [MASK]", "thank you " * 40, "ünïcode 🙂"]
FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json")


def resign(folder: Path, **changes: Any) -> None:
    """Change gkiller.json and make all digests right again, as a careful forger would."""
    metadata = json.loads((folder / "gkiller.json").read_text())
    metadata = {k: v for k, v in metadata.items() if k not in ("files", "digest")} | changes
    seal(folder, "gkiller.json", metadata)


# -- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("dendrites", [0, 1, 3])
@pytest.mark.parametrize("labels", [("toxicity",), LABELS])
@pytest.mark.parametrize("pooling", ["mean", "mean_max", "cls"])
def test_what_is_loaded_is_what_was_saved(
    tmp_path: Path, dendrites: int, labels: tuple[Any, ...], pooling: str
) -> None:
    model = network(labels, dendrites, "gelu", pooling)
    loaded = load_model(save(tmp_path / "model", model, labels))
    before, after = dict(model.named_parameters()), dict(loaded.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (loaded.labels, loaded.max_length, loaded.path) == (labels, 16, tmp_path / "model")
    assert loaded.thresholds == {label: 0.25 + i / 10 for i, label in enumerate(labels)}
    assert not loaded.model.training
    ids = torch.tensor([[2, 9, 8, 3]])
    with torch.inference_mode():
        assert torch.equal(model(ids, torch.ones_like(ids)), loaded.model(ids, torch.ones_like(ids)))
    assert loaded.model.pooling == pooling
    found = {(len(m.dendrites), m.activation) for m in dendritic_modules(loaded.model).values()}
    assert found == ({(dendrites, "gelu")} if dendrites else set())


def test_saving_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, network())
    for name in (*FILES, "gkiller.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_files_and_their_digests(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted((*FILES, "gkiller.json"))
    metadata = json.loads((saved / "gkiller.json").read_text())
    assert metadata["format_version"] == 1
    assert metadata["files"] == {name: sha256_file(saved / name) for name in FILES}
    assert metadata["training"] == {"source": "a test", "synthetic": True}
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["gkiller"]["activation"] == "tanh"
    assert set(config["gkiller"]["dendrites"].values()) == {2}


@pytest.mark.parametrize(
    ("labels", "outputs", "problem"),
    [
        (("toxicity",), ["not_toxicity", "toxicity"], "single_label_classification"),
        (LABELS, list(LABELS), "multi_label_classification"),
    ],
)
def test_the_configuration_names_the_head_s_outputs(
    tmp_path: Path, labels: tuple[Any, ...], outputs: list[str], problem: str
) -> None:
    config = json.loads((save(tmp_path / "model", network(labels), labels) / "config.json").read_text())
    assert config["id2label"] == {str(place): name for place, name in enumerate(outputs)}
    assert config["label2id"] == {name: place for place, name in enumerate(outputs)}
    assert config["problem_type"] == problem


@pytest.mark.parametrize("labels", [("toxicity",), LABELS])
@pytest.mark.parametrize(("dendrites", "pooling", "claimed"), [(0, "cls", True), (0, "mean", False), (2, "cls", False)])
def test_what_is_claimed_to_be_bert_s_classifier_is_it(
    tmp_path: Path, labels: tuple[Any, ...], dendrites: int, pooling: str, claimed: bool
) -> None:
    model = network(labels, dendrites, pooling=pooling)
    folder = save(tmp_path / "model", model, labels)
    names = json.loads((folder / "config.json").read_text())["architectures"]
    assert names == ["BertForSequenceClassification" if claimed else "ToxicityClassifier"]
    if claimed:
        theirs = BertForSequenceClassification.from_pretrained(folder).eval()
        assert theirs.config.label2id[labels[0]] == (1 if len(labels) == 1 else 0)
        ids = torch.tensor([[2, 9, 8, 3]])
        with torch.inference_mode():
            torch.testing.assert_close(theirs(ids).logits, model(ids, torch.ones_like(ids)))


def test_directories_of_before_are_still_read(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    names = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": None}
    text = json.dumps(config | names | {"architectures": ["BertForSequenceClassification"]})
    (saved / "config.json").write_text(text)
    resign(saved)
    assert load_model(saved).labels == LABELS


def test_nothing_is_pickled_and_no_parameter_is_perforatedai_s(saved: Path) -> None:
    names = load_file(saved / "model.safetensors").keys()
    assert not any("main_module" in name or "parent_module" in name for name in names)
    assert {path.suffix for path in saved.iterdir()} == {".json", ".md", ".safetensors"}


def test_loading_draws_nothing_from_the_generator(saved: Path) -> None:
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_can_be_named(saved: Path) -> None:
    assert find_model(saved.parent) == saved
    assert load_model(str(saved.parent)).path == saved


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_model_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_model(tmp_path / name)
    assert "gkiller train" in caught.value.remedy


@pytest.mark.parametrize("name", ["six", "six/model"])
def test_a_run_without_a_model_is_to_be_resumed(tmp_path: Path, name: str) -> None:
    (tmp_path / "six").mkdir()
    (tmp_path / "six" / "settings.toml").touch()
    with pytest.raises(ModelNotFoundError, match="not finished") as caught:
        load_model(tmp_path / name)
    assert caught.value.remedy.endswith(f"gkiller train --resume {tmp_path / 'six'}")


def test_a_mistyped_name_answers_with_the_nearest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("six", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "settings.toml").touch()
    (tmp_path / "runs" / "sx1").mkdir()  # no run
    monkeypatch.chdir(tmp_path)
    for name in ("runs/sx", "six"):  # misspelt, and without its folder
        with pytest.raises(ModelNotFoundError) as caught:
            load_model(name)
        assert caught.value.remedy == "did you mean runs/six?"


# -- scores -------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_batches(saved: Path) -> None:
    loaded = load_model(saved)
    alone = np.concatenate([score_texts(loaded, [text]) for text in TEXTS])
    for size in (1, 2, 256):
        np.testing.assert_allclose(score_texts(loaded, TEXTS, size), alone, rtol=0, atol=1e-6)


def test_scores_tell_their_progress_and_may_be_none(saved: Path) -> None:
    loaded, told = load_model(saved), []
    score_texts(loaded, TEXTS, 4, lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told == [(4, 6), (5, 6), (6, 6)]  # one of them has two windows
    assert score_texts(loaded, []).shape == (0, 2)


# -- tampering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ModelTamperedError, match="SHA-256") as caught:
        load_model(saved)
    assert caught.value.where == str(saved / name)
    assert caught.value.remedy


def test_a_changed_threshold_is_found(saved: Path) -> None:
    path = saved / "gkiller.json"
    text = path.read_text()
    assert '"value": 0.25' in text
    path.write_text(text.replace('"value": 0.25', '"value": 0.95'))
    with pytest.raises(ModelTamperedError, match="changed after it was written") as caught:
        load_model(saved)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelTamperedError, match="missing") as caught:
        load_model(saved)
    assert caught.value.where == str(saved / name)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}'])
def test_a_broken_description(saved: Path, text: str) -> None:
    (saved / "gkiller.json").write_text(text)
    with pytest.raises(ModelFormatError) as caught:
        load_model(saved)
    assert caught.value.where == str(saved / "gkiller.json")
    assert caught.value.remedy


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version(saved: Path, version: int | str | None) -> None:
    resign(saved, format_version=version)
    with pytest.raises(ModelFormatError, match="unknown") as caught:
        load_model(saved)
    assert "format 1" in caught.value.remedy


def test_a_link_out_of_the_directory(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").rename(tmp_path / "elsewhere")
    (saved / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFormatError, match="leads out"):
        load_model(saved)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret"])
def test_a_listed_path_out_of_the_directory(saved: Path, name: str) -> None:
    (saved.parent / "secret").write_text("s")
    metadata = json.loads((saved / "gkiller.json").read_text())
    metadata["files"][name] = sha256_file(saved.parent / "secret")
    metadata["digest"] = digest_of(metadata)
    (saved / "gkiller.json").write_text(json.dumps(metadata))
    with pytest.raises(ModelFormatError, match="leads out"):
        load_model(saved)


def weights(change: Any) -> Any:
    def spoil(folder: Any) -> None:
        found = load_file(folder / "model.safetensors")
        save_file(change(found), folder / "model.safetensors")

    return spoil


def config(change: Any) -> Any:
    def spoil(folder: Any) -> None:
        found = json.loads((folder / "config.json").read_text())
        change(found)
        (folder / "config.json").write_text(json.dumps(found))

    return spoil


QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (weights(lambda w: {**w, "classifier.bias": w["classifier.bias"] * float("nan")}), "not finite"),
        (weights(lambda w: {**w, "classifier.bias": w["classifier.bias"] / 0}), "not finite"),
        (weights(lambda w: {**w, "classifier.bias": torch.zeros(3)}), "classifier.bias"),
        (weights(lambda w: {k: v for k, v in w.items() if k != "classifier.bias"}), "classifier.bias"),
        (weights(lambda w: {**w, "extra": torch.zeros(1)}), "extra"),
        (lambda f: (f / "model.safetensors").write_bytes(b"nothing"), ""),
        (config(lambda c: c.pop("gkiller")), "gkiller"),
        (config(lambda c: c.update(model_type="gpt2")), "gpt2"),
        (config(lambda c: c.update(hidden_size=24)), ""),
        (config(lambda c: c.update(max_position_embeddings=8)), ""),
        (config(lambda c: c["gkiller"].update(pooling="max")), "max"),
        (config(lambda c: c["gkiller"].update(activation="softplus")), "softplus"),
        (config(lambda c: c["gkiller"].update(labels=["threat", "toxicity"])), "labels"),
        (config(lambda c: c["gkiller"]["dendrites"].update({QUERY: 1})), QUERY),
        (config(lambda c: c["gkiller"]["dendrites"].update({QUERY: -1})), QUERY),
        (config(lambda c: c["gkiller"]["dendrites"].update({"bert.nobody": 1})), "nobody"),
        (config(lambda c: c["gkiller"]["dendrites"].update({"bert.embeddings": 1})), "not a Linear"),
        (lambda f: resign(f, max_length=17), "max_length 17"),
        (lambda f: resign(f, max_length=0), "max_length 0"),
        (lambda f: resign(f, labels=["toxicity"]), "labels"),
        (lambda f: resign(f, labels="toxicity"), ""),
        (lambda f: resign(f, thresholds={}), "toxicity"),
        (lambda f: resign(f, thresholds={label: {"value": 1.5} for label in LABELS}), "1.5"),
        (lambda f: resign(f, thresholds={label: {"value": "high"} for label in LABELS}), "high"),
    ],
)
def test_a_consistent_forgery_is_refused(saved: Path, spoil: Callable[..., Any], said: str) -> None:
    spoil(saved)
    resign(saved) if json.loads((saved / "gkiller.json").read_text())["labels"] == list(LABELS) else None
    with pytest.raises(ModelFormatError) as caught:
        load_model(saved)
    assert said in caught.value.what
    assert str(saved) in caught.value.where
    assert caught.value.remedy


def test_a_tokenizer_that_knows_more_pieces_than_the_network(saved: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["zebra"])
    (saved / "tokenizer.json").write_text(tokenizer.to_str())
    resign(saved)
    with pytest.raises(ModelFormatError, match="pieces"):
        load_model(saved)


# -- writing ------------------------------------------------------------------------------------


def test_new_thresholds_leave_everything_else(saved: Path) -> None:
    before = {name: (saved / name).read_bytes() for name in FILES}
    loaded = load_model(saved)
    metadata = dict(loaded.metadata)
    rewrite_model(saved, loaded, thresholds={label: {"value": 0.75} for label in LABELS}, card="# New\n")
    again = load_model(saved)
    assert again.thresholds == dict.fromkeys(LABELS, 0.75)
    assert (saved / "README.md").read_text() == "# New\n"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (saved / name).read_bytes() == before[name]
    assert {k: v for k, v in again.metadata.items() if k != "thresholds"} == {
        k: v for k, v in metadata.items() if k != "thresholds"
    }
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_further_files_of_the_model_are_kept(saved: Path) -> None:
    (saved / "onnx").mkdir()
    (saved / "onnx" / "model.onnx").write_bytes(b"graph")
    resign(saved)
    rewrite_model(saved, load_model(saved), thresholds={label: {"value": 0.5} for label in LABELS}, card="#")
    assert (saved / "onnx" / "model.onnx").read_bytes() == b"graph"
    load_model(saved)


def test_an_earlier_model_is_replaced_whole(saved: Path) -> None:
    (saved / "left over").write_text("x")
    save(saved, network(("threat",)), ("threat",))
    assert load_model(saved).labels == ("threat",)
    assert not (saved / "left over").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_old_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "save", full)
    with pytest.raises(OutputError, match="No space"):
        save(saved, network())
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_directory_leaves_the_old_one_when_the_block_raises(tmp_path: Path, error: type[Any]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "old").write_text("old")

    def replace() -> None:
        with atomic_directory(place) as temporary:
            (temporary / "new").write_text("new")
            raise error

    with pytest.raises(error):
        replace()
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (place / "old").read_text() == "old"


def test_atomic_directory_replaces_and_makes_parents(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "place"
    for text in ("first", "second"):
        with atomic_directory(place) as temporary:
            assert not (place / text).exists()
            (temporary / text).write_text(text)
    assert [path.name for path in place.iterdir()] == ["second"]
    assert [path.name for path in place.parent.iterdir()] == ["place"]
