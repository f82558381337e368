"""The light package: built from the same tree, and enough with its own requirements alone."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sklearn", "scipy", "pyarrow", "onnx", "matplotlib", "perforatedai")
PROGRAM = """
import sys
sys.path[:] = [path for path in sys.path if "-packages" not in path] + [{folder!r}]
from gkiller.cli.main import main
sys.exit(main({arguments!r}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the light wheel and what it requires, as the lock has it, and nothing else."""
    made = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(command, cwd=ROOT / "lite", check=True, capture_output=True)
    [wheel] = made.glob("gkiller_lite-*.whl")
    folder = tmp_path_factory.mktemp("light")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    [metadata] = folder.glob("*.dist-info")
    for name in closure(Distribution.at(metadata)):
        for file in distribution(name).files or ():
            top = folder / file.parts[0]
            if file.parts[0] != ".." and not top.exists():
                top.symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / file.parts[0])
    return folder


def closure(wanted: Distribution) -> set[str]:
    """Return what a distribution requires, and what that requires, without extras."""
    found: set[str] = set()
    waiting = [wanted]
    while waiting:
        for line in waiting.pop().requires or ():
            name = re.split(r"[^A-Za-z0-9._-]", line)[0]
            if "extra ==" not in line and name not in found:
                try:
                    waiting.append(distribution(name))
                except ModuleNotFoundError:  # for another platform or version of Python
                    continue
                found.add(name)
    return found


def run(folder: Path, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(folder=str(folder), arguments=list(arguments))
    return subprocess.run([sys.executable, "-I", "-c", program], cwd=place, capture_output=True, text=True, check=False)


def test_it_has_no_heavy_requirement_and_every_file_of_the_tree(installed: Path) -> None:
    assert not [name for name in HEAVY if (installed / name).exists()]
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gkiller").rglob("*.py")}
    there = {path.relative_to(installed).as_posix() for path in (installed / "gkiller").rglob("*.py")}
    assert there == here
    assert not list((installed / "gkiller").rglob("__pycache__"))
    assert (installed / "gkiller" / "LICENSE").is_file()


def test_it_scores_comments_and_files(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n7,you are an idiot\n8,thank you\n")
    done = run(installed, tmp_path, "predict", "--input", "in.csv", "--output", "out.jsonl", "--keep-columns")
    assert done.returncode == 0, done.stderr
    assert '"id": "7", "flagged": true' in (tmp_path / "out.jsonl").read_text()


def test_what_trains_names_the_full_package(installed: Path, tmp_path: Path) -> None:
    for command in (["train"], ["evaluate", "default", "--data", "x.csv"], ["quantize", "default"]):
        done = run(installed, tmp_path, *command)
        assert done.returncode == 3
        assert "this needs the full package: gkiller-lite has no" in done.stderr


def test_doctor_checks_what_it_can_do(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    assert "an insult scores" in done.stdout
    assert "does not train" in done.stdout


def test_both_at_once_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from gkiller.cli import doctor

    monkeypatch.setattr(doctor, "installed", lambda: ["gkiller", "gkiller-lite"])
    [found] = [check for check in doctor.check_versions() if check.name == "packages"]
    assert found.status == "warning"
    assert "pip uninstall gkiller gkiller-lite" in found.remedy
