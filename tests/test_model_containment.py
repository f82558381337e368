"""perforatedai stays in its cell: what it prints, asks, stops, draws and writes does not get out."""

import builtins
import importlib
import os
import pdb
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from toy import tiny_settings, vocabulary

from gkiller.errors import DendriteError, DendritesUnavailableError
from gkiller.model.dendrites import perforated
from gkiller.model.dendrites.growth import check_fold, chosen_linears, folded
from gkiller.model.dendrites.perforated import PerforatedGrowth, contained, require_available, unavailable_reason
from gkiller.model.network import ToxicityClassifier, build_classifier


def network() -> ToxicityClassifier:
    torch.manual_seed(0)
    return build_classifier(tiny_settings().model, ("toxicity",), len(vocabulary()))


def wrap(model: ToxicityClassifier | None = None, **changes: Any) -> PerforatedGrowth:
    model = model or network()
    options: dict[str, Any] = {"activation": "sigmoid", "patience": 2, "most": 2, "seed": 0} | changes
    return PerforatedGrowth(model, chosen_linears(model, ("*",)), **options)


def library(name: str) -> ModuleType:
    """A module of perforatedai, imported as gkiller does: in its cell."""
    wrap().close()
    return importlib.import_module(f"perforatedai.{name}")


def outside() -> dict[str, Any]:
    """What belongs to the whole process and must be as before."""
    return {
        "directory": Path.cwd(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "set_trace": pdb.set_trace,
        "input": builtins.input,
        "filters": list(warnings.filters),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "environment": dict(os.environ),
        "backend": dict.__getitem__(matplotlib.rcParams, "backend"),
        "path": list(sys.path),
        "hooks": (sys.excepthook, sys.breakpointhook),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    return [key for key in before if before[key] != after[key]]


def test_a_whole_life_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("svg")
    model, before = network(), outside()
    with wrap(model) as growth:
        assert differences(before, outside()) == []
        growth.observe(0.5)
        growth.grow(0.5)
        growth.grow(0.6)
        assert differences(before, outside()) == []
    assert differences(before, outside()) == []
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_close_gives_the_globals_back_and_removes_the_files() -> None:
    shared = library("globals_perforatedai")
    fresh = {key: value for key, value in vars(shared.pc).items() if not callable(value)}
    growth = wrap()
    scratch = Path(growth._scratch.name)
    assert scratch.is_dir()
    assert shared.pai_tracker != []
    growth.close()
    growth.close()
    assert not scratch.exists()
    assert shared.pai_tracker == []
    left = {key: value for key, value in vars(shared.pc).items() if not callable(value)}
    assert str(left) == str(fresh)


def test_the_network_works_after_close() -> None:
    growth = wrap()
    growth.grow(0.5)
    growth.close()
    assert check_fold(growth, folded(growth.model, growth.state(), "sigmoid")) <= 1e-6


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (lambda: pdb.set_trace(), "dimension 3 is odd"),
        (lambda: breakpoint(), "dimension 3 is odd"),
        (lambda: sys.exit(0), "dimension 3 is odd"),
        (lambda: input("sure?"), "sure?"),
    ],
    ids=["set_trace", "breakpoint", "exit", "input"],
)
def test_a_stop_inside_the_library_is_an_error(
    monkeypatch: pytest.MonkeyPatch, stop: Callable[..., Any], said: str
) -> None:
    utils = library("utils_perforatedai")

    def stopping(*_: Any, **__: Any) -> None:
        print("dimension 3 is odd")  # noqa: T201
        stop()

    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    monkeypatch.setattr(sys, "breakpointhook", sys.__breakpointhook__)
    before = None
    with monkeypatch.context() as patched:
        patched.setattr(utils, "perforate_model", stopping)
        model, before = network(), outside()
        with pytest.raises(DendriteError, match="perforatedai gave up") as caught:
            wrap(model)
        assert said in caught.value.what
        assert "--no-dendrites" in caught.value.remedy
        assert differences(before, outside()) == []
    wrap().close()  # the failed one is not in the way


def test_a_stop_while_growing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = library("globals_perforatedai")
    with wrap() as growth:
        monkeypatch.setattr(shared.pai_tracker, "add_validation_score", lambda *_: sys.exit(1))
        before = outside()
        with pytest.raises(DendriteError, match="gave up"):
            growth.grow(0.5)
        assert differences(before, outside()) == []
    wrap().close()


def test_a_growth_that_does_not_happen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = library("globals_perforatedai")
    with wrap() as growth:
        monkeypatch.setattr(shared.pai_tracker, "add_validation_score", lambda score, model: (model, False, False))
        with pytest.raises(DendriteError, match="grew 0"):
            growth.grow(0.5)


def misbehave() -> None:
    print("hidden")  # noqa: T201
    torch.rand(1), np.random.rand(), random.random()
    warnings.simplefilter("always")
    raise ZeroDivisionError


def test_other_exceptions_put_everything_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = outside()
    with pytest.raises(ZeroDivisionError), contained(tmp_path, 3):
        misbehave()
    assert differences(before, outside()) == []
    assert capfd.readouterr() == ("", "")


def test_a_termination_is_no_fault_of_the_library(tmp_path: Path) -> None:
    before = outside()
    with pytest.raises(SystemExit) as caught, contained(tmp_path, 3):
        sys.exit(143)
    assert caught.value.code == 143  # type: ignore[unreachable]
    assert differences(before, outside()) == []


def test_the_cell_is_seeded(tmp_path: Path) -> None:
    draws = []
    for seed in (4, 4, 5):
        with contained(tmp_path, seed):
            draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
    assert draws[0] == draws[1] != draws[2]


def test_only_one_at_a_time() -> None:
    with wrap() as growth:
        with pytest.raises(DendriteError, match="another training"):
            wrap()
        growth.grow(0.5)  # the refused one did not take the globals away
        assert growth.count == 1
    with wrap() as growth:
        growth.grow(0.5)
        assert growth.count == 1


def test_it_is_closed_when_the_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), wrap():
        raise ZeroDivisionError
    wrap().close()  # type: ignore[unreachable]


def test_it_is_free_again_when_closing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = library("globals_perforatedai")
    growth = wrap()
    with monkeypatch.context() as patched:
        patched.setattr(type(shared.pc), "__init__", lambda self: sys.exit(1))
        with pytest.raises(DendriteError):
            growth.close()
    wrap().close()


def test_refused_networks_do_not_block_the_next() -> None:
    with pytest.raises(DendriteError, match="wrapped"):  # it silently wraps what it finds
        PerforatedGrowth(network(), ["nobody"], activation="sigmoid", patience=1, most=1, seed=0)
    wrap().close()


def test_platforms_without_perforatedai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perforated.importlib.util, "find_spec", lambda name: None)
    assert "not installed" in unavailable_reason()
    with pytest.raises(DendritesUnavailableError) as caught:
        require_available()
    for word in ("Linux x86-64", "Windows", "macOS", "3.12", "--no-dendrites"):
        assert word in caught.value.remedy
    with pytest.raises(DendritesUnavailableError):
        wrap()


def test_here_it_is_available() -> None:
    assert unavailable_reason() == ""
    require_available()
