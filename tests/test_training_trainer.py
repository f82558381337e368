"""The loop: what each phase moves, when it ends, what it keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import toy_trainer, untimed

from gkiller.errors import DivergedError, SettingsError, SingleClassError
from gkiller.model.dendrites.growth import Growth
from gkiller.model.network import build_classifier
from gkiller.settings.definition import Settings
from gkiller.tokens.batches import Tokens
from gkiller.training.learner import Encoded, Learner, Validation, watched_labels
from gkiller.training.phases import Phase
from gkiller.training.runtime import Ranks
from gkiller.training.trainer import Trainer

SMALL = "data.sample_size=48"


def fixed_logits(growth: Any) -> torch.Tensor:
    """What the network answers to the same tokens, without dropout."""
    was_training = growth.model.training
    growth.model.eval()
    ids = torch.arange(5, 29).reshape(3, 8)
    with torch.inference_mode():
        logits = growth.model(ids, torch.ones_like(ids))
    growth.model.train(was_training)
    return logits


def watch(
    settings: Settings, folder: Path
) -> tuple[
    list[tuple[Phase, dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor], torch.Tensor]],
    list[dict[str, bool | float | str]],
]:
    """Train; return for each epoch its phase, and weights and logits at the phase's start and now."""
    start, seen = {}, []  # type: ignore[var-annotated]

    def on_event(event: Any) -> None:
        if event.kind == "phase":
            start.update(state=trainer.growth.state(), logits=fixed_logits(trainer.growth))
        elif event.kind == "epoch":
            phase = trainer.progress.phase
            now = trainer.growth.state(), fixed_logits(trainer.growth)
            seen.append((phase, start["state"], start["logits"], *now))

    with toy_trainer(settings, folder, on_event) as (trainer, rows):
        trainer.run()
    return seen, rows


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_dendritic(name: str) -> bool:
    return ".dendrite" in name


def test_by_gradient_only_dendrites_move_in_their_phase(tiny: Callable[..., Any], tmp_path: Path) -> None:
    seen, rows = watch(tiny(SMALL, "dendrites.lr=0.05"), tmp_path)
    assert [phase.trains for phase, *_ in seen] == ["neurons"] * 2 + ["dendrites"] * 2 + ["everything"]
    for phase, before, logits, after, now in seen:
        changed = moved(before, after)
        assert not torch.equal(logits, now)
        if phase.trains == "dendrites":
            assert not {name for name in changed if not is_dendritic(name)}  # bit by bit
            assert {name for name in changed if name.endswith("dendrite_tops")} == {
                name for name in before if name.endswith("dendrite_tops")
            }
    last = seen[3]  # at first the top weights are 0, so the weights behind them wait for an epoch
    assert moved(last[1], last[3]) == {name for name in last[1] if is_dendritic(name)}
    assert [row["trains"] for row in rows] == [phase.trains for phase, *_ in seen]


def test_joint_fine_tuning_moves_everything(tiny: Callable[..., Any], tmp_path: Path) -> None:
    seen, _ = watch(tiny(SMALL, "dendrites.joint_lr=0.01"), tmp_path)
    phase, before, _, after, _ = seen[-1]
    assert phase.name == "joint"
    assert set(before) - moved(before, after) == set()


def test_by_correlation_the_function_waits_for_the_top_weights(tiny: Callable[..., Any], tmp_path: Path) -> None:
    phases = ("dendrites.objective=correlation", "dendrites.epochs=10", "dendrites.top_epochs=2")
    calm = ("model.dropout=0", "train.token_dropout=0", "dendrites.lr=0.05", "dendrites.init_std=0.1")
    seen, rows = watch(tiny(SMALL, *phases, *calm), tmp_path)
    parts = [phase.trains for phase, *_ in seen]
    assert parts == ["neurons"] * 2 + ["candidates"] * 8 + ["tops"] * 2 + ["everything"]
    for phase, before, logits, after, now in seen:
        changed = moved(before, after)
        if phase.trains == "candidates":
            assert changed == {name for name in before if ".dendrites.0." in name}
            assert torch.equal(logits, now)
            assert not any(after[name].any() for name in after if name.endswith("dendrite_tops"))
        if phase.trains == "tops":
            assert changed == {name for name in before if name.endswith("dendrite_tops")}
            assert not torch.equal(logits, now)
    trained = [-row["train_loss"] for row in rows if row["trains"] == "candidates"]  # type: ignore[operator]
    assert all(0 < value < 1 for value in trained)
    assert trained[-1] > trained[0] + 0.05
    assert len({row["valid_ap"] for row in rows if row["trains"] == "candidates"}) == 1


