from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import many, write_csv


def test_prepare_prints_a_table_and_its_decisions(call: Callable[..., Any], tmp_path: Path) -> None:
    rows = [(f"t {i}", i % 2, int(i % 3 == 0)) for i in range(60)]
    write_csv(tmp_path / "a.csv", [*rows, ("T  0", 1, 1)], header=("comment_text", "toxic", "threat"))
    code, out, err = call("data", "prepare", "a.csv", "--label-columns", "toxic,threat", "--out", "prepared")
    assert code == 0, err
    assert "toxicity" in out
    assert "column 'toxic' is the label 'toxicity'" in err
    assert "'comment_text' is taken as the comment column" in err
    assert "1 duplicate but for case and white space" in err
    assert "1 dropped duplicate had other labels" in err


def test_prepare_json_is_the_manifest(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", many(40))
    write_csv(tmp_path / "v.csv", [("v", 1), ("w", 0)])
    code, out, _ = call("data", "prepare", "a.csv", "--valid", "v.csv", "--out", "p", "--split-seed", 3, "--json")
    assert code == 0
    printed = json.loads(out)
    assert printed.pop("directory") == "p"
    assert printed == json.loads((tmp_path / "p" / "manifest.json").read_text(encoding="utf-8"))
    assert printed["splits"]["valid"]["origin"] == "given"
    assert printed["settings"]["split_seed"] == 3


def test_force(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", many(40))
    assert call("data", "prepare", "a.csv", "--out", "p")[0] == 0
    code, out, err = call("data", "prepare", "a.csv", "--out", "p")
    assert (code, out) == (19, "")
    assert "--force" in err
    assert call("data", "prepare", "a.csv", "--out", "p", "--force")[0] == 0


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        (b"", (), 11, "the file is empty"),
        (b"text,label\na,1\nb,0\n", ("--text-column", "txt"), 12, "'text'"),
        (b"text,label\na\xff,1\n", (), 13, "row 1"),
        (b"text,label\n,1\n", (), 14, "row 1"),
        (b"text,label\na,3\n", (), 15, "'3'"),
        (b"text,label\na,hate\nb,normal\n", (), 15, "--positive-values"),
        (b"text,label\na,hate\nb,normal\n", ("--positive-values", "haet"), 16, "--positive-values"),
        (
            b"text,label\n" + b"".join(b"a%d,b%d\n" % (i, i) for i in range(200)),
            ("--positive-values", "b1"),
            15,
            "class name too many",
        ),
        (b"text,label\na,1\nb,1\n", (), 16, "one class"),
        (b"\x1f\x8b\x08", (), 17, "gzip"),
    ],
)
def test_errors_have_their_exit_codes(
    call: Callable[..., Any], tmp_path: Path, content: bytes, arguments: tuple[Any, ...], code: int, said: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    found, out, err = call("data", "prepare", "a.csv", "--out", "p", *arguments)
    assert found == code
    assert not out
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


def test_missing_file(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "comments.csv", many(4))
    code, _, err = call("data", "prepare", "coments.csv", "--out", "p")
    assert code == 10
    assert "comments.csv" in err


def test_missing_name_lists_what_is_known_in_sentences(call: Callable[..., Any]) -> None:
    code, _, err = call("data", "prepare", "zzzz", "--out", "p")
    assert code == 10
    assert "civil_comments" in err
    assert ". A hub data set is named org/name" in err
    assert "? A hub data set is named org/name" in call("data", "prepare", "civil_coments", "--out", "p")[2]


def test_inspect(call: Callable[..., Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [*many(40), ("", 1)])
    code, out, err = call("data", "inspect", "a.csv", "--plot", "a.png")
    assert code == 0, err
    assert "Labels of a.csv" in out
    assert "1 bad row (missing_text); 'prepare' refuses it unless" in err
    assert (tmp_path / "a.png").stat().st_size > 10_000
    code, out, _ = call("data", "inspect", "a.csv", "--json", "--max-length", 64)
    result = json.loads(out)
    assert (code, result["max_length"], result["splits"]["train"]["rows"]) == (0, 64, 40)


@pytest.mark.parametrize(("name", "head"), [("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("b.pdf", b"%PDF")])
def test_plot_is_what_its_suffix_says(call: Callable[..., Any], tmp_path: Path, name: str, head: bytes) -> None:
    write_csv(tmp_path / "a.csv", many(40))
    written = []
    for _ in range(2):
        assert call("data", "inspect", "a.csv", "--plot", name)[0] == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0].startswith(head)
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("x.txt", 2, "name it x.png, x.svg or x.pdf"),
        ("plot", 2, "no suffix"),
        (".", 2, "no suffix"),
        ("new/x.png", 19, "there is no folder 'new'"),
    ],
)
def test_plot_of_another_kind_or_nowhere_is_refused_at_once(
    call: Callable[..., Any], tmp_path: Path, name: str, code: int, said: str
) -> None:
    write_csv(tmp_path / "a.csv", many(40))
    found, out, err = call("data", "inspect", "a.csv", "--plot", name)
    assert (found, out) == (code, "")
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_list(call: Callable[..., Any]) -> None:
    code, out, _ = call("data", "list")
    assert code == 0
    assert "civil_comments" in out
    code, out, _ = call("data", "list", "--json")
    names = [source["name"] for source in json.loads(out)["sources"]]
    assert names[:3] == ["sample", "civil_comments", "jigsaw"]
