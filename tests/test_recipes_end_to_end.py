"""The recipes from their first step to their last, in little: data, encoder, teacher, model, tables, card."""

import contextlib
import importlib
import io
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from giants import write_encoder
from toy_corpora import GROUPS, write_corpora

from gkiller.cli.main import main
from gkiller.data.augment.operators import swappable, swapped
from gkiller.data.load import load_dataset
from gkiller.model.directory import load_model
from gkiller.scoring.models import load_any, score_texts
from gkiller.training.run import run_settings

RECIPES, BENCHMARKS = (Path(__file__).parents[1] / name for name in ("recipes", "experiments"))
LITTLE = ("--without", "own", "--mixtures", "40", "--threads", "1", "--precision", "fp32")
QUICK = {
    "TRAIN__BATCH_SIZE": "64",
    "MODEL__MAX_LENGTH": "16",
    "EVALUATION__RESAMPLES": "10",
    "DEPLOYMENT__FP32_AP_LOSS": "0.01",  # a network that has seen 200 comments gives many near the same score
    "DEPLOYMENT__INT8_FLIPS": "0.05",  # and is unsure of most
}


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Every public corpus that the recipes read, of toy comments."""
    sizes = {
        "train/jigsaw": 160,
        "train/civil": 60,
        "train/tweets": 40,
        "valid/jigsaw": 120,
        "valid/civil": 60,
        "test/jigsaw": 80,
        "ood/gab": 60,
        "suites/identity_madlibs": 120,
    }
    return write_corpora(tmp_path / "data", sizes)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Import a module of the recipes; the commands that it runs are run in this process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    path, before = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(RECIPES))
    monkeypatch.setattr(importlib.import_module("commands"), "ended", ended_here)
    yield importlib.import_module
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or ".").parent in (RECIPES, BENCHMARKS):
            del sys.modules[name]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def ended_here(line: list[str], stdout: int | None = None) -> tuple[int, bytes]:
    """Run a program of Python in this process; return its status and what it prints."""
    first, *words = line
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(words[1:]) if first == "-m" else run_script(first, words)
    return status, printed.getvalue().encode()


def run_script(path: str, words: list[str]) -> int:
    given, sys.argv = sys.argv, [path, *words]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = given
    return 0


@pytest.fixture
def quick(no_plots: None, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of small networks for every command."""
    for name, value in QUICK.items():
        monkeypatch.setenv(f"GKILLER_{name}", value)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_models_are_made_compared_and_described(
    recipe: Callable[..., Any],
    corpora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = write_encoder(tmp_path / "minilm", "bert", hidden_size=128)
    work, report, card = tmp_path / "work", tmp_path / "ablation.md", tmp_path / "card.md"
    ablation = recipe("ablation")
    arm = next(one for one in ablation.ARMS if one.name == ablation.INT8.than)
    monkeypatch.setattr(ablation, "ARMS", (arm._replace(than=""),))
    where = ("--data", str(corpora), "--work", str(work), "--teacher", f"minilm={encoder}")
    how = ("--seeds", "3", "--epochs", "1", "--transfer-rows", "50", "--report", str(report))
    monkeypatch.setattr(sys, "argv", ["ablation.py", *where, *how, "--", *LITTLE])
    ablation.main()
    printed = capsys.readouterr().out
    rows = [line.split(" | ")[:2] for line in printed.splitlines() if line.startswith("| ")]
    assert rows == [["| more", "than"], [f"| {arm.more}", ""], ["| int8 weights", arm.more]]
    assert printed.strip() in report.read_text("utf-8")

    run = work / "runs" / f"ablation-{arm.name}-3"
    settings = run_settings(run)
    assert settings.distill.transfer_rows == 50
    assert [Path(one).name for one in settings.distill.teachers] == ["teacher-minilm-0-public"]
    assert len(pq.read_table(work / "transfer-40.parquet")) == 40 + 40

    kept = tmp_path / "scores" / "kept.parquet"
    monkeypatch.setattr(sys, "argv", ["keep_scores.py", str(run), "--out", str(kept)])
    recipe("keep_scores").main()
    table, valid = pq.read_table(kept), load_dataset(settings.data, cache=tmp_path).split("valid")
    assert len(set(table["id"].to_pylist())) == len(table) == 160 + 60 + 50 + 120
    teacher = load_model(work / "runs" / "teacher-minilm-0-public")
    expected = score_texts(teacher, valid.texts, 32)
    found = np.stack([table[label].to_numpy() for label in teacher.labels], axis=1)
    assert table["id"].to_pylist()[-120:] == valid.ids
    assert np.abs(found[-120:] - expected).max() < 1e-4
    assert np.abs(found[-120:] - expected[::-1]).max() > 1e-3  # a row's scores are no other's
    assert recipe("keep_scores").kept(run, "teacher-minilm-0-public").equals(table)
    with pytest.raises(SystemExit, match=r"no teacher of .* is called giant: teacher-minilm-0-public"):
        recipe("keep_scores").kept(run, "giant")

    argv = ["card.py", str(run), "--data", str(corpora), "--out", str(card)]
    monkeypatch.setattr(sys, "argv", argv)
    recipe("card").main()
    text = card.read_text("utf-8")
    assert "| gab, another domain | 60 | " in text
    assert all(f"\n| {group} | " in text for group in GROUPS)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_model_is_refined_by_the_mean_of_trainings(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, teacher = tmp_path / "work", tmp_path / "giant.parquet"
    refine, default = recipe("refine"), recipe("default")
    data = default.prepare(corpora, work, own=False)
    monkeypatch.setattr(refine, "prepare", lambda *where, more: data)  # there are 18,000 own comments
    train = pq.read_table(data / "train.parquet")
    scores = pa.array([0.2 + 0.6 * label for label in train["toxicity"].to_pylist()], pa.float32())
    pq.write_table(pa.table({"id": train["id"], "toxicity": scores}), teacher)
    monkeypatch.setattr(default, "OWN", "civil:")
    monkeypatch.setenv("GKILLER_DEPLOYMENT__INT8_SCORE_DIFFERENCE", "0.3")  # of a network this unsure
    encoder = write_encoder(tmp_path / "encoder", "bert", hidden_size=128)
    commands, once = recipe("commands"), ("--epochs", 1, "--no-dendrites", "--threads", 1)
    run = commands.train(work / "runs", "start", "--data", data, "--encoder", encoder, *once)
    commands.gkiller("export", run)
    start = run / "model"
    how = ("--data", corpora, "--work", work, "--model", start, "--teacher", teacher, "--seeds", 4, 5)
    monkeypatch.setattr(sys, "argv", ["refine.py", *map(str, how), "--threads", "1"])
    refine.main()

    parts = [load_model(work / "runs" / f"refined-{seed}") for seed in (4, 5)]
    mean = load_model(work / "refined")
    each = [dict(one.model.named_parameters()) for one in (*parts, mean)]
    for name, found in each[2].items():
        torch.testing.assert_close(found, (each[0][name] + each[1][name]) / 2)
    assert any(not torch.equal(each[0][name], each[1][name]) for name in each[0])
    assert run_settings(work / "runs" / "refined-5").train.seed == 5
    card = (work / "refined" / "model" / "README.md").read_text("utf-8")
    assert "| seed | 4, 5: the mean of the weights of a training with each |" in card
    assert "| learnt from | giant.parquet, own-scores.parquet |" in card
    own = [one for one in train["id"].to_pylist() if one.startswith("civil:")]
    assert pq.read_table(work / "refined" / "own-scores.parquet")["id"].to_pylist() == own
    assert load_any(work / "refined").metadata["exports"]["onnx/model.int8.onnx"]
    refine.main()  # and nothing is made twice

    spelt = work / "spelt"
    monkeypatch.setattr(sys, "argv", ["misspellings.py", str(run), "--out", str(spelt), "--most", "40"])
    recipe("misspellings").main()
    before, after = load_model(run), load_model(spelt)
    words = before.tokenizer.get_vocab()
    added = [piece for piece in after.tokenizer.get_vocab() if piece not in words]
    assert 0 < len(added) <= 40
    for error in added:
        meant = {swapped(error, at) for at in swappable(error)} & words.keys()
        (score,), *others = (score_texts(after, [f"you {word}"]) for word in (error, *sorted(meant)))
        assert any(np.array_equal(score, other[0]) for other in others)
    texts = train["text"].to_pylist()
    np.testing.assert_allclose(score_texts(after, texts), score_texts(before, texts), atol=1e-6)
    assert f"| parameters | {after.parameters:,} |" in (spelt / "model" / "README.md").read_text("utf-8")
    assert load_any(spelt).metadata["exports"]["onnx/model.int8.onnx"]

    def reached(folder: Any, name: Any, *flags: Any) -> None:
        raise InterruptedError(" ".join(map(str, (name, *flags))))

    monkeypatch.setattr(refine, "train", reached)
    more = ("--transfer-rows", "30", "--mixtures", "20", "--name", "more", "--remember", "labels")
    monkeypatch.setattr(sys, "argv", ["refine.py", *map(str, (*how, *more))])
    with pytest.raises(InterruptedError, match=r"transfer-20\.parquet --set distill\.transfer_rows=30"):
        refine.main()
    assert len(pq.read_table(work / "transfer-20.parquet")) == 40 + 20
    for name, remember in (("other", work / "refined"), ("told", "labels")):
        again = ("--remember", remember, "--name", name)
        monkeypatch.setattr(sys, "argv", ["refine.py", *map(str, (*how, *again))])
        with pytest.raises(InterruptedError, match=f"{name}-4"):
            refine.main()
    scores = [pq.read_table(work / name / "own-scores.parquet") for name in ("refined", "other", "told")]
    assert scores[0]["id"] == scores[1]["id"] == scores[2]["id"]
    assert scores[0]["toxicity"] != scores[1]["toxicity"]
    labels = [row["toxicity"] for row in train.to_pylist() if row["id"].startswith("civil:")]
    assert scores[2]["toxicity"].to_pylist() == [default.SURE[label] for label in labels]
    known = [row["threat"] is not None for row in train.to_pylist() if row["id"].startswith("civil:")]
    assert scores[2]["threat"].is_valid().to_pylist() == known


@pytest.mark.usefixtures("quick")
def test_the_labels_of_other_corpora_are_compared(
    recipe: Callable[..., Any],
    corpora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ("--data", str(corpora), "--work", str(tmp_path / "work"), "--seeds", "0", "--threads", "1")
    monkeypatch.setattr(sys, "argv", ["sources.py", *where])
    recipe("sources").main()
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[:2] for line in lines[1:]] == [
        ["| jigsaw + civil", "220"],
        ["| the same + tweets", "260"],
        ["| all", "260"],
    ]
    figures = [line[2:] for line in lines[1:]]
    assert not any("(" in cell for cell in figures[0])
    assert all("(" in cell for cell in figures[1])
    assert figures[1] == figures[2]  # the same rows and seed
    monkeypatch.setattr(sys, "argv", ["sources.py", *where, "--corpora", "tweets"])
    recipe("sources").main()
    again = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert again == lines[:3]
