"""The recipe's first step: an encoder that trainings start from."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from toy import comment
from transformers import BertConfig, BertModel

from gkiller.assets import tokenizer_path

SCRIPT = Path(__file__).parents[1] / "recipes" / "pretrain.py"


@pytest.fixture(scope="module")
def pretrain() -> Iterator[ModuleType]:
    """The script as a module."""
    sys.path.insert(0, str(SCRIPT.parent))
    yield importlib.import_module("pretrain")
    sys.path.remove(str(SCRIPT.parent))
    del sys.modules["pretrain"], sys.modules["disguises"], sys.modules["contextual"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "comments.parquet"
    texts = [comment(number, rude=number % 3 == 0) for number in range(60)]
    pq.write_table(pa.table({"text": [*texts, texts[0], "", None]}), path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pretrained encoder whose vocabulary is another one."""
    folder = tmp_path_factory.mktemp("teacher")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{c}" for c in "abcdefgh"), "the", "you"]
    text = Tokenizer.from_file(str(tokenizer_path())).to_str()
    content = json.loads(text)
    content["model"]["vocab"] = {word: place for place, word in enumerate(words)}
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in words]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=160,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *map(str, arguments)])
    deterministic = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "contextual"])
def test_a_killed_pretraining_goes_on_to_the_same_bytes(
    pretrain: ModuleType, corpus: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    epochs = {
        "masked": ("--epochs", 2),
        "contextual": ("--epochs", 0, "--contextual-epochs", 2, "--teacher", teacher, "--precision", "bf16"),
    }
    common = (corpus, *epochs[kind], "--batch-size", 16, "--threads", 1)
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole")
    epoch = pretrain.Pretraining._epoch

    def killed(self: Any, optimizer: Any, number: Any) -> Any:
        if number == 1:
            raise KeyboardInterrupt
        return epoch(self, optimizer, number)

    monkeypatch.setattr(pretrain.Pretraining, "_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(pretrain, monkeypatch, *common, "--out", tmp_path / "broken")
    assert [path.name for path in (tmp_path / "broken.checkpoints").glob("*")] == [kind]
    monkeypatch.setattr(pretrain.Pretraining, "_epoch", epoch)
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "broken")
    whole, broken = (tmp_path / name / "model.safetensors" for name in ("whole", "broken"))
    assert whole.read_bytes() == broken.read_bytes()
    assert not (tmp_path / "broken.checkpoints").exists()
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "none", "--seed", 1)
    assert (tmp_path / "none" / "model.safetensors").read_bytes() != whole.read_bytes()


def test_word_vectors_are_the_teachers_turned_and_scaled(pretrain: ModuleType, teacher: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_path()))
    vectors = pretrain.word_vectors(tokenizer, teacher, 16)
    assert vectors.shape == (tokenizer.get_vocab_size(), 16)
    assert vectors.std() == pytest.approx(pretrain.EMBEDDING_STD, rel=1e-4)
    ours, theirs = tokenizer.get_vocab(), Tokenizer.from_file(str(teacher / "tokenizer.json"))
    model = BertModel.from_pretrained(teacher).eval()

    def read(word: Any) -> Any:
        """The word alone, one at a time: its last layer's mean, of unit length."""
        with torch.inference_mode():
            mean = model(torch.tensor([theirs.encode(word).ids]))[0][0].mean(0).numpy()
        return mean / np.linalg.norm(mean)

    # All components: distances between tokens are kept, up to one factor; "bad" is several of its tokens.
    whole = pretrain.word_vectors(tokenizer, teacher, 160)
    pairs = [("the", "you"), ("a", "the"), ("##b", "you"), ("bad", "the")]
    apart = [np.linalg.norm(whole[ours[a]] - whole[ours[b]]) for a, b in pairs]
    truth = [np.linalg.norm(read(a.removeprefix("##")) - read(b)) for a, b in pairs]
    assert len(theirs.encode("bad", add_special_tokens=False).ids) == 3
    assert np.array(apart) / apart[0] == pytest.approx(np.array(truth) / truth[0], rel=1e-3)


