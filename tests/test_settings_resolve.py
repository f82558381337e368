"""Layers: their order, the origin of each value, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkiller.errors import SettingsError
from gkiller.settings import (
    Settings,
    nearest_keys,
    preset_about,
    preset_names,
    resolve,
    settings_by_key,
    settings_reference,
)


@pytest.fixture
def here(tmp_path: Path) -> Callable[..., Any]:
    """Resolve in an empty directory with no variables."""

    def call(toml: Any = None, **arguments: Any) -> Any:
        if toml is not None:
            (tmp_path / "gkiller.toml").write_text(toml, encoding="utf-8")
        return resolve(**{"environ": {}, "directory": tmp_path, **arguments})

    return call


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        call(*arguments, **named)
    return caught.value


def test_nothing_said_gives_the_definition(here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKILLER_TRAIN__LR", "0.5")  # not in the given environ: must not leak in
    resolved = here()
    assert resolved.settings.train.lr == type(resolved.settings.train)().lr
    assert set(resolved.origins.values()) == {"default"}
    assert set(resolved.origins) == {entry.key for entry in settings_reference()}
    assert type(resolved.settings) is Settings
    assert resolved.preset == "default"


def test_each_layer_is_stronger_than_the_one_before(here: Callable[..., Any]) -> None:
    layers = [
        ({"preset": "fast"}, 2, "preset fast"),
        ({"toml": "[train]\nepochs = 11\n"}, 11, "gkiller.toml"),
        ({"environ": {"GKILLER_TRAIN__EPOCHS": "12"}}, 12, "GKILLER_TRAIN__EPOCHS"),
        ({"flags": {"train.epochs": "13"}}, 13, "--epochs"),
        ({"overrides": ["train.epochs=14"]}, 14, "--set"),
    ]
    arguments: dict[Any, Any] = {}
    for more, value, origin in layers:
        arguments |= more  # type: ignore[call-overload]
        resolved = here(**arguments)
        assert resolved.settings.train.epochs == value
        assert resolved.origins["train.epochs"] == origin
    assert resolved.origins["evaluation.resamples"] == "preset fast"
    assert resolved.origins["train.metric"] == "default"


def test_weaker_layers_still_give_what_stronger_ones_leave(here: Callable[..., Any]) -> None:
    resolved = here("[train]\nepochs = 11\nbatch_size = 8\n[model]\nhidden = 64\n", flags={"train.epochs": "13"})
    assert (resolved.settings.train.epochs, resolved.settings.train.batch_size) == (13, 8)
    assert resolved.settings.model.hidden == 64


def test_the_last_override_wins(here: Callable[..., Any]) -> None:
    assert here(overrides=["train.lr=0.1", "train.lr=0.2"]).settings.train.lr == 0.2


def test_config_replaces_the_file_in_the_directory(here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[train]\nlr = 0.25\n", encoding="utf-8")
    resolved = here("[train]\nepochs = 11\n", config="other.toml")
    assert resolved.settings.train.lr == 0.25
    assert resolved.origins["train.lr"] == "other.toml"
    assert resolved.origins["train.epochs"] == "default"


def test_preset_may_be_named_by_flag_variable_or_file_in_that_order(here: Callable[..., Any]) -> None:
    toml = 'preset = "seed"\n'
    assert here(toml).preset == "seed"
    assert here(toml, environ={"GKILLER_PRESET": "fast"}).preset == "fast"
    assert here(toml, environ={"GKILLER_PRESET": "fast"}, preset="default").preset == "default"
    assert here(toml).origins["train.schedule"] == "preset seed"


def test_every_preset_resolves(here: Callable[..., Any]) -> None:
    assert preset_names()[0] == "default"
    assert {"seed", "fast"} < set(preset_names())
    for name in preset_names():
        assert here(preset=name).preset == name
    assert set(here(preset="default").origins.values()) == {"default"}


def test_switched_off_flag_is_its_own_origin(here: Callable[..., Any]) -> None:
    assert here(flags={"dendrites.enabled": False}).origins["dendrites.enabled"] == "--no-dendrites"
    assert here(flags={"dendrites.enabled": True}).origins["dendrites.enabled"] == "--dendrites"


def test_file_accepts_bom_crlf_and_dotted_keys(here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "gkiller.toml").write_bytes(b"\xef\xbb\xbftrain.lr = 0.5\r\n[model]\r\nhidden = 64\r\n")
    resolved = here()
    assert (resolved.settings.train.lr, resolved.settings.model.hidden) == (0.5, 64)


@pytest.mark.parametrize(
    ("toml", "line", "nearest"),
    [
        ("[train]\nepochs = 1\nlrr = 3\n", "line 3", "train.lr"),
        ("\n[trian]\nlr = 3\n", "line 3", "did you mean 'train.lr'?"),
        ("train.epoch = 3\n", "line 1", "train.epochs"),
        ("lr = 3\n", "line 1", "train.lr"),
        ("train = 3\n", "line 1", "train.batch_size"),
    ],
)
def test_unknown_key_in_a_file_names_the_line_and_the_nearest(
    here: Callable[..., Any], toml: str, line: str, nearest: str
) -> None:
    error = refusal(here, toml)
    assert "unknown setting" in error.what
    assert error.where == f"gkiller.toml, {line}"
    assert nearest in error.remedy


@pytest.mark.parametrize("name", ["GKILLER_TRAIN__LRR", "GKILLER_TRAIN_LR", "gkiller_train__lrr", "GKILLER_TRIAN__LR"])
def test_unknown_variable_names_the_nearest(here: Callable[..., Any], name: str) -> None:
    error = refusal(here, environ={name: "1"})
    assert error.where == name
    assert "GKILLER_TRAIN__LR (train.lr)" in error.remedy


def test_other_programs_variables_are_left_alone(here: Callable[..., Any]) -> None:
    assert here(environ={"HOME": "/", "GKILL": "1", "XGKILLER_TRAIN__LR": "9"}).settings == here().settings


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.lrr=3", "train.lr"),
        ("trian.lr=3", "did you mean 'train.lr'?"),
        ("lr=3", "train.lr"),
        ("train.batch-size=3", "train.batch_size"),
        ("train=3", "train.epochs"),
        ("nets.lr=3", "train.lr"),
    ],
)
def test_unknown_override_names_the_nearest(here: Callable[..., Any], override: str, nearest: str) -> None:
    error = refusal(here, overrides=[override])
    assert error.where.startswith("--set ")
    assert nearest in error.remedy


def test_override_without_a_value(here: Callable[..., Any]) -> None:
    error = refusal(here, overrides=["train.lr"])
    assert error.what == "no value for train.lr"
    assert "--set train.lr=0." in error.remedy


def test_unknown_preset_and_file(here: Callable[..., Any], tmp_path: Path) -> None:
    assert "'seed'" in refusal(here, preset="sed").remedy
    assert refusal(here, environ={"GKILLER_PRESET": "sed"}).where == "GKILLER_PRESET"
    (tmp_path / "mine.toml").write_text("", encoding="utf-8")
    error = refusal(here, config="mime.toml")
    assert "'mine.toml'" in error.remedy
    assert refusal(here, config="nowhere/mime.toml").exit_code == 2
    assert "directory" in refusal(here, config=".").what


@pytest.mark.parametrize(
    ("toml", "where"),
    [
        ("[train]\nlr = = 3\n", "gkiller.toml, line 2, column 6"),
        ("[train]\nlr = 3\nlr = 4\n", "gkiller.toml, line 3"),
        ("[train", "gkiller.toml"),
    ],
)
def test_invalid_toml_names_the_line(here: Callable[..., Any], toml: str, where: str) -> None:
    error = refusal(here, toml)
    assert "invalid TOML" in error.what
    assert error.where.startswith(where)


def test_file_that_is_not_utf8(here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "gkiller.toml").write_bytes(b'[data]\nsource = "\xff"\n')
    assert "UTF-8" in refusal(here).what


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"toml": "[train]\n\nlr = 5\n"}, "gkiller.toml, line 3"),
        ({"environ": {"GKILLER_TRAIN__LR": "5"}}, "GKILLER_TRAIN__LR"),
        ({"flags": {"train.lr": "5"}}, "--lr"),
        ({"overrides": ["train.lr=5"]}, "--set train.lr"),
    ],
)
def test_value_out_of_range_names_key_value_range_and_giver(
    here: Callable[..., Any], arguments: dict[str, Any], where: str
) -> None:
    error = refusal(here, **arguments)
    assert error.what.startswith("train.lr must be a number > 0 and <= 1, not 5")
    assert error.where == where


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("train.patience", "many", "a whole number >= 1 (epochs), not 'many'"),
        ("train.patience", "2.5", "a whole number >= 1 (epochs), not 2.5"),
        ("train.lr", "nan", "a number > 0 and <= 1, not nan"),
        ("dendrites.enabled", "perhaps", "true or false, not 'perhaps'"),
        ("train.device", "gpu", "one of auto, cpu, cuda, mps, not 'gpu'"),
        ("data.sample_size", "1", "a whole number >= 2 (rows) or none, not 1"),
        ("train.patience", "", "a whole number >= 1 (epochs), not ''"),
    ],
)
def test_message_of_a_bad_value(here: Callable[..., Any], key: str, text: str, allowed: str) -> None:
    assert refusal(here, flags={key: text}).what == f"{key} must be {allowed}"


@pytest.mark.parametrize("value", ['"5"', "true", "5.5", "[5]"])
def test_files_are_strict_about_types(here: Callable[..., Any], value: str) -> None:
    assert "train.epochs must be a whole number" in refusal(here, f"[train]\nepochs = {value}\n").what


def test_near_choice_is_proposed(here: Callable[..., Any]) -> None:
    assert "'cuda'" in refusal(here, flags={"train.device": "cdua"}).remedy


def test_everything_wrong_is_named_at_once(here: Callable[..., Any]) -> None:
    error = refusal(
        here,
        "[train]\nlr = 7\n[model]\nhiden = 3\n",
        environ={"GKILLER_TRAIN_LR": "1"},
        flags={"train.epochs": "0"},
        overrides=["train.metric=auc", "nothing.here=1"],
    )
    assert error.what.startswith("6 settings are wrong")
    for part in ("train.lr", "model.hiden", "GKILLER_TRAIN_LR", "--epochs", "train.metric", "nothing.here"):
        assert part in error.what


def test_rules_over_several_settings_name_their_givers(here: Callable[..., Any]) -> None:
    error = refusal(here, overrides=["model.hidden=100"], flags={"model.heads": 3})
    assert "multiple of model.heads (3)" in error.what
    assert error.where == "--set model.hidden, --heads"
    both = refusal(here, flags={"evaluation.min_precision": "0.5", "evaluation.min_recall": "0.5"})
    assert "not both" in both.what
    assert both.remedy == "change --min-precision or --min-recall"
    ruled = refusal(here, flags={"evaluation.min_recall": "0.5", "evaluation.threshold_rule": "expected"})
    assert "threshold_rule must be 'observed'" in ruled.what
    slack = refusal(here, flags={"evaluation.min_recall": "0.5", "evaluation.f1_slack": "0.01"})
    assert "f1_slack must be 0" in slack.what


def test_rules_over_several_settings_name_the_flags_to_change(here: Callable[..., Any]) -> None:
    flags = {"dendrites.objective": "correlation", "dendrites.epochs": "2"}
    error = refusal(here, flags=flags, overrides=["dendrites.top_epochs=2"])
    assert error.where == "--dendrite-epochs, --set dendrites.top_epochs, --dendrite-objective"
    assert error.remedy == ("change --dendrite-epochs or --set dendrites.top_epochs=... or --dendrite-objective")
    error = refusal(here, flags={**flags, "dendrites.epochs": "1"})
    assert error.what.startswith("dendrites.epochs (1) must be 2 or more when")
    assert error.remedy == "change --dendrite-epochs or --dendrite-objective"


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_goes_with_every_choice(here: Callable[..., Any], preset: str) -> None:
    for entry in settings_reference():
        for choice in entry.choices:
            flags = {entry.key: choice} | ({"model.encoder": "some/encoder"} if choice == "giant" else {})
            assert here(preset=preset, flags=flags).origins[entry.key] != f"preset {preset}"


def test_long_values_are_cut_in_messages(here: Callable[..., Any]) -> None:
    assert len(refusal(here, flags={"train.lr": "x" * 10_000}).what) < 200


def test_reference_agrees_with_the_definition() -> None:
    keys = settings_by_key()
    assert keys["train.lr"].env == "GKILLER_TRAIN__LR"
    assert keys["model.max_length"].unit == "tokens"
    assert keys["data.sample_size"].optional
    assert keys["dendrites.patterns"].kind == "list"
    flags = [entry.flag for entry in settings_reference() if entry.flag]
    assert len(flags) == len(set(flags))
    assert all(entry.description.endswith(".") for entry in settings_reference())


def test_nearest_keys_prefer_the_named_section() -> None:
    assert nearest_keys("dendrites.epoch")[0] == "dendrites.epochs"
    assert nearest_keys("train.LR")[0] == "train.lr"
    assert set(nearest_keys("lr")) == {"train.lr", "dendrites.lr"}


def test_presets_say_what_they_are_for() -> None:
    assert all(preset_about(name).endswith(".") for name in preset_names())
    assert "--encoder" in preset_about("seed")
    assert "--data" in preset_about("seed")
    assert "dendrite" not in preset_about("fast")  # a comment on one value is not about the preset
