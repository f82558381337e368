"""The systems that are compared: one way through for all, and what is kept of them."""

import json
import subprocess
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deployment_helpers import LENGTH, save
from giants import save_transformers, tiny_bert
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Whitespace
from toy import comment, toy_tokenizer
from transformers import BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from gkiller.benchmark.child import joined, measure
from gkiller.benchmark.giants import fit_probe, giant_fingerprint
from gkiller.benchmark.linear import fit_linear, fit_static, load_linear
from gkiller.benchmark.plan import Plan
from gkiller.benchmark.processes import start_cold, time_systems
from gkiller.benchmark.rivals import Frame, gkiller_specs, linear_spec, rival_specs, transformers_specs, unique_names
from gkiller.benchmark.systems import SystemSpec, open_system, score
from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import read_prepared
from gkiller.deployment.lean import build
from gkiller.deployment.weights import network_of
from gkiller.errors import (
    BenchmarkFailedError,
    LabelMismatchError,
    ModelFormatError,
    ModelNotFoundError,
    SettingsError,
    SingleClassError,
)
from gkiller.inference import load
from gkiller.inference.classifier import Classifier
from gkiller.model.directory import LoadedModel, add_files, load_model
from gkiller.model.network import ToxicityClassifier
from gkiller.model.sequence import label_columns, name_of
from gkiller.scoring.models import score_texts
from gkiller.settings import resolve
from gkiller.tokens.batches import tokenize

TEXTS = [comment(i, i % 3 == 0) for i in range(50)]


def rows(count: int = 60, labels: int = 1) -> Split:
    rude = np.arange(count) % 3 == 0
    table = np.repeat(rude[:, None], labels, axis=1).astype(np.float32)
    texts = [comment(i, bool(rude[i])) for i in range(count)]
    return Split([str(i) for i in range(count)], texts, table, np.ones(count))