@pytest.mark.slow
def test_a_training_starts_from_it(
    pretrain: ModuleType,
    teacher: Path,
    corpus: Path,
    tiny: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gkiller.model.network import build_classifier
    from gkiller.model.pretrained import load_tokenizer
    from gkiller.settings import resolve

    run(pretrain, monkeypatch, corpus, "--teacher", teacher, "--epochs", 0, "--out", tmp_path / "encoder")
    settings = resolve(overrides=[f"model.encoder={tmp_path / 'encoder'}"], environ={}).settings.model
    tokenizer = load_tokenizer(settings)
    model = build_classifier(settings, ("toxicity",), tokenizer.get_vocab_size())
    expected = pretrain.word_vectors(tokenizer, teacher, settings.hidden)
    found = model.bert.get_input_embeddings().weight.detach().numpy()  # type: ignore[operator]
    assert np.array_equal(found[1:], expected[1:])
    assert tokenizer.get_vocab() == Tokenizer.from_file(str(tokenizer_path())).get_vocab()
    assert tokenizer.encode("аn іdіоt").tokens == tokenizer.encode("an idiot").tokens


def test_the_vocabulary_may_be_another(
    pretrain: ModuleType, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(Path(tokenizer_path()).read_text("utf-8"))
    fewer = {token: place for token, place in content["model"]["vocab"].items() if place < 3000}
    content["model"]["vocab"] = fewer
    (tmp_path / "fewer.json").write_text(json.dumps(content))
    how = ("--teacher", teacher, "--epochs", 0, "--tokenizer", tmp_path / "fewer.json")
    run(pretrain, monkeypatch, corpus, *how, "--out", tmp_path / "encoder")
    model = BertModel.from_pretrained(tmp_path / "encoder")
    assert model.get_input_embeddings().weight.shape == (3000, 128)
    assert Tokenizer.from_file(str(tmp_path / "encoder" / "tokenizer.json")).get_vocab() == fewer


@settings(max_examples=50)
@given(st.text(alphabet="abz \n\u00a0é!#'", max_size=60))
def test_two_vocabularies_agree_on_words(pretrain: Any, teacher: Any, text: Any) -> None:
    from contextual import NO_WORD, in_words, word_numbers

    ours, theirs = Tokenizer.from_file(str(tokenizer_path())), pretrain.pretrained(teacher)[0]
    ours.no_truncation()
    theirs.no_truncation()
    found = [in_words(tokenizer, [text]) for tokenizer in (ours, theirs)]
    words = {int(place) for place, letter in zip(word_numbers(text), text, strict=True) if not letter.isspace()}
    for each in found:
        ids, mask, places = each.batch(np.arange(1))
        assert ids.shape == places.shape
        assert mask.all()
        assert set(places[0].tolist()) == {NO_WORD, *words}


def test_a_words_vector_is_the_mean_of_its_tokens(pretrain: ModuleType) -> None:
    from contextual import NO_WORD, word_means

    states = torch.arange(24.0).reshape(2, 4, 3)
    places = torch.tensor([[NO_WORD, 0, 2, 2], [NO_WORD, 1, 1, NO_WORD]])
    found, there = word_means(states, places, 3)
    assert there.tolist() == [True, False, True, False, True, False]
    expected = torch.stack([states[0, 1], states[0, 2:].mean(0), states[1, 1:3].mean(0)])
    assert torch.allclose(found[there], expected)


@pytest.mark.slow
def test_words_in_context_are_learnt_from_the_teacher(pretrain: ModuleType, teacher: Path, corpus: Path) -> None:
    from contextual import Contextual, in_words

    from gkiller.settings import ModelSettings

    texts = list(pretrain.comments([corpus]))
    theirs, large = pretrain.pretrained(teacher, most=8)
    assert max(in_words(theirs, texts).tokens.lengths) == 8
    own = Tokenizer.from_file(str(tokenizer_path()))
    small = pretrain.new_model(ModelSettings(), own.get_vocab_size(), 0).bert
    before = [parameter.clone() for parameter in large.parameters()]
    objective = Contextual.of(small, in_words(own, texts), in_words(theirs, texts), large)
    rows = np.arange(len(texts))
    optimizer = torch.optim.Adam(objective.network.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss = objective.loss(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    words, comments = (float(part.split()[-1]) for part in objective.told().split(", "))
    assert words + 1 - comments == pytest.approx(np.mean(losses), abs=2e-4)
    assert objective.sums == [0, 0, 0]
    assert all(torch.equal(*pair) for pair in zip(before, large.parameters(), strict=True))


@pytest.mark.slow
def test_its_shape_may_be_another(
    pretrain: ModuleType,
    teacher: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ("--teacher", teacher, "--epochs", 0, "--contextual-epochs", 1, "--layers", 1)
    run(pretrain, monkeypatch, corpus, *how, "--hidden", 64, "--out", tmp_path / "encoder")
    config = BertModel.from_pretrained(tmp_path / "encoder").config
    assert (config.num_hidden_layers, config.hidden_size) == (1, 64)
    assert (config.num_attention_heads, config.intermediate_size) == (1, 256)
    with pytest.raises(SystemExit):
        run(pretrain, monkeypatch, corpus, *how, "--hidden", 100, "--out", tmp_path / "other")
    assert "--hidden must be a multiple of 64" in capsys.readouterr().err


def test_words_in_context_need_a_teacher(
    pretrain: ModuleType,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(pretrain, monkeypatch, corpus, "--contextual-epochs", 1, "--out", tmp_path / "encoder")
    assert "--contextual-epochs needs a --teacher" in capsys.readouterr().err
