"""Learning from teachers: what they say and where it is kept, the loss, and whole trainings with one."""

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from giants import save_transformers, tiny_bert
from killing import Killer, Trainings, kill_and_compare, outcome
from toy import SIX, TINY, comment, tiny_settings
from training_helpers import CALM, figures, together, toy_trainer
from transformers import BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import load_dataset
from gkiller.errors import (
    ColumnError,
    EmptyDataError,
    FormatError,
    LabelMismatchError,
    ModelFormatError,
    ModelNotFoundError,
    OutputError,
    ResumeError,
    RowError,
    ScoreRangeError,
    SettingsError,
)
from gkiller.evaluation.significance import agreement
from gkiller.inference.classifier import Classifier
from gkiller.model.directory import load_model
from gkiller.scoring.models import logit_texts, score_texts
from gkiller.training import teachers as teaching
from gkiller.training.losses import logit_loss, loss_mass, similarity_loss, task_loss
from gkiller.training.runtime import Ranks
from gkiller.training.teachers import Lesson, find_teachers, lesson, mean_logits, transfer_texts, with_transfer
from gkiller.training.train import train

NAN = float("nan")
CPU = torch.device("cpu")
TEXTS = [comment(number, number % 3 == 0) for number in range(11)]
PLAIN = ("data.sample_size=48", "dendrites.enabled=false", "train.epochs=1")


@pytest.fixture(scope="module")
def runs(prepared: Path, prepared_six: Path, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one label and of six, to be teachers."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("teachers")
    patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
    patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
    shared = (f"model.tokenizer={tokenizer_file}", "dendrites.enabled=false", "train.lr=0.01")
    for name, data, seed in (("one", prepared, 1), ("other", prepared, 2), ("six", prepared_six, 3)):
        settings = tiny_settings(f"data.source={data}", f"train.seed={seed}", *shared)
        train(settings, out=folder, name=name)
    patch.undo()
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier | Path:
    """A sequence classifier of transformers with the classes non-toxic and toxic."""
    config = tiny_bert(id2label={0: "non-toxic", 1: "toxic"}, label2id={"non-toxic": 0, "toxic": 1})
    folder = tmp_path_factory.mktemp("transformers") / "rival"
    return save_transformers(folder, BertForSequenceClassification(config))


def told(
    reference: Path,
    folder: Path,
    labels: tuple[Any, ...] = ("toxicity",),
    texts: list[str] = TEXTS,
    shown: list[Any] | None = None,
    **changes: Any,
) -> Lesson:
    """What one teacher says."""
    settings = tiny_settings(f"distill.teachers={reference}").distill.model_copy(update=changes)
    found = find_teachers([str(reference)], labels)

    def progress(done: Any, total: Any, what: Any) -> None:
        if shown is not None:
            shown.append((done, total))

    return lesson(found, texts, [], labels, settings, folder, CPU, Ranks(), progress)  # type: ignore[arg-type]


# -- the loss -----------------------------------------------------------------------------------


def test_the_logit_loss_is_the_mean_square_over_what_is_known() -> None:
    logits = torch.tensor([[1.0, 5.0], [2.0, -1.0]])
    taught = torch.tensor([[3.0, NAN], [2.0, 1.0]])
    assert float(logit_loss(logits, taught)) == pytest.approx((4 + 0 + 4) / 3)
    assert float(logit_loss(logits, torch.full((2, 2), NAN))) == 0


def test_similarities_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, width, generator=generator).double() for width in (3, 7))
    own, other = (m.numpy() @ m.numpy().T for m in (student, teacher))
    own, other = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (own, other))
    expected = ((own - other) ** 2).sum() / 25
    assert float(similarity_loss(student, [teacher])) == pytest.approx(expected, rel=1e-5)
    assert float(similarity_loss(student, [3 * student])) == pytest.approx(0, abs=1e-6)
    assert float(similarity_loss(student, [teacher, student])) == pytest.approx(expected / 2, rel=1e-5)


def test_the_mean_of_teachers_is_over_those_that_have_the_label() -> None:
    found = mean_logits([np.float32([[1, NAN, NAN]]), np.float32([[3, 5, NAN]])])  # type: ignore[arg-type, list-item]
    np.testing.assert_array_equal(found, np.float32([[2, 5, NAN]]))  # type: ignore[arg-type]
    assert found.dtype == np.float32


