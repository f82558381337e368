"""``gkiller train``, ``evaluate`` and ``threshold``, in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import TINY, write_toy_csv

from gkiller.cli.main import main
from gkiller.model.directory import load_model
from gkiller.training import train as training
from gkiller.training.run import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")


@pytest.fixture(scope="module")
def tiny_flags(prepared: Path, tokenizer_file: Path) -> list[Path | str]:
    overrides = (*TINY, "train.epochs=1", "dendrites.epochs=1", f"model.tokenizer={tokenizer_file}")
    flags = [part for override in overrides for part in ("--set", override)]
    return ["--data", prepared, "--sample-size", "48", *flags]


@pytest.fixture(scope="module")
def finished(tiny_flags: list[Path | str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run made by the command line, in runs/first."""
    patch = pytest.MonkeyPatch()
    patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
    folder = tmp_path_factory.mktemp("finished")
    patch.chdir(folder)
    assert main(["train", *map(str, tiny_flags), "--name", "first", "--no-dendrites"]) == 0
    patch.undo()
    return folder / "runs" / "first"


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return shutil.copytree(finished, tmp_path / "runs" / "first")


# -- train --------------------------------------------------------------------------------------


def test_json_is_one_object_and_the_rest_is_lines(call: Callable[..., Any], tiny_flags: list[Path | str]) -> None:
    code, out, err = call("train", *tiny_flags, "--json", "--name", "mine", "--out", "here")
    assert code == 0, err
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["run"] == "here/mine"
    assert found["model"] == "here/mine/model"
    assert found["labels"] == ["toxicity"]
    assert found["epochs"] == 3
    assert found["fold_difference"] <= 1e-5
    assert set(found["thresholds"]) == {"toxicity"}
    rough = "fewer than 50 positives or negatives in validation: toxicity (4 positives)"
    assert [line.startswith(rough) for line in found["warnings"]][:1] == [True]
    assert f"warning: {rough}" in err
    gain = found["dendrite_gains"]["1"]
    assert (gain["kept"], found["dendrites_kept"]) == (False, 0)
    assert "1 dendrite per Linear: AP" in err
    assert "taken off: the gain's paired interval is not above 0" in err
    assert "toxicity" in found["validation"]["labels"]
    phases = [line for line in err.splitlines() if line.startswith("phase")]
    assert [line.split(":")[1].split(",")[0].strip() for line in phases] == ["neuron", "dendrite", "joint"]
    assert sum("epoch 1/1" in line for line in err.splitlines()) == 3
    assert "\x1b" not in err


def test_a_table_without_json(call: Callable[..., Any], tiny_flags: list[Path | str]) -> None:
    code, out, err = call("train", *tiny_flags, "--no-dendrites")
    assert code == 0, err
    assert "toxicity" in out
    assert "parameters" in out
    assert "folded logits differ" in out
    assert "run directory: runs/train-1" in err
    assert "next:" not in err  # nobody watches


def test_flags_reach_the_run(call: Callable[..., Any], tiny_flags: list[Path | str], tmp_path: Path) -> None:
    flags = ("--patience", 8, "--lr", "0.002", "--seed", 7, "--metric", "f1")
    code, _, err = call("train", *tiny_flags, *flags, "--no-dendrites", "--set", "train.lr=0.003")
    assert code == 0, err
    text = (tmp_path / "runs" / "train-1" / "settings.toml").read_text()
    for line in ("patience = 8", "lr = 0.003", "seed = 7", 'metric = "f1"', "enabled = false"):
        assert line in text


def test_a_taken_name_is_40(call: Callable[..., Any], tiny_flags: list[Path | str], run: Path) -> None:
    before = (run / "model" / "model.safetensors").read_bytes()
    code, out, err = call("train", *tiny_flags, "--name", "first", "--json")
    assert code == 40
    assert json.loads(out)["error"] == "RunExistsError"
    assert "--resume" in err
    assert (run / "model" / "model.safetensors").read_bytes() == before


def test_a_run_in_use_is_43(call: Callable[..., Any], run: Path) -> None:
    with RunDirectory(run).lock():
        code, _, err = call("train", "--resume", run)
    assert code == 43
    assert "another process" in err


def test_a_pattern_that_names_nothing_is_31(
    call: Callable[..., Any], tiny_flags: list[Path | str], tmp_path: Path
) -> None:
    code, _, err = call("train", *tiny_flags, "--set", "dendrites.patterns=*.qeury")
    assert code == 31
    assert "dendrites.patterns" in err
    assert not list((tmp_path / "runs").glob("train-*"))


