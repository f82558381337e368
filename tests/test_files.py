"""Files and directories that are either whole or not there."""

import errno
from pathlib import Path
from typing import Any

import pytest

from gkiller.errors import OutputError, RunExistsError
from gkiller.storage.files import atomic_directory, json_text, sha256_file, write_text
from gkiller.training.run import RunDirectory


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def fill(folder: Path, value: str) -> None:
    with atomic_directory(folder) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "file").write_text(value)


def test_a_directory_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    fill(out, "first")
    with atomic_directory(out) as temporary:
        (temporary / "file").write_text("second")
        assert contents(out) == {"below/file": "first"}  # until the block ends
    assert contents(out) == {"file": "second"}
    assert list(out.parent.iterdir()) == [out]


def test_a_failed_block_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "out", "first")
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "out") as temporary:
        (temporary / "file").write_text(str(1 / 0))
    assert contents(tmp_path) == {"out/below/file": "first"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_the_old_directory_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out", "first")
    replace = Path.replace

    def refuse(self: Any, target: Any) -> Any:
        if (self / "below").is_dir() and not self.name.endswith(".old") and target.name == "out":
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr("gkiller.storage.files._exchange", lambda one, other: False)  # as on other systems
    with pytest.raises(OutputError) as caught:
        fill(tmp_path / "out", "second")
    assert "Permission denied" in caught.value.what
    assert caught.value.where == str(tmp_path / "out")
    assert contents(tmp_path) == {"out/below/file": "first"}


def test_a_full_disk_is_named_and_an_unreadable_source_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_directory(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "out"):  # type: ignore[unreachable]
        (tmp_path / "source").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "first")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fill(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"below/file": "second"}


def test_a_file_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    below = tmp_path / "file" / "below"
    with pytest.raises(OutputError):
        write_text(below, "x")
    with pytest.raises(OutputError):
        fill(below, "x")
    with pytest.raises(OutputError):
        RunDirectory.create(below, None)
    with pytest.raises(RunExistsError):
        RunDirectory.create(tmp_path, "file")
    assert contents(tmp_path) == {"file": "precious"}


def test_write_text_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    write_text(path, json_text({"ä": 1}))
    assert path.read_bytes() == '{\n  "ä": 1\n}\n'.encode()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


def test_sha256_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
