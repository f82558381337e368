"""The recipes' own steps: corpora with six labels, and commands that are not run twice."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy import comment

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    """Import a module of the recipes."""
    monkeypatch.syspath_prepend(str(RECIPES))
    yield importlib.import_module
    for name in ("commands", "corpora", "default", "identity"):
        sys.modules.pop(name, None)


@pytest.fixture
def corpora(tmp_path):
    """Public corpora, in little."""
    sizes = {"train/jigsaw": 40, "train/civil": 30, "valid/jigsaw": 20, "test/jigsaw": 20, "train/tweets": 10}
    start = 0
    for name, size in sizes.items():
        numbers = range(start, start + size)
        rude = [number % 3 == 0 for number in numbers]
        columns = {
            "text": [comment(number, rude=one) for number, one in zip(numbers, rude, strict=True)],
            "label": [int(one) for one in rude],
        }
        if name.endswith("jigsaw"):
            six = ("severe_toxic", "obscene", "threat", "insult", "identity_hate")
            columns |= {label: [None if n % 2 else int(n % 6 == 0) for n in numbers] for label in six}
        if name == "test/jigsaw":
            columns["weight"] = [0.5 + number % 2 for number in numbers]
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        start += size
    return tmp_path / "data"


@pytest.mark.parametrize("with_own", [False, True])
def test_corpora_become_six_labels_with_unknown_ones(recipe, corpora, tmp_path, monkeypatch, with_own):
    module, out = recipe("corpora"), tmp_path / "work" / "prepared"
    flags = ["--with-own"] if with_own else []
    monkeypatch.setattr(sys, "argv", ["corpora.py", "--data", str(corpora), "--out", str(out), *flags])
    module.main()
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(module.LABELS) == manifest["labels"]
    train = pq.read_table(out / "train.parquet")
    own = len(pq.read_table(out.parent / "six" / "own.parquet")) if with_own else 0
    assert own > 9000 or not with_own
    assert 70 + own * 0.99 <= len(train) <= 70 + own  # some of gkiller's own say the same
    known = train["threat"].is_valid().to_pylist()
    assert sum(known) == len(train) - 50  # every second comment of jigsaw, none of civil
    assert len(pq.read_table(out / "valid.parquet")) == len(pq.read_table(out / "test.parquet")) == 20
    weights = pq.read_table(out / "test.parquet")["weight"].to_pylist()
    assert set(weights) == {0.5, 1.5}


def test_comments_about_groups_name_each_alike_and_not_the_acid_test(recipe):
    module = recipe("identity")
    labels = ("toxicity", "insult", "identity_attack", "threat")
    table = module.identity_comments(labels)
    assert table.equals(module.identity_comments(labels))
    assert not table.equals(module.identity_comments(labels, seed=1))
    texts = [text.lower() for text in table["text"].to_pylist()]
    assert len(set(table["text"].to_pylist())) == len(texts)
    assert not any("proud gay man" in text for text in texts)
    assert "{" not in "".join(texts)
    toxic = np.array(table["toxicity"].to_pylist(), dtype=bool)
    for term in ("gay", "muslim", "black", "deaf"):
        named = np.array([bool(re.search(rf"\b{term}\b", text)) for text in texts])
        assert named.sum() > 30
        assert 0.2 < toxic[named].mean() < 0.6
    assert not any(table["threat"].to_pylist())
    attack = np.array(table["identity_attack"].to_pylist(), dtype=bool)
    assert toxic[attack].all()


def test_transfer_comments_are_those_of_the_other_corpora(recipe, corpora, tmp_path):
    target = recipe("default").transfer(corpora, tmp_path)
    assert (
        pq.read_table(target)["text"].to_pylist()
        == pq.read_table(corpora / "train" / "tweets.parquet")["text"].to_pylist()
    )


def test_a_training_is_begun_gone_on_with_or_left(recipe, tmp_path, monkeypatch):
    module, ran = recipe("commands"), []
    monkeypatch.setattr(
        module, "gkiller", lambda *words, **named: ran.append((words[0], "--resume" in words))
    )
    run = tmp_path / "x"
    assert module.train(tmp_path, "x", "--seed", 3) == run
    run.mkdir()
    (run / "settings.toml").touch()
    module.train(tmp_path, "x", "--seed", 3)
    for name in ("README.md", "manifest.json"):
        (run / name).touch()
    module.train(tmp_path, "x", "--seed", 3)
    assert ran == [("train", False), ("train", True)]
    module.export(run)
    (run / "model" / "onnx").mkdir(parents=True)
    (run / "model" / "onnx" / "model.onnx").touch()
    module.export(run)
    assert ran[2:] == [("export", False), ("quantize", False), ("quantize", False)]


def test_a_command_that_fails_ends_the_recipe(recipe, capfd):
    module = recipe("commands")
    with pytest.raises(SystemExit) as caught:
        module.gkiller("predict", "--model", "/nowhere", "x")
    assert caught.value.code == 20
    assert "$ python -m gkiller predict" in capfd.readouterr().err
    module.gkiller("predict", "--model", "/nowhere", "x", may_end_with=20)


def test_settings_of_one_of_several(recipe):
    module = recipe("commands")
    pairs = ["a:train.lr=1e-4", "b:train.lr=2e-4", "a:model.encoder=c:d"]
    assert module.settings_of("a", pairs) == ["--set", "train.lr=1e-4", "--set", "model.encoder=c:d"]
