"""What measures a model reads comments as users have them read: the same windows, the same thresholds."""

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score
from tokenizers import Tokenizer, processors
from toy import FRIENDLY, RUDE, toy_tokenizer

from gkiller import load
from gkiller.model.directory import load_model, rewrite_model
from gkiller.model.layout import default_model
from gkiller.scoring.models import score_texts
from gkiller.tokens.batches import Reader, window_starts

SCRIPT = Path(__file__).parents[1] / "experiments" / "user_figures.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("user_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def long_rows(count: int, words: int, rude: Any = RUDE, seed: int = 0) -> Iterator[tuple[str, int]]:
    """Comments of two and more windows, every third toxic at its end alone; every fifth is short."""
    draw = random.Random(seed)
    for number in range(count):
        text = " ".join(draw.choice(FRIENDLY) for _ in range(1 if number % 5 == 0 else words))
        toxic = number % 3 == 0
        yield f"{text} {number} {draw.choice(rude)}" if toxic else f"{text} {number}", int(toxic)


def write(path: Path, rows: list[tuple[str, int]]) -> Path:
    texts, labels = zip(*rows, strict=True)
    weights = [0.5 if number % 4 else 3.0 for number in range(len(texts))]
    pq.write_table(pa.table({"text": texts, "label": labels, "weight": weights}), path)
    return path


@pytest.fixture
def default_rows(tmp_path: Path) -> Path:
    if default_model() is None:
        pytest.skip("this build has no default model")
    mild = ("you are a stupid idiot. shut up, you fool. " * 3, "what a stupid, worthless liar, you moron! " * 3)
    return write(tmp_path / "long.parquet", list(long_rows(45, 25, mild)))


# -- the figures that a user gets ---------------------------------------------------------------


@pytest.mark.slow
def test_evaluate_prints_the_default_models_figures_as_predict_and_scikit_learn_give_them(
    script: ModuleType, default_rows: Path
) -> None:
    ways = script.evaluated("default", default_rows), script.predicted("default", default_rows)
    assert script.same(*ways), ways
    assert ways[0]["recall"] > 0.5  # though what is toxic stands at the end, beyond the first window


@pytest.mark.slow
def test_evaluate_prints_a_trained_models_figures_as_predict_and_scikit_learn_give_them(
    script: ModuleType, place: Path, call: Callable[..., Any]
) -> None:
    path = write(place / "long.parquet", list(long_rows(60, 6)))
    assert call("export", "runs/d1")[0] == 0
    ways = script.evaluated("runs/d1", path), script.predicted("runs/d1", path)
    assert script.same(*ways), ways


def test_the_script_tells_a_difference(script: ModuleType) -> None:
    one = {"n": 10, **dict.fromkeys(script.FIGURES, 0.5)}
    assert script.same(one, {**one, "f1": 0.50004})
    assert not script.same(one, {**one, "f1": 0.5001})
    assert not script.same(one, {**one, "n": 9})


def test_a_tuned_threshold_flags_what_it_was_tuned_to_flag(
    call: Callable[..., Any], default_rows: Path, tmp_path: Path
) -> None:
    columns = ("--label-columns", "label")
    code, out, err = call("threshold", "default", "--data", default_rows, *columns, "--out", "mine", "--json")
    assert code == 0, err
    tuned = json.loads(out)["thresholds"]["toxicity"]
    assert tuned["tuned_on"]["long_text"] == json.loads(out)["long_text"] == "window"
    clf, table = load("mine"), pq.read_table(default_rows)
    flags = [answer.flags["toxicity"] for answer in clf.predict(table["text"].to_pylist())]
    assert tuned["f1"] == pytest.approx(f1_score(table["label"].to_pylist(), flags), abs=5e-5)
    assert "long comments read in windows" in (tmp_path / "mine" / "README.md").read_text("utf-8")


# -- --long-text chooses, and is recorded -------------------------------------------------------


@pytest.mark.parametrize("how", ["window", "truncate"])
def test_the_reading_is_chosen_and_recorded_with_every_figure(
    place: Path, call: Callable[..., Any], how: str, no_plots: None
) -> None:
    path = write(place / "long.parquet", list(long_rows(60, 6)))
    assert call("export", "runs/d1")[0] == 0
    rest = ("--data", path, "--label-columns", "label", "--long-text", how, "--json")
    few = ("--resamples", 10)
    code, out, err = call("evaluate", "runs/d1", *rest, *few, "--out", "report")
    assert code == 0, err
    found = json.loads(out)
    assert (found["long_text"], found["max_length"]) == (how, load_model("runs/d1").max_length)
    assert json.loads(Path("report/evaluation-all.json").read_text())["long_text"] == how
    told = {"window": "read in windows of", "truncate": "read up to"}[how]
    assert told in Path("report/evaluation-all.txt").read_text()
    scores = load("runs/d1").predict_proba(pq.read_table(path)["text"].to_pylist(), long_text=how)  # type: ignore[arg-type]
    truth = np.array(pq.read_table(path)["label"])
    flags = scores[:, 0] >= load_model("runs/d1").thresholds["toxicity"]
    f1 = found["labels"]["toxicity"]["stored"]["f1"]["value"]
    assert f1 == pytest.approx(f1_score(truth, flags, zero_division=0), abs=5e-5)
    code, out, err = call("compare", "runs/d1", "runs/file", *rest, *few)
    assert code == 0, err
    assert {side["long_text"] for side in (json.loads(out)["a"], json.loads(out)["b"])} == {how}
    code, out, err = call("suite", "robustness", "runs/d1", *rest, *few, "--kinds", "casing")
    assert code == 0, err
    assert json.loads(out)["models"][0]["long_text"] == how
    code, out, err = call("threshold", "runs/d1", *rest)
    assert code == 0, err
    assert json.loads(out)["thresholds"]["toxicity"]["tuned_on"]["long_text"] == how


