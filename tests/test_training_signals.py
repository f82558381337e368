"""An interrupt or a termination: the step is finished, a checkpoint written, and the way back shown."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Trainings, outcome
from toy import TINY, write_toy_csv

from gkiller.errors import InterruptedRunError, SourceNotFoundError, TerminatedRunError
from gkiller.training import finish as finishing
from gkiller.training.run import RunDirectory
from gkiller.training.runtime import StopRequest, stop_signals
from gkiller.training.train import train

SMALL = ("data.sample_size=48", "train.checkpoint_seconds=none", "dendrites.min_gain=-1")


def raise_at(number: Any, moment: tuple[str, str, int, int]) -> Callable[..., Any]:
    """Send this process a signal at a moment of the training."""

    def on_event(event: Any) -> None:
        if (event.kind, event.phase, event.epoch, event.step) == moment:
            signal.raise_signal(number)

    return on_event


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("number", "error", "moment"),
    [
        (signal.SIGINT, InterruptedRunError, ("step", "neuron", 1, 2)),
        (signal.SIGTERM, TerminatedRunError, ("step", "dendrite", 2, 3)),
        (signal.SIGTERM, TerminatedRunError, ("epoch", "neuron", 2, 3)),
        (signal.SIGINT, InterruptedRunError, ("step", "joint", 1, 1)),
    ],
)
def test_a_signal_stops_after_the_step_and_the_run_goes_on_from_there(
    tiny: Callable[..., Any], tmp_path: Path, number: Any, error: type[Any], moment: tuple[str, str, int, int]
) -> None:
    settings = tiny(*SMALL)
    whole = train(settings, out=tmp_path, name="whole").run
    steps = []

    def count(event: Any) -> None:
        steps.append((event.kind, event.phase, event.epoch, event.step))
        raise_at(number, moment)(event)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as caught:
        train(settings, out=tmp_path, name="x", on_event=count, signals=True)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert steps[-1] == moment  # not a step more
    assert caught.value.exit_code == 128 + number
    assert f"--resume {tmp_path / 'x'}" in caught.value.remedy
    again: list[Any] = []
    train(settings, out=tmp_path, resume=tmp_path / "x", on_event=again.append)
    done = [event for event in again if event.kind == "step"]
    assert len(done) + sum(kind == "step" for kind, *_ in steps) == 15  # and none is trained twice
    assert outcome(tmp_path / "x") == outcome(whole.path)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("number", "error", "step"),
    [
        (signal.SIGINT, InterruptedRunError, "_fold"),
        (signal.SIGTERM, TerminatedRunError, "score_texts"),
        (signal.SIGTERM, TerminatedRunError, "evaluate"),
        (signal.SIGINT, InterruptedRunError, "dendrite_report"),
    ],
)
def test_a_signal_after_the_last_epoch_stops_before_the_model_is_written(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: Any, error: type[Any], step: str
) -> None:
    settings = tiny(*SMALL)
    whole = train(settings, out=tmp_path, name="whole").run
    original = getattr(finishing, step)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(finishing, step, original)
        signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(finishing, step, interrupted)
    with pytest.raises(error) as caught:
        train(settings, out=tmp_path, name="x", signals=True)
    assert caught.value.exit_code == 128 + number
    assert f"--resume {tmp_path / 'x'}" in caught.value.remedy
    assert not (tmp_path / "x" / "model").exists()
    steps = []
    train(settings, out=tmp_path, resume=tmp_path / "x", on_event=lambda event: steps.append(event.kind))
    assert "step" not in steps  # all was trained
    assert outcome(tmp_path / "x") == outcome(whole.path)


def placeless(run: Path) -> dict[str, Any]:
    """A run's outcome without the file that names paths."""
    return {name: value for name, value in outcome(run).items() if name != "validation"}


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("single", [False, True], ids=["prepared", "one file"])
def test_a_run_goes_on_from_any_directory(
    tiny: Callable[..., Any], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    """Its data were named by a relative path; they may have moved along with the runs, too."""
    old, new, elsewhere = (tmp_path / name for name in ("old", "new", "elsewhere"))
    for folder in (old, elsewhere):
        folder.mkdir()
    data = "comments.csv" if single else "prepared"
    if single:
        write_toy_csv(old / data)
    else:
        shutil.copytree(prepared, old / data)
    monkeypatch.chdir(old)
    settings = tiny(f"data.source={data}", *SMALL)
    train(settings, name="whole")
    stop = raise_at(signal.SIGINT, ("step", "neuron", 1, 2))
    for name in ("x", "y"):
        with pytest.raises(InterruptedRunError):
            train(settings, name=name, on_event=stop, signals=True)
    monkeypatch.chdir(elsewhere)
    train(settings, out=old / "runs", resume=old / "runs" / "x")
    assert placeless(old / "runs" / "x") == placeless(old / "runs" / "whole")
    whole, x = (json.loads((old / "runs" / name / "manifest.json").read_text()) for name in ("whole", "x"))
    assert whole["data"] == x["data"]
    old.rename(new)
    train(settings, out=new / "runs", resume=new / "runs" / "y")
    assert placeless(new / "runs" / "y") == placeless(new / "runs" / "whole")
    (new / data).rename(new / "gone")
    with pytest.raises(SourceNotFoundError) as caught:
        train(settings, out=new / "runs", resume=new / "runs" / "y")
    assert caught.value.remedy == "put the data back as they were"


@pytest.mark.usefixtures("no_plots")
def test_a_signal_while_the_model_is_written_lets_the_run_end(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is whole then, and there is nothing to go on with."""
    original = finishing.save_model

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(finishing, "save_model", interrupted)
    assert train(tiny(*SMALL), out=tmp_path, name="x", signals=True).run.complete


def test_a_second_interrupt_stops_at_once() -> None:
    with stop_signals() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    request = StopRequest()
    request.ask(signal.SIGINT)
    request.ask(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):  # whatever came between
        request.ask(signal.SIGINT)
    request = StopRequest()
    request.ask(signal.SIGTERM)
    request.ask(signal.SIGTERM)  # an impatient supervisor does not harm it
    assert request.number == signal.SIGTERM


def command(prepared: Path, tokenizer_file: Path, *more: Any) -> list[str]:
    overrides = [*TINY, f"model.tokenizer={tokenizer_file}", "train.epochs=400", "dendrites.enabled=false"]
    flags = [part for override in overrides for part in ("--set", override)]
    return [sys.executable, "-m", "gkiller", "train", "--data", str(prepared), *flags, *more]


def started(process: Any, run: Path) -> None:
    """Wait until a training has written its second epoch."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (run / "metrics.jsonl").is_file() and len(RunDirectory(run).read_metrics()) >= 2:
            return
        time.sleep(0.05)
    pytest.fail("the training did not start")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_on_the_command_line(prepared: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    process = subprocess.Popen(
        command(prepared, tokenizer_file, "--name", "x", "--json", "--set", "train.patience=400"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started(process, run)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert json.loads(out)["error"] == "TerminatedRunError"
    assert "go on with: gkiller train --resume runs/x" in err
    assert "Traceback" not in err
    assert list((run / "checkpoints").glob("checkpoint-*"))


def test_two_writers(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The second of two trainings that go on with one run is refused; the first ends undisturbed."""
    runs = Trainings(tiny(*SMALL, "train.epochs=12", "train.patience=12"), tmp_path)
    runs.finish(tmp_path / "whole", resume=False)
    first = runs.start(tmp_path / "x")
    deadline = time.monotonic() + 60
    while not (tmp_path / "x" / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = runs.start(tmp_path / "x", resume=True)
    for process in (second, first):
        process.join(60)
    assert (first.exitcode, second.exitcode) == (0, 1)
    assert outcome(tmp_path / "x") == outcome(tmp_path / "whole")
