"""From text to values, and from settings to TOML and back."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gkiller.errors import SettingsError
from gkiller.settings import Settings, nearest_keys, resolve, settings_by_key, settings_reference, settings_toml
from gkiller.settings.layers import parse
from gkiller.settings.reference import Reference

# TOML files are UTF-8: no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def override(key: str, text: str) -> Any:
    section, _, name = key.partition(".")
    settings = resolve(environ={}, overrides=[f"{key}={text}"]).settings
    return getattr(getattr(settings, section), name)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.lr", "3e-5", 3e-5),
        ("train.lr", "1", 1.0),
        ("train.lr", " .5 ", 0.5),
        ("train.epochs", "1e3", 1000),
        ("train.epochs", "007", 7),
        ("dendrites.enabled", "no", False),
        ("dendrites.enabled", "True", True),
        ("data.label_columns", "toxic, insult", ("toxic", "insult")),
        ("data.label_columns", '["a,b", "c"]', ("a,b", "c")),
        ("data.label_columns", "", ()),
        ("dendrites.patterns", "encoder.layer.[01].*", ("encoder.layer.[01].*",)),
        ("data.revision", "1234567", "1234567"),
        ("data.revision", "none", None),
        ("data.revision", "", None),
        ("data.revision", '"none"', "none"),
        ("data.sample_size", "None", None),
        ("data.source", "a=b", "a=b"),
        ("data.source", "3e-5", "3e-5"),
        ("data.source", '"with space "', "with space "),
        ("data.source", '"x"\nb = "y"', '"x"\nb = "y"'),
    ],
)
def test_override_text_becomes_the_setting_s_type(key: str, text: str, value: Any) -> None:
    found = override(key, text)
    assert found == value
    assert type(found) is type(value)


def test_variables_and_flags_read_lists_and_none() -> None:
    by_variable = resolve(environ={"GKILLER_DATA__LABEL_COLUMNS": "a,b", "GKILLER_DATA__SAMPLE_SIZE": "none"})
    assert by_variable.settings.data.label_columns == ("a", "b")
    assert by_variable.origins["data.sample_size"] == "GKILLER_DATA__SAMPLE_SIZE"
    by_array = resolve(environ={"gkiller_data__label_columns": '["a","b"]'})
    assert by_array.settings.data.label_columns == ("a", "b")
    by_flag = resolve(environ={}, flags={"data.label_columns": ["a", "b"], "data.text_column": "text"})
    assert by_flag.settings.data.label_columns == ("a", "b")


@given(st.floats(min_value=1e-300, max_value=1.0))
def test_any_learning_rate_survives_as_text(value: Any) -> None:
    assert override("train.lr", repr(value)) == value


@given(st.integers(min_value=1, max_value=10**12))
def test_any_count_survives_as_text(value: Any) -> None:
    assert override("train.epochs", str(value)) == value


@given(texts.filter(lambda text: text.strip() and not text.strip().startswith(("'", '"'))))
def test_text_is_taken_as_it_is(text: Any) -> None:
    assert override("data.source", text) == text


@st.composite
def settings_overrides(draw: Any) -> Any:
    """Draw a valid value for some of the settings, as flags would give it from Python."""
    flags = {}
    ruled = ("model.hidden", "model.heads", "evaluation.min_recall", "distill.transfer")
    for entry in settings_reference():
        if not draw(st.booleans()) or entry.key in ruled:
            continue
        if entry.kind == "bool":
            value = draw(st.booleans())
        elif entry.kind == "choice":
            value = draw(st.sampled_from(entry.choices))
        elif entry.kind == "list":
            value = draw(st.lists(texts, max_size=3))
        elif entry.kind == "numbers":
            value = draw(st.lists(st.integers(3, 512), max_size=3))
        elif entry.kind == "str":
            value = draw(texts.filter(lambda text: text.strip().lower() not in ("", "none")))
        else:
            value = draw(numbers(entry))
        flags[entry.key] = value
    return flags


def numbers(entry: Reference) -> Any:
    low, low_in = entry.lower or (0, True)
    high, high_in = entry.upper or (10**6, True)
    if entry.kind == "int":
        return st.integers(int(low) + (not low_in), int(high) - (not high_in))
    return st.floats(low, high, exclude_min=not low_in, exclude_max=not high_in)


@given(settings_overrides())
@hypothesis_settings(max_examples=40)
def test_settings_written_as_toml_load_back_equal(tmp_path_factory: pytest.TempPathFactory, flags: Any) -> None:
    try:
        settings = resolve(environ={}, flags=flags).settings
    except SettingsError as error:
        # Each value is within its own range, so only rules over several settings may refuse.
        _, *lines = error.what.splitlines()
        if not error.remedy.startswith("change ") and not (lines and all("(change " in line for line in lines)):
            raise
        reject()
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(settings_toml(settings), encoding="utf-8", newline="")
    assert resolve(environ={}, config=path).settings == settings


def test_toml_is_complete_and_explained() -> None:
    text = settings_toml(Settings.model_construct(**{n: f.default for n, f in Settings.model_fields.items()}))
    document = tomllib.loads(text)
    for entry in settings_reference():
        assert entry.description in text
        assert (entry.name in document[entry.section]) == (entry.default is not None)
    assert "# sample_size is not set" in text
    assert "[tokens; int; >= 8, <= 512]" in text


def test_toml_of_one_section() -> None:
    settings = resolve(environ={}).settings
    assert set(tomllib.loads(settings_toml(settings, section="train"))) == {"train"}
    assert tomllib.loads(settings_toml(settings, section="train.lr")) == {"train": {"lr": settings.train.lr}}


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
def test_no_file_content_escapes_the_error_tree(entries: Any) -> None:
    import tomlkit

    layer = parse(tomlkit.dumps({"train": entries}), "file")
    assert set(layer.given) <= set(settings_by_key())
    assert len(layer.given) + len(layer.problems) == len(entries)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("trian.lr", ["train.lr"]),
        ("dendrite.lr", ["dendrites.lr"]),
        ("data.lr", ["train.lr", "dendrites.lr"]),
        ("lr", ["train.lr", "dendrites.lr"]),
        ("lrr", ["train.lr", "dendrites.lr"]),
        ("trian.epohcs", ["train.epochs"]),
        ("eval.resample", ["evaluation.resamples"]),
        ("train.maxlength", ["model.max_length"]),
        ("train_lr", ["train.lr"]),
        ("data.text-column", ["data.text_column"]),
        ("zzz.zzz", []),
    ],
)
def test_section_and_name_of_a_key_are_compared_apart(key: str, nearest: list[Any]) -> None:
    assert nearest_keys(key) == nearest


@pytest.mark.parametrize(
    ("value", "line"), [("9" * 5000, 3), ("0x" + "f" * 5000, 3), ("[" * 5000, None), ("-" + "1_" * 5000 + "1", 3)]
)
def test_numbers_and_lists_beyond_measure_are_refused(value: str, line: int) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(f"[train]\nlr = 0.1\nepochs = {value}\n", "file")
    assert line is None or caught.value.where == f"file, line {line}"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" + "9" * 5000 + "]", "[" * 5000])
def test_such_values_are_refused_as_text_too(value: str) -> None:
    for source in ({"overrides": [f"train.epochs={value}"]}, {"environ": {"GKILLER_TRAIN__EPOCHS": value}}):
        with pytest.raises(SettingsError) as caught:
            resolve(**{"environ": {}, **source})  # type: ignore[arg-type]
        assert len(caught.value.what) < 300
