"""The default model: how it is shipped, found and packed, with a tiny one in a folder of the tests' own."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from deployment_helpers import SIX, labelled, network, save
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import gkiller
from gkiller import assets, load
from gkiller.deployment.deploy import quantize
from gkiller.deployment.parity import parity_rows
from gkiller.errors import ModelError
from gkiller.inference.loading import available_threads
from gkiller.model.directory import LoadedModel, add_files, load_model
from gkiller.model.layout import default_model, find_model, has_weights, is_default, settled
from gkiller.scoring.models import load_any
from gkiller.settings import DeploymentSettings, resolve
from gkiller.training.train import TrainResult, train

ROOT = Path(__file__).resolve().parent.parent
LOOSE = DeploymentSettings(int8_flips=1, int8_ap_loss=1, int8_f1_loss=1, int8_score_difference=1)
FILES = {"README.md", "config.json", "gkiller.json", "onnx/model.int8.onnx", "onnx/parity.json", "tokenizer.json"}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def nothing_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A build without a default model; returns where it would be."""
    place = tmp_path / "package" / "model"
    monkeypatch.setattr(assets, "default_model_path", lambda: place)
    return place


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ship_model", ROOT / "tools" / "ship_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path | TrainResult:
    """A run of one label with an int8 graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
        run = train(tiny("dendrites.enabled=false"), out=tmp_path_factory.mktemp("runs")).run.path
    loaded = load_model(run)
    quantize(loaded, parity_rows(loaded, labelled(), 40), LOOSE)
    return run


@pytest.fixture
def shipped(nothing_shipped: Path, tool: ModuleType, trained: Path) -> Callable[..., Any] | Path:
    tool.ship(str(trained), ["toxicity"])
    return nothing_shipped


def test_where_it_is() -> None:
    assert assets.default_model_path() == Path(gkiller.__file__).parent / "assets" / "model"


def test_shipping_takes_what_predicting_needs(
    nothing_shipped: Path, tool: ModuleType, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(trained), "--labels", "toxicity"]) == 0
    assert files_of(nothing_shipped) == FILES
    out = capsys.readouterr().out
    total = sum(path.stat().st_size for path in nothing_shipped.rglob("*") if path.is_file())
    assert f"{total:,}  in all" in out
    assert str(nothing_shipped) in out
    assert not has_weights(nothing_shipped)
    assert list(load_any("default").metadata["exports"]) == ["onnx/model.int8.onnx"]
    card = (nothing_shipped / "README.md").read_bytes()
    assert card == (trained / "model" / "README.md").read_bytes()


def test_sections_go_into_the_card_before_its_limits(
    nothing_shipped: Path, tool: ModuleType, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "card.md").write_text("## Groups\n\nnone\n", "utf-8")
    assert tool.main([str(trained), "--labels", "toxicity", "--sections", str(tmp_path / "card.md")]) == 0
    own = (trained / "model" / "README.md").read_text("utf-8")
    expected = own.replace("## Limits\n", "## Groups\n\nnone\n\n## Limits\n")
    assert expected != own
    assert (nothing_shipped / "README.md").read_text("utf-8") == expected
    assert load_any("default").labels == ("toxicity",)  # sealed with it
    (tmp_path / "card.md").write_text("## Groups\n\nsome\n", "utf-8")
    again = [str(nothing_shipped), "--labels", "toxicity", "--sections", str(tmp_path / "card.md")]
    assert tool.main(again) == 0  # the shipped copy itself, with newer sections
    assert (nothing_shipped / "README.md").read_text("utf-8") == expected.replace("\nnone\n", "\nsome\n")


def test_shipping_again_replaces_it(shipped: Path, tool: ModuleType, trained: Path) -> None:
    (shipped / "stray.txt").write_text("left from before")
    assert tool.main([str(trained), "--labels", "toxicity"]) == 0
    assert files_of(shipped) == FILES
    assert [path.name for path in shipped.parent.iterdir()] == ["model"]


def six(folder: Path, **shape: Any) -> LoadedModel:
    loaded = save(folder, network(SIX, **shape), SIX)
    quantize(loaded, parity_rows(loaded, labelled(SIX), 40), LOOSE)
    return load_model(folder)


def test_six_labels_are_shipped_without_being_named(nothing_shipped: Path, tool: ModuleType, tmp_path: Path) -> None:
    six(tmp_path / "six")
    assert tool.main([str(tmp_path / "six")]) == 0
    assert load().labels == SIX


def test_what_may_not_be_shipped(
    nothing_shipped: Path,
    tool: ModuleType,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(path: Any, *arguments: Any) -> Any:
        code = tool.main([str(path), *arguments])
        assert not nothing_shipped.exists()
        return code, capsys.readouterr().err

    code, err = refused(trained)
    assert (code, "does not score severe_toxicity" in err) == (51, True)
    assert refused(tmp_path / "nothing")[0] == 20
    loaded = six(tmp_path / "six")
    bare = save(tmp_path / "bare", network(SIX), SIX)
    code, err = refused(bare.path)
    assert (code, "no int8 graph" in err) == (61, True)
    for name, keep, exports in (
        ("unproven", lambda file: True, {}),
        ("without probes", lambda file: file != "onnx/parity.json", loaded.metadata["exports"]),
    ):
        add_files(tmp_path / name, loaded, {}, keep=keep, changes={"exports": exports})
        code, err = refused(tmp_path / name)
        assert (code, "no parity report" in err) == (61, True)
    monkeypatch.setattr(tool, "MOST_BYTES", 10_000)
    code, err = refused(loaded.path)
    assert (code, "10,000 are shipped at most" in err) == (61, True)
    monkeypatch.undo()
    assert tool.MOST_BYTES == 5_000_000


def test_a_damaged_model_is_not_shipped(
    nothing_shipped: Path, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    six(tmp_path / "six")
    graph = tmp_path / "six" / "onnx" / "model.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert tool.main([str(tmp_path / "six")]) == 21
    assert not nothing_shipped.exists()
    assert "SHA-256" in capsys.readouterr().err


def test_load_finds_it(shipped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().path == load("default").path == find_model("default") == shipped
    assert load().threads == available_threads()
    assert load().predict("you are kind").scores == load(shipped).predict("you are kind").scores


def test_what_the_user_calls_default_goes_first(
    shipped: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_default("default")
    shutil.copytree(trained / "model", "default")
    assert not is_default("default")
    assert load("default").path == find_model("default") == Path("default")
    assert load().path == shipped


@pytest.mark.parametrize("name", ["gkiller.json", "model/gkiller.json", "config.json", "settings.toml"])
def test_a_directory_without_a_model_does_not_hide_it(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("default", name)
    mine.parent.mkdir(parents=True)
    Path("default", "notes.txt").touch()
    assert is_default("default")
    assert find_model("default") == shipped
    mine.touch()
    assert not is_default("default")


def test_a_file_hides_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default").touch()
    assert not is_default("default")


TAUGHT = ("train", "--teacher", "default")
COMMANDS = (
    ("predict", "you are kind"),
    ("predict", "you are kind", "--model", "default"),
    ("evaluate", "default", "--data", "sample"),
    ("compare", "default", "default", "--data", "sample"),
    ("bench", "default", "--data", "sample"),
    ("threshold", "default", "--data", "sample"),
    ("export", "default"),
    ("train", "--encoder", "default"),
    TAUGHT,
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_build_without_it_says_so(call: Callable[..., Any], nothing_shipped: Path, command: Any) -> None:
    code, out, _ = call(*command, "--json")
    answer = json.loads(out)
    assert (code, answer["error"], answer["where"]) == (20, "ModelNotFoundError", str(nothing_shipped))
    assert answer["what"] == "this build has no default model"
    assert "gkiller train" in answer["remedy"]


def test_doctor_says_so(nothing_shipped: Path) -> None:
    from gkiller.cli.doctor import check_model

    [found] = check_model("default")
    assert (found.status, "no default model" in found.detail) == ("failed", True)


def test_predict_needs_no_model(call: Callable[..., Any], shipped: Path) -> None:
    code, out, _ = call("predict", "you are kind", "you fool", "--json")
    answer = json.loads(out)
    assert (code, answer["model"], answer["precision"]) == (0, str(shipped), "int8")
    assert [list(one["scores"]) for one in answer["predictions"]] == [["toxicity"]] * 2
    assert call("predict", "you are kind", "you fool", "--json", "-m", "default")[1] == out


def test_evaluate_measures_its_graph(call: Callable[..., Any], shipped: Path, prepared: Path, no_plots: None) -> None:
    code, out, err = call("evaluate", "default", "--data", prepared, "--set", "evaluation.resamples=10", "--json")
    answer = json.loads(out)
    assert (code, err.splitlines()) == (0, [f"warning: {line}" for line in answer["warnings"]])
    assert (answer["model"], answer["precision"]) == (str(shipped), "int8")
    assert answer["labels"]
    code, _, err = call("evaluate", "default", "--data", prepared, "--set", "evaluation.resamples=10")
    assert (code, "scored with the int8 graph" in err, "threshold" in err) == (0, True, False)
    code, out, _ = call("evaluate", "default", "--json")
    assert (code, json.loads(out)["remedy"]) == (2, "name them with --data")


def test_compare_with_the_run_it_was_made_from(
    call: Callable[..., Any], shipped: Path, trained: Path, prepared: Path
) -> None:
    code, out, _ = call("compare", "default", trained, "--data", prepared, "--set", "evaluation.resamples=10", "--json")
    assert code == 0
    answer = json.loads(out)
    assert [answer[side]["name"] for side in "ab"] == ["default", str(trained)]


def test_suites_measure_its_graph_beside_the_run(
    call: Callable[..., Any], shipped: Path, trained: Path, prepared: Path
) -> None:
    flags = ("--data", prepared, "--resamples", 10, "--json")
    code, out, err = call("suite", "robustness", "default", trained, *flags)
    assert code == 0, err
    first, second = json.loads(out)["models"]
    assert (first["name"], second["name"]) == ("default", str(trained))
    assert abs(first["recall"]["value"] - second["recall"]["value"]) < 0.2
    from gkiller.scoring.scorers import open_scorer

    own = open_scorer("default", ("toxicity",), resolve(environ={}).settings)
    texts = ["you are kind", "you fool"]
    np.testing.assert_array_equal(own.score(texts, None), load().predict_proba(texts))


def test_thresholds_are_tuned_on_a_copy(
    call: Callable[..., Any], shipped: Path, prepared: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    code, out, _ = call("threshold", "default", "--data", prepared, "--json")
    answer = json.loads(out)
    assert (code, answer["error"], answer["where"]) == (19, "OutputError", "default")
    assert "--out" in answer["remedy"]
    flags = ("--data", prepared, "--min-recall", "1", "--json")
    code, out, err = call("threshold", "default", *flags, "--out", tmp_path / "mine")
    assert code == 0, err
    assert json.loads(out)["model"] == str(tmp_path / "mine")
    assert {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()} == before
    mine = load(tmp_path / "mine")
    assert mine.thresholds["toxicity"] == json.loads(out)["thresholds"]["toxicity"]["value"]
    assert "(recall >= 1), tuned on the valid split" in (tmp_path / "mine" / "README.md").read_text("utf-8")
    np.testing.assert_array_equal(mine.predict_proba(["you fool"]), load().predict_proba(["you fool"]))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("dear to somebody")
    code, out, _ = call("threshold", "default", *flags, "--out", tmp_path / "theirs")
    assert (code, "something else than a copy" in json.loads(out)["what"]) == (19, True)
    code, out, err = call("threshold", tmp_path / "mine", "--data", prepared, "--json")
    assert code == 0, err
    assert load_any(tmp_path / "mine").metadata["thresholds"]["toxicity"]["target"] == "max f1"


@pytest.mark.slow
def test_bench_times_its_graph(call: Callable[..., Any], shipped: Path, trained: Path, prepared: Path) -> None:
    code, out, _ = call(
        *("bench", "default", "--data", prepared, "--against", trained, "--speed-only", "--json"),
        *("--set", "bench.rounds=2", "--set", "bench.processes=1", "--set", "bench.rows=8"),
        *("--set", "bench.latency_rounds=2", "--set", "bench.latency_tokens=8", "--set", "bench.warm_up=1"),
    )
    assert code == 0
    systems = {(one["role"], one["runtime"]): one for one in json.loads(out)["systems"]}
    assert ("model", "onnx int8") in systems
    assert ("model", "torch fp32") not in systems
    own, whole = systems["model", "onnx int8"], systems["rival", "torch fp32"]
    assert own["name"] == "default"
    assert own["parameters"] == whole["parameters"]
    assert own["bytes"] < whole["bytes"]


def test_doctor_scores_its_probes(shipped: Path) -> None:
    from gkiller.cli.doctor import check_model

    found = check_model("default")
    assert [check.status for check in found] == ["ok", "ok"]
    assert "without model.safetensors" in found[0].detail


@pytest.mark.parametrize("command", [("export", "default"), ("quantize", "default"), TAUGHT], ids=" ".join)
def test_what_needs_weights_refuses_it(call: Callable[..., Any], shipped: Path, command: tuple[Any, ...]) -> None:
    before = {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    code, out, _ = call(*command, "--json")
    answer = json.loads(out)
    assert (code, answer["error"]) == (22, "ModelFormatError")
    assert "no model.safetensors" in answer["what"]
    assert "name the run that it was made from" in answer["remedy"]
    assert {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()} == before


def test_training_starts_from_its_encoder(
    tiny: Callable[..., Any], shipped: Path, tmp_path: Path, no_plots: None
) -> None:
    settings = tiny("dendrites.enabled=false", "model.encoder=default", "model.tokenizer=none", "train.lr=1e-9")
    result = train(settings, out=tmp_path / "runs")
    facts = result.manifest["network"]
    assert (facts["arch"], facts["default"], facts["layers"]) == ("tiny", True, 1)
    again = load_model(result.run.path)
    assert again.tokenizer.get_vocab() == load_any("default").tokenizer.get_vocab()
    assert "from gkiller's default model; pretrained" in (result.run.model / "README.md").read_text("utf-8")
    from gkiller.deployment.restore import deployed_encoder

    start = dict(deployed_encoder(default_model(), settings.model, 100).named_parameters())
    for name, parameter in again.model.bert.named_parameters():
        assert (parameter - start[name]).abs().max().item() < 1e-5, name


def test_training_starts_from_the_graph_of_a_copy_of_it(
    tiny: Callable[..., Any], shipped: Path, tmp_path: Path, no_plots: None
) -> None:
    """As from the shipped one, to the byte: what was shipped once can be gone on from."""
    copy = tmp_path / "copy"
    shutil.copytree(shipped, copy)
    weights, digests = [], []
    for encoder in ("default", copy):
        settings = tiny("dendrites.enabled=false", f"model.encoder={encoder}", "model.tokenizer=none")
        result = train(settings, out=tmp_path / "runs")
        weights.append((result.run.model / "model.safetensors").read_bytes())
        digests.append(result.manifest["network"]["encoder_sha256"])
    assert weights[0] == weights[1]
    assert digests[0] == digests[1]
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        train(settings, out=tmp_path / "runs")


def test_fresh_training_does_not_look_at_it(
    tiny: Callable[..., Any], shipped: Path, tmp_path: Path, no_plots: None
) -> None:
    result = train(tiny("dendrites.enabled=false"), out=tmp_path / "runs")
    assert "network" not in result.manifest


@pytest.mark.parametrize(
    ("asked", "encoder"),
    [
        ((), "default"),
        (("model.max_length=12", "model.dropout=0.5", "model.pooling=cls"), "default"),
        (("model.max_length=17",), "fresh"),
        (("model.layers=1",), "fresh"),
        (("model.tokenizer=/some/tokenizer.json",), "fresh"),
        (("model.encoder=org/name",), "org/name"),
    ],
)
def test_auto_is_the_shipped_encoder_where_it_fits(shipped: Path, asked: tuple[Any, ...], encoder: str) -> None:
    settings = resolve(overrides=["model.max_length=16", *asked], environ={}).settings
    assert settled(settings.model).encoder == encoder


def test_auto_is_fresh_where_nothing_is_shipped_or_the_name_is_taken(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = resolve(overrides=["model.max_length=16"], environ={}).settings.model
    monkeypatch.chdir(tmp_path)
    assert settled(model).encoder == "default"
    mine = tmp_path / "default" / "config.json"
    mine.parent.mkdir()
    assert settled(model).encoder == "default"
    mine.touch()
    assert settled(model).encoder == "fresh"
    mine.unlink()
    (shipped / "config.json").write_bytes(b"{")
    assert settled(model).encoder == "default"  # and refused, as damaged, when it is read
    shutil.rmtree(shipped)
    assert settled(model).encoder == "fresh"


def test_a_run_of_auto_says_what_it_took(
    tiny: Callable[..., Any], shipped: Path, tmp_path: Path, no_plots: None
) -> None:
    plain = ("dendrites.enabled=false", "model.tokenizer=none", "model.layers=2", "model.hidden=128")
    shape = (*plain, "model.heads=2", "model.ffn=512", "data.sample_size=48", "train.epochs=1")
    run = train(tiny(*shape), out=tmp_path / "runs").run
    assert resolve(config=run.path / "settings.toml", environ={}).settings.model.encoder == "default"
    assert load_model(run.path).model.bert.config.num_hidden_layers == 1  # the shipped model's


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with a model in the default model's place, as hatch sees it."""
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    package = Path(gkiller.__file__).parent
    place = tmp_path / "gkiller" / assets.default_model_path().relative_to(package)
    for name in FILES:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a model's")
    (tmp_path / "gkiller" / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize("builder", [WheelBuilder, SdistBuilder])
def test_it_is_packed(tree: Path, builder: type[Any]) -> None:
    packed = {file.distribution_path for file in builder(str(tree)).recurse_included_files()}
    assert {f"gkiller/assets/model/{name}" for name in FILES} <= {path.replace("\\", "/") for path in packed}


def test_git_takes_it(tree: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(tree), "ls-files", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {f"gkiller/assets/model/{name}" for name in FILES} <= set(listed)
