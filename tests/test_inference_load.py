"""Loading an exported model: what it finds, what it refuses, and what it never imports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inference_helpers import LABELS, graph, seal, write_model
from toy import toy_tokenizer

import gkiller
from gkiller import assets
from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError, SettingsError
from gkiller.inference import load, loading


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_a_model_directory_and_a_run(model: Path, tmp_path: Path) -> None:
    found = load(model)
    assert (found.labels, found.thresholds) == (LABELS, dict.fromkeys(LABELS, 0.5))
    assert (found.max_length, found.precision, found.path) == (16, "int8", model)
    assert found.threads == loading.available_threads()
    assert load(str(tmp_path)).path == model
    assert "int8" in repr(found)
    assert gkiller.load is load


def test_precision_is_a_choice(model: Path) -> None:
    assert load(model, precision="fp32").precision == "fp32"
    scores = [load(model, precision=name).predict("a").scores for name in ("auto", "int8", "fp32")]
    assert scores[0] == scores[1] != scores[2]
    with pytest.raises(ModelNotFoundError, match="no fp16 graph; there is: int8, fp32"):
        load(model, precision="fp16")
    with pytest.raises(SettingsError, match="'fp32'"):
        load(model, precision="fp23")  # type: ignore[arg-type]


def test_without_int8_fp32_is_taken(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", int8=False)
    assert load(model).precision == "fp32"
    with pytest.raises(ModelNotFoundError, match="gkiller quantize"):
        load(model, precision="int8")


def test_a_model_that_was_not_exported(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", int8=False, fp32=False)
    with pytest.raises(ModelNotFoundError, match=f"no ONNX graph.*gkiller export {model}"):
        load(model)


def test_no_model_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="gkiller train"):
        load(tmp_path / "nothing")
    monkeypatch.setattr(assets, "default_model_path", lambda: tmp_path / "assets/model")
    for name in (None, "default"):
        with pytest.raises(ModelNotFoundError, match=r"no default model .*gkiller quantize"):
            load(name)


def test_bundled_and_named_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assets, "default_model_path", lambda: tmp_path / "assets/model")
    bundled = write_model(tmp_path / "assets/model")
    named = write_model(tmp_path / "site/small_model/model")
    (tmp_path / "site/small_model/__init__.py").write_text("raise SystemExit('no code of a model is run')\n")
    info = tmp_path / "site/small-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gkiller.models]\nsmall = small_model\nodd = os.path\nnone = not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert load().path == load("default").path == bundled
    assert load("small").path == named
    with pytest.raises(ModelNotFoundError, match="did you mean small"):
        load("smal")
    with pytest.raises(ModelNotFoundError, match="did you mean default"):
        load("defalt")
    here = write_model(tmp_path / "small")
    assert load("small").path.resolve() == here  # what the user has goes first


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "onnx/model.int8.onnx"])
def test_a_changed_file_is_refused(model: Path, name: str) -> None:
    path = model / name
    path.write_bytes(path.read_bytes().replace(b"a", b"e", 1))
    with pytest.raises(ModelTamperedError, match="SHA-256"):
        load(model)


def test_changed_metadata_is_refused_unless_not_verified(model: Path) -> None:
    path = model / "gkiller.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(ModelTamperedError, match="was changed"):
        load(model)
    assert load(model, verify=False).thresholds == dict.fromkeys(LABELS, 0.4)


def test_only_what_is_used_is_read(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"weights that scoring does not need")
    seal(model)
    (model / "onnx/model.onnx").write_bytes(b"damaged")
    (model / "README.md").unlink()
    (model / "model.safetensors").unlink()
    assert load(model).precision == "int8"
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelTamperedError, match="missing"):
        load(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format 2 is unknown"),
        ({"labels": ["toxicity"], "thresholds": {"toxicity": {"value": 0.5}}}, "not 1 finite"),
        ({"labels": ["toxicity"]}, "not those of the labels"),
        ({"labels": []}, "not a list of names"),
        ({"labels": ["a", "a"]}, "there twice"),
        ({"labels": ["other", "insult"]}, "inconsistent"),
        ({"max_length": 17}, "max_length 17"),
        ({"max_length": "many"}, "inconsistent"),
        ({"max_length": 2}, "no room"),
        ({"thresholds": {label: {"value": 1.5} for label in LABELS}}, "not in 0..1"),
        ({"thresholds": None}, "inconsistent"),
        ({"files": ["a"]}, "no list of files"),
        ({"files": {}}, "lacks config.json"),
    ],
)
def test_inconsistent_metadata_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        load(write_model(tmp_path / "model", **changes))


def test_broken_metadata_is_refused(model: Path) -> None:
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        (model / "gkiller.json").write_bytes(content)
        with pytest.raises(ModelFormatError):
            load(model)


def test_files_of_another_kind_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = {
        b"no graph": "no ONNX file|not a graph",
        graph(toy_tokenizer().get_vocab(), labels=3): "of shape",
        graph(toy_tokenizer().get_vocab()).replace(b"logits", b"scores"): "maps",
    }
    for content, message in graphs.items():
        (model / "onnx/model.int8.onnx").write_bytes(content)
        seal(model)
        with pytest.raises(ModelFormatError, match=message):
            load(model)
    (model / "tokenizer.json").write_text("{}")
    seal(model)
    with pytest.raises(ModelFormatError, match="not a tokenizer"):
        load(model)
    monkeypatch.setitem(loading.LIMITS, "config.json", 10)
    with pytest.raises(ModelFormatError, match="more than the 10 bytes"):
        load(model)


def test_a_tokenizer_with_more_pieces_than_the_network(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 16, "vocab_size": 7}))
    seal(model)
    with pytest.raises(ModelFormatError, match="the network knows 7"):
        load(model)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_out_of_the_directory_is_refused(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    (model / "tokenizer.json").rename(target)
    (model / "tokenizer.json").symlink_to(target)
    with pytest.raises(ModelFormatError, match="leads out"):
        load(model)


@pytest.mark.parametrize("threads", [0, -1, 2000, 1.5, True, "2"])
def test_threads_out_of_range(model: Path, threads: bool | float | str) -> None:
    with pytest.raises(SettingsError, match="threads must be"):
        load(model, threads=threads)  # type: ignore[arg-type]


HEAVY = ("torch", "transformers", "pydantic", "pyarrow", "sklearn", "onnx", "typer", "rich", "safetensors")


def run(code: str, *arguments: Any) -> Any:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_nothing_heavy_is_imported(model: Path) -> None:
    done = run(
        "import sys; from gkiller import load; clf = load(sys.argv[1])\n"
        "clf.predict(['you fool', 'h\\u00e9'] * 300); clf.explain('you fool')\n"
        "import gkiller.inference.bulk.job, gkiller.inference.bulk.sinks, gkiller.inference.bulk.reading\n"
        f"sys.exit(' '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)",
        model,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_fork_scores_alike_and_warns_of_nothing(model: Path) -> None:
    done = run(
        "import os, sys, warnings; from gkiller import load; warnings.simplefilter('ignore')\n"
        "clf = load(sys.argv[1], threads=2); texts = [f'text {i} fool' * (i % 9) for i in range(300)]\n"
        "before = clf.predict_proba(texts); child = os.fork()\n"
        "if not child: os._exit(0 if (clf.predict_proba(texts) == before).all() else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
        model,
    )
    assert (done.returncode, done.stderr) == (0, "")