def test_two_dendrites_are_grown_one_after_the_other(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", scripted([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]))
    seen, rows = watch(tiny(SMALL, "dendrites.count=2", "dendrites.lr=0.05", "dendrites.min_gain=0"), tmp_path)
    assert [row["dendrites"] for row in rows] == [0, 0, 1, 1, 1, 2, 2, 2]
    phase, before, _, after, _ = seen[6]
    assert (phase.name, phase.dendrites) == ("dendrite", 2)
    changed = moved(before, after)
    assert not any(".dendrites.0." in name or not is_dendritic(name) for name in changed)
    assert any(".dendrites.1.weight" in name for name in changed)
    assert any(".dendrite_links.0" in name for name in changed)
    last = seen[-1]
    assert any(".dendrites.0.weight" in name for name in moved(last[1], last[3]))


def test_without_dendrites_there_is_one_phase(tiny: Callable[..., Any], tmp_path: Path) -> None:
    _, rows = watch(tiny(SMALL, "dendrites.enabled=false"), tmp_path)
    assert [row["phase"] for row in rows] == ["neuron"] * 2
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert {name.rpartition("-epoch-")[0] for name in names if name.startswith("best")} == {"best-0"}
    kept = [f"checkpoint-{number:08d}" for number in (1, 2)]
    assert sorted(name for name in names if name.startswith("checkpoint")) == kept


def test_a_phase_starts_from_the_best_weights_of_the_last(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", scripted([0.5, 0.9, 0.3, 0.2, 0.1, 0.1]))
    settings = tiny(SMALL, "train.epochs=4", "dendrites.epochs=1", "dendrites.joint_epochs=0")
    seen, rows = watch(settings, tmp_path)
    assert [row["best"] for row in rows] == [True, True, False, False, False]
    best = seen[1][3]
    started = seen[4][1]
    assert all(torch.equal(started[name], best[name]) for name in best)
    assert not all(torch.equal(seen[3][3][name], best[name]) for name in best)


# -- the end of a phase -------------------------------------------------------------------------


def scripted(scores: list[float]) -> Callable[..., Any]:
    """A validation that reads its figures from a list; the loss does not matter."""
    remaining = list(scores)
    return lambda self: Validation(0.5, remaining.pop(0), 0.5)


def run_scripted(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], *overrides: Any
) -> tuple[Any, ...]:
    monkeypatch.setattr(Trainer, "validate", scripted(scores))
    notes = []
    with toy_trainer(
        tiny(SMALL, *overrides), tmp_path, lambda e: notes.append(e.message) if e.kind == "note" else None
    ) as (trainer, rows):
        progress = trainer.run()
    return progress, rows, [note for note in notes if "per Linear: AP" not in note]


def test_patience_ends_a_phase(tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [0.5, 0.6, 0.55, 0.6, 0.7, 0.8]
    overrides = ("train.epochs=9", "train.patience=2", "dendrites.epochs=1", "dendrites.joint_epochs=1")
    progress, rows, notes = run_scripted(tiny, tmp_path, monkeypatch, scores, *overrides)
    assert [row["phase"] for row in rows] == ["neuron"] * 4 + ["dendrite", "joint"]
    assert notes == progress.stopped_early == ["neuron phase ended by patience after epoch 4"]
    assert progress.best == {0: 0.6, 1: 0.8}
    assert progress.best_epoch == {0: 2, 1: 6}
    assert progress.finished


def test_the_history_rule_ends_the_neuron_phase(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.5, 0.6, 0.6, 0.6, 0.7]
    overrides = (
        "train.epochs=9",
        "train.patience=9",
        "dendrites.switch=history",
        "dendrites.switch_patience=2",
        "dendrites.epochs=1",
        "dendrites.joint_epochs=0",
    )
    progress, rows, notes = run_scripted(tiny, tmp_path, monkeypatch, scores, *overrides)
    assert [row["phase"] for row in rows] == ["neuron"] * 4 + ["dendrite"]
    assert notes == ["neuron phase ended by the history rule after epoch 4"]
    assert progress.tracked == [0.5, 0.6, 0.6, 0.6]


def test_the_history_rule_waits_while_scores_rise(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    overrides = (
        "train.epochs=5",
        "dendrites.switch=history",
        "dendrites.switch_patience=1",
        "dendrites.epochs=1",
        "dendrites.joint_epochs=0",
    )
    progress, rows, _ = run_scripted(tiny, tmp_path, monkeypatch, scores, *overrides)
    assert [row["phase"] for row in rows] == ["neuron"] * 5 + ["dendrite"]
    assert progress.stopped_early == []


def test_the_history_rule_watches_ap_even_when_f1_is_0(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda self: Validation(0.5, 0.25, 0.0))
    overrides = (
        "train.epochs=9",
        "train.patience=9",
        "train.metric=f1",
        "dendrites.switch=history",
        "dendrites.switch_patience=2",
        "dendrites.epochs=1",
        "dendrites.joint_epochs=0",
    )
    with toy_trainer(tiny(SMALL, *overrides), tmp_path) as (trainer, rows):
        progress = trainer.run()
    assert len(rows) < 9  # an AP that stands still ends it; an F1 of 0 never would
    assert progress.best == {0: 0.0, 1: 0.0}


@pytest.mark.parametrize("metric", ["ap", "f1"])
def test_the_metric_is_the_one_that_is_asked_for(tiny: Callable[..., Any], tmp_path: Path, metric: str) -> None:
    with toy_trainer(tiny(SMALL, f"train.metric={metric}", "dendrites.enabled=false"), tmp_path) as made:
        progress, rows = made[0].run(), made[1]
    assert progress.best[0] == max(row[f"valid_{metric}"] for row in rows)


# -- steps --------------------------------------------------------------------------------------


def only(split: Encoded, rows: np.ndarray[Any, Any]) -> Encoded:
    """Some rows of an encoded split."""
    pieces = [split.tokens.ids[slice(*split.tokens.starts[row : row + 2])] for row in rows]
    tokens = Tokens(np.concatenate(pieces), np.cumsum([0, *map(len, pieces)]), split.tokens.pad)
    return Encoded(tokens, split.labels[rows], split.weights[rows])


def test_sample_weights_count_in_the_validation_metric(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(SMALL), tmp_path) as (trainer, _):
        whole = trainer.valid_split
        plain = trainer.validate()
        kept = np.flatnonzero(np.arange(len(whole.labels)) % 3 > 0)
        trainer.valid_split = only(whole, kept)
        fewer = trainer.validate()
        weights = np.zeros(len(whole.labels))
        weights[kept] = 0.5
        trainer.valid_split = replace(whole, weights=weights)
        weighted = trainer.validate()
    assert fewer.ap != plain.ap
    assert (weighted.ap, weighted.f1) == pytest.approx((fewer.ap, fewer.f1))
    assert weighted.loss == plain.loss


def test_events_tell_the_whole_story(tiny: Callable[..., Any], tmp_path: Path) -> None:
    events: list[Any] = []
    with toy_trainer(tiny(SMALL), tmp_path, events.append) as (trainer, rows):
        trainer.run()
    assert [e.phase for e in events if e.kind == "phase"] == ["neuron", "dendrite", "joint"]
    assert [e.phase_index for e in events if e.kind == "phase"] == [1, 2, 3]
    steps = [e for e in events if e.kind == "step"]
    assert len(steps) == 5 * 3
    assert [(e.epoch, e.step) for e in steps[:6]] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {(e.steps, e.metric) for e in steps} == {(3, "ap")}
    epochs = [e for e in events if e.kind == "epoch"]
    assert [e.score for e in epochs] == [row["valid_ap"] for row in rows]
    assert [e.loss for e in epochs] == [row["train_loss"] for row in rows]
    weighted = sum(e.loss * 16 for e in steps[:3]) / 48
    assert epochs[0].loss == pytest.approx(weighted)


def test_token_dropout_hides_real_tokens_only(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(SMALL, "train.token_dropout=0.5"), tmp_path) as (trainer, _):
        ids, mask = trainer.learner._batch(trainer.learner.train.tokens, np.arange(48))
        torch.manual_seed(0)
        hidden = trainer.learner._hide_tokens(ids, mask)
    changed = hidden != ids
    assert set(hidden[changed].tolist()) == {4}
    special = (ids == 2) | (ids == 3) | (mask == 0)
    assert not changed[special].any()
    assert 0.4 < changed[~special].float().mean() < 0.6


def test_no_token_dropout(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(SMALL, "train.token_dropout=0"), tmp_path) as (trainer, _):
        ids, mask = trainer.learner._batch(trainer.learner.train.tokens, np.arange(8))
        assert trainer.learner._hide_tokens(ids, mask) is ids


@pytest.mark.parametrize(("clip", "bound"), [(0.5, 0.5), (0.0, None)])
def test_gradients_are_clipped(
    tiny: Callable[..., Any], tmp_path: Path, clip: float, bound: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []

    def record(optimizer: Any, *_: Any) -> None:
        grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
        norms.append(torch.nn.utils.get_total_norm(grads).item())

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    settings = tiny(SMALL, f"train.clip_norm={clip}", "dendrites.enabled=false", "train.epochs=1")
    with toy_trainer(settings, tmp_path) as (trainer, _):
        trainer.run()
    assert len(norms) == 3
    assert bound is None or max(norms) <= bound * 1.001
    assert bound is not None or max(norms) > 0.5


def test_rates_follow_the_schedule(tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, step = [], torch.optim.AdamW.step

    def record(optimizer: Any, *given: Any) -> Any:
        rates.append({group["lr"] for group in optimizer.param_groups})
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    settings = tiny(SMALL, "train.schedule=step", "train.lr=0.01", "dendrites.lr=0.2", "dendrites.joint_lr=0.003")
    with toy_trainer(settings, tmp_path) as (trainer, _):
        trainer.run()
    found = [lr for [lr] in rates]
    assert found == pytest.approx([0.01] * 3 + [0.001] * 3 + [0.2] * 3 + [0.02] * 3 + [0.003] * 3)


# -- refusals -----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(SMALL), tmp_path) as (trainer, rows):
        with torch.no_grad():
            trainer.growth.model.classifier.bias[0] = float("inf")
        with pytest.raises(DivergedError) as caught:
            trainer.run()
    assert caught.value.where == "epoch 1"
    assert "train.lr" in caught.value.remedy
    assert rows == []


def test_scores_that_are_not_finite(tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(trainer: Any, *_: Any) -> None:
        with torch.no_grad():
            trainer.growth.model.classifier.bias[0] = float("nan")

    monkeypatch.setattr(Trainer, "_train_epoch", spoil)
    with toy_trainer(tiny(SMALL), tmp_path) as (trainer, _), pytest.raises(DivergedError, match="validation"):
        trainer.run()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_one_class_only_is_refused_before_an_epoch_is_spent(
    tiny: Callable[..., Any], tmp_path: Path, split: str
) -> None:
    with toy_trainer(tiny(SMALL), tmp_path) as (trainer, _):
        encoded = {"train": trainer.learner.train, "valid": trainer.valid_split}
        encoded[split] = replace(encoded[split], labels=np.zeros_like(encoded[split].labels))
        with pytest.raises(SingleClassError) as caught:
            Trainer(
                trainer.settings,
                ("toxicity",),
                encoded["valid"],
                Learner(
                    trainer.settings,
                    ("toxicity",),
                    trainer.growth,
                    encoded["train"],
                    ranks=Ranks(),
                    mask_token=4,
                    special_tokens=[0, 2, 3],
                ),
                trainer.store,
                on_event=lambda event: None,
                on_metrics=lambda row: None,
            )
    assert caught.value.where == split
    assert "toxicity" in caught.value.what


def test_the_validation_metric_is_of_the_labels_that_are_watched(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """A second label that is the first turned round: no score can be right about both."""
    with toy_trainer(tiny(SMALL), tmp_path) as (trainer, _):
        settings, split = trainer.settings, trainer.valid_split
        size = trainer.growth.model.bert.embeddings.word_embeddings.num_embeddings  # type: ignore[union-attr]
        network = build_classifier(settings.model, ("first", "second"), size)  # type: ignore[arg-type]
        split = replace(split, labels=np.hstack([split.labels, 1 - split.labels]))
        found = {}
        for watched in ((), ("first",), ("second",)):
            train = settings.train.model_copy(update={"metric_labels": watched})
            learner = Learner(
                settings.model_copy(update={"train": train}),
                ("first", "second"),
                Growth(network),
                split,
                ranks=Ranks(),
                mask_token=4,
                special_tokens=[0, 2, 3],
            )
            found[watched] = learner.validate(split)
    assert found[()].loss == found["first",].loss == found["second",].loss
    assert found["first",].ap != found["second",].ap
    assert found[()].ap == pytest.approx((found["first",].ap + found["second",].ap) / 2)


def test_a_label_to_watch_that_is_not_there_answers_with_the_nearest() -> None:
    assert watched_labels(("toxicity", "threat"), ()) == [0, 1]
    assert watched_labels(("toxicity", "threat"), ("threat",)) == [1]
    with pytest.raises(SettingsError, match="toxicty") as caught:
        watched_labels(("toxicity", "threat"), ("toxicty",))
    assert caught.value.where == "train.metric_labels"
    assert "'toxicity'" in caught.value.remedy


def test_training_learns_the_toy_corpus(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Not a benchmark: a network that sees 'idiot' must come to know it."""
    overrides = ("train.epochs=25", "train.lr=0.01", "dendrites.enabled=false", "train.patience=25")
    with toy_trainer(tiny("train.token_dropout=0", *overrides), tmp_path) as (trainer, rows):
        trainer.run()
    assert max(row["valid_ap"] for row in rows) > 0.9
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2


def test_metrics_are_plain_and_untimed_ones_repeat(tiny: Callable[..., Any], tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        with toy_trainer(tiny(SMALL), tmp_path / folder) as (trainer, rows):
            trainer.run()
        found.append(untimed(rows))
    assert found[0] == found[1]
    assert all(isinstance(value, int | float | str | bool) for row in found[0] for value in row.values())