def test_a_step_learns_labels_and_logits_by_their_weights(tiny: Callable[..., Any], tmp_path: Path) -> None:
    own = ("model.dropout=0", "train.token_dropout=0", "distill.label_weight=0.5", "distill.logit_weight=2")
    with toy_trainer(tiny(*PLAIN, *own, "distill.teachers=x"), tmp_path) as (trainer, _):
        learner = trainer.learner
        count = len(learner.train.tokens)
        taught = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)
        taught[3] = NAN
        learner.train.labels[4] = NAN
        learner.train = replace(learner.train, lesson=Lesson(taught, (), (taught,)))
        rows = np.arange(8)
        learner.begin_phase()
        logits = learner._train_logits(rows)
        labels = torch.from_numpy(learner.train.labels[rows])
        hard = task_loss(logits, labels, learner.weights)
        difference = (logits[:, 1] - logits[:, 0]).detach().numpy() - taught[rows, 0]
        soft = np.nanmean(difference**2)
        optimizer = torch.optim.SGD(learner.growth.model.parameters(), lr=0.0)
        found = learner.step(optimizer, rows, trainer.progress.phase)
        assert found == pytest.approx(0.5 * hard.item() + 2 * soft, rel=1e-5)


def test_hidden_states_reach_the_loss(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*PLAIN, "model.dropout=0", "distill.teachers=x", "distill.hidden_weight=3")
    with toy_trainer(settings, tmp_path) as (trainer, _):
        learner = trainer.learner
        count = len(learner.train.tokens)
        taught = np.zeros((count, 1), np.float32)
        states = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float16)
        learner.train = replace(learner.train, lesson=Lesson(taught, (states,), (taught,)))
        rows, labels = np.arange(6), torch.from_numpy(learner.train.labels[:6])
        with learner._pooled() as pooled:
            logits = learner._train_logits(rows)
        assert pooled[0].shape == (6, 32)
        *_, (loss, _) = learner._parts(logits, pooled, rows, labels)
        expected = 3 * similarity_loss(pooled[0], [torch.from_numpy(states[:6])])
        assert loss.item() == pytest.approx(expected.item())
        assert loss.item() > 0


# -- what teachers say --------------------------------------------------------------------------


def test_a_gkiller_teacher_says_what_its_model_scores(runs: Path, tmp_path: Path) -> None:
    found = told(runs / "one", tmp_path)
    loaded = load_model(runs / "one")
    np.testing.assert_allclose(found.logits, logit_texts(loaded, TEXTS), atol=1e-5)
    scores = 1 / (1 + np.exp(-found.logits.astype(float)))
    np.testing.assert_allclose(scores, score_texts(loaded, TEXTS), atol=1e-6)


