"""Fine-tuning of giants: killed and gone on with; with lower layers frozen and their outputs kept."""

import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from giants import KINDS, TEXTS, giant_settings, write_encoder
from killing import Killer, Trainings, kill_and_compare
from safetensors.torch import load_file
from toy import tiny_settings

from gkiller.errors import DivergedError, InterruptedRunError, OutputError, SettingsError
from gkiller.model.network import ToxicityClassifier, build_classifier
from gkiller.model.pretrained import load_tokenizer
from gkiller.settings import resolve
from gkiller.tokens.batches import Tokens, tokenize
from gkiller.training import frozen
from gkiller.training.frozen import frozen_parameters, lower_outputs
from gkiller.training.run import RunDirectory
from gkiller.training.train import train

HEAD = {"classifier.weight", "classifier.bias"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_encoder(tmp_path_factory.mktemp(kind) / "encoder", kind) for kind in KINDS}


def network(encoder: Path, pooling: str = "mean") -> tuple[ToxicityClassifier, Tokens]:
    settings = giant_settings(encoder, f"model.pooling={pooling}").model
    tokenizer = load_tokenizer(settings)
    torch.manual_seed(0)
    model = build_classifier(settings, ("toxicity", "threat"), tokenizer.get_vocab_size())
    return model.eval(), tokenize(tokenizer, TEXTS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
@pytest.mark.parametrize(("kind", "layers"), [("mpnet", 0), ("roberta", 2)])
def test_killed_at_any_moment_a_giant_ends_in_the_same_bytes(
    kind: str, layers: int, encoders: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    own = (f"data.source={prepared}", f"train.freeze_layers={layers}", "train.checkpoint_steps=1")
    settings = giant_settings(encoders[kind], "data.sample_size=48", "train.epochs=2", *own)
    runs = Trainings(settings, tmp_path)
    counts = runs.finish(tmp_path / "whole", resume=False)
    draw = random.Random(kind)
    operations = sorted(draw.sample(range(1, counts["operations"] + 1), 4))
    moments = [*(Killer(operation=number) for number in operations), Killer(step=1), Killer(step=4)]
    assert kill_and_compare(runs, moments) >= len(moments)
    assert not (tmp_path / "whole" / "cache").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_from_the_lower_outputs_on_it_computes_what_the_whole_network_does(
    kind: str, count: int, encoders: dict[str, Path], tmp_path: Path
) -> None:
    model, tokens = network(encoders[kind])
    names = [name for name, _ in model.named_parameters()]
    lower = lower_outputs(model, tokens, count, tmp_path, 4)
    assert lower.values.dtype == np.float16
    assert lower.values.shape == (len(tokens.ids), 16)
    rows = np.array([3, 0, 13, len(TEXTS) - 1])
    ids, mask = map(torch.from_numpy, tokens.pad_batch(rows))
    with torch.inference_mode():
        expected, found = model(ids, mask), lower.logits(model, rows, torch.device("cpu"))
    assert [name for name, _ in model.named_parameters()] == names
    difference = float((found - expected).abs().max())
    assert 0 < difference < 5e-3  # float16 has eleven bits
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_is_the_encoder_below(kind: str, encoders: dict[str, Path]) -> None:
    model, _ = network(encoders[kind])
    every = {name for name, _ in model.named_parameters()}
    assert frozen_parameters(model, 0) == frozenset()
    assert every - frozen_parameters(model, 3) == HEAD
    moved = every - frozen_parameters(model, 2) - HEAD
    assert len(moved) == 16
    assert all(".layer.2." in name for name in moved)
    with pytest.raises(SettingsError, match="is 4, and the encoder has 3 layers"):
        frozen_parameters(model, 4)


def test_a_pooler_learns_with_the_upper_layers(encoders: dict[str, Path]) -> None:
    model, _ = network(encoders["mpnet"], "cls")
    learns = {name for name, _ in model.named_parameters()} - frozen_parameters(model, 3)
    assert learns == HEAD | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_frozen_layers_keep_their_bytes_and_the_others_learn(
    kind: str, encoders: dict[str, Path], prepared: Path, tmp_path: Path, no_plots: None
) -> None:
    overrides = (f"data.source={prepared}", "train.freeze_layers=2")
    told: list[Any] = []
    result = train(giant_settings(encoders[kind], *overrides), out=tmp_path, name="x", on_event=told.append)
    before = dict(network(encoders[kind])[0].named_parameters())
    after = load_file(result.run.model / "model.safetensors")
    still = frozen_parameters(network(encoders[kind])[0], 2)
    assert still
    for name in after.keys() - HEAD:
        assert torch.equal(after[name], before[name]) == (name in still), name
    (checkpoint,) = result.run.checkpoints.glob("checkpoint-*1")
    kept = {name.rpartition("/")[0] for name in load_file(checkpoint / "optimizer.safetensors")}
    assert kept == after.keys() - still
    assert result.manifest["network"]["frozen_layers"] == 2
    assert "its embeddings and lowest 2 layers not fine-tuned" in (result.run.model / "README.md").read_text()
    assert sum("outputs for" in event.message for event in told) == 2
    assert not (result.run.path / "cache").exists()


def test_outputs_are_computed_once_and_again_when_they_are_damaged(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = network(encoders["mpnet"])
    computed, compute = [], frozen._compute

    def counted(model: Any, tokens: Any, count: Any, *rest: Any) -> None:
        computed.append(count)
        compute(model, tokens, count, *rest)

    monkeypatch.setattr(frozen, "_compute", counted)
    first = np.array(lower_outputs(model, tokens, 1, tmp_path, 4).values)
    lower_outputs(model, tokens, 1, tmp_path, 4)
    assert computed == [1]
    (place,) = tmp_path.iterdir()
    content = bytearray((place / "outputs.f16").read_bytes())
    content[7] ^= 1
    (place / "outputs.f16").write_bytes(content)
    again = lower_outputs(model, tokens, 1, tmp_path, 4)
    np.testing.assert_array_equal(again.values, first)
    assert computed == [1, 1]
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.bias += 1  # type: ignore[operator, union-attr]
    lower_outputs(model, tokens, 1, tmp_path, 4)
    assert computed == [1, 1, 1]
    lower_outputs(model, tokens, 2, tmp_path, 4)
    assert computed == [1, 1, 1, 2]


def test_bf16_outputs_are_others_and_kept_apart(encoders: dict[str, Path], tmp_path: Path) -> None:
    model, tokens = network(encoders["mpnet"])
    exact = lower_outputs(model, tokens, 2, tmp_path, 4)
    rounded = lower_outputs(model, tokens, 2, tmp_path, 4, "bf16")
    assert len(list(tmp_path.iterdir())) == 2
    difference = np.abs(np.float32(exact.values) - np.float32(rounded.values)).max()
    assert 1e-3 < difference < 0.1  # bf16 has eight bits
    assert lower_outputs(model, tokens, 2, tmp_path, 4, "auto").values.filename == exact.values.filename  # type: ignore[attr-defined]


@pytest.mark.parametrize("layers", [0, 2])
def test_a_giant_trained_in_bf16_keeps_fp32_weights(
    layers: int, encoders: dict[str, Path], prepared: Path, tmp_path: Path, no_plots: None
) -> None:
    common = (f"data.source={prepared}", f"train.freeze_layers={layers}", "train.epochs=1")
    losses = {}
    for precision in ("fp32", "auto", "bf16"):
        settings = giant_settings(encoders["mpnet"], *common, f"train.precision={precision}")
        result = train(settings, out=tmp_path, name=precision)
        weights = load_file(result.run.model / "model.safetensors").values()
        assert {weight.dtype for weight in weights} == {torch.float32}
        losses[precision] = result.progress.metrics[-1]["train_loss"]
    assert losses["auto"] == losses["fp32"]  # no CUDA here
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)


def test_a_full_disk_is_met_before_anything_is_computed(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = network(encoders["mpnet"])
    monkeypatch.setattr("gkiller.training.frozen._compute", lambda *given: pytest.fail("it was computed"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OutputError, match="the disk is nearly full"):
        lower_outputs(model, tokens, 1, tmp_path, 4)


def test_outputs_that_float16_cannot_hold(encoders: dict[str, Path], tmp_path: Path) -> None:
    model, tokens = network(encoders["bert"])
    with torch.no_grad():
        model.bert.encoder.layer[0].output.LayerNorm.weight.fill_(1e6)  # type: ignore[index, union-attr]
    with pytest.raises(DivergedError, match="too large for float16"):
        lower_outputs(model, tokens, 1, tmp_path, 4)
    assert list(tmp_path.iterdir()) == []


def test_stopped_while_it_trains_the_outputs_stay(
    encoders: dict[str, Path], prepared: Path, tmp_path: Path, no_plots: None
) -> None:
    overrides = (f"data.source={prepared}", "train.freeze_layers=1", "data.sample_size=48")
    settings = giant_settings(encoders["mpnet"], *overrides)

    def stop(event: Any) -> None:
        if event.kind == "step" and event.step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train(settings, out=tmp_path, name="x", on_event=stop, signals=True)
    run = RunDirectory.open(tmp_path / "x")
    assert len(list((run.path / "cache").iterdir())) == 2  # of the training and the validation split
    train(settings, out=tmp_path, resume=run.path)
    assert not (run.path / "cache").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("dendrites.enabled=false",), "model.encoder is 'auto'"),
        (("model.encoder=a/b",), "dendrites.enabled must be false"),
        (("model.encoder=a/b", "dendrites.enabled=false"), "train.token_dropout must be 0"),
        (
            ("model.encoder=a/b", "dendrites.enabled=false", "train.token_dropout=0", "train.augment=0.1"),
            "train.augment must be 0",
        ),
    ],
)
def test_what_cannot_go_with_frozen_layers(overrides: tuple[Any, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        tiny_settings("train.freeze_layers=1", *overrides)
    assert resolve(flags={"model.arch": "giant", "model.encoder": "a/b", "train.freeze_layers": 9}, environ={})


def test_more_frozen_layers_than_there_are_leave_no_run(
    encoders: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    settings = giant_settings(encoders["bert"], f"data.source={prepared}", "train.freeze_layers=4")
    with pytest.raises(SettingsError, match="the encoder has 3 layers"):
        train(settings, out=tmp_path, name="x")
    assert not (tmp_path / "x").exists()
