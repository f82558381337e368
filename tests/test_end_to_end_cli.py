"""The whole way, as a user walks it: real processes, a file in the Kaggle layout, six labels."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import CANONICAL_SIX, SIX, TINY, write_six_label_csv
from training_helpers import untimed

from gkiller.cli.main import main
from gkiller.model.directory import load_model
from gkiller.settings import resolve
from gkiller.training.run import RunDirectory
from gkiller.training.train import train

SETTINGS = ("train.epochs=2", "dendrites.epochs=2", "dendrites.joint_epochs=1", "dendrites.count=1")


def gkiller(folder: Path, *arguments: Any, expected: Any = 0) -> tuple[str, str]:
    """Run the command line in a process of its own; returns what it printed on stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GKILLER_")}
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Where no bytecode may be kept beside the sources, these processes keep theirs together elsewhere.
        environment["PYTHONPYCACHEPREFIX"] = f"{folder}-bytecode"
    done = subprocess.run(
        [sys.executable, "-m", "gkiller", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def flags(tokenizer_file: Path) -> Any:
    overrides = (*TINY, *SETTINGS, f"model.tokenizer={tokenizer_file}")
    return [part for override in overrides for part in ("--set", override)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, flags: Any) -> Path | str:
    """A folder where a CSV was prepared and a model trained, by two processes."""
    folder = tmp_path_factory.mktemp("place")
    write_six_label_csv(folder / "comments.csv")
    columns = ("--text-column", "comment_text", "--label-columns", ",".join(SIX))
    gkiller(folder, "data", "prepare", "comments.csv", *columns, "--out", "prepared")
    out, err = gkiller(folder, "train", "--data", "prepared", "--name", "first", "--json", *flags)
    (folder / "printed.json").write_text(out)
    (folder / "said.txt").write_text(err)
    return folder


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_was_printed(place: Path) -> None:
    out = (place / "printed.json").read_text()
    found = json.loads(out)
    assert out.count("\n") == 1
    assert tuple(found["labels"]) == CANONICAL_SIX
    assert found["run"] == "runs/first"
    assert found["fold_difference"] <= 1e-5
    said = (place / "said.txt").read_text()
    assert "\x1b" not in said
    assert len(said.splitlines()) < 20
    assert not any(word in said for word in ("perforated", "Warning", "PAI"))


def test_nothing_else_was_written(place: Path) -> None:
    names = {path.name for path in place.iterdir()}
    assert names == {"comments.csv", "prepared", "runs", "printed.json", "said.txt"}


def test_the_run_directory(place: Path) -> None:
    run = place / "runs" / "first"
    names = {path.name for path in run.iterdir()}
    assert names >= {"settings.toml", "manifest.json", "metrics.jsonl", "checkpoints", "model", "plots", "README.md"}
    assert list((run / "plots").glob("*.png"))
    assert {path.name for path in (run / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "gkiller.json",
        "README.md",
    }
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["argv"][1:5] == ["train", "--data", "prepared", "--name"]
    assert [row["epoch"] for row in RunDirectory(run).read_metrics()] == [1, 2, 3, 4, 5]


@pytest.fixture
def here(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    no_plots: None,
    clean_environment: None,
) -> Callable[..., Any]:
    """Run the command line in this process, which is another one than the one that trained."""
    monkeypatch.chdir(place)

    def run(*arguments: Any) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    return run


def test_its_settings_repeat_it_in_another_process(place: Path, here: Callable[..., Any]) -> None:
    found = here("train", "--config", "runs/first/settings.toml", "--name", "again")
    assert found["run"] == "runs/again"
    assert weights(place / "runs" / "again") == weights(place / "runs" / "first")
    rows = [RunDirectory(place / "runs" / name).read_metrics() for name in ("first", "again")]
    assert untimed(rows[0]) == untimed(rows[1])


@pytest.mark.slow
def test_a_run_stopped_here_goes_on_in_another_process(
    place: Path, monkeypatch: pytest.MonkeyPatch, no_plots: None
) -> None:
    monkeypatch.chdir(place)
    settings = resolve(config=place / "runs" / "first" / "settings.toml", environ={}).settings

    def stop(event: Any) -> None:
        if (event.kind, event.phase, event.epoch) == ("step", "dendrite", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, out=place / "runs", name="stopped", on_event=stop)
    assert len(RunDirectory(place / "runs" / "stopped").read_metrics()) == 3
    out, err = gkiller(place, "train", "--resume", "runs/stopped", "--json")
    assert json.loads(out)["epochs"] == 5
    assert "resumed after epoch 3" in err
    assert weights(place / "runs" / "stopped") == weights(place / "runs" / "first")
    rows = [RunDirectory(place / "runs" / name).read_metrics() for name in ("first", "stopped")]
    assert untimed(rows[0]) == untimed(rows[1])


@pytest.mark.slow
def test_evaluate_threshold_evaluate(place: Path, here: Callable[..., Any]) -> None:
    out, err = gkiller(place, "evaluate", "runs/first", "--json", "--resamples", "10")
    found = json.loads(out)
    assert (found["split"], out.count("\n")) == ("test", 1)
    assert err.splitlines() == [f"warning: {line}" for line in found["warnings"]]
    assert tuple(found["labels"]) == CANONICAL_SIX
    assert list((place / "runs" / "first" / "plots" / "evaluation").glob("*.png"))
    # That process read the model and scored to the last bit as this one does.
    assert here("evaluate", "runs/first", "--resamples", "10")["labels"] == found["labels"]

    tuned = here("threshold", "runs/first", "--min-recall", "1")
    after = load_model(place / "runs" / "first")
    assert after.thresholds == {label: t["value"] for label, t in tuned["thresholds"].items()}
    assert after.metadata["thresholds"]["toxicity"]["target"] == "recall >= 1"
    again = here("evaluate", "runs/first", "--resamples", "10")["labels"]["toxicity"]
    assert again["stored"]["threshold"] == after.thresholds["toxicity"]
    assert again["brier"] == found["labels"]["toxicity"]["brier"]
