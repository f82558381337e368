"""gkiller bench: a whole duel, with timings that are given instead of measured."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from giants import save_transformers, tiny_bert
from saved_models import save
from toy import write_toy_csv
from transformers import BertModel

from gkiller.benchmark.plan import Measurement
from gkiller.benchmark.processes import cold_of
from gkiller.benchmark.scorecard import NAMES
from gkiller.benchmark.systems import SystemSpec
from gkiller.cli.bench import _duels
from gkiller.model.directory import load_model
from gkiller.settings import resolve
from gkiller.training.train import train

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")
QUICK = ("--resamples", 50, "--no-linear")


def seconds_of(spec: SystemSpec) -> float:
    """What a system takes: a giant ten times as long as another, torch twice as long as a graph."""
    return (10.0 if spec.role == "giant" else 1.0) * (2.0 if spec.runtime == "torch fp32" else 1.0)


@pytest.fixture(autouse=True)
def timings(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """Timings by `seconds_of`, the same in every round; what was asked for is kept."""
    asked: dict[Any, Any] = {}

    def time_systems(specs: Any, plan: Any, progress: Any) -> Any:
        asked.update(specs=specs, plan=plan)
        rounds, singles = (plan.processes * n for n in (plan.rounds, plan.latency_rounds))
        passes = {s.key: np.tile([0.1, seconds_of(s)], (rounds, 1)) for s in specs}
        single = {s.key: np.tile([1e-4, seconds_of(s) / 1e3], (singles, 1)) for s in specs}
        tokens = {s.key: 9.0 if s.max_length else None for s in specs}
        return Measurement(passes, dict.fromkeys(plan.lengths, single), tokens, plan.processes)

    def start_cold(spec: Any, texts: Any, threads: Any, processes: Any) -> Any:
        asked["few"] = list(texts)
        names = ("process", "libraries", "import", "load", "first_score", "cpu")
        return cold_of([{**dict.fromkeys(names, 0.1), "peak_bytes": 5 << 20}] * processes)

    monkeypatch.setattr("gkiller.benchmark.bench.time_systems", time_systems)
    monkeypatch.setattr("gkiller.benchmark.bench.start_cold", start_cold)
    monkeypatch.setattr("gkiller.benchmark.bench.load_average", lambda: 0.0)
    return asked


@pytest.fixture(scope="module")
def made(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any] | Path:
    """A trained run with an fp32 graph, and a tiny encoder to make a giant of."""
    from gkiller.data.load import Labelled, read_prepared
    from gkiller.deployment.deploy import export_onnx
    from gkiller.deployment.parity import parity_rows

    folder = tmp_path_factory.mktemp("bench")
    settings = tiny("dendrites.enabled=false")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkiller.training.finish.write_training_plots", lambda rows, folder: None)
        patch.setattr("gkiller.evaluation.report.write_evaluation_plots", lambda *given, **named: [])
        run = train(settings, out=folder / "runs", name="tiny").run
    dataset = read_prepared(settings.data.source)
    loaded = load_model(run.path)
    rows = parity_rows(loaded, Labelled(dataset, dataset.split("valid"), "valid"), 100)
    export_onnx(loaded, rows, settings.deployment)
    save_transformers(folder / "encoder", BertModel(tiny_bert(), add_pooling_layer=False))
    return folder


@pytest.fixture
def place(made: Callable[..., Any] | Path, tmp_path: Path, call: Callable[..., Any]) -> Path | str:
    """A copy of that folder, which is the current one."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)  # type: ignore[arg-type]
    return tmp_path


