"""Files of scores, slices, thresholds read off flags, and the whole comparison."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy_rows, write_six_label_csv, write_toy_csv

from gkiller.data.load import Labelled, load_labelled
from gkiller.data.scorefiles import flag_threshold, is_score_file, join, read_column, read_scores
from gkiller.errors import (
    ColumnError,
    LabelMismatchError,
    RowError,
    ScoreRangeError,
    SettingsError,
    SourceNotFoundError,
)
from gkiller.evaluation.comparison import (
    GivenThresholds,
    ScoredSide,
    Slice,
    column_slices,
    compare,
    length_slices,
    named_slices,
    side_of_file,
    truth_slices,
)
from gkiller.evaluation.significance import Side, compare_sides
from gkiller.scoring.scorers import BY_FLAGS
from gkiller.settings import DataSettings
from gkiller.settings.definition import EvaluationSettings
from gkiller.storage.strict_json import plain as plain_values

QUICK = settings(max_examples=60)
LABEL = ("toxicity",)
NO_THRESHOLDS = GivenThresholds("--threshold-a")


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scored(
    count: int = 40, *, ids: Any = True, text: Any = False, cut: Any = 0.5, noise: Any = 0.3, seed: Any = 0
) -> list[dict[str, Any]]:
    """Rows as predict writes them for the toy corpus."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, (identifier, comment, rude) in enumerate(toy_rows(count), start=1):
        score = round(float(np.clip(0.2 + 0.6 * rude + noise * rng.normal(), 0, 1)), 6)
        row = {"row": number, **({"id": identifier} if ids else {}), **({"text": comment} if text else {})}
        flags = ["toxicity"] if score >= cut else []
        rows.append({**row, "flagged": bool(flags), "flags": flags, "scores": {"toxicity": score}})
    return rows


@pytest.fixture
def found(tmp_path: Path) -> Labelled | tuple[float, float]:
    """Forty rows of the toy corpus, with ids."""
    path = write_toy_csv(tmp_path / "toy.csv", 40)
    return load_labelled(DataSettings(source=str(path)), None)


@pytest.fixture
def found_without_ids(tmp_path: Path) -> Labelled:
    path = tmp_path / "bare.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "toxicity"), *(row[1:] for row in toy_rows(40))])
    return load_labelled(DataSettings(source=str(path)), None)


# -- reading ------------------------------------------------------------------------------------


def test_all_formats_read_alike(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = scored()
    flat = [{"row": r["row"], "id": r["id"], "flags": r["flags"], "toxicity": r["scores"]["toxicity"]} for r in rows]
    with (tmp_path / "s.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(flat[0])
        writer.writerows((r["row"], r["id"], "|".join(r["flags"]), r["toxicity"]) for r in flat)
    pq.write_table(pa.Table.from_pylist(flat), tmp_path / "s.parquet")
    jsonl(tmp_path / "s.jsonl", rows)
    one, *others = (read_scores(str(tmp_path / f"s.{form}"), LABEL) for form in ("jsonl", "csv", "parquet"))
    assert one.scores[:, 0].tolist() == [row["scores"]["toxicity"] for row in rows]
    assert one.flags[:, 0].tolist() == [row["flagged"] for row in rows]
    assert one.records.ids == [f"row{i}" for i in range(40)]
    for other in others:
        assert np.array_equal(other.scores, one.scores)
        assert np.array_equal(other.flags, one.flags)
        assert (other.records.ids, other.records.numbers) == (one.records.ids, one.records.numbers)


def test_a_label_with_the_name_of_another_column_has_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("row,text,score_text\n1,hello,0.25\n")
    file = read_scores(str(tmp_path / "s.csv"), ("text",))
    assert file.scores.tolist() == [[0.25]]
    assert file.flags is None


@pytest.mark.parametrize("score", [None, "high", 1.5, -0.1, True, float("nan"), "1e999", "0_1", 10**400])
def test_a_bad_score_is_named(tmp_path: Path, score: Any) -> None:
    rows = scored(5)
    rows[3]["scores"]["toxicity"] = score
    with pytest.raises(ScoreRangeError, match=r"s\.jsonl, row 4 \(line 4\), column 'toxicity'"):
        read_scores(jsonl(tmp_path / "s.jsonl", rows), LABEL)


def test_a_score_with_a_decimal_comma_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id;toxicity\na;0,25\n")
    with pytest.raises(ScoreRangeError, match="decimal comma"):
        read_scores(str(tmp_path / "s.csv"), LABEL)


def test_scores_of_objects_are_read_from_tables_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "scores": [{"toxicity": 0.25}]}), tmp_path / "s.parquet")
    (tmp_path / "s.csv").write_text("id,scores.toxicity\na,0.25\n")
    for name in ("s.parquet", "s.csv"):
        assert read_scores(str(tmp_path / name), LABEL).scores.tolist() == [[0.25]]


