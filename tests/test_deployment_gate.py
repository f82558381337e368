"""The gate: figures, limits, and that a refused export leaves nothing behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deployment_helpers import LENGTH, ONE, SIX, broken_weights, labelled, network, save

from gkiller.deployment.deploy import copy_plain, export_onnx, quantize
from gkiller.deployment.parity import Limits, ParityRows, compare, limits_of, parity_rows, require
from gkiller.deployment.probes import LONG, new_probes, read_probes, recheck, score_probes
from gkiller.deployment.quantize import CANDIDATES, Tried, choose
from gkiller.errors import ExportError, ModelFormatError, OutputError, ParityError
from gkiller.inference import load
from gkiller.model.directory import LoadedModel, add_files, load_model, rewrite_model
from gkiller.model.layout import PROBES
from gkiller.scoring.models import score_texts
from gkiller.settings import DeploymentSettings
from gkiller.storage.files import sha256_file
from gkiller.tokens.batches import window_starts

STRICT = Limits(1e-4, 0.0, 1e-4, 1e-4)
LOOSE = DeploymentSettings(
    calibration_rows=40, int8_score_difference=0.5, int8_flips=0.2, int8_ap_loss=0.5, int8_f1_loss=0.5
)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    return save(tmp_path / "model")


@pytest.fixture
def rows(loaded: LoadedModel) -> Any:
    return parity_rows(loaded, labelled(), 60)


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


# -- figures ------------------------------------------------------------------------------------


def test_the_same_scores_pass_the_strictest_limits(rows: ParityRows) -> None:
    parity = compare(rows, rows.expected.copy(), Limits(0, 0, 0, 0))
    assert parity.passed
    assert (parity.flips, parity.max_difference, parity.f1_loss, parity.ap_loss) == (0, 0, 0, 0)


def test_figures_are_those_of_the_definition(rows: ParityRows) -> None:
    found = rows.expected.copy()
    cut = rows.thresholds[0]
    found[3] = cut if found[3, 0] < cut else cut - 0.01  # one decision flips; at the threshold is positive
    found[5] += 1e-3 if found[5, 0] < cut - 0.01 or cut <= found[5, 0] < 0.99 else -1e-3
    parity = compare(rows, found, STRICT)
    assert parity.flips == 1
    assert parity.flip_share == pytest.approx(1 / 60)
    assert parity.max_difference == pytest.approx(abs(found - rows.expected).max())
    assert any("flipped decisions" in reason for reason in parity.failures)
    assert any("a score differs" in reason for reason in parity.failures)


def test_a_loss_counts_and_a_gain_does_not(rows: ParityRows) -> None:
    truth = rows.truth[:, :1]
    best = np.where(truth == 1, 0.9, 0.1)
    worst = 1 - best
    good, bad = replace(rows, expected=best), replace(rows, expected=worst)
    lost, won = compare(good, worst, STRICT), compare(bad, best, Limits(1, 1, 0, 0))
    assert lost.ap_loss > 0.5
    assert lost.f1_loss == pytest.approx(1.0)
    assert won.passed


def test_the_losses_of_a_label_with_few_positive_comments_do_not_count(rows: ParityRows) -> None:
    positives = int((rows.truth[:, 0] == 1).sum())
    worst = 1 - rows.expected
    for least, counts in ((positives, True), (positives + 1, False)):
        parity = compare(rows, worst, Limits(1, 1, 0, 0, least_positives=least))
        assert parity.labels[0].positives == positives
        assert (parity.f1_loss > 0 or parity.ap_loss > 0) is counts
        assert parity.passed is not counts


def test_a_score_that_is_no_number_fails(rows: ParityRows) -> None:
    found = rows.expected.copy()
    found[0] = np.nan
    assert compare(rows, found, STRICT).max_difference == 1.0


def test_labels_that_the_data_lack_are_compared_by_score(tmp_path: Path) -> None:
    loaded = save(tmp_path / "six", network(SIX), SIX)
    rows = parity_rows(loaded, labelled(ONE), 30)
    assert np.isnan(rows.truth[:, 1:]).all()
    parity = compare(rows, rows.expected, STRICT)
    assert parity.passed
    assert parity.labels[1].ap_before is None


def test_rows_are_drawn_with_a_fixed_seed_and_known_by_a_fingerprint(loaded: LoadedModel) -> None:
    first, second = (parity_rows(loaded, labelled(), 20) for _ in range(2))
    assert first.fingerprint == second.fingerprint != parity_rows(loaded, labelled(), 21).fingerprint
    assert len(first.tokens) == len(first.expected) == 20
    np.testing.assert_array_equal(first.expected, second.expected)


def test_a_refusal_names_limit_and_figure(rows: ParityRows) -> None:
    parity = compare(rows, 1 - rows.expected, STRICT)
    with pytest.raises(ParityError, match=r"a score differs by .* \(limit 0.0001\)") as caught:
        require(parity, "the graph", "here")
    assert caught.value.exit_code == 60
    assert json.dumps(caught.value.as_dict())
    assert caught.value.as_dict()["report"]["flips"] == parity.flips


def test_float16_has_the_limits_of_int8() -> None:
    settings = DeploymentSettings(int8_flips=0.25, fp32_flips=0.125)
    assert limits_of(settings, "fp16") == limits_of(settings, "int8")
    assert limits_of(settings, "fp32").flips == 0.125


# -- export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_joins_the_model(loaded: LoadedModel, rows: ParityRows, precision: str) -> None:
    before = contents(loaded.path)
    exported = export_onnx(loaded, rows, LOOSE, precision=precision)  # type: ignore[arg-type]
    again = load_model(loaded.path)  # which verifies every digest
    after = contents(loaded.path)
    assert {name: after[name] for name in before if name != "gkiller.json"} == {
        name: digest for name, digest in before.items() if name != "gkiller.json"
    }
    assert set(after) - set(before) == {exported.file, PROBES}
    record = again.metadata["exports"][exported.file]
    assert record["gate"]["fingerprint"] == rows.fingerprint
    assert record["gate"]["found"]["passed"] is True
    assert exported.total_bytes == exported.graph_bytes + sum(
        (loaded.path / name).stat().st_size for name in ("config.json", "gkiller.json", "tokenizer.json")
    )
    assert again.thresholds == loaded.thresholds


def test_a_copy_leaves_the_model_alone(loaded: LoadedModel, rows: ParityRows, tmp_path: Path) -> None:
    before = contents(loaded.path)
    export_onnx(loaded, rows, LOOSE, out=tmp_path / "copy")
    assert contents(loaded.path) == before
    texts = ["well good work on the map", "you idiot"]
    copy = load_model(tmp_path / "copy")
    np.testing.assert_array_equal(score_texts(copy, texts), score_texts(loaded, texts))


def test_exports_add_up_and_outlive_new_thresholds(loaded: LoadedModel, rows: ParityRows) -> None:
    export_onnx(loaded, rows, LOOSE)
    quantize(load_model(loaded.path), rows, LOOSE)
    both = load_model(loaded.path)
    assert set(both.metadata["exports"]) == {"onnx/model.onnx", "onnx/model.int8.onnx"}
    rewrite_model(both.path, both, thresholds={"toxicity": {"value": 0.25}}, card="# New\n")
    assert load_model(loaded.path).metadata["exports"] == both.metadata["exports"]
    assert (loaded.path / "onnx/model.int8.onnx").is_file()


@pytest.mark.parametrize("action", ["export", "quantize"])
def test_a_broken_export_is_refused_and_nothing_written(
    loaded: LoadedModel, rows: ParityRows, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    broken_weights(monkeypatch)
    before = contents(loaded.path)
    act = {"export": export_onnx, "quantize": quantize}[action]
    with pytest.raises(ParityError) as caught:
        act(loaded, rows, DeploymentSettings(calibration_rows=40))  # type: ignore[operator]
    assert caught.value.report
    assert contents(loaded.path) == before


def test_a_folder_of_other_things_is_not_replaced(loaded: LoadedModel, rows: ParityRows, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear all")
    for act in (lambda: export_onnx(loaded, rows, LOOSE, out=other), lambda: copy_plain(loaded, other)):
        with pytest.raises(OutputError):
            act()
    assert (other / "letter.txt").read_text() == "dear all"


def test_another_model_is_not_replaced(loaded: LoadedModel, rows: ParityRows, tmp_path: Path) -> None:
    add_files(loaded.path, loaded, {}, changes={"training": {"manifest_sha256": "1"}})
    add_files(tmp_path / "other", loaded, {}, changes={"training": {"manifest_sha256": "2"}})
    mine, before = load_model(loaded.path), contents(tmp_path / "other")
    for act in (export_onnx, quantize):
        with pytest.raises(OutputError, match="something other"):
            act(mine, rows, LOOSE, out=tmp_path / "other")
    with pytest.raises(OutputError, match="something other"):
        copy_plain(mine, tmp_path / "other")
    assert contents(tmp_path / "other") == before
    for _ in range(2):  # a copy of its own is
        export_onnx(mine, rows, LOOSE, out=tmp_path / "copy")


def test_a_plain_copy_does_not_take_the_model_s_own_place(loaded: LoadedModel, rows: ParityRows) -> None:
    export_onnx(loaded, rows, LOOSE)
    before = contents(loaded.path)
    with pytest.raises(OutputError, match="would replace the model"):
        copy_plain(load_model(loaded.path), loaded.path)
    assert contents(loaded.path) == before


def test_the_plain_copy_has_no_graphs(loaded: LoadedModel, rows: ParityRows, tmp_path: Path) -> None:
    export_onnx(loaded, rows, LOOSE)
    size = copy_plain(load_model(loaded.path), tmp_path / "plain")
    found = contents(tmp_path / "plain")
    assert set(found) == {"README.md", "config.json", "gkiller.json", "model.safetensors", "tokenizer.json"}
    assert size == sum(p.stat().st_size for p in (tmp_path / "plain").iterdir())
    assert load_model(tmp_path / "plain").metadata["exports"] == {}


# -- int8 ---------------------------------------------------------------------------------------


def test_every_candidate_is_measured_and_one_kept(loaded: LoadedModel, rows: ParityRows) -> None:
    exported, tried = quantize(loaded, rows, LOOSE)
    assert [one.candidate for one in tried] == list(CANDIDATES)
    assert exported.file == "onnx/model.int8.onnx"
    assert (loaded.path / exported.file).read_bytes() in [one.graph for one in tried]
    assert all(one.rate > 0 for one in tried)


def test_portable_weights_have_seven_bits(loaded: LoadedModel, rows: ParityRows) -> None:
    _, tried = quantize(loaded, rows, LOOSE, portable=True)
    assert tried
    assert {one.candidate.scheme.bits for one in tried} == {7}


def test_the_choice_is_fast_then_faithful(rows: ParityRows) -> None:
    good = compare(rows, rows.expected, STRICT)
    near = replace(good, flips=1)
    bad = replace(good, failures=("no",))
    pool = [
        Tried(CANDIDATES[i], b"", p, r) for i, (p, r) in enumerate([(near, 100), (good, 96), (good, 50), (bad, 999)])
    ]
    assert choose(pool) is pool[1]
    assert choose(pool[3:]) is None
    dynamic = Tried(CANDIDATES[4], b"", good, 1000)
    assert choose([dynamic, *pool]) is pool[1]
    assert choose([dynamic, pool[3]]) is dynamic


# -- on the target machine ----------------------------------------------------------------------


def test_probes_give_no_comment_away_and_come_back(loaded: LoadedModel) -> None:
    probes = new_probes(loaded)
    text = probes.with_scores("a.onnx", probes.reference).text()
    again = read_probes(text.encode(), "there")
    assert again.ids == probes.ids
    np.testing.assert_allclose(again.scores["a.onnx"], probes.reference, atol=1e-6)
    lengths = [len(sequence) for sequence in probes.ids]
    assert min(lengths) >= 2
    assert sum(length > LENGTH for length in lengths) == LONG  # these are read in windows
    assert again.window == LENGTH == max(probes.read.tokens.lengths)
    assert probes.read.count.tolist() == [len(window_starts(n - 2, LENGTH - 2)) for n in lengths]
    assert new_probes(loaded).text() == probes.text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version":3,"ids":[[1,2]],"window":4,"reference":[[0.5]],"scores":{}}',
        '{"version":2,"ids":[[1,2]],"reference":[[0.5]],"scores":{}}',
        '{"version":2,"ids":[[1,2]],"window":2,"reference":[[0.5]],"scores":{}}',
        '{"version":2,"ids":[],"window":4,"reference":[],"scores":{}}',
        '{"version":1,"ids":[[1]],"reference":[],"scores":{}}',
    ],
)
def test_unreadable_probes_are_refused(text: str) -> None:
    with pytest.raises(ModelFormatError):
        read_probes(text.encode(), "there")


def test_older_probes_without_windows_are_read(loaded: LoadedModel) -> None:
    probes = replace(new_probes(loaded), ids=((2, 9, 3), (2, 3)), window=None, reference=np.full((2, 1), 0.5))
    assert '"version":1,' in probes.text()
    again = read_probes(probes.text().encode(), "there")
    assert (again.ids, again.window, again.read.count.tolist()) == (probes.ids, None, [1, 1])


def test_the_gate_compares_in_windows(loaded: LoadedModel) -> None:
    long = labelled()
    texts = [" ".join([text] * 6) for text in long.rows.texts]
    rows = parity_rows(loaded, replace(long, rows=replace(long.rows, texts=texts)), 30)
    assert min(rows.read.count) > 1
    assert len(rows.tokens) > len(rows.expected) == 30
    exported = export_onnx(loaded, rows, LOOSE)
    found = load(loaded.path).predict_proba(rows.texts)
    np.testing.assert_allclose(found, rows.expected, atol=exported.limits.score_difference)


def test_recheck_passes_here_and_sees_a_machine_that_differs(loaded: LoadedModel, rows: ParityRows) -> None:
    export_onnx(loaded, rows, LOOSE)
    [found] = recheck(loaded.path)
    assert found.passed
    assert found.max_difference <= 2e-6
    graph = (loaded.path / found.file).read_bytes()
    probes = read_probes((loaded.path / PROBES).read_bytes(), "there")
    np.testing.assert_allclose(score_probes(probes, graph), probes.reference, atol=1e-5)
    elsewhere = load_model(loaded.path)
    probes.scores[found.file][:] = 1 - probes.scores[found.file]
    text = probes.text().encode()
    add_files(loaded.path, elsewhere, {PROBES: text})  # as if the other machine had scored so
    [differs] = recheck(loaded.path)
    assert not differs.passed
    assert differs.flips > 0


def test_recheck_needs_a_graph(loaded: LoadedModel) -> None:
    with pytest.raises(ExportError, match="no graph"):
        recheck(loaded.path)
