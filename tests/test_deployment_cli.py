"""gkiller export, gkiller quantize and gkiller doctor MODEL, on a trained run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployment_helpers import save

from gkiller.cli.doctor import check_model
from gkiller.inference.ort import onnxruntime
from gkiller.model.directory import add_files, load_model
from gkiller.training.train import TrainResult, train

LOOSE = (
    "--set=deployment.int8_flips=1",
    "--set=deployment.int8_ap_loss=1",
    "--set=deployment.int8_f1_loss=1",
    "--set=deployment.int8_score_difference=1",
)


@pytest.fixture(scope="module")
def trained(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path | TrainResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
        return train(tiny("dendrites.enabled=false"), out=tmp_path_factory.mktemp("runs")).run.path


@pytest.fixture
def run(trained: Path | TrainResult, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")  # type: ignore[arg-type]


def test_export_adds_a_graph_and_says_what_was_compared(call: Callable[..., Any], run: Path) -> None:
    code, out, _ = call("export", run)
    assert code == 0
    assert "onnx/model.onnx" in out
    assert "max |Δ score|" in out
    assert "onnx/model.onnx" in load_model(run).metadata["exports"]


def test_export_json_is_one_object(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", run, "--out", tmp_path / "copy", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["directory"] == str(tmp_path / "copy")
    assert found["parity"]["passed"] is True
    assert not (run / "model" / "onnx").exists()


def test_a_refused_export_ends_with_60_and_its_figures(
    call: Callable[..., Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployment_helpers import broken_weights

    broken_weights(monkeypatch)
    code, out, err = call("export", run, "--json")
    assert code == 60
    found = json.loads(out)
    assert found["error"] == "ParityError"
    assert found["report"]["failures"]
    assert "nothing was written" in err
    assert not (run / "model" / "onnx").exists()
    code, out, err = call("export", run)
    assert code == 60
    assert "Refused" in out


def test_quantize_shows_every_way_and_keeps_one(call: Callable[..., Any], run: Path) -> None:
    code, out, _ = call("quantize", run, *LOOSE)
    assert code == 0
    assert "dynamic" in out
    assert out.count("kept") == 1
    assert (run / "model/onnx/model.int8.onnx").is_file()


def test_quantize_json_lists_the_candidates(call: Callable[..., Any], run: Path) -> None:
    code, out, _ = call("quantize", run, "--portable", "--json", *LOOSE)
    assert code == 0
    assert all("7-bit" in one["name"] for one in json.loads(out)["candidates"])


def test_quantize_refuses_when_no_way_is_near_enough(call: Callable[..., Any], run: Path) -> None:
    code, out, _ = call("quantize", run, "--json", "--set=deployment.int8_score_difference=0")
    assert code == 60
    assert len(json.loads(out)["report"]["candidates"]) > 1
    code, out, _ = call("quantize", run, "--set=deployment.int8_score_difference=0")
    assert code == 60
    assert "dynamic" in out


def test_float16_storage(call: Callable[..., Any], run: Path) -> None:
    code, out, _ = call("quantize", run, "--storage", "fp16", "--json", *LOOSE)
    assert code == 0
    assert json.loads(out)["file"] == "onnx/model.fp16.onnx"


def test_a_smaller_vocabulary_needs_a_place(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    assert call("quantize", run, "--vocabulary", "90", *LOOSE)[0] == 2
    code, _, _ = call("quantize", run, "--vocabulary", "90", "--out", tmp_path / "small", *LOOSE)
    assert code == 0
    assert load_model(tmp_path / "small").tokenizer.get_vocab_size() < load_model(run).tokenizer.get_vocab_size()


def test_a_model_outside_of_its_run_needs_data(
    call: Callable[..., Any], run: Path, tmp_path: Path, prepared: Path
) -> None:
    moved = shutil.copytree(run / "model", tmp_path / "alone")
    code, _, err = call("export", moved)
    assert code == 2
    assert "--data" in err
    assert call("export", moved, "--data", prepared)[0] == 0


def test_safetensors_needs_a_place(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    assert call("export", run, "--format", "safetensors")[0] == 2
    code, out, _ = call("export", run, "--format", "safetensors", "--out", tmp_path / "plain", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] > 0
    assert load_model(tmp_path / "plain").labels == ("toxicity",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--precision", "int8"], "gkiller quantize"),
        (["export", "--package-name", "mine"], "--format wheel"),
        (["export", "--format", "wheel", "--plain"], "--format onnx"),
        (["export", "--format", "safetensors", "--out", "plain", "--split", "test"], "--format onnx"),
        (["quantize", "--storage", "fp16", "--portable"], "--storage int8"),
        (["quantize", "--storage", "fp16", "--vocabulary", "90", "--out", "small"], "--storage int8"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(
    call: Callable[..., Any], run: Path, arguments: list[str], message: str
) -> None:
    command, *flags = arguments
    code, _, err = call(command, run, *flags)
    assert code == 2
    assert message in err


def test_a_wheel_needs_a_graph(call: Callable[..., Any], run: Path) -> None:
    code, _, err = call("export", run, "--format", "wheel")
    assert code == 61
    assert "gkiller quantize" in err


def test_doctor_rechecks_every_graph(call: Callable[..., Any], run: Path) -> None:
    call("export", run)
    call("quantize", run, *LOOSE)
    found = {check.name: check for check in check_model(str(run))}
    assert {name: check.status for name, check in found.items()} == {
        "model": "ok",
        "onnx/model.onnx": "ok",
        "onnx/model.int8.onnx": "ok",
    }
    assert "64 probes" in found["onnx/model.onnx"].detail


def test_doctor_takes_a_copy_that_holds_what_scoring_needs(call: Callable[..., Any], run: Path) -> None:
    call("export", run)
    call("quantize", run, *LOOSE)
    model = run / "model"
    for name in ("model.safetensors", "README.md", "onnx/model.onnx"):
        (model / name).unlink()
    found = {check.name: check.status for check in check_model(str(model))}
    assert found == {"model": "ok", "onnx/model.int8.onnx": "ok"}
    (model / "onnx/model.int8.onnx").write_bytes(b"")
    assert [check.status for check in check_model(str(model))] == ["failed"]


def test_doctor_tells_of_a_graph_that_does_not_run_here(call: Callable[..., Any], run: Path) -> None:
    call("export", run)
    loaded = load_model(run)
    add_files(loaded.path, loaded, {"onnx/model.onnx": b"of a later onnxruntime"})
    found = check_model(str(run))
    assert [check.status for check in found] == ["ok", "failed"]
    assert "onnx/model.onnx: onnxruntime" in found[1].detail
    assert f"exported with onnxruntime {onnxruntime.__version__}" in found[1].remedy


def test_doctor_says_what_is_wrong_with_a_model(run: Path, tmp_path: Path) -> None:
    assert [check.status for check in check_model(str(tmp_path / "none"))] == ["failed"]
    assert [check.status for check in check_model(str(run))] == ["ok", "skipped"]
    loaded = save(tmp_path / "model")
    (loaded.path / "config.json").write_text("{}")
    [found] = check_model(str(loaded.path))
    assert found.status == "failed"
    assert "SHA-256" in found.detail


def test_doctor_takes_a_model(call: Callable[..., Any], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gkiller.cli import doctor as checks

    names = [name for name in vars(checks) if name.startswith("check_") and name != "check_model"]
    for name in names:
        monkeypatch.setattr(checks, name, lambda *given, **named: [])
    code, out, _ = call("doctor", run, "--json")
    assert code == 0
    assert [check["name"] for check in json.loads(out)["checks"]] == ["model", "graphs"]