@pytest.mark.parametrize(("key", "value"), [("scores", None), ("scores", [0.5]), ("flags", 3), ("flags", [1])])
def test_a_broken_row_is_named(tmp_path: Path, key: str, value: Any) -> None:
    rows = scored(5)
    rows[2][key] = value
    with pytest.raises(RowError, match="row 3") as caught:
        read_scores(jsonl(tmp_path / "s.jsonl", rows), LABEL)
    assert caught.value.remedy


def test_a_torn_file_is_named_and_not_to_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_text(Path(jsonl(tmp_path / "s.jsonl", scored(3))).read_text()[:-20])
    with pytest.raises(RowError, match=r"torn\.jsonl, row 3") as caught:
        read_scores(str(path), LABEL)
    assert "skip" not in caught.value.remedy


def test_what_is_no_score_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="score file"):
        read_scores(str(tmp_path / "none.jsonl"), LABEL)
    with pytest.raises(LabelMismatchError, match="threat"):
        read_scores(jsonl(tmp_path / "s.jsonl", scored(5)), ("threat",))
    (tmp_path / "s.csv").write_text("row,insult\n1,0.5\n")
    with pytest.raises(LabelMismatchError, match="row, insult"):
        read_scores(str(tmp_path / "s.csv"), LABEL)


def test_files_are_told_from_models(tmp_path: Path) -> None:
    jsonl(tmp_path / "s.jsonl", scored(5))
    assert is_score_file(str(tmp_path / "s.jsonl"))
    assert is_score_file("not-there.csv.gz")
    assert not is_score_file(str(tmp_path))
    assert not is_score_file("runs/train-1")


# -- joining ------------------------------------------------------------------------------------


def joined(tmp_path: Path, rows: list[dict[str, Any]], found: Labelled) -> tuple[np.ndarray[Any, Any], str]:
    return join(read_scores(jsonl(tmp_path / "s.jsonl", rows), LABEL).records, found.rows)


@pytest.mark.parametrize("text", [False, True])
def test_rows_in_another_order_are_joined_by_id(tmp_path: Path, found: Labelled, text: bool) -> None:
    rows = scored(50, text=text)  # ten more than the data
    order = np.random.default_rng(1).permutation(50)
    places, how = joined(tmp_path, [rows[i] for i in order], found)
    assert order[places].tolist() == list(range(40))
    assert "joined by id; 10 rows not used" in how


@pytest.mark.parametrize("text", [False, True])
def test_rows_without_ids_are_joined_by_order_and_it_is_said(tmp_path: Path, found: Labelled, text: bool) -> None:
    places, how = joined(tmp_path, scored(40, ids=False, text=text), found)
    assert places.tolist() == list(range(40))
    assert "joined by order" in how
    assert ("nothing but the number of rows" in how) is not text


def test_a_file_in_which_an_id_is_missing_is_joined_by_order(tmp_path: Path, found: Labelled) -> None:
    rows = scored(40)
    rows[7]["id"] = None
    assert "joined by order" in joined(tmp_path, rows, found)[1]