def test_a_teacher_of_transformers_says_what_transformers_does(classifier: Path, tmp_path: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(classifier)
    long = [*TEXTS, " ".join(TEXTS * 3)]  # its own limit is 64 tokens
    batch = tokenizer(long, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        expected = network(**inputs, output_hidden_states=True)
    found = told(classifier, tmp_path, texts=long, hidden_weight=1.0)
    logits = (expected.logits[:, 1:] - expected.logits[:, :1]).numpy()
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (expected.hidden_states[-1] * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(found.hidden[0], mean.numpy(), atol=2e-3)


def test_labels_are_matched_by_name_and_the_others_stay_unknown(runs: Path, classifier: Path, tmp_path: Path) -> None:
    labels = ("insult", "toxicity", "unheard_of")
    found = told(runs / "six", tmp_path, labels)
    loaded = load_model(runs / "six")
    own = logit_texts(loaded, TEXTS)[:, [loaded.labels.index(label) for label in labels[:2]]]
    np.testing.assert_allclose(found.logits[:, :2], own, atol=1e-5)
    assert np.isnan(found.logits[:, 2]).all()
    assert np.isnan(told(classifier, tmp_path, labels).logits).all(0).tolist() == [True, False, True]


def test_a_comment_is_scored_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(runs / "one", tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(teaching, "_compute", None)
        np.testing.assert_array_equal(told(runs / "one", tmp_path).logits, first.logits)
    for changes in ({"texts": TEXTS[1:]}, {"hidden_weight": 1.0}):
        told(runs / "one", tmp_path, **changes)
    rounded = told(runs / "one", tmp_path, precision="bf16").logits
    assert 0 < np.abs(rounded - first.logits).max() < 0.1
    assert len(list(tmp_path.glob("*/scores.json"))) == 4
    [damaged] = [path for path in kept if path.name == "logits.f32"]
    damaged.write_bytes(bytes(len(kept[damaged])))
    told(runs / "one", tmp_path)
    assert damaged.read_bytes() == kept[damaged]


def test_scoring_that_breaks_off_goes_on_after_the_last_part(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven comments in parts of four: what is kept of the first two is not scored again."""
    whole = told(runs / "one", tmp_path / "whole", hidden_weight=1.0)
    monkeypatch.setattr(teaching, "_PART", 4)
    compute, scored, shown = teaching._compute, [], []  # type: ignore[var-annotated]

    def counting(teacher: Any, opened: Any, texts: Any, part: Any, *given: Any) -> Any:
        scored.append(part)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return compute(teacher, opened, texts, part, *given)

    monkeypatch.setattr(teaching, "_compute", counting)
    with pytest.raises(KeyboardInterrupt):
        told(runs / "one", tmp_path / "parts", hidden_weight=1.0)
    assert len(list((tmp_path / "parts").glob("*/scores.json"))) == 2
    found = told(runs / "one", tmp_path / "parts", shown=shown, hidden_weight=1.0)
    assert scored == [range(4), range(4, 8), range(8, 11), range(8, 11)]
    assert shown[-1] == (11, 11)
    np.testing.assert_allclose(found.logits, whole.logits, atol=1e-5)
    np.testing.assert_allclose(found.hidden[0], whole.hidden[0], atol=2e-3)
    [place] = [path for path in (tmp_path / "parts").iterdir() if path.name != ".lock"]
    (left := place.with_name(f"{place.name}-4")).mkdir()  # by a kill between joining and clearing up
    told(runs / "one", tmp_path / "parts", hidden_weight=1.0)
    assert not left.exists()
    assert place.name == next((tmp_path / "whole").glob("*/scores.json")).parent.name


def test_scoring_that_breaks_off_leaves_nothing_half_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(directory: Any, name: Any, content: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gkiller.training.checkpoint.seal", broken)
        with pytest.raises(KeyboardInterrupt):
            told(runs / "one", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []
    (tmp_path / ".abc.half").mkdir()  # what a killed process leaves
    told(runs / "one", tmp_path)
    assert not (tmp_path / ".abc.half").exists()


def test_no_room_on_the_disk_is_told_before_writing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gkiller.storage.files.shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="nearly full"):
        told(runs / "one", tmp_path)


def test_a_teacher_that_overflows_is_refused(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = lambda ids, mask: (torch.full((len(ids), 1), NAN), torch.zeros(*ids.shape, 16))  # noqa: E731
    opened = teaching._open

    def overflowing(teacher: Any, device: Any) -> Any:
        _, *rest = opened(teacher, device)
        return network, *rest

    monkeypatch.setattr(teaching, "_PART", 4)
    monkeypatch.setattr(teaching, "_open", overflowing)
    with pytest.raises(ScoreRangeError, match="not a number") as caught:
        told(runs / "one", tmp_path)
    assert caught.value.where == "one, comment 1"


def test_what_cannot_teach_is_refused(runs: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelMismatchError, match="toxicity, and the data have threat") as caught:
        find_teachers([str(runs / "one")], ["threat"])
    assert caught.value.where == str(runs / "one")
    with pytest.raises(LabelMismatchError, match="non-toxic, toxic"):
        find_teachers([str(classifier)], ["threat"])
    encoder = save_transformers(tmp_path / "encoder", BertModel(tiny_bert()))
    with pytest.raises(ModelFormatError, match="without a classifier"):
        find_teachers([str(encoder)], ["toxicity"])
    with pytest.raises(ModelNotFoundError):
        find_teachers([str(tmp_path / "none")], ["toxicity"])


# -- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["distill.transfer=x.txt"], "nobody labels it"),
        (["distill.teachers=x", "distill.logit_weight=0"], "must be above 0 with distill.teachers"),
        (
            ["distill.teachers=x", "distill.label_weight=0", "distill.logit_weight=0", "distill.hidden_weight=1"],
            "distill.label_weight or distill.logit_weight",
        ),
    ],
)
def test_settings_that_teach_nothing_are_refused(overrides: list[str], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        tiny_settings(*overrides)


# -- transfer comments --------------------------------------------------------------------------


def data() -> Dataset:
    train = Split(["a"], ["Seen  Already"], np.float32([[1]]), np.ones(1))  # type: ignore[arg-type]
    test = Split(["b"], ["of the test"], np.float32([[0]]), np.ones(1))  # type: ignore[arg-type]
    return Dataset(("toxicity",), {"train": train, "test": test}, {})


def read(path: Path, *overrides: Any) -> dict[int, str]:
    return transfer_texts(tiny_settings("distill.teachers=x", f"distill.transfer={path}", *overrides), data())


def test_transfer_comments_are_new_ones_each_once(tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("seen already\n\nnew one\nOf the  TEST\nNEW one\nnew two\n  \nnew three\n")
    rows = {3: "new one", 6: "new two", 8: "new three"}
    assert read(path) == rows
    drawn = [read(path, "distill.transfer_rows=2", f"data.split_seed={seed}") for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(texts) for texts in drawn}) > 1
    assert all(len(texts) == 2 and list(texts) == sorted(texts) for texts in drawn)
    assert all(rows[row] == text for texts in drawn for row, text in texts.items())
    joined = with_transfer(data(), read(path)).split("train")
    assert joined.texts == ["Seen  Already", "new one", "new two", "new three"]
    assert joined.ids == ["a", "transfer-3", "transfer-6", "transfer-8"]
    assert np.isnan(joined.labels[:, 0]).tolist() == [False, True, True, True]
    assert with_transfer(data(), {}).split("train").texts == ["Seen  Already"]
    assert transfer_texts(tiny_settings(), data()) == {}


def test_transfer_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("words,more\nx,y\n")
    with pytest.raises(ColumnError) as caught:
        read(table)
    assert "distill.transfer_column" in caught.value.remedy
    assert read(table, "distill.transfer_column=words") == {1: "x"}
    with pytest.raises(ColumnError, match=r"no column 'nope' \(name the"):
        read(table, "distill.transfer_column=nope")
    (tmp_path / "more.doc").write_text("x")
    with pytest.raises(FormatError) as caught:  # type: ignore[assignment]
        read(tmp_path / "more.doc")
    assert "--input-format" not in caught.value.remedy
    (tmp_path / "old.txt").write_text("seen already\n")
    with pytest.raises(EmptyDataError):
        read(tmp_path / "old.txt")
    holes = tmp_path / "holes.jsonl"
    holes.write_text('{"text": null}\n{"text": "fine"}\n')
    with pytest.raises(RowError):
        read(holes)
    assert read(holes, "data.on_error=skip") == {2: "fine"}


# -- agreement ----------------------------------------------------------------------------------


def test_agreement_is_numpys_with_intervals() -> None:
    draw = np.random.default_rng(0)
    one, weights = draw.normal(size=200), draw.integers(1, 4, 200).astype(float)
    other = one + draw.normal(size=200)
    settings = tiny_settings("evaluation.resamples=200").evaluation
    found = agreement("x", (one > 0, other > 0.1), (100 + one, other), weights, settings)
    assert found.n == 200
    equal = np.average((one > 0) == (other > 0.1), weights=weights)
    covariance = np.cov(one, other, fweights=weights.astype(int))
    r = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert found.decisions.value == pytest.approx(equal)
    assert found.logits.value == pytest.approx(r)
    for figure in (found.decisions, found.logits):
        assert figure.low < figure.value < figure.high
    flat = agreement("x", (one > 0, one > 0), (one, np.full(200, 0.1)), weights, settings)
    assert (flat.logits.value, flat.decisions.value) == (None, 1.0)
    assert flat.logits.note


# -- whole trainings ----------------------------------------------------------------------------


def more(folder: Path, count: int = 24) -> Path:
    path = folder / "more.txt"
    path.write_text("".join(comment(1000 + i, i % 2 == 0) + "\n" for i in range(count)))
    return path


def test_a_taught_run_reports_its_teachers(
    tiny: Callable[..., Any], runs: Path, tmp_path: Path, no_plots: None
) -> None:
    teachers = f"distill.teachers={runs / 'one'},{runs / 'other'}"
    own = (*PLAIN, teachers, f"distill.transfer={more(tmp_path)}", "distill.hidden_weight=1")
    result = train(tiny(*own), out=tmp_path / "out", name="x")
    facts = result.manifest["distill"]
    assert [teacher["name"] for teacher in facts["teachers"]] == ["one", "other"]
    assert all(len(teacher["sha256"]) == 64 for teacher in facts["teachers"])
    assert facts["transfer"]["rows"] == 24
    assert result.manifest["data"]["rows"]["train"] == 48
    report = json.loads((result.run.path / "validation.json").read_text())["teachers"]
    assert [one["name"] for one in report] == ["one", "other", "the mean of 2 teachers"]
    expected = json.loads((runs / "one" / "validation.json").read_text())["labels"]["toxicity"]
    assert report[0]["validation"]["labels"]["toxicity"]["ap"]["value"] == pytest.approx(expected["ap"]["value"])
    for one in report:
        same = one["agreement"]["toxicity"]
        assert 0 <= same["decisions"]["low"] <= same["decisions"]["value"] <= 1
        assert -1 <= same["logits"]["value"] <= 1
    card = (result.run.path / "README.md").read_text()
    assert "| learnt from | one, other, also on 24 comments without labels |" in card
    assert "### Teachers" in card


def test_a_student_learns_from_logits_alone(
    tiny: Callable[..., Any], runs: Path, tmp_path: Path, no_plots: None
) -> None:
    """The loss is the squared difference alone: it falls well below that of the best constant logit."""
    shared = ("dendrites.enabled=false", f"distill.teachers={runs / 'one'}", "distill.label_weight=0")
    calm = ("model.dropout=0", "train.token_dropout=0", "train.lr=0.01")
    settings = tiny(*shared, *calm, "train.epochs=12", "train.patience=12")
    result = train(settings, out=tmp_path, name="x")
    texts = load_dataset(settings.data, cache=tmp_path).split("train").texts
    constant = told(runs / "one", tmp_path / "told", texts=texts).logits.var()
    losses = [row["train_loss"] for row in result.progress.metrics]
    assert losses[0] > constant
    assert losses[-1] < constant / 4


def test_six_labels_some_unknown_to_the_teacher(
    runs: Path, prepared_six: Path, tokenizer_file: Path, tmp_path: Path, no_plots: None
) -> None:
    own = (f"data.source={prepared_six}", f"model.tokenizer={tokenizer_file}", *PLAIN)
    settings = tiny_settings(*own, f"distill.teachers={runs / 'one'}", f"distill.transfer={more(tmp_path)}")
    result = train(settings, out=tmp_path / "out", name="x")
    assert len(result.finished.evaluation.labels) == len(SIX)
    assert [one.label for one in result.finished.taught[0].agreement] == ["toxicity"]


CASES = {
    "gradient": ("dendrites.objective=gradient",),
    "correlation": ("dendrites.objective=correlation", "dendrites.top_epochs=1"),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
@pytest.mark.parametrize("case", list(CASES))
def test_killed_at_any_moment_a_taught_run_ends_in_the_same_bytes(
    case: str, tiny: Callable[..., Any], runs: Path, tmp_path: Path
) -> None:
    taught = (f"distill.teachers={runs / 'one'}", f"distill.transfer={more(tmp_path)}")
    extra = ("data.sample_size=48", "train.checkpoint_steps=1", "dendrites.min_gain=-1")
    settings = tiny(*extra, *taught, "distill.hidden_weight=0.5", *CASES[case])
    trainings = Trainings(settings, tmp_path / "runs")
    trainings.folder.mkdir()
    counts = trainings.finish(trainings.folder / "whole", resume=False)
    draw = random.Random(case)
    moments = [Killer(operation=n) for n in sorted(draw.sample(range(1, counts["operations"] + 1), 3))]
    moments += [Killer(step=n) for n in sorted(draw.sample(range(1, counts["steps"] + 1), 3))]
    assert kill_and_compare(trainings, moments) >= len(moments)
    # And where the teacher has to score anew in the run that goes on: the same bytes again.
    run = trainings.folder / "anew"
    assert trainings.kill(run, Killer(step=3)) != 0
    shutil.rmtree(trainings.folder / ".teachers")
    trainings.go_on(run)
    whole = outcome(trainings.folder / "whole")
    assert outcome(run) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
def test_two_processes_learn_from_a_teacher_as_one(tiny: Callable[..., Any], runs: Path, tmp_path: Path) -> None:
    taught = (f"distill.teachers={runs / 'one'}", f"distill.transfer={more(tmp_path, 25)}")
    settings = tiny(*CALM, "data.sample_size=48", *taught)
    for name, size in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()  # a cache each
        run = tmp_path / name / "run"
        assert together(settings, run, tmp_path, size=size) == [0] * size
    phases, one = figures(tmp_path / "one" / "run")
    assert figures(tmp_path / "two" / "run")[0] == phases
    np.testing.assert_allclose(figures(tmp_path / "two" / "run")[1], one, rtol=1e-4, atol=1e-4)
    kept = [sorted((tmp_path / name / ".teachers").glob("*/logits.f32")) for name in ("one", "two")]
    assert len(kept[0]) == 2
    assert [path.read_bytes() for path in kept[0]] == [path.read_bytes() for path in kept[1]]


def test_the_parts_of_two_ranks_make_up_the_whole_batchs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(7, 3, generator=generator) for _ in range(2))
    taught[2, 1] = NAN
    whole = logit_loss(logits, taught)
    parts = [(logit_loss(logits[p::2], taught[p::2]), float((~taught[p::2].isnan()).sum())) for p in (0, 1)]
    mean = sum(float(loss) * mass for loss, mass in parts) / sum(mass for _, mass in parts)
    assert mean == pytest.approx(float(whole))
    assert loss_mass(torch.full((2, 1), NAN), torch.ones(1, 2)) == 0  # transfer comments weigh nothing


def test_a_run_goes_on_with_the_same_teacher_alone(
    tiny: Callable[..., Any], runs: Path, tmp_path: Path, no_plots: None
) -> None:
    teacher = shutil.copytree(runs / "one" / "model", tmp_path / "teacher")
    settings = tiny(*PLAIN, f"distill.teachers={teacher}")
    result = train(settings, out=tmp_path / "out", name="x")
    shutil.rmtree(teacher)
    shutil.copytree(runs / "other" / "model", teacher)
    with pytest.raises(ResumeError, match="teachers or transfer comments"):
        train(settings, resume=result.run.path, out=tmp_path / "out")


def test_the_command_line(
    call: Callable[..., Any],
    runs: Path,
    prepared: Path,
    tokenizer_file: Path,
    tmp_path: Path,
    no_plots: None,
    clean_environment: None,
) -> None:
    overrides = [*TINY, f"model.tokenizer={tokenizer_file}", "train.epochs=1"]
    flags = [part for override in overrides for part in ("--set", override)]
    shared = ("train", "--data", prepared, "--no-dendrites", "--sample-size", 48, *flags)
    teachers = ("--teacher", runs / "one", "--teacher", runs / "other", "--transfer", more(tmp_path))
    code, out, err = call(*shared, *teachers, "--name", "x")
    assert code == 0, err
    assert "Teacher: one" in out
    assert "the mean of 2 teachers" in out
    assert "scored once" in err
    code, out, err = call(*shared, *teachers[:2], "--json")
    assert code == 0, err
    [found] = json.loads(out)["teachers"]
    assert set(found) == {"name", "validation", "agreement"}
    code, _, err = call(*shared, "--teacher", "none/here/at/all")
    assert (code, list((tmp_path / "runs").glob("train-2"))) == (20, []), err


def test_without_a_teacher_nothing_is_said_of_one(tiny: Callable[..., Any], tmp_path: Path, no_plots: None) -> None:
    result = train(tiny(*PLAIN), out=tmp_path, name="x")
    assert "distill" not in result.manifest
    assert "teachers" not in json.loads((result.run.path / "validation.json").read_text())
    card = (result.run.path / "README.md").read_text()
    assert "learnt from" not in card
    assert "### Teachers" not in card
    assert not (tmp_path / ".teachers").exists()
