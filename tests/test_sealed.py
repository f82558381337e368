"""Sealed directories: what is sealed is found again, and nothing else is taken for it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gkiller.storage import sealed
from gkiller.storage.sealed import SealBrokenError, digest_of, seal, unseal

KEEP = {"a.txt": 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path | int | str:
    place = tmp_path / "place"
    (place / "deep").mkdir(parents=True)
    (place / "a.txt").write_bytes(b"aaa")
    (place / "deep" / "b.bin").write_bytes(b"bbb" * 1000)
    seal(place, "seal.json", {"format_version": 7, "note": "ünïcode"})
    return place


def broken(folder: Path, kind: str, file: str, said: str = "", keep: dict[str, Any] = KEEP, **options: Any) -> None:
    with pytest.raises(SealBrokenError) as caught:
        unseal(folder, "seal.json", version=7, keep=keep, **options)
    assert caught.value.kind == kind
    assert caught.value.file == folder / file
    assert said in caught.value.what


def test_there_and_back(folder: Path) -> None:
    found = unseal(folder, "seal.json", version=7, keep=KEEP, exact=True)
    assert found.content == {"format_version": 7, "note": "ünïcode"}
    assert list(found.files) == ["a.txt", "deep/b.bin"]
    assert found.kept == {"a.txt": b"aaa"}
    written = json.loads((folder / "seal.json").read_text("utf-8"))
    assert written["digest"] == digest_of(written)


def test_sealing_again_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / "seal.json").read_bytes()
    seal(folder, "seal.json", {"format_version": 7, "note": "ünïcode"})
    assert (folder / "seal.json").read_bytes() == before


@pytest.mark.parametrize("name", ["with space", ".hidden", "nul", "a:b", "b."])
def test_a_name_that_would_not_be_read_back_is_not_sealed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"plain file name|a device|leads out"):
        seal(tmp_path, "seal.json", {})


@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin", "seal.json"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    broken(folder, "missing", name)


@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin"])
@pytest.mark.parametrize("data", [b"", b"aab", b"aaa\n", b"bbb"])
def test_a_changed_file(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    broken(folder, "tampered", name, "SHA-256")


def test_a_changed_list(folder: Path) -> None:
    content = json.loads((folder / "seal.json").read_text())
    (folder / "seal.json").write_text(json.dumps(content | {"note": "other"}))
    broken(folder, "tampered", "seal.json", "changed after it was written")


def test_another_version_is_told_before_anything_else(folder: Path) -> None:
    (folder / "seal.json").write_text('{"format_version": 8, "digest": 5}')
    broken(folder, "version", "seal.json", "format 8 is unknown")


def test_a_file_that_is_wanted_and_not_listed(folder: Path) -> None:
    (folder / "c").write_text("c")
    broken(folder, "format", "seal.json", "lacks c, d", keep={"a.txt": 9, "d": 9, "c": 9})


def test_a_file_that_is_not_listed(folder: Path) -> None:
    (folder / "deep" / "c").write_text("c")
    unseal(folder, "seal.json", version=7, keep=KEEP)
    broken(folder, "format", "deep/c", "not listed", exact=True)


def test_a_file_that_is_too_large(folder: Path) -> None:
    broken(folder, "format", "a.txt", "more than the 2 bytes", keep={"a.txt": 2})
    unseal(folder, "seal.json", version=7, keep={"a.txt": 3})


def test_files_that_are_too_large_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "MAX_TOTAL_BYTES", 3002)
    broken(folder, "format", "deep/b.bin", "more than the 2,999 bytes")


def test_a_file_that_grows_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_CHUNK", 2)
    real = os.fstat

    def small(handle: Any) -> Any:
        found = list(real(handle))
        found[6] = 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", small)
    with pytest.raises(SealBrokenError, match="more than the 2 bytes"):
        list(sealed._chunks(folder, "a.txt", 2))


def test_a_copy_is_of_what_was_sealed(folder: Path, tmp_path: Path) -> None:
    found = unseal(folder, "seal.json", version=7, keep={})
    found.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "b.bin").read_bytes() == b"bbb" * 1000
    assert not (tmp_path / "copy" / "seal.json").exists()
    (folder / "a.txt").write_bytes(b"aab")
    with pytest.raises(SealBrokenError, match="SHA-256"):
        found.copy_to(tmp_path / "other")


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, flags: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    broken(folder, "format", "seal.json", "it cannot be read: Permission denied")


def test_no_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    broken(tmp_path / "none", "missing", "seal.json")
    (tmp_path / "file").write_text("x")
    broken(tmp_path / "file", "missing", "seal.json")


def test_every_file_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = os.open

    def note(path: Any, *rest: Any) -> Any:
        opened.append(Path(path).name)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", note)
    unseal(folder, "seal.json", version=7, keep=KEEP)
    assert sorted(opened) == ["a.txt", "b.bin", "seal.json"]


def test_what_is_not_kept_can_be_left_unread(folder: Path) -> None:
    (folder / "deep" / "b.bin").unlink()
    assert unseal(folder, "seal.json", version=7, keep={"a.txt": 100}, check="kept").kept.keys() == {"a.txt"}
    (folder / "a.txt").write_bytes(b"else")
    broken(folder, "tampered", "a.txt", "SHA-256", check="kept")
    found = unseal(folder, "seal.json", version=7, keep={"a.txt": 100}, check="none")
    assert found.kept == {"a.txt": b"else"}


def test_the_seal_itself_is_always_compared_unless_nothing_is(folder: Path) -> None:
    path = folder / "seal.json"
    path.write_text(path.read_text().replace('"format_version": 7', '"format_version": 7, "more": 1'))
    broken(folder, "tampered", "seal.json", "was changed", keep={}, check="kept")
    assert unseal(folder, "seal.json", version=7, keep={}, check="none").content["more"] == 1


def test_a_part_can_be_copied(folder: Path, tmp_path: Path) -> None:
    found = unseal(folder, "seal.json", version=7, keep={})
    found.copy_to(tmp_path / "part", lambda name: name == "a.txt")
    assert [path.name for path in (tmp_path / "part").rglob("*")] == ["a.txt"]