def test_without_perforatedai_it_is_30_and_no_dendrites_works(
    call: Callable[..., Any], tiny_flags: list[Path | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gkiller.model.dendrites import perforated

    monkeypatch.setattr(perforated.importlib.util, "find_spec", lambda name: None)
    code, _, err = call("train", *tiny_flags)
    assert code == 30
    assert "Linux x86-64" in err
    assert "--no-dendrites" in err
    assert call("train", *tiny_flags, "--no-dendrites")[0] == 0


def test_the_sample_is_marked_as_synthetic(call: Callable[..., Any]) -> None:
    flags = [part for override in TINY for part in ("--set", override)]
    more = ("--no-dendrites", "--epochs", 1, "--sample-size", 64, "--json")
    code, out, err = call("train", *flags, *more)
    assert code == 0, err
    found = json.loads(out)
    assert found["synthetic"] is True
    assert len(found["labels"]) == 6
    assert "synthetic" in (load_model(found["model"]).path / "README.md").read_text()


# -- resume -------------------------------------------------------------------------------------


def interrupted(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, flags: list[Path | str]) -> None:
    """Start a run and stop it in its second epoch, as Ctrl-C does."""

    def stopping(*given: Any, on_event: Any, **named: Any) -> Any:
        def stop(event: Any) -> None:
            if (event.kind, event.epoch) == ("step", 2):
                raise KeyboardInterrupt
            on_event(event)

        return original(*given, on_event=stop, **named)

    original = training.train
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", stopping)
        code, out, _ = call("train", *flags, "--no-dendrites", "--epochs", 3, "--set", "train.epochs=3")
    assert (code, out) == (130, "")


def test_resume(
    call: Callable[..., Any], tiny_flags: list[Path | str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupted(call, monkeypatch, tiny_flags)
    code, out, err = call("train", "--resume", "last", "--json")
    assert code == 0, err
    assert json.loads(out)["run"] == "runs/train-1"
    assert json.loads(out)["epochs"] == 3
    assert "resumed after epoch 1" in err
    assert [row["epoch"] for row in RunDirectory(tmp_path / "runs" / "train-1").read_metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    "given", [("--lr", "0.5"), ("--set", "train.lr=0.5"), ("--preset", "seed"), ("--config", "other.toml")]
)
def test_a_resumed_run_keeps_its_settings(
    call: Callable[..., Any], run: Path, tmp_path: Path, given: tuple[str, str]
) -> None:
    (tmp_path / "other.toml").write_text("[train]\nlr = 0.5\n")
    code, _, err = call("train", "--resume", run, *given)
    assert code == 41
    assert "train.lr is 0.001 in the run" in err


def test_what_lies_around_does_not_count(
    call: Callable[..., Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gkiller.toml").write_text("[train]\nlr = 0.5\n")
    monkeypatch.setenv("GKILLER_TRAIN__SEED", "9")
    (run / "README.md").unlink()  # stopped before its last file
    code, _, err = call("train", "--resume", run)
    assert code == 0, err


def test_the_same_settings_may_be_named_again(
    call: Callable[..., Any], run: Path, tiny_flags: list[Path | str]
) -> None:
    (run / "README.md").unlink()
    code, _, err = call("train", "--resume", run, *tiny_flags, "--config", run / "settings.toml")
    assert code == 0, err


def test_a_finished_run_is_left_alone_and_can_be_lengthened(call: Callable[..., Any], run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, err = call("train", "--resume", "last")
    assert code == 41
    assert "finished" in err
    assert "more epochs" in err
    assert "resumed" not in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    code, out, err = call("train", "--resume", "last", "--epochs", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["epochs"] == 2


def test_a_resumed_run_keeps_its_name(call: Callable[..., Any], run: Path) -> None:
    code, _, err = call("train", "--resume", run, "--name", "other")
    assert code == 2
    assert "keeps its name" in err


@pytest.mark.parametrize("what", ["last", "runs/nothing", "."])
def test_nothing_to_resume_is_41(call: Callable[..., Any], what: str) -> None:
    code, _, err = call("train", "--resume", what)
    assert code == 41
    assert "remedy" in err


# -- evaluate -----------------------------------------------------------------------------------


def test_evaluate_reads_the_data_of_the_run(call: Callable[..., Any], run: Path) -> None:
    code, out, err = call("evaluate", "runs/first", "--json", "--resamples", 10)
    assert code == 0, err
    found = json.loads(out)
    assert (found["split"], found["missing_labels"]) == ("test", [])
    assert found["labels"]["toxicity"]["n"] > 0
    assert json.loads((run / "evaluation.json").read_text())["labels"] == found["labels"]
    assert (run / "evaluation.txt").is_file()


def test_evaluate_twice_gives_the_same(call: Callable[..., Any], run: Path) -> None:
    first = call("evaluate", run / "model", "--json", "--resamples", 10)
    assert call("evaluate", run / "model", "--json", "--resamples", 10) == first


def test_evaluate_a_file(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    write_toy_csv(tmp_path / "new.csv", 40)
    code, out, err = call("evaluate", run, "--data", "new.csv", "--json", "--resamples", 10, "--out", "report")
    assert code == 0, err
    found = json.loads(out)
    assert (found["split"], found["labels"]["toxicity"]["n"]) == ("all", 40)
    assert (tmp_path / "report").is_dir()
    assert not (run / "evaluation.json").exists()


def test_a_model_outside_of_its_run_needs_data(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "alone")
    code, _, err = call("evaluate", "alone")
    assert code == 2
    assert "--data" in err


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "tokenizer.json", "gkiller.json"])
def test_a_changed_byte_is_21(call: Callable[..., Any], run: Path, name: str) -> None:
    path = run / "model" / name
    content = path.read_bytes()
    place = content.index(b"0.") if name == "gkiller.json" else len(content) // 2
    path.write_bytes(content[:place] + b"1" + content[place + 1 :])
    code, out, err = call("evaluate", run, "--json")
    assert code == 21
    assert json.loads(out)["where"].endswith(name)
    assert "Traceback" not in err


def test_no_model_is_20(call: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = call("evaluate", "nowhere")
    assert code == 20
    assert "gkiller train" in err


def test_other_labels_are_51(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    rows = "".join(f"comment {i},{int(i % 2)},0\n" for i in range(40))
    (tmp_path / "new.csv").write_text("text,threat,obscene\n" + rows)
    code, _, err = call("evaluate", run, "--data", "new.csv", "--label-columns", "threat,obscene")
    assert code == 51
    assert "threat, obscene" in err
    assert "toxicity" in err


# -- threshold ----------------------------------------------------------------------------------


def test_new_thresholds_are_stored_and_the_rest_stays(call: Callable[..., Any], run: Path) -> None:
    before = load_model(run)
    untouched = {path.name: path.read_bytes() for path in (run / "model").iterdir() if path.suffix == ".safetensors"}
    code, out, err = call("threshold", run, "--min-recall", "1", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["split"] == "valid"
    after = load_model(run)
    assert after.thresholds == {"toxicity": found["thresholds"]["toxicity"]["value"]}
    targets = [m.metadata["thresholds"]["toxicity"]["target"] for m in (before, after)]
    assert targets == ["max f1", "recall >= 1"]
    assert found["thresholds"]["toxicity"]["recall"] == 1.0
    assert {name: (run / "model" / name).read_bytes() for name in untouched} == untouched
    card = (run / "model" / "README.md").read_text()
    assert f"`toxicity`: {after.thresholds['toxicity']:.4f} (recall >= 1)" in card
    assert card.count("## Thresholds") == 1
    assert call("evaluate", run, "--resamples", 10)[0] == 0


def test_the_threshold_of_the_best_expected_f1_is_asked_for_by_a_flag(
    call: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    code, out, err = call("threshold", run, "--out", tmp_path / "copy", "--threshold-rule", "expected", "--json")
    assert code == 0, err
    assert json.loads(out)["thresholds"]["toxicity"]["target"] == "max expected f1"
    assert "(max expected f1)" in (tmp_path / "copy" / "README.md").read_text()
    code, _, err = call("threshold", run, "--threshold-rule", "expectd")
    assert code == 2
    assert "expected" in err


def test_a_target_out_of_reach_is_50_and_changes_nothing(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text,toxicity\n" + "".join(f"same words,{int(i % 4 == 0)}\n" for i in range(40)))
    before = (run / "model" / "gkiller.json").read_bytes()
    code, _, err = call("threshold", run, "--data", "new.csv", "--min-precision", "0.99")
    assert code == 50, err
    assert (run / "model" / "gkiller.json").read_bytes() == before


def test_a_threshold_table(call: Callable[..., Any], run: Path) -> None:
    code, out, err = call("threshold", run)
    assert code == 0, err
    assert "Thresholds tuned on valid" in out
    assert "toxicity" in out