def quiet(stage: int, done: int | None, total: str) -> None:
    pass


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model with an fp32 graph."""
    from gkiller.deployment.lean import Scheme

    loaded = save(tmp_path_factory.mktemp("exported") / "model")
    graph = build(network_of(loaded.model, loaded.max_length), Scheme()).SerializeToString()
    add_files(loaded.path, loaded, {"onnx/model.onnx": graph})
    return load_model(loaded.path)


@pytest.fixture
def frame(exported: LoadedModel, tmp_path: Path) -> Frame:
    return Frame(exported.labels, LENGTH, 4, tmp_path / "cache")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier | Path:
    """A sequence classifier of transformers with the classes non-toxic and toxic."""
    config = tiny_bert(id2label={0: "non-toxic", 1: "toxic"}, label2id={"non-toxic": 0, "toxic": 1})
    folder = tmp_path_factory.mktemp("transformers") / "rival"
    return save_transformers(folder, BertForSequenceClassification(config))


# -- one way through ----------------------------------------------------------------------------


def test_a_model_scores_alike_on_torch_and_onnx_in_the_rows_order(exported: LoadedModel, frame: Frame) -> None:
    specs = gkiller_specs(frame, exported, "tiny", "model")
    assert [spec.runtime for spec in specs] == ["torch fp32", "onnx fp32"]
    expected = score_texts(exported, TEXTS)
    for spec in specs:
        for threads in (1, 2):
            np.testing.assert_allclose(score(open_system(spec, threads), TEXTS), expected, atol=1e-5)


def test_a_limit_cuts_single_comments_and_is_taken_back(exported: LoadedModel, frame: Frame) -> None:
    system = open_system(gkiller_specs(frame, exported, "tiny", "model")[1])
    long = " ".join(TEXTS[:5])
    assert [len(system.prepare([long], n).tokens.ids) for n in (5, 9, 99)] == [5, 9, LENGTH]
    read = system.prepare([long])  # without a limit, as users get it: every token, in windows
    assert read.count.tolist() == [len(read.tokens)]
    assert len(read.tokens) > 1
    assert max(read.tokens.lengths) == LENGTH
    assert system.length(long) == len(read.tokens.ids)


@pytest.mark.parametrize("long_text", ["window", "truncate"])
def test_a_long_comment_is_read_alike_by_both_sides_and_by_load(
    exported: LoadedModel, frame: Frame, classifier: Path, long_text: str
) -> None:
    texts = [" ".join(TEXTS[i : i + 9]) for i in range(0, 40, 3)]
    frame = replace(frame, long_text=long_text)  # type: ignore[arg-type]
    clf = load(exported.path)
    expected = clf.predict_proba(texts, long_text=long_text)  # type: ignore[arg-type]
    for spec in gkiller_specs(frame, exported, "tiny", "model"):
        np.testing.assert_allclose(score(open_system(spec), texts), expected, atol=1e-5)
    giant = transformers_specs(frame, "rival", classifier, "giant")[1]  # the same tokenizer and limit
    windows = [open_system(spec).prepare(texts) for spec in (giant, gkiller_specs(frame, exported, "t", "model")[1])]
    assert windows[0].tokens.ids.tolist() == windows[1].tokens.ids.tolist()
    assert bool(max(windows[0].count) > 1) is (long_text == "window")


ODD = [*TEXTS, "", "You [SEP] fool", "snow\u00e9man \u4f60\u597d!", "a\x00b  c\t", "don't-do... it", "well " * 30]


def test_words_are_remembered_and_the_tokens_stay_the_tokenizers(exported: LoadedModel, frame: Frame) -> None:
    spec = replace(gkiller_specs(frame, exported, "tiny", "model")[1], long_text="truncate")
    system = open_system(spec)
    assert system._reader.by_word  # type: ignore[attr-defined]
    tokenizer = Tokenizer.from_file(spec.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    tokenizer.encode_special_tokens = True
    for limit in (None, 5):
        tokenizer.enable_truncation(limit or LENGTH)
        expected = tokenize(tokenizer, ODD)
        for _ in range(2):  # first met, then remembered
            found = system.prepare(ODD, limit).tokens
            assert found.ids.tolist() == expected.ids.tolist()
            assert found.starts.tolist() == expected.starts.tolist()
            assert (found.ids.dtype, found.pad) == (np.int32, spec.pad)
    tokenizer.enable_truncation(LENGTH)
    assert [system.length(text) for text in ODD] == [len(tokenizer.encode(text).ids) for text in ODD]


def test_another_kind_of_tokenizer_is_asked_for_every_comment(
    exported: LoadedModel, frame: Frame, tmp_path: Path
) -> None:
    spec = gkiller_specs(frame, exported, "tiny", "model")[1]
    tokenizer = Tokenizer.from_file(spec.tokenizer)
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = str(tmp_path / "tokenizer.json")
    system = open_system(replace(spec, tokenizer=path, long_text="truncate"))
    assert not system._reader.by_word  # type: ignore[attr-defined]
    tokenizer.enable_truncation(LENGTH)
    tokenizer.encode_special_tokens = True
    assert system.prepare(ODD).tokens.ids.tolist() == tokenize(tokenizer, ODD).ids.tolist()


def test_size_is_of_every_file_needed_to_predict(exported: LoadedModel, frame: Frame) -> None:
    torch_row, onnx_row = gkiller_specs(frame, exported, "tiny", "model")
    beside = sum((exported.path / n).stat().st_size for n in ("config.json", "gkiller.json", "tokenizer.json"))
    assert torch_row.bytes == beside + (exported.path / "model.safetensors").stat().st_size
    assert onnx_row.bytes == beside + (exported.path / "onnx/model.onnx").stat().st_size


def test_a_description_passes_through_json(exported: LoadedModel, frame: Frame) -> None:
    for spec in gkiller_specs(frame, exported, "tiny", "model"):
        assert SystemSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec


def test_long_comments_are_put_together_until_every_system_has_its_tokens(exported: LoadedModel, frame: Frame) -> None:
    system = open_system(gkiller_specs(frame, exported, "tiny", "model")[1])
    made = joined(TEXTS, 14, [system])
    assert len(made) > 3
    assert all(system.length(text) >= 14 for text in made)
    assert joined(["a"], 14, [system]) == ["a"]
    cut = open_system(replace(gkiller_specs(frame, exported, "tiny", "model")[1], long_text="truncate"))
    beyond = joined(TEXTS, 4 * LENGTH, [cut])  # more than it reads: its own limit is enough
    assert all(cut.length(text) == LENGTH for text in beyond)


def test_names_are_told_apart(exported: LoadedModel, frame: Frame, tmp_path: Path) -> None:
    one = gkiller_specs(frame, exported, "same", "model")
    found = unique_names([one, one, one])
    assert len({spec.key for spec in found}) == 6
    assert [spec.name for spec in found[::2]] == ["same", "same (2)", "same (3)"]
    assert name_of(tmp_path / "runs" / "x" / "model") == "x"


# -- transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "labels", "multi", "expected"),
    [
        (["toxic", "obscene", "threat"], ["toxicity", "threat"], True, {"toxicity": 0, "threat": 2}),
        (["LABEL_0"], ["toxicity"], False, {"toxicity": 0}),
        (["LABEL_0", "LABEL_1"], ["toxicity"], False, {"toxicity": 1}),
        (["toxic", "non-toxic"], ["toxicity"], False, {"toxicity": 0}),
        (["hate", "fine"], ["toxicity"], False, {"toxicity": 0}),
        (["toxic", "insult"], ["insult", "toxicity"], True, {"insult": 1, "toxicity": 0}),
        (["a", "b", "c"], ["toxicity"], False, {}),
        (["threat"], ["toxicity"], False, {}),
        (["not_threat", "threat"], ["toxicity", "insult"], False, {}),
        (["toxic"], ["threat", "toxicity"], False, {"toxicity": 0}),
    ],
)
def test_a_classifiers_outputs_are_found_by_their_names(
    names: list[str], labels: list[str], multi: bool, expected: dict[str, Any]
) -> None:
    assert label_columns(names, labels, multi=multi) == expected


def test_a_classifier_of_transformers_scores_as_transformers_does(classifier: Path, frame: Frame) -> None:
    specs = rival_specs(frame, str(classifier))
    assert [spec.runtime for spec in specs] == ["torch fp32", "onnx fp32", "onnx int8"]
    network = BertForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(classifier)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.inference_mode():
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = logits.softmax(-1)[:, 1:].numpy()
    for spec in specs[:2]:
        np.testing.assert_allclose(score(open_system(spec), TEXTS), expected, atol=1e-5)
    assert np.abs(score(open_system(specs[2]), TEXTS) - expected).max() < 0.05
    assert specs[1].parameters == sum(p.numel() for p in network.parameters())
    made = {spec.graph for spec in specs[1:]}
    assert {spec.graph for spec in rival_specs(frame, str(classifier))[1:]} == made


def test_a_bare_encoder_and_a_missing_one_are_refused(frame: Frame, tmp_path: Path) -> None:
    encoder = save_transformers(tmp_path / "encoder", BertModel(tiny_bert()))
    with pytest.raises(ModelFormatError, match="without a classifier") as caught:
        rival_specs(frame, str(encoder))
    assert "--arch giant" in caught.value.remedy
    with pytest.raises(ModelNotFoundError):
        rival_specs(frame, str(tmp_path / "none"))


def test_a_classifier_of_other_labels_is_refused(frame: Frame, tmp_path: Path) -> None:
    config = tiny_bert(id2label={0: "joy", 1: "fear", 2: "anger"}, label2id={"joy": 0, "fear": 1, "anger": 2})
    folder = save_transformers(tmp_path / "mood", BertForSequenceClassification(config))
    with pytest.raises(LabelMismatchError, match="joy, fear, anger"):
        rival_specs(frame, str(folder))


# -- fitted rivals ------------------------------------------------------------------------------


def test_the_linear_rival_is_scikit_learns_and_survives_its_files(tmp_path: Path) -> None:
    train = rows()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    head = LogisticRegression(C=4.0, class_weight="balanced", max_iter=1000)
    model = make_pipeline(make_union(words, characters), head).fit(train.texts, train.labels[:, 0].astype(int))
    expected = model.predict_proba(TEXTS)[:, 1:]
    fitted = fit_linear(train, ("toxicity",))
    np.testing.assert_allclose(score(fitted, TEXTS), expected, atol=1e-12)
    fitted.save(tmp_path / "linear")
    np.testing.assert_array_equal(score(load_linear(tmp_path / "linear"), TEXTS), score(fitted, TEXTS))
    names = {path.name for path in (tmp_path / "linear").iterdir()}
    assert names == {"words.json", "characters.json", "weights.safetensors"}


def test_the_linear_rival_fits_each_label_on_the_rows_that_know_it(frame: Frame) -> None:
    train = rows(labels=2)
    train.labels[::2, 1] = np.nan
    train.labels[1::2, 1] = np.arange(30) % 2
    fitted = fit_linear(train, ("toxicity", "threat"))
    assert score(fitted, TEXTS).shape == (50, 2)
    assert not np.allclose(fitted.coefficients[0], fitted.coefficients[1])
    train.labels[:, 1] = np.nan
    with pytest.raises(SingleClassError):
        fit_linear(train, ("toxicity", "threat"))


def test_the_linear_rival_is_fitted_once(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    first = linear_spec(frame, rows(), ("toxicity",), quiet)  # type: ignore[arg-type]
    monkeypatch.setattr("gkiller.benchmark.linear.fit_linear", None)
    assert linear_spec(frame, rows(), ("toxicity",), quiet) == first  # type: ignore[arg-type]


def test_static_embeddings_need_model2vec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(SettingsError, match="model2vec") as caught:
        fit_static(str(tmp_path), rows(), ("toxicity",))
    assert "pip install model2vec" in caught.value.remedy


def test_static_embeddings_are_a_rival_where_model2vec_is(
    frame: Frame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in of its interface: the package itself is not among the dependencies."""
    from gkiller.benchmark.rivals import static_spec

    class StaticModel:
        embedding = np.zeros((7, 3))

        @classmethod
        def from_pretrained(cls, path: str) -> Any:
            return cls()

        def encode(self, texts: list[str]) -> np.ndarray[Any, Any]:
            return np.array([[len(t), t.count("o"), t.count("i")] for t in texts], float)

    monkeypatch.setitem(sys.modules, "model2vec", types.SimpleNamespace(StaticModel=StaticModel))
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "model.safetensors").write_bytes(b"12345")
    spec = static_spec(frame, str(tmp_path / "static"), rows(), ("toxicity",))
    assert (spec.kind, spec.parameters) == ("static", 7 * 3 + 3 + 1)
    assert spec.bytes > 5
    scores = score(open_system(spec), TEXTS)
    assert scores.shape == (50, 1)
    assert ((scores > 0) & (scores < 1)).all()


