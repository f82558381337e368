"""Fixtures that several rooms' tests share. What takes long is made once per session."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: its networks are tiny here, and the tests' own processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # what a test prints does not depend on the window it was started from

import hypothesis
import pytest
from inference_helpers import write_model
from saved_models import save
from toy import SIX, TINY, record_path, tiny_settings, toy_tokenizer, write_six_label_csv, write_toy_csv

from gkiller.cli.main import main
from gkiller.data.prepare import prepare
from gkiller.settings import DataSettings

hypothesis.settings.register_profile("gkiller", deadline=None)  # other processes share the cores
hypothesis.settings.load_profile("gkiller")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which `nohup` and a shell's & leave ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have most slow tests, so that no core ends with one of them alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let processes that a test kills leave their temporary files where pytest clears up."""
    folder = str(tmp_path_factory.mktemp("scratch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of about 150 pieces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(toy_tokenizer().to_str(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared directory of the toy corpus, one label."""
    folder = tmp_path_factory.mktemp("toy")
    prepare(DataSettings(), folder / "prepared", sources=[str(write_toy_csv(folder / "toy.csv"))])
    return folder / "prepared"


@pytest.fixture(scope="session")
def prepared_six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared directory with six labels."""
    folder = tmp_path_factory.mktemp("toy-six")
    settings = DataSettings(text_column="comment_text", label_columns=SIX)
    prepare(settings, folder / "prepared", sources=[str(write_six_label_csv(folder / "toy.csv"))])
    return folder / "prepared"


@pytest.fixture(scope="session")
def tiny(prepared: Path, tokenizer_file: Path) -> Callable[..., Any]:
    """Make settings of a tiny training on the toy corpus; takes dotted overrides."""

    def make(*overrides: Any) -> Any:
        return tiny_settings(f"data.source={prepared}", f"model.tokenizer={tokenizer_file}", *overrides)

    return make


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with tiny ONNX graphs, two labels, 16 tokens."""
    return write_model(tmp_path_factory.mktemp("onnx") / "model")


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of two labels, with dendrites; nobody may change it."""
    return save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """A copy of that directory, to be changed."""
    return shutil.copytree(saved_once, tmp_path / "model")


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots out: they have tests of their own and take longer than a tiny training."""
    monkeypatch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    monkeypatch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GKILLER_* variable of the caller reaches the test."""
    for name in [name for name in os.environ if name.upper().startswith("GKILLER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command line in an empty folder; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> Any:
        code = main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Callable[..., Any] | Path:
    """A folder with a CSV, prepared data, and runs on either: runs/d1 and runs/file."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("made")
    patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
    patch.chdir(folder)
    write_toy_csv(folder / "comments.csv")
    overrides = (*TINY, "train.epochs=1", f"model.tokenizer={tokenizer_file}")
    flags = ["--no-dendrites", *(part for override in overrides for part in ("--set", override))]

    def gkiller(*arguments: Any) -> None:
        assert main([str(argument) for argument in arguments]) == 0

    gkiller("data", "prepare", "comments.csv", "--out", "prepared")
    gkiller("train", "--data", "prepared", "--sample-size", 60, "--name", "d1", *flags)
    gkiller("train", "--data", folder / "comments.csv", "--name", "file", *flags)
    patch.undo()
    return folder


@pytest.fixture
def place(made: Callable[..., Any] | Path, tmp_path: Path, call: Callable[..., Any]) -> Path | str:
    """A copy of that folder, which is the current one."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)  # type: ignore[arg-type]
    for run, source in (("d1", "prepared"), ("file", "comments.csv")):
        record_path(tmp_path, run, str(tmp_path / source))
    return tmp_path
