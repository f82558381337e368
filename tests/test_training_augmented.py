"""Training on comments of which a share is changed anew in each epoch."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import Killer, Trainings, kill_and_compare
from toy import comment
from training_helpers import toy_trainer

from gkiller.data.augment import augment
from gkiller.errors import SettingsError
from gkiller.model.pretrained import load_tokenizer
from gkiller.tokens.batches import tokenize
from gkiller.training.learner import Augmented
from gkiller.training.train import train

TEXTS = [comment(number, number % 3 == 0) for number in range(40)]
PLAIN = ("data.sample_size=48", "dendrites.enabled=false", "train.epochs=2")


def changes(tokenizer: Any, **named: Any) -> Augmented:
    facts: dict[str, Any] = {"kinds": (), "intensity": 0.3, "share": 0.5, "seed": 3} | named
    return Augmented(TEXTS, tokenize(tokenizer, TEXTS), tokenizer, **facts)


@pytest.fixture
def tokenizer(tiny: Callable[..., Any]) -> Any:
    return load_tokenizer(tiny().model)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_sees_what_augment_makes_of_the_comments(tokenizer: Any, epoch: int) -> None:
    changed = augment(TEXTS, ("leet", "swap"), 0.5, 3 * 2**32 + epoch, intensity=0.3)
    assert 0.2 < np.mean([now != text for now, text in zip(changed, TEXTS, strict=True)]) < 0.8
    found, expected = (changes(tokenizer, kinds=("leet", "swap")).in_epoch(epoch), tokenize(tokenizer, changed))
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.starts.tolist() == expected.starts.tolist()


def test_each_epoch_sees_others_and_a_seed_the_same(tokenizer: Any) -> None:
    seen = [changes(tokenizer).in_epoch(epoch).ids.tolist() for epoch in (0, 1, 2)]
    assert seen[0] != seen[1] != seen[2] != seen[0]
    assert changes(tokenizer).in_epoch(0).ids.tolist() == seen[0]
    assert changes(tokenizer, seed=4).in_epoch(0).ids.tolist() != seen[0]
    assert changes(tokenizer, share=0).in_epoch(0).ids.tolist() == tokenize(tokenizer, TEXTS).ids.tolist()


def test_the_share_is_that_of_changed_comments(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with toy_trainer(tiny(*PLAIN, "train.augment=0.4", "augment.kinds=leet"), tmp_path) as (trainer, _):
        before = trainer.learner.train
        assert before.tokens == trainer.learner.augmented.tokens
        trainer.learner.begin_epoch(0)
        after = trainer.learner.train.tokens
        rows = range(len(before.tokens))
        same = [np.array_equal(*(one.pad_batch(np.array([row]))[0] for one in (before.tokens, after))) for row in rows]  # type: ignore[arg-type]
        assert 0.15 < 1 - np.mean(same) < 0.65
        assert trainer.learner.train.labels is before.labels
    with toy_trainer(tiny(*PLAIN), tmp_path) as (trainer, _):
        assert trainer.learner.augmented is None


def test_no_such_kind_leaves_no_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*PLAIN, "train.augment=0.4", "augment.kinds=leat")
    with pytest.raises(SettingsError, match="there is no kind of augmentation 'leat'") as caught:
        train(settings, out=tmp_path, name="x")
    assert "leet" in caught.value.remedy
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*PLAIN, "train.augment=0.5", "train.checkpoint_steps=1")
    runs = Trainings(settings, tmp_path)
    counts = runs.finish(tmp_path / "whole", resume=False)
    draw = random.Random(0)
    moments = [Killer(operation=n) for n in sorted(draw.sample(range(1, counts["operations"] + 1), 3))]
    moments += [Killer(step=n) for n in sorted(draw.sample(range(1, counts["steps"] + 1), 3))]
    assert kill_and_compare(runs, moments) >= len(moments)