def test_a_probe_is_scikit_learns_regression_on_mean_pooled_vectors(frame: Frame) -> None:
    config = tiny_bert()
    network = ToxicityClassifier(BertModel(config, add_pooling_layer=False), 1, "mean").eval()
    encoder = {name: value.clone() for name, value in network.bert.state_dict().items()}
    train = rows()
    dataset = Dataset(("toxicity",), {"train": train})
    tokenizer = toy_tokenizer()
    fit_probe(network, tokenizer, dataset, frame, quiet)  # type: ignore[arg-type]
    vectors = []
    for text in train.texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            vectors.append(network.bert(input_ids=ids, attention_mask=torch.ones_like(ids))[0].mean(1)[0].numpy())
    head = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
    head.fit(np.array(vectors), train.labels[:, 0].astype(int))
    with torch.inference_mode():
        ids = torch.tensor([tokenizer.encode(TEXTS[0]).ids])
        found = float(network.probabilities(network(ids, torch.ones_like(ids)))[0, 0])
        vector = network.bert(input_ids=ids, attention_mask=torch.ones_like(ids))[0].mean(1).numpy()
    assert found == pytest.approx(head.predict_proba(vector)[0, 1], abs=1e-3)
    for name, value in network.bert.state_dict().items():
        assert torch.equal(value, encoder[name])


