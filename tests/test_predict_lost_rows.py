"""Jobs that are stopped at random moments lose no row; ``experiments/lost_rows.py`` is the long version."""

import os
import random
import signal
from pathlib import Path

import pytest
from losing import OUTPUTS, WAYS, Case, Jobs, draw

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


@pytest.fixture(scope="module")
def jobs(onnx_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("jobs"), onnx_model, rows=2000, batch=100)


@pytest.mark.parametrize("way", WAYS)
def test_no_way_in_loses_a_row(jobs: Jobs, way: str) -> None:
    jobs.check(Case("csv", way, "csv", ((signal.SIGKILL, 0.7),)))


@pytest.mark.parametrize("output", ["parquet", "csv.gz", ">>"])
def test_a_job_that_is_stopped_twice_ends_with_the_bytes_of_an_unbroken_one(jobs: Jobs, output: str) -> None:
    source = random.Random(output)
    stops = ((source.choice((signal.SIGTERM, signal.SIGINT)), 0.8), (signal.SIGKILL, source.uniform(0.5, 1)))
    jobs.check(Case("jsonl", "stdin", output, stops))


def test_cases_are_drawn_over_everything() -> None:
    drawn = [draw(random.Random(seed)) for seed in range(300)]
    assert {case.way for case in drawn} == set(WAYS)
    assert {case.output for case in drawn} == set(OUTPUTS)
    assert len({number for case in drawn for number, _ in case.stops}) == 3
