"""Checkpoints: what is written comes back, and what is damaged is noticed."""

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import reseal
from training_helpers import CPU, checkpoint, same

from gkiller.errors import OutputError, ResumeError
from gkiller.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from gkiller.training.phases import Phase
from gkiller.training.runtime import restore_rng, rng_state, seed_everything


def test_there_and_back(tmp_path: Path) -> None:
    before = checkpoint()
    save_checkpoint(tmp_path / "c", before)
    after = load_checkpoint(tmp_path / "c")
    assert after.progress == before.progress
    assert same(after.weights, before.weights)
    assert same(after.optimizer, before.optimizer)
    assert after.rng == before.rng
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".json", ".safetensors", ".safetensors"]


def test_a_phase_starts_anew() -> None:
    progress = checkpoint().progress
    progress.start(Phase("joint", "everything", 1, 2, 0.1))
    assert (progress.phase.name, progress.phase_number, progress.phase_epoch) == ("joint", 3, 0)
    assert (progress.stale, progress.phase_best, progress.epoch) == (0, None, 3)


def test_an_optimizer_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    def parameter() -> Any:
        return {"w": torch.nn.Parameter(torch.ones(3)), "b": torch.nn.Parameter(torch.zeros(2))}

    def step(optimizer: Any, names: Any, factor: Any) -> None:
        for own in names.values():
            own.grad = torch.full_like(own, factor)
        optimizer.step()

    names = parameter()
    optimizer = torch.optim.AdamW(names.values(), lr=0.1, fused=True)
    step(optimizer, names, 0.5)
    save_checkpoint(
        tmp_path / "c", Checkpoint(checkpoint().progress, {}, optimizer_tensors(optimizer, names), [rng_state(CPU)])
    )
    others = parameter()
    with torch.no_grad():
        for name, own in others.items():
            own.copy_(names[name])
    restored = torch.optim.AdamW(others.values(), lr=0.1, fused=True)
    restore_optimizer(restored, others, load_checkpoint(tmp_path / "c").optimizer)
    for factor in (-1.0, 2.0):
        step(optimizer, names, factor)
        step(restored, others, factor)
    assert same(dict(names), dict(others))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "c", checkpoint())
    damage(tmp_path / "c" / name)
    with pytest.raises(ResumeError, match=f"{name}: the file is not the one that was saved"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "optimizer.safetensors"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "c", checkpoint())
    (tmp_path / "c" / name).unlink()
    with pytest.raises(ResumeError) as caught:
        load_checkpoint(tmp_path / "c")
    assert caught.value.where == str(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format_version": 9}', '{"format_version": 1}'])
def test_a_broken_state(tmp_path: Path, text: str) -> None:
    save_checkpoint(tmp_path / "c", checkpoint())
    (tmp_path / "c" / "state.json").write_text(text)
    with pytest.raises(ResumeError) as caught:
        load_checkpoint(tmp_path / "c")
    assert caught.value.remedy


def forge_progress(folder: Path, **changes: Any) -> None:
    """Write a checkpoint, then change its progress and make all digests right again."""
    save_checkpoint(folder, checkpoint())
    path = folder / "state.json"
    state = json.loads(path.read_text())
    state["progress"] |= changes
    path.write_text(json.dumps(state))
    reseal(folder, "state.json")


def test_an_unknown_progress(tmp_path: Path) -> None:
    forge_progress(tmp_path / "c", surprise=1)
    with pytest.raises(ResumeError, match="surprise"):
        load_checkpoint(tmp_path / "c")


def phase(*values: Any) -> Any:
    return {"phase": asdict(Phase(*values))}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": -1}, "greater than or equal to 0"),
        ({"epoch": 10**30}, "epoch"),
        ({"epoch_seconds": float("nan")}, "NaN is not a number"),
        ({"epoch_loss": 10**400}, "401 digits"),
        ({"best": {0: 10**400, 1: 0.5}}, "401 digits"),
        ({"step": 0}, "rows no step"),
        ({"epoch_rows": 0}, "steps have no rows"),
        ({"phase_epoch": 4}, "more epochs than the training"),
        ({"best": {0: 0.5}}, "different dendrites"),
        ({"best": {}, "best_epoch": {}}, "no score to go on from"),
        ({"best": {1: 0.5}, "best_epoch": {1: 3}}, "no score to go on from"),
        ({"best": {0: 0.5, 2: 0.5}, "best_epoch": {0: 1, 2: 3}}, "more dendrites than were grown"),
        ({"best_epoch": {0: 2, 1: 4}}, "best epoch is not over"),
        ({"best_epoch": {0: 0, 1: 3}}, "best epoch is not over"),
        (phase("dendrite", "tops", 1, 0, 0.01), "no epochs"),
        (phase("dendrite", "tops", 0, 4, 0.01), "another one has none"),
        (phase("neuron", "neurons", 1, 4, 0.01), "trains dendrites"),
        (phase("dendrite", "everything", 1, 4, 0.01), "trains everything"),
        (phase("dendrite", "tops", 1, 4, -0.01), "greater than 0"),
        (phase("dendrite", "tops", 10**9, 4, 0.01), "less than"),
        (phase("neuron", "neurons", 0, 4, 0.01) | {"best": {}, "best_epoch": {}}, "an epoch has no score"),
        (
            phase("neuron", "neurons", 0, 4, 0.01)
            | {"best": {}, "best_epoch": {}, "epoch": 0, "phase_epoch": 0, "finished": True},
            "after no epoch",
        ),
    ],
)
def test_a_place_that_no_training_comes_to(tmp_path: Path, change: Any, said: str) -> None:
    forge_progress(tmp_path / "c", **change)
    with pytest.raises(ResumeError, match=said) as caught:
        load_checkpoint(tmp_path / "c")
    assert caught.value.where == str(tmp_path / "c")


