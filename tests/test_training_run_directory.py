"""Run directories: names, the lock, and files that a killed process left behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import tiny_settings

from gkiller.errors import (
    DivergedError,
    ResumeError,
    RunExistsError,
    RunLockedError,
    SettingsError,
    SourceNotFoundError,
)
from gkiller.settings import resolve
from gkiller.training.run import RunDirectory, resume_command, resumed_settings


def test_runs_are_numbered(tmp_path: Path) -> None:
    names = [RunDirectory.create(tmp_path / "runs", None).path.name for _ in range(3)]
    assert names == ["train-1", "train-2", "train-3"]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, "mine").write_settings(tiny_settings())
    with pytest.raises(RunExistsError) as caught:
        RunDirectory.create(tmp_path, "mine")
    assert "--name" in caught.value.remedy
    assert "--resume" in caught.value.remedy


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "ünï", "-x", "a\nb"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        RunDirectory.create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_open_and_newest(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="not a run"):
        RunDirectory.open(tmp_path)
    with pytest.raises(ResumeError, match="no run"):
        RunDirectory.newest(tmp_path)
    for name in ("b", "a"):
        RunDirectory.create(tmp_path, name).write_settings(tiny_settings())
    RunDirectory.create(tmp_path, "unfinished")
    assert RunDirectory.newest(tmp_path).path == tmp_path / "a"
    assert RunDirectory.open(tmp_path / "b").path == tmp_path / "b"


def test_a_run_is_found_by_its_path_or_its_name(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="start one"):
        RunDirectory.find(tmp_path, "x")
    RunDirectory.create(tmp_path, "first").write_settings(tiny_settings())
    for name in ("first", str(tmp_path / "first")):
        assert RunDirectory.find(tmp_path, name).path == tmp_path / "first"
    for name in ("frist", str(tmp_path / "frist")):
        with pytest.raises(ResumeError, match="did you mean 'first'"):
            RunDirectory.find(tmp_path, name)


def test_settings_are_complete_and_come_back(tmp_path: Path) -> None:
    settings = tiny_settings("train.lr=0.25", "data.label_columns=a,b", "train.epochs=none")
    run = RunDirectory.create(tmp_path, "x")
    run.write_settings(settings)
    assert resolve(config=run.path / "settings.toml", environ={}).settings == settings


# -- the lock -----------------------------------------------------------------------------------


def test_the_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with run.lock():
        with pytest.raises(RunLockedError) as caught, RunDirectory(run.path).lock():
            pass
        assert caught.value.where == str(run.path)
    with RunDirectory(run.path).lock():
        pass


def test_the_lock_is_given_back_when_the_block_raises(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with RunDirectory(run.path).lock():  # type: ignore[unreachable]
        pass


def test_a_dead_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    code = (
        "import os, sys; from filelock import FileLock;"
        "FileLock(sys.argv[1]).acquire(); print('held', flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path / ".lock")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (9, "held")
    with run.lock():
        pass


# -- metrics ------------------------------------------------------------------------------------


def test_metrics_come_back_in_order(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    assert run.read_metrics() == []
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch, "valid_ap": 0.5})
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3]
    run.write_metrics([{"epoch": 1}, {"epoch": 2}])
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    run.append_metrics({"epoch": 1})
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "valid')
    assert [row["epoch"] for row in run.read_metrics()] == [1]
    run.write_metrics(run.read_metrics())
    assert (run.path / "metrics.jsonl").read_text() == json.dumps({"epoch": 1}) + "\n"


def test_a_broken_line_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\nnonsense\n')
    with pytest.raises(ResumeError) as caught:
        run.read_metrics()
    assert "line 2" in caught.value.where


def test_no_nan_is_written(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with pytest.raises(ValueError, match="JSON"):
        run.append_metrics({"epoch": 1, "loss": float("nan")})
    assert run.read_metrics() == []


@pytest.mark.parametrize("text", [None, "{", ""])
def test_a_broken_manifest(tmp_path: Path, text: str | None) -> None:
    run = RunDirectory.create(tmp_path, "x")
    if text is not None:
        (run.path / "manifest.json").write_text(text)
    with pytest.raises(ResumeError) as caught:
        run.read_json("manifest.json")
    assert "manifest.json" in caught.value.where


# -- refused runs -------------------------------------------------------------------------------


def fail_in(run: RunDirectory, error: Any) -> None:
    with run.discarded_when_refused():
        raise error


def test_a_refused_run_leaves_its_name_free(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with pytest.raises(SourceNotFoundError):
        fail_in(run, SourceNotFoundError("nothing"))
    assert not run.path.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_an_interrupted_run_stays(tmp_path: Path, error: KeyboardInterrupt | ZeroDivisionError) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with pytest.raises(type(error)):
        fail_in(run, error)
    assert run.path.exists()


def test_a_run_with_checkpoints_stays(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    run.checkpoints.mkdir()
    with pytest.raises(DivergedError):
        fail_in(run, DivergedError("the loss became nan"))
    assert run.path.exists()


# -- what a resumed run may change --------------------------------------------------------------


def test_a_resumed_run_keeps_its_settings(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    settings = tiny_settings("train.lr=0.25")
    run.write_settings(settings)
    assert resumed_settings(run.path, settings, ["train.lr", "train.seed"]) == settings
    other = tiny_settings("train.lr=0.5", "train.seed=7")
    assert resumed_settings(run.path, other, []) == settings
    with pytest.raises(ResumeError) as caught:
        resumed_settings(run.path, other, ["train.lr", "train.seed", "train.epochs"])
    assert "train.lr is 0.25 in the run and 0.5 now" in caught.value.what
    assert "train.seed" in caught.value.what
    assert "train.epochs" not in caught.value.what


def test_harmless_changes_are_taken(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    run.write_settings(tiny_settings())
    other = tiny_settings("train.keep_checkpoints=5")
    found = resumed_settings(run.path, other, ["train.keep_checkpoints", "train.device"])
    assert found.train.keep_checkpoints == 5
    assert found == other


def test_the_command_to_go_on_with_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resume_command(Path("runs/x"), 1) == "gkiller train --resume runs/x"
    assert resume_command(Path("my runs/x"), 1) == "gkiller train --resume 'my runs/x'"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launched = "torchrun --nproc-per-node 2 -m gkiller train --resume runs/x"
    assert resume_command(Path("runs/x"), 2) == launched