def test_foreign_ids_need_the_texts_to_join_by_order(tmp_path: Path, found: Labelled) -> None:
    rows = [{**row, "id": f"other{i}"} for i, row in enumerate(scored(40, text=True))]
    assert joined(tmp_path, rows, found)[1].endswith("joined by order")
    with pytest.raises(RowError, match="40 rows of 40 of the data are not in it"):
        joined(tmp_path, [{key: row[key] for key in row if key != "text"} for row in rows], found)


def test_repeated_ids_in_the_order_of_the_data_are_clear(tmp_path: Path, found: Labelled) -> None:
    found.rows.ids[3] = found.rows.ids[2]
    rows = scored(40)
    rows[3]["id"] = rows[2]["id"]
    assert joined(tmp_path, rows, found)[0].tolist() == list(range(40))
    with pytest.raises(RowError, match=r"'row2' is in the rows 37 and 38"):
        joined(tmp_path, rows[::-1], found)


def without(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [row for row in rows if row["row"] != number]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: without(rows, 5), "1 row of 40 of the data are not in it; the first is row 5, id 'row4'"),
        (lambda rows: [row for row in rows if row["flagged"]], "--only-flagged"),
    ],
)
def test_rows_that_are_not_there_are_named(
    tmp_path: Path, found: Labelled, change: Callable[..., Any], said: str
) -> None:
    with pytest.raises(RowError) as caught:
        joined(tmp_path, change(scored(40)), found)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:39], "39 rows and the data 40"),
        (lambda rows: [*rows[:4], *rows[5:], {**rows[0], "row": 41}], "row 5 says 6"),
        (lambda rows: rows[::-1], "row 1 says 40"),
    ],
)
def test_rows_that_are_not_in_order_are_refused(
    tmp_path: Path, found: Labelled, change: Callable[..., Any], said: str
) -> None:
    with pytest.raises(RowError) as caught:
        joined(tmp_path, change(scored(40, ids=False)), found)
    assert said in str(caught.value)


@pytest.mark.parametrize("ids", [False, True])
def test_other_comments_are_refused(tmp_path: Path, found: Labelled, ids: bool) -> None:
    rows = scored(40, ids=ids, text=True)
    rows[5]["text"] = "something else"
    with pytest.raises(RowError, match="not that of row 6 of the data: 'something else'"):
        joined(tmp_path, rows, found)


# -- thresholds ---------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_a_threshold_read_off_flags_decides_alike(values: Any, cut: Any) -> None:
    scores = np.array(values)
    flags = scores >= cut
    if not flags.any() and scores.max() == 1.0:
        return
    found = flag_threshold(scores, flags, "s")
    assert 0 <= found <= 1
    assert np.array_equal(scores >= found, flags)


def test_flags_that_no_threshold_explains_are_refused() -> None:
    scores = np.array([0.2, 0.6, 0.8])
    with pytest.raises(ScoreRangeError, match=r"0\.8 is not flagged, 0\.2 would be"):
        flag_threshold(scores, np.array([True, False, False]), "s")
    with pytest.raises(ScoreRangeError, match="--threshold-a"):
        flag_threshold(np.array([1.0]), np.array([False]), "s")


def test_rounding_may_blur_the_threshold_by_one_digit() -> None:
    assert flag_threshold(np.array([0.5, 0.5, 0.9]), np.array([False, True, True]), "s") == 0.5


