"""``gkiller compare``: models and files of scores, reports, warnings and refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import write_toy_csv

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")
QUICK = ("--resamples", 10)
FEW = "fewer than 50 positives or negatives: toxicity (4 positives): figures and intervals are rough"


@pytest.fixture
def compare(call: Callable[..., Any]) -> Callable[..., Any]:
    """Run the command with --json; return its object."""

    def run(*arguments: Any) -> Any:
        code, out, err = call("compare", *arguments, "--json", *QUICK)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_csv(tmp_path / "toy.csv", 60)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("flags", [(), ("--with-text",)], ids=["bare", "text"])
def test_what_predict_writes_is_read(
    call: Callable[..., Any],
    compare: Callable[..., Any],
    toy: Path,
    onnx_model: Path,
    form: str,
    flags: tuple[Any, ...],
) -> None:
    for name in ("a", "b"):
        code, _, err = call(
            "predict", "--model", onnx_model, "--threads", 1, "--input", toy, "--output", f"{name}.{form}", *flags
        )
        assert code == 0, err
    found = compare(f"a.{form}", f"b.{form}", "--data", toy)
    label = found["labels"]["toxicity"]
    assert {one["p"] for one in label["differences"].values()} == {1.0}
    assert label["mcnemar"]["p"] == 1.0
    assert found["a"]["kind"] == found["b"]["kind"] == "scores"
    assert found["notes"][0] == f"a.{form}: joined by id"


def test_a_model_against_itself_and_its_own_scores(
    call: Callable[..., Any], compare: Callable[..., Any], toy: Path, saved_once: Path, onnx_model: Path
) -> None:
    same = compare(saved_once, saved_once, "--data", toy)["labels"]["toxicity"]
    assert same["differences"]["f1"]["delta"] == 0.0
    assert same["verdicts"]["f1"]["kind"] == "within"
    assert call("predict", "--model", onnx_model, "--input", toy, "--output", "s.jsonl")[0] == 0
    mixed = compare(saved_once, "s.jsonl", "--data", toy, "--threshold-b", "toxicity=0.4")
    assert (mixed["a"]["kind"], mixed["b"]["kind"]) == ("model", "scores")
    assert mixed["b"]["thresholds"] == {"toxicity": 0.4}
    assert mixed["b"]["threshold_origins"] == {"toxicity": "--threshold-b"}
    assert mixed["a"]["threshold_origins"] == {"toxicity": "stored in the model"}
    other = compare("s.jsonl", saved_once, "--data", toy, "--threshold-a", "0.4")
    delta = mixed["labels"]["toxicity"]["differences"]["ap"]["delta"]
    assert other["labels"]["toxicity"]["differences"]["ap"]["delta"] == -delta
    assert delta != 0


def test_without_data_the_first_model_s_run_gives_them(
    call: Callable[..., Any], compare: Callable[..., Any], place: Path
) -> None:
    found = compare("runs/d1", "runs/file")
    expected = json.loads(call("evaluate", "runs/d1", "--json", *QUICK)[1])
    assert (found["split"], found["rows"]) == ("test", expected["rows"])
    shutil.copytree("runs/d1/model", "copy")
    assert compare("copy", "runs/d1")["rows"] == expected["rows"]
    f1 = found["labels"]["toxicity"]["differences"]["f1"]["a"]
    assert f1 == expected["labels"]["toxicity"]["stored"]["f1"]["value"]


@pytest.mark.parametrize(
    ("split", "said"), [("train", "was trained on these rows"), ("valid", "the thresholds were tuned on these rows")]
)
def test_rows_that_a_side_has_seen_are_warned_of(call: Callable[..., Any], place: Path, split: str, said: str) -> None:
    """By the run's own data, and by fingerprint where the same data are named."""
    for more in ((), ("--data", "prepared")):
        code, out, err = call("compare", "runs/d1", "runs/d1", "--split", split, *more, "--json", *QUICK)
        assert code == 0, err
        warnings = json.loads(out)["warnings"]
        assert [line[:2] for line in warnings if said in line] == ["A:", "B:"]
        assert said in err
    assert compare_warnings(call, "runs/d1", "runs/d1") == [FEW]


def compare_warnings(call: Callable[..., Any], *arguments: Any) -> list[str]:
    code, out, err = call("compare", *arguments, "--json", *QUICK)
    assert code == 0, err
    return json.loads(out)["warnings"]


