"""The space of a sweep: what may be searched, how it is written, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from gkiller.errors import SettingsError
from gkiller.settings import resolve, settings_of, settings_toml, settings_values
from gkiller.settings.layers import parse
from gkiller.sweep.study import Dimension, parse_space, range_text, shortest_names


def one(text: str) -> Dimension:
    (dimension,) = parse_space([text], "--space").values()
    return dimension


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("train.lr=log:1e-5..1e-3", Dimension(low=1e-5, high=1e-3, log=True)),
        ("train.lr = log: 0.00001 .. 1E-3", Dimension(low=1e-5, high=1e-3, log=True)),
        ("model.dropout=0..0.4", Dimension(low=0.0, high=0.4)),
        ("train.epochs=int:1..4", Dimension(low=1, high=4, whole=True)),
        ("train.epochs=1..4", Dimension(low=1, high=4, whole=True)),
        ("model.ffn=log:64..512", Dimension(low=64, high=512, log=True, whole=True)),
        ("train.batch_size=16,32", Dimension(choices=(16, 32))),
        ("model.pooling=cls, mean", Dimension(choices=("cls", "mean"))),
        ("dendrites.enabled=yes,no,yes", Dimension(choices=(True, False))),
        ("train.epochs=none,2", Dimension(choices=(None, 2))),
        ("model.encoder=../a,../b", Dimension(choices=("../a", "../b"))),
    ],
)
def test_a_range_is_read(text: str, dimension: Dimension) -> None:
    assert one(text) == dimension
    key = text.partition("=")[0].strip()
    assert one(f"{key}={range_text(dimension)}") == dimension


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.lrr=log:1e-5..1e-3", "did you mean 'train.lr'"),
        ("lr=log:1e-5..1e-3", "did you mean 'train.lr'"),
        ("train.lr=log:1e-5..3", "train.lr must be a number > 0 and <= 1, not 3"),
        ("train.lr=log:0..1e-3", "train.lr must be a number > 0"),
        ("train.weight_decay=log:0..0.1", "begins above 0"),
        ("model.dropout=0.4..0.1", "is empty"),
        ("model.dropout=0.1..0.1", "is empty"),
        ("model.dropout=int:0..1", "no whole number"),
        ("train.epochs=1.5..3", "train.epochs must be a whole number"),
        ("train.epochs=1...3", "no range for train.epochs"),
        ("train.lr=log:1e-5", "write A..B"),
        ("train.lr=1e-3,1e-2,x", "train.lr must be a number"),
        ("model.pooling=mean,clss", "did you mean 'cls'"),
        ("model.pooling=", "no range for model.pooling"),
        ("dendrites.patterns=*,a", "is a list"),
        ("data.valid_share=0.1..0.2", "cannot be compared"),
        ("train.metric=ap,f1", "cannot be compared"),
        ("evaluation.resamples=10,20", "cannot be compared"),
        ("sweep.jobs=1,2", "cannot be compared"),
        ("train.lr", "is not KEY=RANGE"),
    ],
)
def test_a_bad_range_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_space([text], "--space")
    assert said in str(caught.value)
    assert caught.value.where.startswith("--space")


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_space(["train.lr=1,2", "train.lrr=1,2", "model.dropout=0..0.1", "model.dropout=0..0.2"], "x.toml")
    for part in ("train.lr must be", "'train.lrr'", "model.dropout is there twice"):
        assert part in str(caught.value)
    with pytest.raises(SettingsError, match="nothing to search"):
        parse_space([], "x.toml")
    with pytest.raises(SettingsError, match=r"'model\.dropout' is not KEY=RANGE"):
        parse_space(["train.lr=0.1,0.2", "model.dropout"], "--space")


TABLE = """
[sweep.space]
"train.lr" = "log:1e-5..1e-3"
train.batch_size = [16, 32]
model.pooling = ["mean", "cls"]
"""
ENTRIES = ("train.lr=log:1e-5..1e-3", "train.batch_size=16,32", "model.pooling=mean,cls")


def test_a_file_writes_it_as_a_table_and_reads_it_back(tmp_path: Path) -> None:
    layer = parse(TABLE, "x.toml")
    assert layer.problems == []
    assert layer.given["sweep.space"].value == ENTRIES
    assert layer.given["sweep.space"].where == "x.toml, line 2"
    (tmp_path / "x.toml").write_text(TABLE)
    settings = resolve(config=tmp_path / "x.toml", environ={}).settings
    assert list(parse_space(settings.sweep.space, "x.toml")) == ["train.lr", "train.batch_size", "model.pooling"]
    (tmp_path / "y.toml").write_text(settings_toml(settings))
    assert resolve(config=tmp_path / "y.toml", environ={}).settings == settings


def test_a_variable_may_hold_choices(tmp_path: Path) -> None:
    environ = {"GKILLER_SWEEP__SPACE": ",".join(ENTRIES)}
    found = resolve(environ=environ, directory=tmp_path).settings.sweep.space
    assert found == ENTRIES


@pytest.mark.parametrize("arch", [(), ("model.arch=giant", "model.encoder=x")])
def test_the_space_without_any_is_sound(tmp_path: Path, arch: tuple[Any, ...]) -> None:
    settings = resolve(overrides=arch, environ={}, directory=tmp_path).settings
    space = parse_space(settings.sweep.space, "default")
    assert {"train.lr", "train.epochs", "model.dropout", "model.pooling"} <= set(space)
    low, high = space["train.lr"].low, space["train.lr"].high
    assert low < settings.train.lr < high


def test_settings_as_plain_values_and_back(tmp_path: Path) -> None:
    settings = resolve(
        overrides=["train.lr=0.5", "train.checkpoint_seconds=none", "data.label_columns=a,b"],
        environ={},
        directory=tmp_path,
    ).settings
    values = settings_values(settings)
    assert settings_of(values, "x") == settings
    assert settings_of({**values, "train.lr": 0.25}, "x").train.lr == 0.25
    with pytest.raises(SettingsError, match=r"model\.hidden .* must be a multiple"):
        settings_of({**values, "model.heads": 3}, "trial 1")
    with pytest.raises(SettingsError, match=r"unknown setting 'train\.x'"):
        settings_of({"train.x": 1}, "x")


def test_names_are_short_where_they_can_be() -> None:
    assert shortest_names(["train.lr", "model.dropout"]) == {"train.lr": "lr", "model.dropout": "dropout"}
    assert shortest_names(["train.lr", "dendrites.lr"]) == {"train.lr": "train.lr", "dendrites.lr": "dendrites.lr"}