def test_the_threshold_of_a_file(tmp_path: Path, found: Labelled) -> None:
    name = jsonl(tmp_path / "s.jsonl", scored(40, cut=0.42))
    side = side_of_file(name, found, NO_THRESHOLDS)
    assert abs(side.thresholds["toxicity"] - 0.42) < 0.1
    assert side.origins["toxicity"] == BY_FLAGS
    given_one = side_of_file(name, found, GivenThresholds("--threshold-a", 0.3, {"toxicity": 0.7}))
    assert given_one.thresholds == {"toxicity": 0.7}
    assert given_one.origins == {"toxicity": "--threshold-a"}
    bare = [{key: row[key] for key in ("row", "id", "scores")} for row in scored(40)]
    with pytest.raises(SettingsError, match=r"no flags.*--threshold-a toxicity=0\.5"):
        side_of_file(jsonl(tmp_path / "bare.jsonl", bare), found, NO_THRESHOLDS)
    with pytest.raises(SettingsError, match="toxicity"):
        side_of_file(name, found, GivenThresholds("--threshold-a", None, {"toxcity": 0.5}))
    with pytest.raises(ScoreRangeError, match=r"1\.5 is outside"):
        side_of_file(name, found, GivenThresholds("--threshold-a", 1.5))


# -- slices -------------------------------------------------------------------------------------


def parts(slices: list[Slice]) -> dict[tuple[str, str], list[int]]:
    return {(one.column, one.value): one.rows.tolist() for one in slices}


def test_slices_by_length_are_quarters_and_hold_every_row_once() -> None:
    texts = ["x" * (3 * i + 1) for i in range(40)]
    slices = length_slices(texts)
    assert [one.value for one in slices] == ["1 to 28", "31 to 58", "61 to 88", "91 to 118"]
    assert sorted(i for one in slices for i in one.rows.tolist()) == list(range(40))
    assert [one.value for one in length_slices(["abc"] * 5)] == ["3 to 3"]


def test_slices_by_truth_leave_the_unknown_out() -> None:
    assert parts(truth_slices("threat", [1, 0, np.nan, 1])) == {("threat", "1"): [0, 3], ("threat", "0"): [1]}
    assert parts(truth_slices("threat", [0, 0])) == {("threat", "0"): [0, 1]}


def test_slices_by_value() -> None:
    found = parts(column_slices("source", ["b", "a", None, "b", "", float("nan"), 3]))
    assert found == {
        ("source", "(missing)"): [2, 4, 5],
        ("source", "3"): [6],
        ("source", "a"): [1],
        ("source", "b"): [0, 3],
    }


def test_many_numbers_are_cut_at_quartiles_and_many_words_refused() -> None:
    values = [*(str(i / 10) for i in range(40)), ""]
    slices = column_slices("share", values)
    assert [len(one.rows) for one in slices] == [10, 10, 10, 10, 1]
    assert slices[0].value == "0 to 0.9"
    assert slices[-1].value == "(missing)"
    with pytest.raises(ColumnError, match="40 different values"):
        column_slices("name", [f"name {i}" for i in range(40)])


def test_a_column_of_the_data_s_own_file(tmp_path: Path, found_without_ids: Labelled) -> None:
    file = tmp_path / "more.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = [(text, "even" if i % 2 == 0 else "odd") for i, (_, text, _) in enumerate(toy_rows(40))]
        csv.writer(stream).writerows([("text", "kind"), *rows])
    slices, notes = named_slices(["kind", "toxicity"], found_without_ids, str(file))
    assert notes == [f"{file}: joined by order"]
    assert parts(slices)[("kind", "odd")] == list(range(1, 40, 2))
    assert parts(slices)[("toxicity", "1")] == list(range(0, 40, 4))
    with pytest.raises(ColumnError, match="did you mean 'kind'"):
        named_slices(["kinds"], found_without_ids, str(file))
    with pytest.raises(ColumnError, match="--slice-data"):
        named_slices(["kind"], found_without_ids, None)


def test_rows_without_ids_are_found_by_the_ids_that_prepare_gives(tmp_path: Path, found_without_ids: Labelled) -> None:
    """Half of the rows, in another order, as a prepared split has them."""
    records, values = read_column(str(tmp_path / "bare.csv"), "toxicity")
    order = np.random.default_rng(0).permutation(40)[:20]
    places, how = join(records, found_without_ids.rows.take(order))
    assert places.tolist() == order.tolist()
    assert "joined by id; 20 rows not used" in how
    assert [values[place] for place in places] == [str(int(i % 4 == 0)) for i in order]


