"""The recipes' own steps: corpora with six labels, and commands that are not run twice."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from toy_corpora import write_corpora

from gkiller.assets import tokenizer_path
from gkiller.data.augment.operators import HOMOGLYPHS, homoglyph
from gkiller.model.directory import load_model
from gkiller.scoring.models import score_texts
from gkiller.tokens.encoding import Encoder

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Import a module of the recipes."""
    monkeypatch.syspath_prepend(str(RECIPES))
    yield importlib.import_module
    for path in RECIPES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Public corpora, in little."""
    sizes = {"train/jigsaw": 40, "train/civil": 30, "valid/jigsaw": 20, "test/jigsaw": 20, "train/tweets": 10}
    return write_corpora(tmp_path / "data", sizes, unknown=True)


@pytest.mark.parametrize("with_own", [False, True])
def test_corpora_become_six_labels_with_unknown_ones(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_own: bool
) -> None:
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


def test_more_own_comments_are_prepared_beside_the_others(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, work = recipe("corpora"), tmp_path / "work"
    rows = {}
    for name, flags in {"prepared": [], "prepared-more": ["--with-more"]}.items():
        argv = ["corpora.py", "--data", str(corpora), "--out", str(work / name), "--with-own", *flags]
        monkeypatch.setattr(sys, "argv", argv)
        module.main()
        rows[name] = set(pq.read_table(work / name / "train.parquet")["text"].to_pylist())
    assert rows["prepared"] < rows["prepared-more"]
    more = recipe("identity").identity_comments(["toxicity"], use="more")["text"].to_pylist()
    assert len(rows["prepared-more"] - rows["prepared"]) > 0.95 * len(more)
    argv.remove("--with-own")
    with pytest.raises(SystemExit):
        module.main()


def test_comments_about_groups_name_each_alike(recipe: Callable[..., Any]) -> None:
    module = recipe("identity")
    labels = ("toxicity", "insult", "identity_attack", "threat")
    table = module.identity_comments(labels)
    assert table.equals(module.identity_comments(labels))
    assert not table.equals(module.identity_comments(labels, seed=1))
    texts = table["text"].to_pylist()
    assert len(set(texts)) == len(texts)
    assert "{" not in "".join(texts)
    toxic = np.array(table["toxicity"].to_pylist(), dtype=bool)
    terms = np.array(table["term"].to_pylist())
    assert {"gay", "muslim", "black", "deaf", "female", "african american"} <= set(terms)
    assert not {"men", "women"} & set(terms)
    for term in set(terms):
        assert (terms == term).sum() > 40
        assert 0.2 < toxic[terms == term].mean() < 0.6
    assert not any(table["threat"].to_pylist())
    attack = np.array(table["identity_attack"].to_pylist(), dtype=bool)
    assert toxic[attack].all()


def test_comments_to_measure_with_are_not_like_those_to_train_on(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe("identity")
    monkeypatch.setattr(sys, "argv", ["identity.py", "--out", str(tmp_path / "groups.parquet")])
    module.main()
    table = pq.read_table(tmp_path / "groups.parquet")
    assert table.column_names == ["text", "term", "toxicity"]
    trained = module.identity_comments(["toxicity"])
    more = module.identity_comments(["toxicity"], use="more")
    assert set(more["term"].to_pylist()) == set(trained["term"].to_pylist())
    for one in (trained, more):
        assert not set(table["text"].to_pylist()) & set(one["text"].to_pylist())
    own = set(table["term"].to_pylist()) - set(trained["term"].to_pylist())
    assert own == module.unlisted()
    assert own
    said = "\n".join(trained["text"].to_pylist()).lower()
    for words in (*own, "i am a", "i'm a", "being", "you are a", "proud"):
        assert not re.search(rf"\b{words}\b", said), words


def test_mixtures_are_pieces_of_comments_and_none_of_them(recipe: Callable[..., Any]) -> None:
    module = recipe("mixtures")
    texts = ["One two. Three four five! Six?", "seven eight nine ten", "  ", "ELEVEN\ntwelve"]
    found = module.mixtures(texts, 60)
    assert found == module.mixtures(texts, 60)
    assert found != module.mixtures(texts, 60, seed=1)
    assert len({one.casefold() for one in found}) == len(found) == 60
    assert not set(found) & set(texts)
    words = set(" ".join(texts).split())
    assert all(set(one.split()) <= words for one in found)
    assert any("seven" in one and "Six?" in one for one in found)
    assert any(one == "Three four five!" for one in found)
    assert module.mixtures([" "], 5) == module.mixtures([], 5) == []
    assert module.mixtures(["word"], 5) == ["word word"]


@given(texts=st.lists(st.text(max_size=40), max_size=6))
def test_mixtures_of_any_comments_are_not_blank(texts: Any) -> None:
    sys.path.insert(0, str(RECIPES))
    try:
        found = importlib.import_module("mixtures").mixtures(texts, 10)
    finally:
        sys.path.remove(str(RECIPES))
    assert all(one.strip() for one in found)
    assert not {one.casefold() for one in found} & {text.casefold() for text in texts}


def test_lookalikes_are_single_letters_that_nothing_else_changes(recipe: Callable[..., Any]) -> None:
    known = recipe("disguises").LOOKALIKES
    assert known.keys() >= set(HOMOGLYPHS.values())
    for alike, latin in known.items():
        assert not alike.isascii()
        assert unicodedata.normalize("NFKC", alike) == alike
        assert latin.isascii()
        assert latin.isalpha()
        assert len(latin) == 1


def test_a_tokenizer_that_reads_disguises_reads_what_was_meant(recipe: Callable[..., Any]) -> None:
    plain = Tokenizer.from_file(str(tokenizer_path()))
    before = plain.to_str()
    made = recipe("disguises").reading_disguises(plain)
    assert plain.to_str() == before
    meant = "What an IDIOT, such a clown: Stop it!"
    disguised = homoglyph(meant, np.random.default_rng(0), 1.0)
    assert disguised != meant
    for text in (meant, disguised, "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in meant)):
        assert made.encode(text).tokens == plain.encode(meant).tokens
    assert plain.encode(disguised).tokens != plain.encode(meant).tokens
    for text in ("What an 1D10T, such a cl0wn: $top it!", "What an I.D.I.O.T, such a c-l-o-w-n: Stop it!"):
        assert made.encode(text).tokens == plain.encode(meant).tokens
    assert Encoder(made.to_str(), "made", 128).by_word


def test_a_copy_of_a_model_reads_disguises(
    recipe: Callable[..., Any], saved_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, out = recipe("disguises"), tmp_path / "reading"
    monkeypatch.setattr(sys, "argv", ["disguises.py", str(saved_once), "--out", str(out)])
    module.main()
    old, new = load_model(saved_once), load_model(out)
    assert new.tokenizer.encode("i.d.i.o.t").ids == old.tokenizer.encode("idiot").ids
    assert new.thresholds == old.thresholds
    for name, value in old.model.state_dict().items():
        assert torch.equal(value, new.model.state_dict()[name])
    monkeypatch.setattr(sys, "argv", ["disguises.py", str(out), "--out", str(tmp_path / "again")])
    with pytest.raises(SystemExit, match="reads disguised words already"):
        module.main()
    card = "| reads | the first 128 tokens of a comment |\n| seed | 0 |\n"
    assert module.with_row(card) == card.replace("| seed", f"{module.ROW}\n| seed")
    assert module.with_row("a card of somebody's own") == "a card of somebody's own"


def test_misspellings_can_only_be_misspellings(recipe: Callable[..., Any]) -> None:
    meanings = recipe("misspellings").meanings
    known = ["stupid", "liar", "form", "from", "trail", "trial", "bird", "##stupid", "st\u00fcpid", "art"]
    counts = {"stupid": 30, "stpuid": 1, "sutpid": 2, "lira": 9}
    found = meanings(known, counts)
    assert {error for error, word in found.items() if word == "stupid"} == {"stpuid", "stuipd"}  # "sutpid": twice
    assert not found.keys() & {"from", "form", "trial", "trail", "lair"}
    assert meanings(known, {})["sutpid"] == "stupid"
    two = meanings(["fool", "salty", "slaty", "saltly"], {"salty": 5})
    assert not two.keys() & {"salty", "slaty", "saltly"}
    either = ["abdce", "acbde"]  # "abcde" may be each of them
    assert "abcde" not in meanings(either, {"abdce": 9, "acbde": 1})
    assert meanings(either, {"abdce": 10, "acbde": 1})["abcde"] == "abdce"


def test_misspellings_of_toxic_words_come_first_and_change_no_other_word(
    recipe: Callable[..., Any], saved_once: Path
) -> None:
    module = recipe("misspellings")
    loaded = load_model(saved_once)
    comments = ["an idiot and a clown", "you idoit", "cwolns", "the idiot and the clown"] * 30
    found = module.misspellings(loaded, comments, 1000)
    assert found["clwon"] == "clown"
    assert "cwoln" not in found  # "cwolns" begins with it
    assert "idoit" not in found  # as frequent as half of its word
    first = module.misspellings(loaded, comments, 3)
    assert len(first) == 3
    words = sorted(set(found.values()))
    scores = dict(zip(words, score_texts(loaded, words)[:, 0], strict=True))
    least = min(scores[word] for word in first.values())
    assert all(scores[word] <= least for error, word in found.items() if error not in first)
    assert module.misspellings(loaded, [], 0) == {}


def test_the_mean_of_scores_is_that_of_logits(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, other = (tmp_path / f"{name}.parquet" for name in ("one", "two", "other"))
    pq.write_table(pa.table({"id": ["a", "b"], "flagged": [True, False], "toxicity": [0.9, 0.0]}), one)
    pq.write_table(pa.table({"id": ["b", "a"], "toxicity": [0.0, 0.5]}), two)
    pq.write_table(pa.table({"id": ["a", "c"], "toxicity": [0.5, 0.5]}), other)
    out = tmp_path / "new" / "mean.parquet"
    monkeypatch.setattr(sys, "argv", ["mean_scores.py", str(one), str(two), "--out", str(out)])
    module = recipe("mean_scores")
    module.main()
    assert pq.read_table(out).to_pydict() == {"id": ["a", "b"], "toxicity": pytest.approx([0.75, 0.0001])}
    with pytest.raises(SystemExit, match="the same ids"):
        module.mean_scores([one, other], ["toxicity"])
    pq.write_table(pa.table({"id": ["a", "b"], "insult": [0.5, 0.5]}), other)
    with pytest.raises(SystemExit, match="the same labels"):
        module.mean_scores([one, other], ["toxicity", "insult"])


def test_transfer_comments_are_those_of_the_other_corpora(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path
) -> None:
    target = recipe("default").transfer(corpora, tmp_path)
    tweets = pq.read_table(corpora / "train" / "tweets.parquet")["text"].to_pylist()
    assert pq.read_table(target)["text"].to_pylist() == tweets


def test_mixtures_follow_the_transfer_comments(recipe: Callable[..., Any], corpora: Path, tmp_path: Path) -> None:
    target = recipe("default").transfer(corpora, tmp_path, mixed=25)
    texts = pq.read_table(target)["text"].to_pylist()
    assert target.name == "transfer-25.parquet"
    assert len(texts) == 10 + 25
    own = pq.read_table(tmp_path / "mixtures-25.parquet")["text"].to_pylist()
    assert texts[10:] == own


def recorded(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """Let a recipe train nothing; return the flags of its trainings by name, as they come."""
    trained: dict[str, list[str]] = {}

    def train(folder: Any, name: Any, *flags: Any) -> Any:
        trained[name] = [str(flag) for flag in flags]
        return folder / name

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "command", lambda *words: None)
    return trained


def test_teachers_may_learn_from_public_comments_alone(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, runs = recipe("default"), tmp_path / "runs"
    trained = recorded(module, monkeypatch)
    where = ["--data", str(corpora), "--work", str(tmp_path), "--without", "transfer", "--no-graphs"]
    teachers = ["--teacher", "a=A", "--teacher", "b=B", "--public", "b", "--teacher-set", "b:train.augment=0"]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, *teachers])
    module.main()
    teachers = [str(runs / name) for name in ("teacher-a-0", "teacher-b-0-public")]
    assert list(trained) == ["teacher-a-0", "teacher-b-0-public", "default-first", "default"]
    data = [Path(*after(flags, "--data")).name for flags in trained.values()]
    assert data == ["prepared", "prepared-public", "prepared", "prepared-more"]
    assert [flags[-1] == "train.augment=0" for flags in trained.values()] == [False, True, False, False]
    first, last = trained["default-first"], trained["default"]
    assert after(first, "--teacher") == teachers
    assert after(last, "--teacher") == teachers[:1]
    assert after(first, "--encoder") == [str(tmp_path / "encoder-1-0")]
    assert after(last, "--encoder") == [str(runs / "default-first" / "model")]
    assert after(last, "--set")[-len(module.AFTERWARDS) :] == list(module.AFTERWARDS)


def test_a_finished_run_is_a_teacher_as_it_is(
    recipe: Callable[..., Any],
    corpora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, run = recipe("default"), tmp_path / "giant"
    trained = recorded(module, monkeypatch)
    run.mkdir()
    for name in ("README.md", "manifest.json"):
        (run / name).touch()
    where = ["--data", str(corpora), "--work", str(tmp_path), "--without", "transfer", "--no-graphs"]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, "--teacher", "a=A", "--teacher", f"b={run}"])
    module.main()
    assert list(trained) == ["teacher-a-0", "default"]
    assert after(trained["default"], "--teacher") == [str(tmp_path / "runs" / "teacher-a-0"), str(run)]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, "--teacher", f"b={run}", "--teacher", "a=A"])
    with pytest.raises(SystemExit):
        module.main()
    assert "name a pretrained encoder" in capsys.readouterr().err


def test_word_vectors_may_come_from_an_encoder_that_does_not_teach(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, scores, made = recipe("default"), tmp_path / "giant.parquet", []
    trained = recorded(module, monkeypatch)
    monkeypatch.setattr(module, "pretrain", lambda arguments, encoder: made.append(encoder) or "start")  # type: ignore[func-returns-value]
    scores.touch()
    where = ["--data", str(corpora), "--work", str(tmp_path), "--without", "transfer", "--no-graphs"]
    how = ["--teacher", f"b={scores}", "--vectors", "A"]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, *how])
    module.main()
    assert made == ["A"]
    assert list(trained) == ["default"]
    assert after(trained["default"], "--teacher") == [str(scores)]


def test_one_training_may_learn_more_own_comments_and_their_labels(
    recipe: Callable[..., Any], corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, scores, written = recipe("default"), tmp_path / "giant.parquet", []
    trained = recorded(module, monkeypatch)
    monkeypatch.setattr(module, "write_labels", lambda *where: written.append(where))
    scores.touch()
    where = ["--data", str(corpora), "--work", str(tmp_path), "--without", "transfer", "--without", "vectors"]
    how = ["--more", "--no-graphs", "--teacher", f"b={scores}", "--vectors", "A", "--public", "b"]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, *how])
    module.main()
    assert list(trained) == ["default"]
    data, labels = tmp_path / "prepared-more", tmp_path / "own-labels.parquet"
    assert after(trained["default"], "--data") == [str(data)]
    assert after(trained["default"], "--teacher") == [str(scores), str(labels)]
    assert written == [(data, labels)]
    monkeypatch.setattr(sys, "argv", ["default.py", *where, *how, "--without", "own"])
    module.main()
    assert after(trained["default"], "--teacher") == [str(scores)]
    assert after(trained["default"], "--data") == [str(tmp_path / "prepared-public")]


def test_a_vocabulary_of_its_own_is_trained_once_and_pretrained(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, lines = recipe("default"), []

    def ran(script: Any, *words: Any) -> None:
        lines.append([Path(script).name, *map(str, words)])
        if lines[-1][0] == "train_tokenizer.py":
            Path(after(lines[-1], "--out")[0]).touch()

    monkeypatch.setattr(module, "command", ran)
    where = {"data": tmp_path / "data", "work": tmp_path / "work", "without": [], "base_seed": 3, "threads": 1}
    asked = argparse.Namespace(
        **where, pretraining_epochs=1, contextual_epochs=0, precision="auto", vocab_size=900, layers=None, hidden=None
    )
    encoders = {module.pretrain(asked, "MINILM").name for _ in range(2)}
    assert encoders == {"encoder-1-3-900"}
    assert [line[0] for line in lines] == ["train_tokenizer.py", "pretrain.py", "pretrain.py"]
    assert lines[0][1:4] == [str(tmp_path / "data" / "train"), "--vocab-size", "900"]
    assert after(lines[1], "--tokenizer") == after(lines[0], "--out")
    asked.vocab_size = None
    assert module.pretrain(asked, "MINILM").name == "encoder-1-3"
    assert not after(lines[-1], "--tokenizer")
    assert not after(lines[-1], "--contextual-epochs")


@pytest.mark.parametrize(("asked", "given"), [("auto", "fp32"), ("bf16", "bf16")])
def test_an_encoder_that_learns_words_in_context_is_another(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, given: str
) -> None:
    module, lines = recipe("default"), []
    monkeypatch.setattr(module, "command", lambda *words: lines.append([str(word) for word in words]))
    where = {"data": tmp_path / "data", "work": tmp_path / "work", "base_seed": 3, "threads": 1}
    epochs = {"pretraining_epochs": 0, "contextual_epochs": 5, "vocab_size": None, "precision": asked}
    epochs |= {"layers": None, "hidden": None}
    made = module.pretrain(argparse.Namespace(**where, **epochs, without=[]), "MINILM")
    assert made.name == "encoder-0-3-contextual-5"
    assert after(lines[0], "--contextual-epochs") == ["5"]
    assert after(lines[0], "--precision") == [given]
    made = module.pretrain(argparse.Namespace(**where, **epochs, without=["contextual"]), "MINILM")
    assert made.name == "encoder-0-3"
    assert not after(lines[1], "--contextual-epochs")
    epochs |= {"layers": 3, "hidden": 192}
    made = module.pretrain(argparse.Namespace(**where, **epochs, without=[]), "MINILM")
    assert made.name == "encoder-0-3-layers-3-hidden-192-contextual-5"
    assert after(lines[2], "--layers") == ["3"]
    assert after(lines[2], "--hidden") == ["192"]


def test_transfer_comments_are_found_by_the_ids_of_scores(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, (transfer, scores, out) = recipe("transfer_comments"), (tmp_path / name for name in "tso")
    pq.write_table(pa.table({"text": [f"comment {row}" for row in range(1, 6)]}), transfer)
    pq.write_table(pa.table({"id": ["jigsaw:1", "transfer-5", "transfer-2"], "toxicity": [0.1] * 3}), scores)
    words = ["transfer_comments.py", transfer, "--of", scores, "--out", out]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    module.main()
    assert pq.read_table(out).to_pydict() == {"id": ["transfer-5", "transfer-2"], "text": ["comment 5", "comment 2"]}
    pq.write_table(pa.table({"id": ["transfer-6"]}), scores)
    with pytest.raises(SystemExit, match="of other transfer comments than the 5 of"):
        module.main()
    pq.write_table(pa.table({"id": ["jigsaw:1"]}), scores)
    with pytest.raises(SystemExit, match="has scores of no or"):
        module.main()


def test_an_arm_that_is_left_out_leaves_its_step_out_of_the_others(recipe: Callable[..., Any]) -> None:
    module = recipe("ablation")
    arms = {arm.name: arm.than for arm in module.chosen(["labels", "taught", "augmented", "dendrites"])}
    assert arms == {"labels": "", "taught": "labels", "augmented": "taught", "dendrites": "augmented"}
    assert module.unchosen(["labels", "taught", "augmented"]) == {"contextual", "pretraining", "transfer"}
    assert not module.unchosen([arm.name for arm in module.ARMS])


def after(words: list[str], flag: str) -> list[Any]:
    """Return the word after each place where a flag stands."""
    return [words[place + 1] for place, word in enumerate(words) if word == flag]


def test_a_training_is_begun_gone_on_with_or_left(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, ran = recipe("commands"), []
    monkeypatch.setattr(module, "gkiller", lambda *words, **named: ran.append((words[0], "--resume" in words)))
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


def test_a_command_that_fails_ends_the_recipe(recipe: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    module = recipe("commands")
    with pytest.raises(SystemExit) as caught:
        module.gkiller("predict", "--model", "/nowhere", "x")
    assert caught.value.code == 20
    assert "$ python -m gkiller predict" in capfd.readouterr().err
    module.gkiller("predict", "--model", "/nowhere", "x", may_end_with=20)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be caught")
def test_a_recipe_that_is_ended_ends_its_command_first(tmp_path: Path) -> None:
    """What the command does on SIGTERM, such as keeping a checkpoint, is waited for."""
    child = tmp_path / "child.py"
    child.write_text(
        "import signal, sys, time\n"
        "def end(number, frame):\n"
        "    time.sleep(0.3)\n"
        "    open('kept', 'w').close()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    script = "from commands import command; command('child.py'); print('went on')"
    environment = os.environ | {"PYTHONPATH": str(RECIPES)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as recipe:
        assert recipe.stdout.readline() == b"up\n"
        recipe.terminate()
        rest, _ = recipe.communicate(timeout=30)
    assert (recipe.returncode, rest) == (143, b"")
    assert (tmp_path / "kept").is_file()


def test_settings_of_one_of_several(recipe: Callable[..., Any]) -> None:
    module = recipe("commands")
    pairs = ["a:train.lr=1e-4", "b:train.lr=2e-4", "a:model.encoder=c:d"]
    assert module.settings_of("a", pairs) == ["--set", "train.lr=1e-4", "--set", "model.encoder=c:d"]
