"""Nothing leaves the machine, and nothing is left at home: commands and library, watched from outside."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from toy import TINY, write_toy_csv

import gkiller
from gkiller.data import hub
from gkiller.model import pretrained
from gkiller.private import HUB

ROOT = Path(__file__).parents[1]
CALLS = "network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
SOCKET = re.compile(r"\bsocket\((?!AF_UNIX|AF_LOCAL)")
ADDRESS = re.compile(r'sa_family=AF_(?!UNIX|LOCAL|UNSPEC)(?!.*(?:inet_addr\("127\.|AF_INET6, "::1"))')
WRITES = r"open(?:at)?\(.*O_(?:CREAT|TRUNC|WRONLY|RDWR)|(?:creat|mkdir|rename|link|symlink)\w*\("
MADE = re.compile(rf"\b(?:{WRITES}).*\) = \d")
SYSTEM = ("/dev/", "/proc/")

LOOSE = ("deployment.int8_flips=1", "deployment.int8_ap_loss=1", "deployment.int8_f1_loss=1")

PREDICT = """
from gkiller.cli.main import main
assert main(["predict", "you idiot", "good day"]) == 0
assert main(["predict", "--input", "toy.csv", "--output", "scores.csv"]) == 0
"""
LIBRARY = """
from gkiller import load
classifier = load()
classifier.predict(["you idiot", "good day"])
classifier.explain("you idiot")
"""
COMMANDS = """
import sys
from gkiller.cli.main import main

settings = [part for value in sys.argv[1:] for part in ("--set", value)]

def gkiller(*arguments):
    assert main([*arguments, *(settings if arguments[0] in ("train", "quantize") else ())]) == 0, arguments

gkiller("data", "prepare", "toy.csv", "--out", "prepared")
gkiller("data", "inspect", "prepared", "--plot", "lengths.png")
gkiller("train", "--sample-size", "60", "--no-dendrites", "--name", "plain")
gkiller("train", "--data", "prepared", "--name", "grown")
gkiller("evaluate", "runs/grown")
gkiller("export", "runs/grown")
gkiller("quantize", "runs/grown")
gkiller("export", "runs/grown", "--format", "wheel", "--out", "dist")
quick = "--rows 16 --rounds 2 --timing-processes 1 --processes 1 --latency-tokens 16 --latency-rounds 2"
gkiller("bench", "runs/grown", "--benchmark-only", "--no-linear", *quick.split())
gkiller("doctor")
"""


def _fails(*command: Any) -> Any:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def watch() -> Any:
    """How to run a command in a network of its own, with every call that could leave a trace written down."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tracing = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "400", "-e", f"trace={CALLS}"]
    if _fails(*tracing, "-o", os.devnull, "true"):
        pytest.skip("strace may not trace processes here")
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or _fails(*alone, "true"):
        alone = []  # the calls show a look-up even where it could succeed
    return lambda log: [*alone, *tracing, "-o", str(log)]


@pytest.fixture(scope="module")
def traces(watch: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run a program with a fresh home; return what it asked of a network, and what it made elsewhere."""

    def run(folder: Any, code: Any, *arguments: Any, packages: Any = ROOT) -> Any:
        home, scratch = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("scratch")
        log = scratch / "calls"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "PYTHONPATH": str(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [*watch(log), sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        calls = log.read_text("utf-8", errors="replace").splitlines()
        kept = (str(folder), str(scratch), *SYSTEM)
        return {
            "network": _remote(calls),
            "made": [call for call in filter(MADE.search, calls) if not _within(call, folder, kept)],
            "home": sorted(str(path) for path in home.rglob("*")),
        }

    return run


def _remote(calls: list[str]) -> list[Any]:
    """Return the calls that reach beyond this machine: other addresses, and sockets that have no address."""
    found = [call for call in calls if ADDRESS.search(call)]
    for number, call in enumerate(calls):
        if SOCKET.search(call):
            thread = call.split(maxsplit=1)[0] + " "
            later = (one for one in calls[number + 1 :] if one.startswith(thread) and "resumed" not in one)
            if "sa_family=AF_INET" not in next((one for one in later if re.search(r"bind|connect", one)), ""):
                found.append(call)
    return found


def _within(call: str, folder: Path, allowed: tuple[str, str, str, str]) -> bool:
    """Return whether every path of a call lies where gkiller may write."""
    paths = [str(Path(folder, path)) for path in re.findall(r'"((?:[^"\\]|\\.)*)"', call)]
    return all(path.startswith(allowed) for path in paths)


NOTHING: Any = {"network": [], "made": [], "home": []}


@pytest.fixture
def place(tmp_path: Path) -> Path | str:
    write_toy_csv(tmp_path / "toy.csv")
    return tmp_path


@pytest.mark.parametrize("code", [PREDICT, LIBRARY], ids=["command", "library"])
def test_scoring_asks_no_network_and_leaves_nothing_at_home(traces: Callable[..., Any], place: Path, code: str) -> None:
    assert traces(place, code) == NOTHING


@pytest.mark.slow
def test_no_command_asks_a_network_or_leaves_anything_at_home(
    traces: Callable[..., Any], place: Path, tokenizer_file: Path
) -> None:
    settings = (*TINY, *LOOSE, f"model.tokenizer={tokenizer_file}")
    assert traces(place, COMMANDS, *settings) == NOTHING
    [wheel] = (place / "dist").glob("*.whl")
    site = place / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = f"import gkiller; assert gkiller.__file__.startswith({str(site)!r})" + LIBRARY
    assert traces(place, code, packages=site) == NOTHING


def test_a_look_up_and_a_file_at_home_would_be_found(traces: Callable[..., Any], place: Path) -> None:
    code = """
import pathlib, socket
try:
    socket.create_connection(("192.0.2.1", 53), timeout=0.1)
except OSError:
    pass
socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
pathlib.Path.home().joinpath("trace").touch()
"""
    found = traces(place, code)
    assert len(found["network"]) == 3
    assert [Path(path).name for path in found["home"]] == ["trace"]
    assert len(found["made"]) == 1


@pytest.mark.parametrize("ask", [pretrained.resolve_commit, hub.resolve_commit], ids=["model", "data"])
def test_the_hub_is_told_nothing_but_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]
) -> None:
    for name in HUB:
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ask("org/name", None) is None
    assert {name: os.environ[name] for name in HUB} == HUB
    assert constants.HF_HUB_DISABLE_TELEMETRY


@pytest.mark.parametrize("folder", ["gkiller", "tests", "tools", "experiments", "recipes"])
def test_onnxruntime_is_imported_in_one_place(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        if path == Path(gkiller.__file__).parent / "inference" / "ort.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "onnxruntime"], path