def result(call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    code, out, err = call("bench", "runs/tiny", *QUICK, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


# -- the duel -----------------------------------------------------------------------------------


def test_a_model_against_itself_differs_by_nothing(call: Callable[..., Any], place: Path) -> None:
    found = result(call, "--against", "runs/tiny")
    assert [one["key"] for one in found["systems"]] == [
        *("tiny, torch fp32", "tiny, onnx fp32"),
        *("tiny (2), torch fp32", "tiny (2), onnx fp32"),
    ]
    for one in found["quality"]["sets"]:
        [duel] = one["duels"]
        assert duel["rival"] == "tiny (2), onnx fp32"
        for difference in duel["differences"].values():
            assert (difference["delta"], difference["low"], difference["high"]) == (0, 0, 0)
            assert (difference["relative"], difference["p"]) == (1, 1)
        assert duel["mcnemar"] == {"only_a_right": 0, "only_b_right": 0, "p": 1}
        assert duel["verdict"]["kind"] == "within"
    for ratio in found["ratios"]:
        assert ratio["times"]["low"] <= 1 <= ratio["times"]["high"]


def test_json_is_one_object_with_everything(call: Callable[..., Any], place: Path, timings: dict[Any, Any]) -> None:
    found = result(call, "--rows", 5, "--latency-tokens", "8,16,400", "--threads", 2)
    assert found["label"] == "toxicity"
    assert [one["name"] for one in found["criteria"]] == list(NAMES)
    assert [one["name"] for one in found["quality"]["sets"]] == ["valid", "test"]
    assert found["facts"]["rows"] == len(timings["plan"].texts) == 5
    assert found["facts"]["latency_tokens"] == [8, 16]  # the model reads 16
    assert (found["facts"]["threads"], timings["plan"].threads) == (2, 2)
    whole = found["systems"][1]["speed"]["whole"]
    assert whole["value"] == pytest.approx(5 / 1.1)
    assert found["systems"][1]["cold"]["peak_bytes"] == 5 << 20
    assert any("no onnx int8 graph" in line for line in found["warnings"])
    rough = [line for line in found["warnings"] if line.startswith("fewer than 50 positives or negatives in")]
    assert ["in valid: toxicity" in line or "in test: toxicity" in line for line in rough] == [True, True]


def test_thresholds_are_tuned_on_validation_rows_whatever_is_stored(call: Callable[..., Any], place: Path) -> None:
    from gkiller.data.load import read_prepared
    from gkiller.evaluation.thresholds import tune_thresholds
    from gkiller.scoring.models import score_texts

    own = resolve(config=place / "runs/tiny/settings.toml", environ={}).settings
    valid = read_prepared(own.data.source).split("valid")  # type: ignore[arg-type]
    scores = score_texts(load_model("runs/tiny"), valid.texts)
    given = ("--threshold-rule", "expected", "--f1-slack", "0.2")
    for flags, asked in (((), {}), (given, {"expected": True, "f1_slack": 0.2})):
        tuned = tune_thresholds(("toxicity",), valid.labels, scores, valid.weights, **asked)["toxicity"]  # type: ignore[arg-type]
        found = result(call, *flags)["quality"]
        assert found["thresholds"]["tiny, onnx fp32"]["toxicity"] == pytest.approx(tuned.value, abs=1e-5)
        assert found["threshold_rule"] == tuned.target
    assert "tiny, torch fp32" not in found["thresholds"]  # its graph stands for it


def test_the_linear_rival_is_in_the_table_by_default(call: Callable[..., Any], place: Path) -> None:
    code, out, err = call("bench", "runs/tiny", "--resamples", 50, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["systems"][-1]["key"] == "TF-IDF + LR, scikit-learn"
    assert [d["rival"] for d in found["quality"]["sets"][1]["duels"]] == ["TF-IDF + LR, scikit-learn"]
    assert list((place / "runs/.bench").glob("tfidf-*"))
    assert not any("trained on" in line for line in found["warnings"])


def test_rivals_that_learn_from_other_rows_are_warned_of(call: Callable[..., Any], place: Path) -> None:
    write_toy_csv(place / "other.csv", 80)
    code, out, err = call("bench", "runs/tiny", "--data", "other.csv", "--resamples", 50, "--json")
    assert code == 0, err
    assert any("not so that the model was trained on" in line for line in json.loads(out)["warnings"])


def test_more_sets_are_scored_under_their_names(call: Callable[..., Any], place: Path) -> None:
    (place / "ood.csv").write_text("text,toxicity\nyou fool,1\nthank you,0\na clown,1\nnice map,0\n")
    sets = result(call, "--also", "ood=ood.csv")["quality"]["sets"]
    assert [(one["name"], one["rows"]) for one in sets][-1] == ("ood", 4)
    for wrong in ("ood.csv", "=ood.csv", "ood="):
        assert call("bench", "runs/tiny", "--also", wrong)[0] == 2
    assert call("bench", "runs/tiny", "--also", "a=ood.csv", "--also", "a=ood.csv")[0] == 2
    code, _, err = call("bench", "runs/tiny", *QUICK, "--also", "test=ood.csv")
    assert code == 2
    assert "a set 'test' already" in err


def test_benchmark_only_leaves_quality_out(call: Callable[..., Any], place: Path) -> None:
    found = result(call, "--benchmark-only")
    assert found["quality"] is None
    card = {one["name"]: one["status"] for one in found["criteria"]}
    assert (card["f1-floor"], card["parameters"]) == ("NOT SHOWN", "PASS")


def test_the_tables_show_every_part(call: Callable[..., Any], place: Path) -> None:
    code, out, _ = call("bench", "runs/tiny", *QUICK, "--against", "runs/tiny")
    assert code == 0
    for words in ("Size and speed", "times as fast", "Quality on test", "Paired on test", "Scorecard"):
        assert words in out
    head = out[out.index("Paired on test") :].splitlines()[2]
    assert head.split()[:3] == ["system", "against", "label"]


def test_labels_that_a_set_does_not_know_have_no_difference() -> None:
    def duel(label: Any, delta: Any) -> Any:
        figures = ("delta", "low", "high", "relative", "relative_low", "relative_high")
        paired = SimpleNamespace(differences={"f1": SimpleNamespace(**dict.fromkeys(figures, delta))})
        verdict = SimpleNamespace(needed_n=None, kind="not shown")
        return SimpleNamespace(model="a", rival="b", label=label, paired=paired, verdict=verdict)

    duels = [duel("toxicity", 0.5), duel("threat", float("nan"))]
    table = _duels(SimpleNamespace(name="test", duels=duels))  # type: ignore[arg-type]
    assert [str(cell) for cell in table.columns[2].cells] == ["toxicity"]


# -- files and exit codes -----------------------------------------------------------------------


def test_reports_are_written(call: Callable[..., Any], place: Path) -> None:
    found = result(call, "--out", "out", "--markdown", "a.md", "--plot", "a.png", "--against", "runs/tiny")
    assert len(found["files"]) == 5
    assert json.loads((place / "out/bench.json").read_text())["label"] == "toxicity"
    text = (place / "a.md").read_text()
    assert text == (place / "out/bench.md").read_text()
    lines = text.splitlines()
    for heading in ("## Size and speed", "## How many times as fast", "## Quality", "## Scorecard"):
        assert heading in lines
    table = [line for line in lines if line.startswith("|")]
    assert any(line.startswith("| tiny | onnx fp32 |") for line in table)
    for name in ("a.png", "out/bench.png"):
        assert (place / name).read_bytes().startswith(b"\x89PNG")


def test_a_table_of_markdown_has_the_same_cells_in_every_row(call: Callable[..., Any], place: Path) -> None:
    result(call, "--markdown", "a.md", "--against", "runs/tiny")
    cells = 0
    for line in (place / "a.md").read_text().splitlines():
        here = line.count("|")
        if cells and here:
            assert here == cells, line
        cells = here


def test_fail_under_ends_with_70_after_the_report(call: Callable[..., Any], place: Path) -> None:
    code, out, err = call("bench", "runs/tiny", *QUICK, "--fail-under", "100x-fp32", "--out", "out")
    assert code == 70
    assert "Scorecard" in out
    assert "100x-fp32: NOT SHOWN" in err
    assert (place / "out/bench.json").is_file()
    assert call("bench", "runs/tiny", *QUICK, "--fail-under", "0.1", "--fail-under", "parameters")[0] == 0
    assert call("bench", "runs/tiny", "--fail-under", "parametres")[0] == 2


def test_with_json_a_missed_criterion_is_one_object_with_the_report(call: Callable[..., Any], place: Path) -> None:
    code, out, _ = call("bench", "runs/tiny", *QUICK, "--json", "--fail-under", "1")
    assert code == 70
    found = json.loads(out)
    assert found["error"] == "CriteriaError"
    assert [one["name"] for one in found["report"]["criteria"]] == list(NAMES)


@pytest.mark.parametrize(
    "flags",
    [("--plot", "a.png", "--benchmark-only"), ("--giant-probe",), ("--giant-probe", "--speed-only", "--compare-base")],
)
def test_flags_that_contradict_each_other_are_refused_at_once(
    call: Callable[..., Any], place: Path, timings: dict[Any, Any], flags: tuple[Any, ...]
) -> None:
    assert call("bench", "runs/tiny", *flags)[0] == 2
    assert not timings


def test_a_single_file_is_split_and_another_set_may_have_other_labels(call: Callable[..., Any], place: Path) -> None:
    write_toy_csv(place / "other.csv", 80)
    (place / "six.csv").write_text("text,insult,toxicity\nyou fool,1,1\nthank you,0,0\n")
    found = result(call, "--data", "other.csv", "--also", "six=six.csv")
    rows = {one["name"]: one["rows"] for one in found["quality"]["sets"]}
    assert rows == {"valid": 8, "test": 8, "six": 2}
    assert list(found["quality"]["sets"][2]["systems"]["tiny, onnx fp32"]["labels"]) == ["toxicity"]


def test_a_rival_that_shares_no_label_is_refused(call: Callable[..., Any], place: Path) -> None:
    code, _, err = call("bench", "runs/tiny", *QUICK, "--against", save(place / "other", labels=("threat",)))
    assert code == 51, err
    assert "other threat" in err


def test_data_without_the_models_label_are_refused(call: Callable[..., Any], place: Path) -> None:
    rows = "".join(f"{'fool' if i % 2 else 'map'} {i},{i % 2}\n" for i in range(60))
    (place / "other.csv").write_text("text,insult,threat\n" + rows.replace("\n", ",0\n"))
    code, _, err = call("bench", "runs/tiny", "--data", "other.csv", "--label-columns", "insult,threat", *QUICK)
    assert code == 51, err


# -- the giant ----------------------------------------------------------------------------------


def test_speed_only_times_a_bert_base_of_random_weights_without_any_hub(
    call: Callable[..., Any], place: Path, timings: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is made small here; the one of the default configuration has 109 million parameters."""
    monkeypatch.setattr("gkiller.benchmark.giants._bert_base", tiny_bert)
    monkeypatch.setattr("gkiller.model.sequence.resolve_commit", None)
    found = result(call, "--speed-only", "--compare-base")
    assert found["quality"] is None
    giant = found["systems"][-1]
    assert (giant["key"], giant["trained"]) == ("bert-base-uncased, onnx int8", "nothing")
    assert "not scored" in giant["note"]
    times = {(one["system"], one["what"]): one["times"]["value"] for one in found["ratios"]}
    assert times["tiny, onnx fp32", "throughput"] == pytest.approx(10.1 / 1.1)


def test_the_default_giant_is_base_size() -> None:
    from gkiller.benchmark.giants import _bert_base

    config = _bert_base()
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (12, 768, 3072)


def test_an_unreachable_hub_says_so(call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    code, out, err = call("bench", "runs/tiny", *QUICK, "--json", "--compare-base")
    assert code == 18, err
    assert json.loads(out)["where"] == "google-bert/bert-base-uncased"


@pytest.mark.parametrize("flags", [("--json",), ()])
def test_compare_base_may_stand_alone_anywhere(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...]
) -> None:
    seen = []

    def no_giant(frame: Any, base: Any, *given: Any, **named: Any) -> None:
        from gkiller.errors import ModelNotFoundError

        seen.append(base.reference)
        raise ModelNotFoundError("seen", where="", remedy="")

    monkeypatch.setattr("gkiller.benchmark.giants.giant_specs", no_giant)
    for arguments in (("runs/tiny", "--compare-base"), ("--compare-base", "--rows", 3, "runs/tiny")):
        assert call("bench", *arguments, *flags)[0] == 20
    assert call("bench", "--compare-base=x/y", "runs/tiny")[0] == 20
    assert call("bench", "runs/tiny", "--compare-base", "x/z", *flags)[0] == 20
    assert seen == ["google-bert/bert-base-uncased"] * 2 + ["x/y", "x/z"]


def test_a_probe_is_scored_and_says_what_it_is(call: Callable[..., Any], place: Path) -> None:
    found = result(call, "--compare-base", "encoder", "--giant-probe")
    giants = [one for one in found["systems"] if one["role"] == "giant"]
    assert [one["runtime"] for one in giants] == ["torch fp32", "onnx fp32", "onnx int8"]
    assert {one["note"] for one in giants} == {"frozen encoder + logistic head"}
    rivals = [duel["rival"] for duel in found["quality"]["sets"][1]["duels"]]
    assert rivals == ["encoder, onnx fp32", "encoder, onnx int8"]
    card = {one["name"]: one for one in found["criteria"]}
    assert card["f1-within"]["status"] == "NOT SHOWN"


def test_a_bare_encoder_is_fine_tuned_once_on_the_models_own_data(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--compare-base", "encoder", "--set", "train.epochs=1", "--set", "train.lr=0.001")
    flags += ("--set", "train.precision=bf16")  # type: ignore[assignment]
    (place / "gkiller.toml").write_text("[train]\nlr = 0.5\nbatch_size = 7\n")  # written for the model
    loose = [f"--set=deployment.int8_{name}=1" for name in ("flips", "ap_loss", "f1_loss", "score_difference")]
    first = result(call, *flags, *loose)
    giant = [one for one in first["systems"] if one["role"] == "giant"]
    assert giant[0]["trained"] == "whole"
    assert {one["note"] for one in giant} == {"fine-tuned, 1 epoch, bf16 products"}
    [run] = [path for path in (place / "runs/.bench").iterdir() if path.name.startswith("encoder-")]
    recorded = json.loads((run / "manifest.json").read_text())["data"]["fingerprints"]
    own = json.loads((place / "runs/tiny/manifest.json").read_text())["data"]["fingerprints"]
    assert recorded == own
    settings = resolve(config=run / "settings.toml", environ={}).settings
    assert (settings.train.lr, settings.train.batch_size, settings.model.arch) == (0.001, 32, "giant")
    assert load_model(run).max_length == load_model("runs/tiny").max_length
    monkeypatch.setattr("gkiller.training.train.train", None)  # the second time it is there
    second = result(call, *flags, *loose)
    assert second["quality"] == first["quality"]