def test_a_file_of_other_comments_cannot_slice(tmp_path: Path, found: Labelled) -> None:
    (tmp_path / "other.csv").write_text("id,text,kind\n" + "".join(f"row{i},other words,a\n" for i in range(40)))
    with pytest.raises(RowError, match="not that of row 1 of the data"):
        named_slices(["kind"], found, str(tmp_path / "other.csv"))
    (tmp_path / "ids.csv").write_text("id,kind\n" + "".join(f"row{i},a\n" for i in range(40)))
    with pytest.raises(ColumnError, match="--text-column"):
        named_slices(["kind"], found, str(tmp_path / "ids.csv"))


# -- the whole ----------------------------------------------------------------------------------

FEW = EvaluationSettings(resamples=50)


def sides(tmp_path: Path, found: Labelled, **changes: Any) -> tuple[ScoredSide, ScoredSide]:
    a = side_of_file(jsonl(tmp_path / "a.jsonl", scored(40)), found, NO_THRESHOLDS)
    b = side_of_file(jsonl(tmp_path / "b.jsonl", scored(40, seed=1, **changes)), found, NO_THRESHOLDS)
    return a, b


def test_two_identical_score_files(tmp_path: Path, found: Labelled) -> None:
    """Nothing differs: every p is 1, every difference 0, every verdict within, and there is no example."""
    a, _ = sides(tmp_path, found)
    plain = compare(found, a, a, FEW).as_dict()
    label = plain["labels"]["toxicity"]
    assert {one["p"] for one in label["differences"].values()} == {1.0}
    assert {one["delta"] for one in label["differences"].values()} == {0.0}
    assert {one["kind"] for one in label["verdicts"].values()} == {"within"}
    assert label["mcnemar"] == {"only_a_right": 0, "only_b_right": 0, "p": 1.0}
    assert {one["p_holm"] for one in plain["slices"]} == {1.0}
    assert plain["examples"] == []
    assert json.loads(json.dumps(plain, allow_nan=False, default=str))


def test_slices_are_compared_on_their_rows_alone(tmp_path: Path, found: Labelled) -> None:
    a, b = sides(tmp_path, found)
    odd = column_slices("kind", [("even", "odd")[i % 2] for i in range(40)])
    comparison = compare(found, a, b, FEW, slices=odd)
    names = [(one.column, one.value) for one in comparison.slices]
    assert names[4:] == [("toxicity", "1"), ("toxicity", "0"), ("kind", "even"), ("kind", "odd")]
    even = comparison.slices[6].paired
    truth = found.rows.labels[:, 0].astype(float)[::2]
    one, other = (Side(side.scores[::2, 0], side.thresholds["toxicity"]) for side in (a, b))
    expected = compare_sides(truth, one, other, resamples=50)
    assert plain_values(even) == plain_values(expected)
    p = [one.paired.mcnemar.p for one in comparison.slices]
    assert min(one.p_holm for one in comparison.slices) == pytest.approx(min(1.0, len(p) * min(p)))
    assert comparison.slices[4].paired.n + comparison.slices[5].paired.n == 40


def test_weights_reach_the_figures_and_zero_leaves_rows_out(tmp_path: Path, found: Labelled) -> None:
    a, b = sides(tmp_path, found)
    before = compare(found, a, b, FEW)
    found.rows.weights[:] = np.random.default_rng(0).uniform(0.1, 3, 40)
    found.rows.weights[::4] = 0  # every positive
    after = compare(found, a, b, FEW)
    assert after.weighted
    assert not before.weighted
    assert after.labels[0].paired.positives == 0
    assert after.labels[0].paired.n == 30
    assert ("toxicity", "1") not in [(one.column, one.value) for one in after.slices]


