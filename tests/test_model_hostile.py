"""Model directories that somebody made to do harm: what they list, and what gkiller.json says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from forging import FILES, describe, forge, refused, replace
from saved_models import LABELS

from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError
from gkiller.model.directory import load_model, rewrite_model
from gkiller.storage import sealed

# -- the place of files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret", "leads out"),
        ("a/../../secret", "leads out"),
        ("/etc/passwd", "leads out"),
        ("..\\secret", "leads out"),
        ("C:/secret", "leads out"),
        ("README.md:stream", "leads out"),
        ("a//b", "leads out"),
        ("", "leads out"),
        ("./secret", "not a plain file name"),
        ("se\0cret", "not a plain file name"),
        ("secret\n", "not a plain file name"),
        (".ssh", "not a plain file name"),
        ("secret.", "not a plain file name"),
        ("ſecret", "not a plain file name"),
        ("x" * 300, "not a plain file name"),
        ("NUL", "a device"),
        ("a/com1.txt", "a device"),
        ("gkiller.json", "the list itself"),
    ],
)
def test_a_listed_name_that_is_none(saved: Path, name: str, said: str) -> None:
    (saved.parent / "secret").write_text("s")
    describe(saved, lambda content: content["files"].update({name: "0" * 64}))
    refused(saved, said)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_out(saved: Path, tmp_path: Path, name: str) -> None:
    (saved / name).rename(tmp_path / "elsewhere")
    (saved / name).symlink_to(tmp_path / "elsewhere")
    refused(saved, "a link, and it leads out of the directory")


def test_a_link_inside_the_directory(saved: Path) -> None:
    (saved / "config.json").rename(saved / "other.json")
    (saved / "config.json").symlink_to("other.json")
    refused(saved, "a link")


def test_a_folder_that_is_a_link_out(saved: Path, tmp_path: Path) -> None:
    (saved / "onnx").mkdir()
    (saved / "onnx" / "model.onnx").write_bytes(b"graph")
    forge(saved)
    load_model(saved)
    (saved / "onnx").rename(tmp_path / "elsewhere")
    (saved / "onnx").symlink_to(tmp_path / "elsewhere")
    refused(saved, "a link, and it leads out of the directory")


def test_a_description_that_is_a_link(saved: Path, tmp_path: Path) -> None:
    (saved / "gkiller.json").rename(tmp_path / "elsewhere")
    (saved / "gkiller.json").symlink_to(tmp_path / "elsewhere")
    refused(saved, "a link")


def test_a_link_to_itself(saved: Path) -> None:
    (saved / "config.json").unlink()
    (saved / "config.json").symlink_to("config.json")
    refused(saved, "a link")


def test_a_model_behind_a_link_is_read(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(saved)
    assert load_model(tmp_path / "latest").labels == LABELS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)
    refused(saved, "not a regular file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_that_was_put_there_after_the_check_is_not_waited_for(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "_check_way", lambda *_: None)
    (saved / "config.json").unlink()
    os.mkfifo(saved / "config.json")
    refused(saved, "not a regular file")


def test_a_link_that_was_put_there_after_the_check_is_not_followed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "O_NOFOLLOW"):
        pytest.skip("the system cannot tell")
    monkeypatch.setattr(sealed, "_check_way", lambda *_: None)
    (saved / "config.json").rename(tmp_path / "elsewhere")
    (saved / "config.json").symlink_to(tmp_path / "elsewhere")
    refused(saved, "cannot be read")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    (saved / name).mkdir()
    refused(saved, "not a regular file")


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name/model", "x" * 5000])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ModelNotFoundError):
        load_model(path)


def test_files_that_are_not_listed_are_not_read(saved: Path) -> None:
    (saved / "modeling_evil.py").write_text("raise SystemExit\n")
    (saved / "pytorch_model.bin").write_bytes(b"no pickle")
    (saved / "adapter_config.json").write_text("{")
    load_model(saved)


def test_a_file_that_changes_between_two_readings(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(saved)
    (saved / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelTamperedError, match="SHA-256"):
        rewrite_model(saved, loaded, thresholds={label: {"value": 0.5} for label in LABELS}, card="#")
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


# -- the description ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", [1], None, 10**250], ids=lambda v: str(v)[:9])
def test_an_unknown_version(saved: Path, version: Any) -> None:
    describe(saved, lambda content: content.update(format_version=version))
    refused(saved, "is unknown")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("digest", ["0" * 64, "", "x" * 64, "A" * 64, None, 5, ["0" * 64]])
def test_a_wrong_digest_of_each_file(saved: Path, name: str, digest: Any) -> None:
    describe(saved, lambda content: content["files"].update({name: digest}))
    tampered = digest == "0" * 64
    refused(saved, "SHA-256", ModelTamperedError if tampered else ModelFormatError)


@pytest.mark.parametrize("digest", ["0" * 64, "", None, 5, []])
def test_a_wrong_digest_of_the_description(saved: Path, digest: Any) -> None:
    content = json.loads((saved / "gkiller.json").read_text())
    (saved / "gkiller.json").write_text(json.dumps(content | {"digest": digest}))
    refused(saved, "changed after it was written", ModelTamperedError)


@pytest.mark.parametrize("name", ["gkiller.json", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a":' * 50_000, "nested deeper"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper than 32"),
        (b"[" * 50_000, "nested deeper"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": [-Infinity]}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "too large a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5,000 digits"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'{"a": "\xff"}', "can't decode byte"),
        (b'\xef\xbb\xbf{"a": 1}', ""),
        (b'{"a": 1} {"a": 1}', "Extra data"),
        (b"[1]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"\0" * 1000, ""),
        (b"", ""),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_json_that_is_hostile(saved: Path, name: str, data: bytes, said: str) -> None:
    (saved / name).write_bytes(data)
    if name != "gkiller.json":
        forge(saved)
    refused(saved, said)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gkiller.json", 16 * 2**20),
        ("config.json", 2**20),
        ("tokenizer.json", 32 * 2**20),
        ("README.md", 4 * 2**20),
        ("model.safetensors", 4 * 2**30),
    ],
)
def test_an_oversized_file_is_not_read(saved: Path, name: str, size: int) -> None:
    with (saved / name).open("r+b") as stream:
        stream.truncate(size + 1)  # a hole: nothing is written
    refused(saved, f"{size:,} bytes that are allowed")


def test_too_many_files(saved: Path) -> None:
    describe(saved, lambda content: content["files"].update({f"f{i}": "0" * 64 for i in range(1000)}))
    refused(saved, "1004 files")


@pytest.mark.parametrize("listed", [None, [], "README.md", 4])
def test_a_list_of_files_that_is_none(saved: Path, listed: Any) -> None:
    describe(saved, lambda content: content.update(files=listed))
    refused(saved, "no list of files")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": []}, "labels"),
        ({"labels": "toxicity"}, "labels"),
        ({"labels": {"toxicity": 1}}, "labels"),
        ({"labels": ["toxicity", "toxicity"]}, "twice"),
        ({"labels": ["toxicity", ""]}, "'' is not a label"),
        ({"labels": ["toxicity", 3]}, "'3' is not a label"),
        ({"labels": ["toxicity", "a\x1b[2J"]}, "not a label's name"),
        ({"labels": ["toxicity", "a\nb"]}, "not a label's name"),
        ({"labels": ["toxicity", "\u202etaerht"]}, "not a label's name"),
        ({"labels": ["toxicity", "x" * 201]}, "not a label's name"),
        ({"labels": [f"l{i}" for i in range(1001)]}, "labels"),
        ({"labels": ["threat", "toxicity"]}, "labels"),
        ({"thresholds": []}, "thresholds"),
        ({"thresholds": {"toxicity": {"value": 0.5}}}, "thresholds"),
        ({"max_length": True}, "max_length True"),
        ({"max_length": 8.0}, "max_length 8.0"),
        ({"max_length": "8"}, "max_length 8"),
        ({"max_length": 1}, "max_length 1"),
        ({"max_length": 17}, "max_length 17"),
        ({"max_length": 10**30}, "max_length 1000"),
        ({"training": "x"}, "training"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_metadata_of_the_wrong_kind(saved: Path, changes: Any, said: str) -> None:
    forge(saved, **changes)
    refused(saved, said)


@pytest.mark.parametrize(
    "changes", [{"source": "a\nb"}, {"split": 1}, {"rows": True}, {"fingerprints": [1]}, {"fingerprints": "x"}], ids=str
)
def test_what_a_threshold_was_tuned_on_is_plain(saved: Path, changes: Any) -> None:
    record = {"source": "x.csv", "split": "all", "rows": 8, "fingerprints": ["0" * 64]}
    entry = {"value": 0.5, "tuned_on": record}
    forge(saved, thresholds={"toxicity": entry, "threat": {"value": 0.5}})
    assert load_model(saved).metadata["thresholds"]["toxicity"] == entry
    forge(saved, thresholds={"toxicity": {**entry, "tuned_on": record | changes}, "threat": {"value": 0.5}})
    refused(saved, "tuned on")
    forge(saved, thresholds={"toxicity": {**entry, "tuned_on": None}, "threat": {"value": 0.5}})
    refused(saved, "tuned on")


@pytest.mark.parametrize("value", [True, "0.5", None, [0.5], {}, -0.1, 1.1, 10**250, -1e300], ids=lambda v: str(v)[:9])
def test_a_threshold_that_is_none(saved: Path, value: Any) -> None:
    forge(saved, thresholds={"toxicity": {"value": 0.5}, "threat": {"value": value}})
    refused(saved, "the threshold")


def test_what_a_terminal_could_take_for_a_command_is_not_repeated(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    content["gkiller"]["dendrites"] = {"\x1b]0;evil\x07": "\x1b[2J"}
    replace(saved, "config.json", content)
    with pytest.raises(ModelFormatError) as caught:
        load_model(saved)
    assert str(caught.value).isprintable()
    assert "evil" in caught.value.what


def test_a_card_that_is_no_text(saved: Path) -> None:
    replace(saved, "README.md", b"# \xff")
    refused(saved, "can't decode")