@pytest.mark.parametrize(
    ("stated", "warned"), [("truncate", True), ("window", False), (None, False), ("sideways", False)]
)
def test_scores_of_another_reading_are_not_mixed_without_a_word(
    place: Path, call: Callable[..., Any], stated: str | None, warned: bool
) -> None:
    path = write(place / "long.parquet", list(long_rows(60, 6)))
    draw = random.Random(1)
    kept = {"toxicity": [draw.random() for _ in range(60)]}
    table = pa.table(kept if stated is None else {**kept, "long_text": [stated] * 60})
    pq.write_table(table, place / "kept.parquet")
    rest = ("--data", path, "--label-columns", "label", "--resamples", 10, "--threshold-b", 0.5, "--json")
    code, out, err = call("compare", "runs/d1", "kept.parquet", *rest)
    assert code == 0, err
    told = [line for line in json.loads(out)["warnings"] if "--long-text" in line]
    assert bool(told) is warned
    assert json.loads(out)["b"]["long_text"] == (stated if stated != "sideways" else None)


def test_kept_scores_of_the_giant_say_that_they_are_of_truncated_comments() -> None:
    files = sorted((SCRIPT.parent / "scores" / "mpnet").glob("*.parquet"))
    assert len(files) == 7
    assert {value for file in files for value in pq.read_table(file)["long_text"].unique().to_pylist()} == {"truncate"}


def test_a_training_tunes_its_thresholds_and_figures_in_windows(place: Path) -> None:
    for run in ("d1", "file"):
        model = load_model(f"runs/{run}")
        entry = model.metadata["thresholds"]["toxicity"]["tuned_on"]
        assert (entry["split"], entry["long_text"]) == ("valid", "window")
        report = json.loads(Path(f"runs/{run}/validation.json").read_text())
        assert (report["long_text"], report["max_length"]) == ("window", model.max_length)


def test_a_model_without_a_recorded_reading_is_still_read(saved: Path) -> None:
    loaded = load_model(saved)
    record = {"source": "x.csv", "split": "valid", "rows": 3, "fingerprints": []}
    entries = {label: {"value": 0.5, "target": "max f1", "tuned_on": record} for label in loaded.labels}
    rewrite_model(saved, loaded, thresholds=entries, card="# Card\n")
    assert load_model(saved).metadata["thresholds"] == entries


# -- one implementation of windows --------------------------------------------------------------


def test_torch_reads_what_load_reads(place: Path, call: Callable[..., Any]) -> None:
    assert call("export", "runs/d1")[0] == 0
    texts = [text for text, _ in long_rows(40, 9)] + ["", "a " * 3000, "\udcff x"]
    loaded, clf = load_model("runs/d1"), load("runs/d1", precision="fp32")
    for how in ("window", "truncate"):
        expected = clf.predict_proba(texts, long_text=how)
        np.testing.assert_allclose(score_texts(loaded, texts, 7, long_text=how), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "after"), [(["[CLS]"], ["[SEP]"]), ([], ["[SEP]"]), ([], []), (["[CLS]", "[MASK]"], [])]
)
def test_windows_have_the_special_tokens_of_any_tokenizer(before: list[Any], after: list[Any]) -> None:
    tokenizer = toy_tokenizer()
    ids = tokenizer.get_vocab()
    template = " ".join([*before, "$A", *after])
    special = [(one, ids[one]) for one in {*before, *after}]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    reader = Reader(tokenizer, 10)
    texts = ["thank you", "a " * 37, ""]
    read = reader.read(texts)
    size = 10 - len(before) - len(after)
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    windows = [own[start : start + size] for own in plain for start in window_starts(len(own), size)]
    assert read.count.tolist() == [len(window_starts(len(own), size)) for own in plain]
    assert len(read.tokens) == len(windows)
    for row, inner in enumerate(windows):
        own = read.tokens.ids[slice(*read.tokens.starts[row : row + 2])].tolist()
        assert own == [*(ids[one] for one in before), *inner, *(ids[one] for one in after)]
    values = np.arange(len(read.tokens), dtype=float)[:, None]
    assert read.highest(values)[:, 0].tolist() == (np.cumsum(read.count) - 1).tolist()
    assert Tokenizer.from_str(tokenizer.to_str()).truncation is None


def test_progress_counts_comments_whatever_their_windows() -> None:
    told = []
    reader = Reader(toy_tokenizer(), 8)
    texts = ["a " * 50, "thank you", "b " * 20]

    def network(ids: Any, mask: Any) -> Any:
        return mask.sum(1, keepdims=True).astype(float)

    reader.scores(texts, network, 1, 2, lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told[-1] == (3, 3)
    assert told == sorted(told)