def test_few_positives_or_negatives_are_told(tmp_path: Path) -> None:
    found = load_labelled(DataSettings(source=str(write_toy_csv(tmp_path / "toy.csv", 400))), None)
    a = side_of_file(jsonl(tmp_path / "a.jsonl", scored(400)), found, NO_THRESHOLDS)
    assert compare(found, a, a, FEW).rough() == []
    found.rows.labels[:] = 1
    found.rows.labels[:12] = 0
    (line,) = compare(found, a, a, FEW).rough()
    assert "fewer than 50 positives or negatives: toxicity (12 negatives)" in line


def test_examples_are_those_decided_differently_first(tmp_path: Path, found: Labelled) -> None:
    a, b = sides(tmp_path, found)
    examples = compare(found, a, b, FEW, examples=40).examples
    other = [one.flag_a != one.flag_b for one in examples]
    assert any(other)
    assert other == sorted(other, reverse=True)
    apart = [abs(one.a - one.b) for one in examples]
    turn = sum(other)
    assert apart[:turn] == sorted(apart[:turn], reverse=True)
    assert apart[turn:] == sorted(apart[turn:], reverse=True)
    first = examples[0]
    assert first.text == found.rows.texts[first.row - 1]
    assert first.a == a.scores[first.row - 1, 0]
    assert len(compare(found, a, b, FEW, examples=3).examples) == 3


def test_several_labels_are_adjusted_for(tmp_path: Path) -> None:
    path = write_six_label_csv(tmp_path / "six.csv", 80)
    columns = ("toxic", "threat", "insult")
    data = DataSettings(source=str(path), text_column="comment_text", label_columns=columns)
    found = load_labelled(data, None)
    labels = found.dataset.labels
    rng = np.random.default_rng(0)

    def side(name: Any, have: Any) -> Any:
        rows = []
        for i in range(80):
            scores = {label: round(float(rng.random()), 6) for label in have}
            flags = [label for label, score in scores.items() if score >= 0.5]
            rows.append({"row": i + 1, "flags": flags, "scores": scores})
        return side_of_file(jsonl(tmp_path / name, rows), found, NO_THRESHOLDS)

    comparison = compare(found, side("a.jsonl", labels), side("b.jsonl", labels[:2]), FEW)
    assert [one.label for one in comparison.labels] == list(labels[:2])
    assert comparison.missing == labels[2:]
    for name in ("f1", "ap", "roc_auc"):
        p = [one.paired.differences[name].p for one in comparison.labels]
        adjusted = [one.p_holm[name] for one in comparison.labels]
        assert min(adjusted) == pytest.approx(min(1.0, 2 * min(p)))
    pairs = {(one.column, one.label) for one in comparison.slices}
    assert pairs == {("length", labels[0]), ("length", labels[1]), *((label, label) for label in labels[:2])}
    third = named_slices([labels[2], labels[0]], found, None)[0]
    more = compare(found, side("a.jsonl", labels), side("b.jsonl", labels[:2]), FEW, slices=third)
    pairs = [(one.column, one.label) for one in more.slices[len(comparison.slices) :]]  # type: ignore[assignment]
    assert set(pairs) == {(labels[2], labels[0]), (labels[2], labels[1]), (labels[0], labels[1])}


def test_sides_without_a_common_label_are_refused(tmp_path: Path) -> None:
    path = write_six_label_csv(tmp_path / "six.csv", 20)
    data = DataSettings(source=str(path), text_column="comment_text", label_columns=("toxic", "threat"))
    found = load_labelled(data, None)
    both = [
        side_of_file(
            jsonl(tmp_path / f"{label}.jsonl", [{"scores": {label: 0.5}, "flags": []}] * 20), found, NO_THRESHOLDS
        )
        for label in found.dataset.labels
    ]
    with pytest.raises(LabelMismatchError, match="toxicity and threat"):
        compare(found, *both, FEW)  # type: ignore[arg-type, call-arg]
