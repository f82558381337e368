"""``gkiller sweep`` with its real processes: two at a time, killed, interrupted, gone on with."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import TINY

from gkiller.errors import RunLockedError
from gkiller.training.run import RunDirectory

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture(scope="module")
def flags(prepared: Path, tokenizer_file: Path) -> Any:
    overrides = (*TINY, "train.epochs=1", f"model.tokenizer={tokenizer_file}")
    given = [part for override in overrides for part in ("--set", override)]
    return ["--data", str(prepared), "--sample-size", "48", "--no-dendrites", *given]


SPACE = ("--space", "train.lr=log:1e-3..1e-1", "--space", "model.pooling=mean,cls")


@pytest.mark.slow
def test_two_at_a_time_and_the_best_again(call: Callable[..., Any], flags: list[str], tmp_path: Path) -> None:
    space = (*SPACE, "--space", "model.heads=2,3")  # 3 heads do not divide the hidden size
    code, out, err = call("sweep", *flags, *space, "--trials", 6, "--jobs", 2, "--json", "--sampler-seed", 1)
    assert code == 0, err
    found = json.loads(out)
    assert out.count("\n") == 1
    states = [trial["state"] for trial in found["trials"]]
    assert len(states) == 6
    assert set(states) == {"complete", "failed"}
    failed = next(trial for trial in found["trials"] if trial["state"] == "failed")
    assert "must be a multiple of model.heads (3)" in failed["error"]
    assert failed["params"]["model.heads"] == 3
    assert "Traceback" not in err
    assert "trial 0 begins: train.lr=" in err
    assert "6/6 done" in err
    sweep = tmp_path / "sweeps" / "sweep-1"
    kept = {path.parent.name for path in (sweep / "runs").glob("*/model")}
    assert kept == {f"trial-{found['best']}"}
    assert RunDirectory(sweep / "runs" / f"trial-{found['best']}").complete
    manifest = json.loads((sweep / "runs" / f"trial-{found['best']}" / "manifest.json").read_text())
    assert manifest["threads"] == 1
    code, out, err = call("train", "--config", found["best_settings"], "--json", "--name", "again")
    assert code == 0, err
    assert json.loads(out)["best"]["0"]["score"] == found["best_score"]


@pytest.mark.slow
def test_a_table_and_refusals(call: Callable[..., Any], flags: list[str]) -> None:
    code, out, err = call("sweep", *flags, *SPACE, "--trials", 1, "--name", "x")
    assert code == 0, err
    assert "Best trials, on the validation split" in out
    assert "1 complete" in out
    assert "best.toml" in err
    assert call("sweep", *flags, "--name", "x")[0] == 40
    code, _, err = call("sweep", "--resume", "x", "--lr", "0.5")
    assert code == 41
    assert "train.lr is" in err
    assert call("sweep", "--resume", "y")[0] == 41
    assert call("sweep", "--resume", "x", "--name", "z")[0] == 2
    code, _, err = call("sweep", *flags, "--space", "train.lrr=log:1e-5..1e-3")
    assert code == 2
    assert "did you mean 'train.lr'" in err
    assert "--space train.lrr" in err


def start(flags: list[str], folder: Path, *more: Any) -> Any:
    command = [sys.executable, "-m", "gkiller", "sweep", *flags, *SPACE, "--name", "x", *more]
    long = ("--set", "train.epochs=400", "--set", "train.patience=400")
    return subprocess.Popen([*command, *long], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def training(process: Any, run: Path) -> None:
    """Wait until a trial has written two epochs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (run / "metrics.jsonl").is_file() and len(RunDirectory(run).read_metrics()) >= 2:
            return
        time.sleep(0.05)
    pytest.fail("the trial did not start")


def workers_of(folder: Path) -> list[Any]:
    """Return the processes that work in a folder; Linux only."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def free(run: Path, deadline: float) -> None:
    """Take a run's lock; a killed worker's last threads may keep it for a moment."""
    while True:
        try:
            with RunDirectory(run).lock():
                return
        except RunLockedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_gone_on_with(flags: list[str], tmp_path: Path, number: Any) -> None:
    sweep = tmp_path / "sweeps" / "x"
    jobs = 2 if number == signal.SIGKILL else 1
    process = start(flags, tmp_path, "--trials", "2", "--jobs", str(jobs), "--json")
    for trial in range(jobs):
        training(process, sweep / "runs" / f"trial-{trial}")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), err
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert "go on with: gkiller sweep --resume sweeps/x" in err
        assert json.loads(out)["exit_code"] == 128 + number
    deadline = time.monotonic() + 20
    while workers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(tmp_path) == []
    for run in (sweep, sweep / "runs" / "trial-0"):
        free(run, deadline)
    before = json.loads((sweep / "sweep.json").read_text())
    before["settings"]["train.epochs"] = 1  # what is left shall not take long
    (sweep / "sweep.json").write_text(json.dumps(before))
    again = subprocess.run(
        [sys.executable, "-m", "gkiller", "sweep", "--resume", "x", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "trial 0 was left unfinished: it is tried again" in again.stderr
    trials = json.loads(again.stdout)["trials"]
    assert [trial["state"] for trial in trials].count("complete") == 2
    lost = [trial for trial in trials if trial["state"] == "lost"]
    assert [trial["number"] for trial in lost] == list(range(jobs))
    for trial in lost:
        (retry,) = [other for other in trials if other["retry_of"] == trial["number"]]
        assert retry["params"] == trial["params"]
    assert not (sweep / "runs" / "trial-0").exists()
