"""The wheel: what is inside, that it is the same every time, and that an installed one is found."""

import base64
import csv
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment_helpers import labelled, save
from full_disk import FileLimit

from gkiller.cli.main import main
from gkiller.deployment import wheel as room
from gkiller.deployment.deploy import export_onnx
from gkiller.deployment.parity import parity_rows
from gkiller.deployment.wheel import build_wheel
from gkiller.errors import ExportError, OutputError, SettingsError
from gkiller.model.directory import LoadedModel, load_model
from gkiller.settings import DeploymentSettings


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    loaded = save(tmp_path_factory.mktemp("wheel") / "model")
    export_onnx(loaded, parity_rows(loaded, labelled(), 20), DeploymentSettings())
    return load_model(loaded.path)


def test_the_wheel_holds_what_its_record_says(exported: LoadedModel, tmp_path: Path) -> None:
    built = build_wheel(exported, tmp_path / "dist", name="My.Model", version="1.2")
    assert built.path.name == "my_model-1.2-py3-none-any.whl"
    with zipfile.ZipFile(built.path) as archive:
        names = archive.namelist()
        record = list(csv.reader(archive.read("my_model-1.2.dist-info/RECORD").decode().splitlines()))
        assert [row[0] for row in record] == names
        for path, digest, size in record[:-1]:
            content = archive.read(path)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={found}", len(content))
        metadata = archive.read("my_model-1.2.dist-info/METADATA").decode()
        points = archive.read("my_model-1.2.dist-info/entry_points.txt").decode()
    assert points == "[gkiller.models]\nMy.Model = my_model\n"
    assert [name for name in names if name.endswith(".py")] == ["my_model/__init__.py"]
    model = {name.removeprefix("my_model/model/") for name in names if "/model/" in name}
    assert model == {"config.json", "gkiller.json", "onnx/model.onnx", "tokenizer.json"}
    assert "Requires-Dist" not in metadata
    assert "Name: My.Model\nVersion: 1.2\n" in metadata


def test_the_same_model_gives_the_same_bytes(exported: LoadedModel, tmp_path: Path) -> None:
    first, second = (build_wheel(exported, tmp_path / place).path.read_bytes() for place in ("a", "b"))
    assert first == second


def test_an_installed_model_is_known_by_its_name(exported: LoadedModel, tmp_path: Path) -> None:
    built = build_wheel(exported, tmp_path / "dist", name="my-rules", version="3.4")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import gkiller
from gkiller.model.layout import installed_models
assert str(gkiller.load("my-rules").path).startswith(sys.argv[1])
assert set(installed_models()) >= {"my-rules", "default"}
assert "my_rules" not in sys.modules and "torch" not in sys.modules
"""
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(tmp_path / "site")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "site")], check=True, cwd=tmp_path, timeout=60)


def test_the_default_model_is_a_wheel_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "default", "--format", "wheel", "--package-name", "ours", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    with zipfile.ZipFile(facts["path"]) as archive:
        assert "ours/model/onnx/model.int8.onnx" in archive.namelist()
    assert "modules" not in facts


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "gkiller"}, SettingsError),
        ({"name": "GKILLER_lite"}, SettingsError),
        ({"name": "default"}, SettingsError),
        ({"name": "7up"}, SettingsError),
        ({"name": "../up"}, SettingsError),
        ({"name": "a b"}, SettingsError),
        ({"version": "one"}, SettingsError),
        ({"version": "1/2"}, SettingsError),
        ({"precision": "int8"}, ExportError),
    ],
)
def test_bad_names_and_missing_graphs_are_refused(
    exported: LoadedModel, tmp_path: Path, changes: dict[str, str], error: type[Any]
) -> None:
    with pytest.raises(error):
        build_wheel(exported, tmp_path / "dist", **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "dist").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_no_part_of_a_wheel(
    exported: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = room._model_files(exported, "onnx/model.onnx")
    monkeypatch.setattr(room, "_model_files", lambda *given: files)  # made before the disk is full
    with FileLimit(1000), pytest.raises(OutputError, match="File too large"):
        build_wheel(exported, tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


def test_a_model_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no graph yet"):
        build_wheel(save(tmp_path / "model"), tmp_path / "dist")


def test_the_sealed_copy_lists_only_what_is_inside(exported: LoadedModel) -> None:
    listed = json.loads(room._model_files(exported, "onnx/model.onnx")["gkiller.json"])
    assert set(listed["files"]) == {"config.json", "onnx/model.onnx", "tokenizer.json"}
    assert replace(exported).labels == tuple(listed["labels"])