def test_a_model_of_other_data_is_warned_of(call: Callable[..., Any], place: Path) -> None:
    shutil.copytree(place / "runs" / "d1", place / "runs" / "d2")
    assert compare_warnings(call, "runs/d1", "runs/d2") == [FEW]
    manifest = place / "runs" / "d2" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["data"]["fingerprints"]["train"] = "0" * 64
    manifest.write_text(json.dumps(record))
    warnings = compare_warnings(call, "runs/d1", "runs/d2")
    assert warnings[0].startswith("B: the model was trained on other rows")
    assert warnings[1:] == [FEW]


def test_slices_and_the_report(
    call: Callable[..., Any], compare: Callable[..., Any], saved_once: Path, tmp_path: Path
) -> None:
    lines = write_toy_csv(tmp_path / "toy.csv", 60).read_text().splitlines()
    body = [f"{line},{'web' if i % 3 else 'app'}" for i, line in enumerate(lines[1:])]
    (tmp_path / "toy.csv").write_text("\n".join([lines[0] + ",origin", *body]) + "\n")
    shutil.copy(tmp_path / "toy.csv", tmp_path / "more.csv")
    model = shutil.copytree(saved_once, tmp_path / "model")
    assert call("data", "prepare", "toy.csv", "--label-columns", "toxicity", "--out", "prepared")[0] == 0
    slices = {}
    for source, more in (("toy.csv", ()), ("prepared", ("--slice-data", "more.csv"))):
        labels = ("--label-columns", "toxicity")
        arguments = (model, model, "--data", source, *labels, "--slice", "origin", *more, "--out", "r/report.json")
        found = compare(*arguments)
        slices[source] = {one["value"]: one["n"] for one in found["slices"] if one["column"] == "origin"}
        assert json.loads((tmp_path / "r" / "report.json").read_text()) == found
    assert slices["toy.csv"] == {"web": 40, "app": 20}
    assert sum(slices["prepared"].values()) < 20
    assert call("compare", model, model, "--data", "prepared", "--slice", "origin")[0] == 12
    code, out, err = call(
        "compare", model, model, "--data", "toy.csv", "--label-columns", "toxicity", "--out", "report.txt", *QUICK
    )
    assert code == 0, err
    text = (tmp_path / "report.txt").read_text()
    for words in ("Does A keep within 2 % of B?", "toxicity F1: relative", "Decisions", "Slices"):
        assert words in text
        assert words in out
    assert "report: report.txt" in err


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_figures_never_fold(
    call: Callable[..., Any], toy: Path, saved_once: Path, onnx_model: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    assert call("predict", "--model", onnx_model, "--input", toy, "--output", "s.jsonl")[0] == 0
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = call("compare", saved_once, "s.jsonl", "--data", toy, *QUICK)
    assert code == 0, err
    for figure in ("F1 ", "AP ", "ROC-AUC "):
        (line,) = [line for line in out.splitlines() if line.split()[:1] == ["toxicity"] and f"  {figure}" in line]
        assert len(line.split("   ")) >= 4
    decisions = out[out.index("Decisions") : out.index("Slices")]
    assert "%" in decisions
    assert sum(line.split()[:1] == ["toxicity"] for line in decisions.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a.jsonl", "b.jsonl"), 2, "--data"),
        (("a.jsonl", "none.jsonl", "--data", "toy.csv"), 10, "no such score file"),
        (("a.jsonl", "nowhere", "--data", "toy.csv"), 20, "nowhere"),
        (("a.jsonl", "short.jsonl", "--data", "toy.csv"), 14, "rows of 60 of the data are not in it"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--threshold-a", "high"), 2, "--threshold-a"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--threshold-b", "2"), 52, "--threshold-b"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--slice", "origin"), 12, "origin"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--out", "report"), 2, ".json"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--out", "./toy.csv"), 2, "format"),
        (("a.json", "a.jsonl", "--data", "toy.csv", "--out", "./a.json"), 19, "overwrite"),
        (("a.jsonl", "a.jsonl", "--data", "toy.csv", "--split", "tset"), 2, "split"),
    ],
)
def test_refusals(
    call: Callable[..., Any], toy: Path, tmp_path: Path, arguments: tuple[Any, ...], code: int, said: str
) -> None:
    rows = [{"id": f"row{i}", "flags": [], "scores": {"toxicity": i / 100}} for i in range(60)]
    lines = [json.dumps(row) + "\n" for row in rows]
    for name, kept in (("a.jsonl", lines), ("b.jsonl", lines), ("a.json", lines), ("short.jsonl", lines[:50])):
        (tmp_path / name).write_text("".join(kept))
    found, out, err = call("compare", *arguments, "--json", *QUICK)
    assert found == code, err
    assert said in err
    assert json.loads(out)["remedy"]
