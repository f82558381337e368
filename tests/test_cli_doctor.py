"""The checks of gkiller doctor, and the generated documents."""

import importlib.util
import json
import socket
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkiller.cli import doctor as checks
from gkiller.cli import lazy
from gkiller.cli.doctor import Check
from gkiller.cli.main import main
from gkiller.errors import FoldMismatchError
from gkiller.settings import settings_reference

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def round_trip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put a function in the place of the round trip, which has tests of its own."""

    def replace(function: Any) -> None:
        module = types.ModuleType("gkiller.training.train")
        module.round_trip = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gkiller.training.train", module)

    return replace


def statuses(found: list[Check]) -> list[str]:
    return [check.status for check in found]


def test_versions_name_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"typer": "0.29.2", "no-such-package-here": None, "perforatedai": None}
    monkeypatch.setattr(checks, "package_versions", lambda names: versions)
    found = {check.name: check for check in checks.check_versions()}
    assert found["typer"].status == "ok"
    assert found["no-such-package-here"].status == "failed"
    assert found["no-such-package-here"].remedy
    assert "perforatedai" not in found  # it has a check of its own


def test_cpu_names_only_the_vector_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "read_cpu", lambda: ("Chip 1", frozenset({"fpu", "avx2", "amx_tile"})))
    [found] = checks.check_cpu()
    assert found.status == "ok"
    assert found.detail.startswith("Chip 1; ")
    assert found.detail.endswith("; avx2, amx_tile")


@pytest.mark.parametrize(
    ("present", "version", "expected"),
    [
        (set(), "", [("perforatedai", "warning")]),
        ({"perforatedai"}, "3.2.9", [("perforatedai", "ok")]),
        ({"perforatedai"}, "3.3.0", [("perforatedai", "warning")]),
        ({"perforatedai", "perforatedbp"}, "3.2.9", [("perforatedai", "ok"), ("perforatedbp", "warning")]),
    ],
)
def test_perforatedai(
    monkeypatch: pytest.MonkeyPatch, present: set[Any], version: str, expected: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: name if name in present else None)
    monkeypatch.setattr(checks, "version", lambda name: version)
    found = checks.check_perforatedai()
    assert [(check.name, check.status) for check in found] == expected
    assert all(check.remedy for check in found if check.status == "warning")


def test_perforatedai_is_the_pinned_version() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [pinned] = [d for d in pyproject["project"]["dependencies"] if d.startswith("perforatedai")]
    assert pinned.startswith(f"perforatedai=={checks.PERFORATEDAI};")


def test_the_hub_is_not_asked_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_ask", lambda *_: pytest.fail("asked"))
    assert statuses(checks.check_hub(online=False)) == ["skipped"]


def test_unreachable_hub_is_a_warning() -> None:
    with socket.socket() as server:  # bound and not listening: refuses at once
        server.bind(("127.0.0.1", 0))
        found = checks._ask(f"http://127.0.0.1:{server.getsockname()[1]}", 2.0)
    assert found.status == "warning"
    assert found.remedy
    assert checks._ask("not an address", 2.0).status == "warning"


def test_settings_and_run_directory(tmp_path: Path) -> None:
    assert statuses(checks.check_settings()) == ["ok"]
    (tmp_path / "gkiller.toml").write_text("[train]\nlrr = 1\n", encoding="utf-8")
    [broken] = checks.check_settings()
    assert (broken.status, "train.lr" in broken.remedy) == ("failed", True)
    assert checks.check_runs(tmp_path)[0].status in ("ok", "warning")
    assert statuses(checks.check_runs(tmp_path / "absent")) == ["failed"]
    assert list(tmp_path.iterdir()) == [tmp_path / "gkiller.toml"]  # leaves nothing behind


def test_little_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ROOM", 10**30)
    assert statuses(checks.check_runs(tmp_path)) == ["warning"]


def test_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ASSETS", ("settings/presets/seed.toml", "settings/presets/absent.toml"))
    [found] = checks.check_assets()
    assert (found.status, found.detail) == ("failed", "missing: settings/presets/absent.toml")


def test_round_trip(round_trip: Callable[..., Any]) -> None:
    well = {"ok": True, "dendrites": True, "fold_difference": 1.5e-8, "scores": {"toxicity": 0.25}}
    round_trip(lambda: well)
    [found] = checks.check_round_trip()
    assert (found.status, "with dendrites" in found.detail) == ("ok", True)
    assert "1.5e-08" in found.detail
    round_trip(lambda: {**well, "dendrites": False})
    assert "without dendrites" in checks.check_round_trip()[0].detail
    round_trip(lambda: {**well, "ok": False, "scores": {"toxicity": float("nan")}})
    [found] = checks.check_round_trip()
    assert (found.status, "nan" in found.detail, bool(found.remedy)) == ("failed", True, True)

    def broken() -> None:
        raise FoldMismatchError("logits differ", where="layer 1", remedy="report it")

    round_trip(broken)
    assert checks.check_round_trip() == [Check("round trip", "failed", "layer 1: logits differ", "report it")]

    def crash() -> None:
        raise RuntimeError("no memory")

    round_trip(crash)
    assert "RuntimeError: no memory" in checks.check_round_trip()[0].detail


def test_doctor_ends_with_1_only_when_a_check_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, round_trip: Callable[..., Any]
) -> None:
    monkeypatch.setattr(checks, "check_device", lambda: [Check("device", "ok", "cpu")])
    monkeypatch.setattr(checks, "check_assets", lambda: [Check("assets", "warning", "odd", "look")])
    round_trip(lambda: {"ok": True, "dendrites": False, "fold_difference": 0.0, "scores": {}})
    assert main(["doctor", "--offline", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is True
    assert {"name": "assets", "status": "warning", "detail": "odd", "remedy": "look"} in shown["checks"]
    monkeypatch.setattr(checks, "check_assets", lambda: [Check("assets", "failed", "gone", "look")])
    assert main(["doctor", "--offline"]) == 1
    assert "1 failed" in capsys.readouterr().out


@pytest.fixture
def make_docs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    path = ROOT / "tools" / "make_docs.py"
    spec = importlib.util.spec_from_file_location("make_docs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(lazy, "COMMANDS", {name: lazy.COMMANDS[name] for name in ("config", "doctor")})

    def call(*arguments: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["make_docs.py", *arguments])
        return module.main()

    return call


def test_documents_are_complete_and_staleness_is_noticed(
    make_docs: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_docs("--check") == 1
    assert make_docs() == 0
    assert make_docs("--check") == 0
    cli, settings = tmp_path / "docs" / "cli.md", tmp_path / "docs" / "settings.md"
    for heading in ("## `gkiller`", "## `gkiller config`", "### `gkiller config show`", "## `gkiller doctor`"):
        assert heading in cli.read_text(encoding="utf-8")
    assert "| 21 | `ModelTamperedError` |" in cli.read_text(encoding="utf-8")
    assert all(f"`{entry.env}`" in settings.read_text(encoding="utf-8") for entry in settings_reference())
    settings.write_text(settings.read_text(encoding="utf-8").replace("train.lr", "train.rl"), encoding="utf-8")
    capsys.readouterr()
    assert make_docs("--check") == 1
    report = capsys.readouterr().out
    assert "docs/settings.md is stale" in report
    assert "train.rl" in report