def filled(tmp_path: Path, keep: int, *epochs: Any) -> CheckpointStore:
    """A store with a checkpoint per epoch, and the best weights that they refer to."""
    store = CheckpointStore(tmp_path, keep)
    for epoch in epochs:
        for count, best in checkpoint().progress.best_epoch.items():
            store.save_best({"w": torch.ones(2)}, count, best)
        store.save(checkpoint(epoch, value=epoch))
    return store


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept(tmp_path: Path, keep: int) -> None:
    store = filled(tmp_path, keep, 8, 9, 10, 11)
    names = [f"checkpoint-{number:08d}" for number in (4, 3, 2)]
    assert [path.name for path in store.checkpoints()] == names[:keep]
    assert store.newest().progress.epoch == 11


def test_a_damaged_newest_is_named_and_gives_way_to_the_one_before(tmp_path: Path) -> None:
    store = filled(tmp_path, 3, 1, 2, 3)
    damage(tmp_path / "checkpoint-00000003" / "weights.safetensors")
    passed: list[Any] = []
    assert store.newest(passed.append).progress.epoch == 2
    assert [error.where for error in passed] == [str(tmp_path / "checkpoint-00000003")]
    damage(tmp_path / "checkpoint-00000002" / "optimizer.safetensors")
    assert store.newest().weights["classifier.bias"].tolist() == [1, 1]
    damage(tmp_path / "checkpoint-00000001" / "weights.safetensors")
    with pytest.raises(ResumeError, match=r"no usable checkpoint.*is not the one"):
        store.newest()


def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(tmp_path: Path) -> None:
    store = filled(tmp_path, 3, 1)
    later = checkpoint(2)
    later.progress.best_epoch[1] = 2
    store.save_best({"w": torch.ones(2)}, 1, 2)
    store.save(later)
    assert store.newest().progress.epoch == 2
    damage(tmp_path / "best-1-epoch-00002" / "weights.safetensors")
    passed: list[Any] = []
    assert store.newest(passed.append).progress.epoch == 1
    assert [error.where for error in passed] == [str(tmp_path / "best-1-epoch-00002")]


def test_where_nothing_was_written_there_is_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none", 2).newest() is None


def test_a_damaged_checkpoint_takes_no_whole_one_s_place(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, 1, 2)
    damage(tmp_path / "checkpoint-00000002" / "weights.safetensors")
    assert store.newest().progress.epoch == 1
    store.save(checkpoint(2))
    assert [path.name[-1] for path in store.checkpoints()] == ["3", "1"]
    damage(tmp_path / "checkpoint-00000003" / "weights.safetensors")
    assert store.newest().progress.epoch == 1


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, 1)
    (tmp_path / ".checkpoint-00000002.abc").mkdir()
    (tmp_path / ".checkpoint-00000002.abc" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".torn").touch()
    store.tidy()
    names = ["best-0-epoch-00001", "best-1-epoch-00001", "checkpoint-00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_checkpoint_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 2, 1)
    before = sorted(tmp_path.rglob("*"))
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("gkiller.storage.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"1\.3 MB are needed, 1\.0 MB are free"):
        store.save(checkpoint(2))
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    assert store.newest().progress.epoch == 1


def test_an_old_checkpoint_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = filled(tmp_path, 1, 1), shutil.rmtree

    def refuse(path: Any, *given: Any, **named: Any) -> None:
        if path == tmp_path / "checkpoint-00000001":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *given, **named)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        store.save(checkpoint(2))
    assert store.newest().progress.epoch == 2


def test_best_weights(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2)
    for count, epoch in ((0, 1), (1, 3), (0, 2)):
        store.save_best({"w": torch.full((2,), float(epoch))}, count, epoch)
    assert store.load_best(1, 3)["w"].tolist() == [3, 3]
    assert store.load_best(0, 1)["w"].tolist() == [1, 1]
    with pytest.raises(ResumeError):
        store.load_best(2, 3)


def test_best_weights_stay_while_a_checkpoint_refers_to_them(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2)
    for epoch in (1, 2, 3, 4, 5):
        saved = checkpoint(epoch)
        saved.progress.best_epoch = {0: min(epoch, 3)}
        if epoch <= 3:
            store.save_best({"w": torch.ones(1)}, 0, epoch)
        store.save(saved)
        bests = sorted(int(path.name[-5:]) for path in tmp_path.glob("best-*"))
        assert bests == sorted({min(e, 3) for e in (epoch - 1, epoch) if e})


def test_the_random_generators_go_on(tmp_path: Path) -> None:
    def draws() -> Any:
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)

    with torch.random.fork_rng(devices=[]):
        before = np.random.get_state(), random.getstate()
        seed_everything(5)
        np.random.standard_normal()
        random.gauss(0, 1)
        save_checkpoint(tmp_path / "c", Checkpoint(checkpoint().progress, {}, {}, [rng_state(CPU)]))
        expected = draws()
        seed_everything(6)
        restore_rng(load_checkpoint(tmp_path / "c").rng[0], CPU)
        assert draws() == expected
        np.random.set_state(before[0])
        random.setstate(before[1])


def test_damaged_best_weights_are_noticed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2)
    store.save_best({"w": torch.ones(2)}, 0, 1)
    damage(tmp_path / "best-0-epoch-00001" / "weights.safetensors")
    with pytest.raises(ResumeError, match="SHA-256 differs"):
        store.load_best(0, 1)
