"""The wheel: what is inside, that it is the same every time, and that it needs nothing else."""

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment_helpers import labelled, save
from full_disk import FileLimit

import gkiller
from gkiller.deployment import wheel as room
from gkiller.deployment.deploy import export_onnx
from gkiller.deployment.parity import parity_rows
from gkiller.deployment.wheel import ALLOWED, build_wheel, needed_modules
from gkiller.errors import ExportError, OutputError, SettingsError, WheelContentError
from gkiller.model.directory import LoadedModel, load_model
from gkiller.settings import DeploymentSettings


def package(folder: Path, **files: Any) -> Path:
    """Write a package named gkiller; ``a__b`` is a/b.py."""
    root = folder / "gkiller"
    for name, text in files.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for directory in {root, *(p.parent for p in root.rglob("*.py"))}:
        (directory / "__init__.py").touch()
    return root


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    loaded = save(tmp_path_factory.mktemp("wheel") / "model")
    export_onnx(loaded, parity_rows(loaded, labelled(), 20), DeploymentSettings())
    return load_model(loaded.path)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An inference package of one function, in the place of the real one."""
    body = "def load():\n    return None\n"
    root = package(tmp_path / "stub", inference__loading=body, errors="class GkillerError(Exception): ...\n")
    (root / "inference" / "__init__.py").write_text(
        "from gkiller.errors import GkillerError\nfrom gkiller.inference.loading import load\n"
    )
    monkeypatch.setattr(room, "needed_modules", lambda found: needed_modules(root))
    monkeypatch.setattr(room.gkiller, "__file__", str(root / "__init__.py"))


def test_imports_are_followed_into_functions_and_parents(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        inference__a="import json, numpy as np\nfrom . import b\ndef f():\n    from gkiller.tools.deep import thing\n",
        inference__b="from ..errors import Error\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import gkiller.late\n",
        errors="Error = 1\n",
        late="",
        tools__deep="thing = 1\n",
        unused="import torch\n",
    )
    (root / "inference" / "__init__.py").write_text("from gkiller.inference.a import f\n")
    assert list(needed_modules(root)) == [
        "gkiller.errors",
        "gkiller.inference",
        "gkiller.inference.a",
        "gkiller.inference.b",
        "gkiller.late",
        "gkiller.tools",
        "gkiller.tools.deep",
    ]


@pytest.mark.parametrize(
    "line",
    ["import torch", "from transformers import BertModel", "import pandas.core", "def f():\n    import pydantic"],
)
def test_a_heavy_import_is_refused(tmp_path: Path, line: str) -> None:
    root = package(tmp_path, inference__a=line + "\n")
    (root / "inference" / "__init__.py").write_text("from gkiller.inference import a\n")
    with pytest.raises(WheelContentError, match="imports") as caught:
        needed_modules(root)
    assert caught.value.where == "gkiller.inference.a"


def test_missing_inference_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WheelContentError):
        needed_modules(package(tmp_path, errors=""))


def test_the_wheel_holds_what_its_record_says(exported: LoadedModel, stub: None, tmp_path: Path) -> None:
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
        assert b"Apache License" in archive.read("my_model-1.2.dist-info/LICENSE")
    model = {name.removeprefix("gkiller/assets/model/") for name in names if "assets/model" in name}
    assert model == {"config.json", "gkiller.json", "onnx/model.onnx", "tokenizer.json"}
    needs = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert [need.split(">")[0] for need in needs] == ["numpy", "onnxruntime", "tokenizers"]
    assert "Name: My.Model\nVersion: 1.2\n" in metadata


def test_the_same_model_gives_the_same_bytes(exported: LoadedModel, stub: None, tmp_path: Path) -> None:
    first, second = (build_wheel(exported, tmp_path / place).path.read_bytes() for place in ("a", "b"))
    assert first == second


def test_the_wheel_s_package_can_be_imported_alone(exported: LoadedModel, stub: None, tmp_path: Path) -> None:
    built = build_wheel(exported, tmp_path / "dist", version="3.4")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import gkiller\nfrom gkiller import load\n"
        "assert gkiller.__version__ == '3.4' and sys.argv[1] in gkiller.__file__\n"
        "heavy = {'torch', 'transformers', 'pydantic'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(tmp_path / "site")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "site")], check=True, cwd=tmp_path, timeout=60)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "gkiller"}, SettingsError),
        ({"name": "GKILLER"}, SettingsError),
        ({"name": "../up"}, SettingsError),
        ({"name": "a b"}, SettingsError),
        ({"version": "one"}, SettingsError),
        ({"version": "1/2"}, SettingsError),
        ({"precision": "int8"}, ExportError),
    ],
)
def test_bad_names_and_missing_graphs_are_refused(
    exported: LoadedModel, stub: None, tmp_path: Path, changes: dict[str, str], error: type[Any]
) -> None:
    with pytest.raises(error):
        build_wheel(exported, tmp_path / "dist", **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "dist").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_no_part_of_a_wheel(
    exported: LoadedModel, stub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = room._model_files(exported, "onnx/model.onnx")
    monkeypatch.setattr(room, "_model_files", lambda *given: files)  # made before the disk is full
    with FileLimit(1000), pytest.raises(OutputError, match="File too large"):
        build_wheel(exported, tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


def test_a_model_without_a_graph_is_refused(stub: None, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no graph yet"):
        build_wheel(save(tmp_path / "model"), tmp_path / "dist")


def test_the_sealed_copy_lists_only_what_is_inside(exported: LoadedModel) -> None:
    import json

    listed = json.loads(room._model_files(exported, "onnx/model.onnx")["gkiller.json"])
    assert set(listed["files"]) == {"config.json", "onnx/model.onnx", "tokenizer.json"}
    assert replace(exported).labels == tuple(listed["labels"])


def test_gkiller_s_own_inference_code_is_light() -> None:
    root = room.Path(gkiller.__file__).parent
    modules = needed_modules(root)
    assert {"gkiller.inference", "gkiller.storage.sealed", "gkiller.model.layout"} <= set(modules)
    assert "gkiller.model.directory" not in modules


def test_nothing_of_the_inference_room_needs_torch_not_even_later() -> None:
    root = room.Path(gkiller.__file__).parent
    names = [path.relative_to(root.parent).with_suffix("").parts for path in (root / "inference").rglob("*.py")]
    assert len(names) > 10
    for parts in names:
        needed_modules(root, ".".join(parts).removesuffix(".__init__"), (*ALLOWED, "pyarrow"))