def test_a_cached_giant_depends_on_data_settings_and_weights_alone(prepared: Path, tmp_path: Path) -> None:
    dataset = read_prepared(prepared)
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")

    def found(*overrides: Any, data: Any = dataset) -> Any:
        return giant_fingerprint(resolve(overrides=overrides, environ={}).settings, folder, data)

    first = found()
    assert found("train.threads=1", "train.keep_checkpoints=9", "model.encoder=elsewhere") == first
    fewer = Dataset(dataset.labels, {**dataset.splits, "train": dataset.split("train").sample(50, 0)}, dataset.manifest)
    assert len({first, found("train.lr=0.1"), found("model.max_length=32"), found(data=fewer)}) == 4
    (folder / "model.safetensors").write_bytes(b"2")
    assert found() != first


# -- child processes ----------------------------------------------------------------------------


def plan(**changes: Any) -> Plan:
    values = {
        "texts": tuple(TEXTS[:6]),
        "long_texts": tuple(TEXTS),
        "threads": 1,
        "processes": 1,
        "rounds": 2,
        "warm_up": 1,
        "lengths": (8,),
        "latency_rounds": 3,
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def test_all_systems_are_timed_by_the_clock_that_is_given(exported: LoadedModel, frame: Frame) -> None:
    """A clock of one second a look: each stage takes a second, whatever it does."""
    ticks = iter(range(10_000))
    specs = [*gkiller_specs(frame, exported, "tiny", "model"), linear_spec(frame, rows(), ("toxicity",), quiet)]  # type: ignore[arg-type]
    told = []
    found = measure(specs, plan(), lambda *args: told.append(args[0]), clock=lambda: float(next(ticks)))
    assert list(found.passes) == [spec.key for spec in specs]
    assert all((values == 1).all() and values.shape == (2, 2) for values in found.passes.values())
    assert all(values.shape == (3, 2) for values in found.single[8].values())
    assert found.tokens["TF-IDF + LR, scikit-learn"] is None
    assert 3 < found.tokens["tiny, torch fp32"] <= LENGTH
    assert {"throughput", "latency, 8 tokens"} <= set(told)


def test_a_child_process_times_and_starts_cold(exported: LoadedModel, frame: Frame) -> None:
    spec = gkiller_specs(frame, exported, "tiny", "model")[1]
    told = []
    found = time_systems([spec], plan(), lambda *args: told.append(args))
    assert (found.passes[spec.key].shape, found.processes) == ((2, 2), 1)
    assert (3, 3, "throughput") in told
    told.clear()
    again = time_systems([spec], plan(processes=2), lambda *args: told.append(args))
    assert (again.passes[spec.key].shape, again.processes) == ((4, 2), 2)
    assert again.single[8][spec.key].shape == (6, 2)
    assert (3, 3, "throughput, process 2 of 2") in told
    cold = start_cold(spec, TEXTS[:2], 1, 1)
    assert cold.peak_bytes is None or cold.peak_bytes > 1e6
    assert cold.steps["libraries"].first <= cold.steps["import"].first


def test_a_child_that_fails_says_why(exported: LoadedModel, frame: Frame, tmp_path: Path) -> None:
    from dataclasses import replace

    broken = replace(gkiller_specs(frame, exported, "tiny", "model")[1], graph=str(tmp_path / "none.onnx"))
    with pytest.raises(BenchmarkFailedError, match=r"none\.onnx") as caught:
        time_systems([broken], plan(), quiet)  # type: ignore[arg-type]
    assert caught.value.exit_code == 71


def test_a_cold_start_of_a_graph_does_not_import_torch() -> None:
    code = (
        "import gkiller.benchmark.once, gkiller.benchmark.systems, gkiller.benchmark.processes, sys;"
        "sys.exit(bool({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
