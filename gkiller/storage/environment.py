"""What a result depends on outside its settings: software, processor, source revision."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LITE = "gkiller-lite"
PACKAGES = (
    *("gkiller", "torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxscript", "onnxruntime", "datasets"),
    *("perforatedai", "numpy", "pyarrow", "scikit-learn", "matplotlib", "typer", "rich", "pydantic"),
    *("pydantic-settings", "tomlkit", "optuna"),
)
_LIGHT = {"gkiller", "numpy", "onnxruntime", "tokenizers", "typer", "rich", "pydantic", "pydantic-settings", "tomlkit"}
LIGHT_PACKAGES = tuple(name for name in PACKAGES if name in _LIGHT)
"""Of those, what gkiller-lite stands on."""
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Return the installed version of each package gkiller stands on, None where it is not installed."""
    return {name: _version(name) or (_version(LITE) if name == "gkiller" else None) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def installed() -> list[str]:
    """Return which of gkiller's two distributions are installed: the full one, the light one, both or neither."""
    return [name for name in ("gkiller", LITE) if _version(name) is not None]


def read_cpu(path: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Return the model name and the flags of the first processor that ``path`` lists, where it exists."""
    model, flags = platform.processor() or platform.machine(), frozenset[str]()
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return model, flags


def git_commit() -> str | None:
    """Return the revision of the source tree, "+changes" added when it has some; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]  # status would write to the index
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip()


def environment() -> dict[str, Any]:
    """Return Python, platform, processor, packages and source revision, for a manifest."""
    cpu, flags = read_cpu()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "packages": package_versions(),
        "git_commit": git_commit(),
    }
