"""A disk that is full, too small or not to be written: a clear error, and the earlier checkpoint intact."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from full_disk import FileLimit
from toy import TINY

from gkiller import drawing
from gkiller.errors import OutputError
from gkiller.training.checkpoint import CheckpointStore
from gkiller.training.train import train

pytestmark = [
    pytest.mark.usefixtures("no_plots"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and capabilities of Linux"),
]
SMALL = ("data.sample_size=48", "dendrites.enabled=false", "train.epochs=3")


def test_a_write_that_stops_in_the_middle(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*SMALL)
    whole = train(settings, out=tmp_path, name="whole").run
    limit = FileLimit(20_000)  # smaller than the weights

    def on_event(event: Any) -> None:
        if (event.kind, event.epoch, event.step) == ("step", 2, 1):
            limit.__enter__()

    try:
        with pytest.raises(OutputError, match="File too large") as caught:
            train(settings, out=tmp_path, name="x", on_event=on_event)
    finally:
        limit.__exit__()
    assert str(tmp_path / "x" / "checkpoints") in caught.value.where
    assert not list((tmp_path / "x" / "checkpoints").glob(".*"))
    assert CheckpointStore(tmp_path / "x" / "checkpoints", 2).newest().progress.epoch == 1
    again = train(settings, out=tmp_path, resume=tmp_path / "x").run
    assert (again.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def mounted(folder: Path, size: str) -> Path:
    """Mount a small disk in memory; None where this process may not."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    return folder


def test_a_full_disk(tiny: Callable[..., Any], tmp_path: Path) -> None:
    disk = mounted(tmp_path / "disk", "3m")
    if disk is None:
        pytest.skip("no right to mount a small disk")
    settings = tiny(*SMALL)

    def on_event(event: Any) -> None:
        if (event.kind, event.epoch, event.step) == ("step", 2, 1):
            with (disk / "filler").open("wb") as stream:
                stream.write(bytes(shutil.disk_usage(disk).free - 100_000))

    try:
        with pytest.raises(OutputError, match="the disk is nearly full") as caught:
            train(settings, out=disk, name="x", on_event=on_event)
        assert "free some space" in caught.value.remedy
        (disk / "filler").unlink()
        assert CheckpointStore(disk / "x" / "checkpoints", 2).newest().progress.epoch == 1
        assert train(settings, out=disk, resume=disk / "x").progress.finished
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_that_vanishes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    def on_event(event: Any) -> None:
        if (event.kind, event.epoch, event.step) == ("step", 2, 1):
            shutil.rmtree(tmp_path / "x")

    with pytest.raises(OutputError) as caught:
        train(tiny(*SMALL), out=tmp_path, name="x", on_event=on_event)
    assert "No such file" in caught.value.what


def as_an_ordinary_user() -> list[str]:
    """Return how to run a command without root's right to write everywhere; None where that fails."""
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    usable = shutil.which("setpriv") and subprocess.run([*drop, "true"], check=False).returncode == 0
    return drop if usable else None


def assert_refused(folder: Path, *arguments: Any) -> None:
    """Train on the command line without the right to write to a folder."""
    prefix = as_an_ordinary_user()
    if prefix is None:
        pytest.skip("root cannot be kept from writing here")
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "gkiller", "train", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "Permission denied" in done.stderr
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_read_only_directory(prepared: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    overrides = [*TINY, f"model.tokenizer={tokenizer_file}", f"data.source={prepared}"]
    flags = [part for override in overrides for part in ("--set", override)]
    assert_refused(out, *flags, "--out", str(out))
    assert list(out.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["no lock", "what a killed process left"])
def test_a_run_that_has_become_read_only(tiny: Callable[..., Any], tmp_path: Path, hidden: str) -> None:
    run = train(tiny(*SMALL), out=tmp_path, name="x").run
    run.reopen()
    if hidden == "no lock":
        (run.path / ".lock").unlink()
    else:
        (run.path / ".metrics.jsonl.abc").touch()
    before = sorted(run.path.rglob("*"))
    run.path.chmod(0o555)
    assert_refused(run.path, "--resume", str(run.path))
    assert sorted(run.path.rglob("*")) == before


def test_every_new_name_is_flushed_to_the_disk(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could take a whole run: a directory's name is in the one above it."""
    flushed, real = set(), os.fsync

    def note(handle: Any) -> None:
        flushed.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    run = train(tiny(*SMALL), out=tmp_path / "new" / "runs", name="x").run.path
    assert {str(folder) for folder in (tmp_path, *run.parents[:2], run, run / "checkpoints")} <= flushed


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    with FileLimit(1000), pytest.raises(OutputError, match="File too large"):
        drawing.save(drawing.new_square()[0], tmp_path / "plot.png")


def test_a_checkpoint_directory_that_turns_read_only(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root nothing is read-only: the refusal comes from the call that makes the temporary directory."""
    real = os.mkdir

    def refuse(path: Any, *given: Any, **named: Any) -> Any:
        if "checkpoint-00000002" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        train(tiny(*SMALL), out=tmp_path, name="x")
    monkeypatch.setattr(os, "mkdir", real)
    assert CheckpointStore(tmp_path / "x" / "checkpoints", 2).newest().progress.epoch == 1
    assert train(tiny(*SMALL), out=tmp_path, resume=tmp_path / "x").progress.finished
