"""Device, threads and generators are the training's own while it lasts, and the caller's after it."""

import pytest
import torch

from gkiller.errors import SettingsError
from gkiller.settings import TrainSettings
from gkiller.training.runtime import cpu_count, resolve_device, runtime, thread_count


def test_everything_is_put_back() -> None:
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    with runtime(TrainSettings(seed=3, threads=1), torch.device("cpu")):
        first = torch.rand(4)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def leave(error: type[ZeroDivisionError]) -> None:
    with runtime(TrainSettings(threads=1), torch.device("cpu")):
        raise error


def test_also_when_the_training_fails() -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(SettingsError, match=f"no {name} device") as caught:
            resolve_device(name)
        assert caught.value.where == "train.device"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_threads_by_default_are_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with runtime(TrainSettings(), torch.device("cpu")):
        assert torch.get_num_threads() == cpu_count() >= 1


@pytest.mark.parametrize(
    ("variable", "threads"),
    [("1", 1), (" 3 ", 3), ("0", None), ("-2", None), ("many", None), ("", None), ("2,1", None), ("5000", None)],
)
def test_omp_num_threads_counts_where_no_threads_are_set(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int | None
) -> None:
    monkeypatch.setattr("gkiller.training.runtime.cpu_count", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert thread_count(TrainSettings()) == (threads or 7)
    assert thread_count(TrainSettings(threads=2)) == 2


def test_processes_share_the_cores_but_not_omp_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.training.runtime.cpu_count", lambda: 6)
    monkeypatch.setattr("gkiller.training.runtime.local_processes", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_count(TrainSettings()) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what torchrun writes when nobody has set it
    assert thread_count(TrainSettings()) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert thread_count(TrainSettings()) == 5
