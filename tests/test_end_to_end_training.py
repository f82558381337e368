"""From settings to a finished run, in this process."""

import hashlib
import json
import os
import random
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import CANONICAL_SIX, toy_tokenizer, vocabulary, write_toy_csv
from training_helpers import untimed
from transformers import BertConfig, BertModel

from gkiller.data.load import load_dataset
from gkiller.errors import (
    DendritePatternError,
    DendritesUnavailableError,
    DivergedError,
    ModelNotFoundError,
    ResumeError,
    RunExistsError,
    RunLockedError,
)
from gkiller.model.dendrites import perforated
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.directory import load_model
from gkiller.model.pretrained import loading
from gkiller.scoring.models import score_texts
from gkiller.settings import resolve
from gkiller.settings.definition import DataSettings, Settings
from gkiller.training.run import RunDirectory
from gkiller.training.train import TrainResult, round_trip, train

pytestmark = pytest.mark.usefixtures("no_plots")

SMALL = "data.sample_size=48"
TEXTS = ["good work on the map", "you idiot", "", "thank you for the careful edit"]


def weights(run: RunDirectory) -> bytes:
    return (run.path / "model" / "model.safetensors").read_bytes()


def rigged(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Keep so many dendrites, whatever the scores say."""
    monkeypatch.setattr("gkiller.training.finish.kept_dendrites", lambda gains: count)


@pytest.fixture(scope="module")
def reference(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> TrainResult | str:
    """A whole run that others must equal."""
    patch = pytest.MonkeyPatch()
    patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
    rigged(patch, 1)
    out = tmp_path_factory.mktemp("runs")
    result = train(tiny(SMALL), out=out, name="reference", argv=["gkiller", "train"])
    patch.undo()
    return result


# -- what a run leaves --------------------------------------------------------------------------


def test_the_files_of_a_run(reference: TrainResult) -> None:
    run = reference.run.path
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "settings.toml",
        "manifest.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "README.md",
        "validation.json",
        "validation.txt",
    }
    assert {path.suffix for path in run.rglob("*") if path.is_file()} <= {
        ".toml",
        ".json",
        ".jsonl",
        ".md",
        ".txt",
        ".safetensors",
        "",
    }
    assert not list(run.rglob("*.old")) + list(run.rglob(".best*"))


def test_the_manifest_tells_how_it_came_to_be(reference: TrainResult, prepared: Path) -> None:
    manifest = json.loads((reference.run.path / "manifest.json").read_text())
    assert manifest == reference.manifest
    assert manifest["argv"] == ["gkiller", "train"]
    assert (manifest["seed"], manifest["threads"], manifest["device"]) == (0, 1, "cpu")
    data = json.loads((prepared / "manifest.json").read_text())
    assert manifest["data"]["labels"] == ["toxicity"]
    assert manifest["data"]["rows"]["train"] == 48
    assert manifest["data"]["rows"]["valid"] == data["splits"]["valid"]["rows"]
    assert manifest["environment"]["packages"]["perforatedai"]
    assert manifest["epochs"] == 5
    assert manifest["dendrites_kept"] == 1
    assert manifest["fold_difference"] <= 1e-5
    text = (reference.run.path / "manifest.json").read_text()
    recorded = load_model(reference.run.path).metadata["training"]["manifest_sha256"]
    assert recorded == hashlib.sha256(text.encode()).hexdigest()


def test_the_settings_repeat_the_run(reference: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rigged(monkeypatch, 1)
    settings = resolve(config=reference.run.path / "settings.toml", environ={}).settings
    again = train(settings, out=tmp_path)
    assert weights(again.run) == weights(reference.run)
    assert untimed(again.run.read_metrics()) == untimed(reference.run.read_metrics())
    assert tomllib.loads((again.run.path / "settings.toml").read_text()) == tomllib.loads(
        (reference.run.path / "settings.toml").read_text()
    )


def test_the_model_is_plain_and_scores_as_the_run_says(reference: TrainResult, prepared: Path) -> None:
    loaded = load_model(reference.run.path)
    modules = dendritic_modules(loaded.model)
    assert len(modules) == 6  # one layer
    assert {len(module.dendrites) for module in modules.values()} == {1}
    assert not any("PAI" in type(module).__name__ for module in loaded.model.modules())
    valid = load_dataset(reference_settings(prepared), cache=Path("unused")).split("valid")
    scores = score_texts(loaded, valid.texts)
    report = json.loads((reference.run.path / "validation.json").read_text())
    assert report["split"] == "valid"
    brier = float(np.mean((scores[:, 0] - valid.labels[:, 0]) ** 2))
    assert brier == pytest.approx(report["labels"]["toxicity"]["brier"]["value"], abs=1e-6)
    assert loaded.thresholds == {k: t.value for k, t in reference.finished.thresholds.items()}
    assert loaded.metadata["training"]["synthetic"] is False


def reference_settings(prepared: Path) -> DataSettings:
    return resolve(overrides=[f"data.source={prepared}"], environ={}).settings.data


def test_the_dendrites_are_reported(reference: TrainResult) -> None:
    report = reference.finished.dendrite_report
    assert report["top_weight_mean"] > 0
    assert set(report["ap"]) == set(report["f1"]) == {"whole", "zeroed", "mean"}
    assert report["ap"]["whole"] == pytest.approx(reference.progress.best[1], abs=1e-6)


def test_dendrites_that_do_not_help_are_taken_off(tiny: Callable[..., Any], tmp_path: Path) -> None:
    result = train(tiny(SMALL, "dendrites.min_gain=1"), out=tmp_path)
    assert result.finished.dendrites == 0
    assert result.finished.dendrite_report == {}
    loaded = load_model(result.run.path)
    assert dendritic_modules(loaded.model) == {}
    assert not any("dendrite" in name for name, _ in loaded.model.named_parameters())
    plain = train(tiny(SMALL, "dendrites.enabled=false"), out=tmp_path)
    assert weights(plain.run) == weights(result.run)  # the neurons' own phase is the same one


def test_dendrites_that_help_stay(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Neurons that hardly learn leave something for the dendrites to find."""
    overrides = ("train.lr=1e-7", "dendrites.lr=0.1", "dendrites.epochs=12", "dendrites.init_std=0.5")
    result = train(tiny(*overrides, "dendrites.min_gain=0"), out=tmp_path)
    assert result.progress.best[1] > result.progress.best[0]
    assert result.finished.dendrites == 1
    assert len(dendritic_modules(load_model(result.run.path).model)) == 6


def test_six_labels(tiny: Callable[..., Any], tmp_path: Path, prepared_six: Path) -> None:
    result = train(tiny(f"data.source={prepared_six}"), out=tmp_path)
    loaded = load_model(result.run.path)
    assert loaded.labels == CANONICAL_SIX
    assert score_texts(loaded, TEXTS).shape == (4, 6)
    assert set(result.finished.thresholds) == set(CANONICAL_SIX)


@pytest.mark.parametrize("objective", ["gradient", "correlation"])
@pytest.mark.parametrize("switch", ["fixed", "history"])
def test_every_way_through_the_phases_ends_well(
    tiny: Callable[..., Any], tmp_path: Path, objective: str, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rigged(monkeypatch, 1)
    overrides = (f"dendrites.objective={objective}", f"dendrites.switch={switch}", "train.metric=f1")
    result = train(tiny(SMALL, *overrides, "dendrites.switch_patience=1"), out=tmp_path)
    assert result.progress.finished
    assert result.finished.fold_difference <= 1e-5
    load_model(result.run.path)


# -- determinism --------------------------------------------------------------------------------


def test_trainings_in_one_process_do_not_disturb_each_other(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: TrainResult
) -> None:
    rigged(monkeypatch, 1)
    other = train(tiny(SMALL, "train.seed=1", "dendrites.objective=correlation"), out=tmp_path)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    again = train(tiny(SMALL), out=tmp_path)
    assert weights(again.run) == weights(reference.run)
    assert untimed(again.run.read_metrics()) == untimed(reference.run.read_metrics())
    assert weights(other.run) != weights(reference.run)


def test_another_seed_gives_other_bytes(
    tiny: Callable[..., Any], tmp_path: Path, reference: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    rigged(monkeypatch, 1)
    assert weights(train(tiny(SMALL, "train.seed=1"), out=tmp_path).run) != weights(reference.run)


def test_the_process_is_as_before(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def outside() -> Any:
        return (
            Path.cwd(),
            sys.stdout,
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            random.getstate(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            dict(os.environ),
        )

    before = outside()
    train(tiny(SMALL), out=tmp_path / "runs")
    assert outside() == before
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


# -- stopping and going on ----------------------------------------------------------------------


def stop_at(phase: str, epoch: int) -> Callable[..., Any]:
    def on_event(event: Any) -> None:
        if (event.kind, event.phase, event.epoch) == ("step", phase, epoch):
            raise KeyboardInterrupt

    return on_event


@pytest.mark.parametrize(("phase", "epoch"), [("neuron", 2), ("dendrite", 1), ("dendrite", 2), ("joint", 1)])
def test_a_stopped_run_goes_on(
    tiny: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: TrainResult,
    phase: str,
    epoch: int,
) -> None:
    rigged(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(SMALL), out=tmp_path, name="x", on_event=stop_at(phase, epoch))
    assert not (tmp_path / "x" / "model").exists()
    result = train(tiny(SMALL), out=tmp_path, resume=tmp_path / "x")
    assert weights(result.run) == weights(reference.run)
    assert untimed(result.run.read_metrics()) == untimed(reference.run.read_metrics())
    assert len(result.manifest["resumed"]) == 1


def test_a_finished_run_can_be_finished_again(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: TrainResult
) -> None:
    rigged(monkeypatch, 1)
    shutil.copytree(reference.run.path, tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "model")
    result = train(tiny(SMALL), out=tmp_path, resume=tmp_path / "x")
    assert weights(result.run) == weights(reference.run)
    assert untimed(result.run.read_metrics()) == untimed(reference.run.read_metrics())


def stopped(settings: Settings, out: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=out, name="x", on_event=stop_at("neuron", 2))
    return out / "x"


def test_changed_data_are_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    source = write_toy_csv(tmp_path / "toy.csv", 100)
    settings = tiny(f"data.source={source}", "dendrites.enabled=false")
    run = stopped(settings, tmp_path / "runs")
    write_toy_csv(source, 104)
    with pytest.raises(ResumeError, match="data of this run have changed"):
        train(settings, out=tmp_path / "runs", resume=run)
    write_toy_csv(source, 100)
    assert train(settings, out=tmp_path / "runs", resume=run).progress.finished


def test_a_changed_tokenizer_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    own = toy_tokenizer()
    (tmp_path / "tokenizer.json").write_text(own.to_str())
    settings = tiny(SMALL, f"model.tokenizer={tmp_path / 'tokenizer.json'}", "dendrites.enabled=false")
    run = stopped(settings, tmp_path / "runs")
    own.add_tokens(["zebra"])
    (tmp_path / "tokenizer.json").write_text(own.to_str())
    with pytest.raises(ResumeError, match="tokenizer"):
        train(settings, out=tmp_path / "runs", resume=run)


def test_changed_settings_are_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run = stopped(tiny(SMALL, "dendrites.enabled=false"), tmp_path)
    with pytest.raises(ResumeError) as caught:
        train(tiny(SMALL, "dendrites.enabled=false", "train.lr=0.5"), out=tmp_path, resume=run)
    assert "train.lr" in caught.value.what
    assert run.exists()
    harmless = tiny(SMALL, "dendrites.enabled=false", "train.keep_checkpoints=3")
    assert train(harmless, out=tmp_path, resume=run).progress.finished


def test_nothing_to_resume(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="not a run"):
        train(tiny(SMALL), out=tmp_path, resume=tmp_path)


def test_a_run_stopped_before_its_first_checkpoint_starts_from_the_beginning(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: TrainResult
) -> None:
    rigged(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(SMALL), out=tmp_path, name="x", on_event=stop_at("neuron", 1))
    said: list[Any] = []
    result = train(tiny(SMALL), out=tmp_path, resume=tmp_path / "x", on_event=said.append)
    assert "from the beginning" in said[0].message
    assert weights(result.run) == weights(reference.run)


def test_a_run_killed_before_it_wrote_anything_gives_its_name_back(tiny: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".lock").touch()
    assert train(tiny(SMALL, "dendrites.enabled=false"), out=tmp_path, name="x").progress.finished


def test_without_any_whole_checkpoint_it_does_not_start_anew_in_silence(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    run = stopped(tiny(SMALL), tmp_path)
    for path in (run / "checkpoints").rglob("state.json"):
        path.write_text("torn")
    with pytest.raises(ResumeError, match="no usable checkpoint"):
        train(tiny(SMALL), out=tmp_path, resume=run)
    assert run.exists()


def test_a_damaged_checkpoint_is_named_and_passed_over(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: TrainResult
) -> None:
    rigged(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(SMALL), out=tmp_path, name="x", on_event=stop_at("dendrite", 2))
    newest = max((tmp_path / "x" / "checkpoints").glob("checkpoint-*"))
    (newest / "weights.safetensors").write_bytes(b"torn")
    said: list[Any] = []
    result = train(tiny(SMALL), out=tmp_path, resume=tmp_path / "x", on_event=said.append)
    assert any(event.message.startswith(f"passed over: {newest}: weights.safetensors") for event in said)
    assert weights(result.run) == weights(reference.run)
    assert untimed(result.run.read_metrics()) == untimed(reference.run.read_metrics())


# -- a longer training --------------------------------------------------------------------------


def test_more_epochs_lengthen_a_finished_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    short = tiny(SMALL, "dendrites.enabled=false", "train.schedule=step")
    longer = tiny(SMALL, "dendrites.enabled=false", "train.schedule=step", "train.epochs=4")
    whole = train(longer, out=tmp_path, name="whole").run
    train(short, out=tmp_path, name="x")
    result = train(longer, out=tmp_path, resume=tmp_path / "x")
    assert result.progress.epoch == 4
    assert result.manifest["resumed"][0]["changed"] == {"train.epochs": [2, 4]}
    assert tomllib.loads((tmp_path / "x" / "settings.toml").read_text())["train"]["epochs"] == 4
    assert weights(result.run) == weights(whole)  # StepLR does not know how long it will last
    assert untimed(result.run.read_metrics()) == untimed(whole.read_metrics())


def test_a_phase_that_is_over_does_not_get_longer(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(SMALL), out=tmp_path, name="x", on_event=stop_at("dendrite", 2))
    with pytest.raises(ResumeError, match=r"dendrite phase: train.epochs cannot change"):
        train(tiny(SMALL, "train.epochs=9"), out=tmp_path, resume=tmp_path / "x")
    with pytest.raises(ResumeError, match=r"train.epochs is 2 in the run and 1 now"):
        train(tiny(SMALL, "train.epochs=1"), out=tmp_path, resume=tmp_path / "x")
    result = train(tiny(SMALL, "dendrites.joint_epochs=2"), out=tmp_path, resume=tmp_path / "x")
    assert [row["phase"] for row in result.run.read_metrics()].count("joint") == 2


def test_another_set_up_is_told(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run = stopped(tiny(SMALL, "dendrites.enabled=false"), tmp_path)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["environment"]["packages"]["torch"] = "1.0"
    (run / "manifest.json").write_text(json.dumps(manifest))
    said: list[Any] = []
    settings = tiny(SMALL, "dendrites.enabled=false", "train.threads=2")
    train(settings, out=tmp_path, resume=run, on_event=said.append)
    assert said[0].message.startswith("threads, packages differ from when the run began")


# -- refusals -----------------------------------------------------------------------------------


def test_a_taken_name(tiny: Callable[..., Any], reference: TrainResult) -> None:
    before = weights(reference.run)
    with pytest.raises(RunExistsError):
        train(tiny(SMALL), out=reference.run.path.parent, name="reference")
    assert weights(reference.run) == before


def test_a_run_in_use(tiny: Callable[..., Any], reference: TrainResult) -> None:
    with RunDirectory(reference.run.path).lock(), pytest.raises(RunLockedError):
        train(tiny(SMALL), out=reference.run.path.parent, resume=reference.run.path)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("model.encoder=./nowhere", ModelNotFoundError),
        ("dendrites.patterns=*.qeury", DendritePatternError),
        ("train.lr=1.0", DivergedError),
    ],
)
def test_a_refused_training_leaves_no_run_and_does_not_block_the_next(
    tiny: Callable[..., Any], tmp_path: Path, override: str, error: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if error is DivergedError:
        monkeypatch.setattr("gkiller.training.learner.task_loss", lambda logits, *_: logits.sum() * torch.inf)
    with pytest.raises(error):
        train(tiny(SMALL, override), out=tmp_path, name="x")
    assert not (tmp_path / "x").exists()
    monkeypatch.undo()
    monkeypatch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    monkeypatch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
    assert train(tiny(SMALL), out=tmp_path, name="x").progress.finished


def test_platforms_without_perforatedai(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perforated.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DendritesUnavailableError) as caught:
        train(tiny(SMALL), out=tmp_path)
    assert "--no-dendrites" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    assert train(tiny(SMALL, "dendrites.enabled=false"), out=tmp_path).progress.finished


# -- pretrained encoders ------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean_max", "cls"])
def test_from_a_local_encoder(tiny: Callable[..., Any], tmp_path: Path, pooling: str) -> None:
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
    )
    with loading("a test"):
        BertModel(config).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "tokenizer.json").write_text(toy_tokenizer().to_str())
    overrides = (f"model.encoder={tmp_path / 'encoder'}", "model.tokenizer=none", f"model.pooling={pooling}")
    runs = [train(tiny(SMALL, *overrides), out=tmp_path / "runs").run for _ in range(2)]
    assert weights(runs[0]) == weights(runs[1])
    loaded = load_model(runs[0].path)
    assert loaded.model.bert.config.max_position_embeddings == 24
    assert np.isfinite(score_texts(loaded, TEXTS)).all()


# -- the self-test of doctor ----------------------------------------------------------------------


@pytest.mark.parametrize("dendrites", [True, False])
def test_round_trip(monkeypatch: pytest.MonkeyPatch, dendrites: bool, capfd: pytest.CaptureFixture[str]) -> None:
    if not dendrites:
        monkeypatch.setattr(perforated.importlib.util, "find_spec", lambda name: None)
    found = round_trip()
    assert found["ok"] is True
    assert found["dendrites"] is dendrites
    assert found["fold_difference"] <= 1e-5
    assert set(found["scores"]) == set(CANONICAL_SIX)
    assert capfd.readouterr() == ("", "")
