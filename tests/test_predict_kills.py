"""A scoring job killed before any of its file operations goes on and ends in the very same bytes."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from killing import LONGEST, count_operations, server
from toy import comment

FINISHED = 19  # the file is in its place, and the job says so
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")


def predict_in_process(arguments: list[str], folder: Path, last: int, counts: Path) -> None:
    """Score; the target of a process that dies before its ``last`` file operation in a folder."""
    from gkiller.cli.main import main

    seen = count_operations(folder, last)
    code = main(["predict", *arguments])
    counts.write_text(json.dumps(seen))
    sys.exit(code)


class Scorings:
    """Jobs that score one file in processes of their own."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.input, self.counts, self.context = folder / "input.txt", folder / "counts.json", server()
        self.input.write_text("".join(f"{comment(i, i % 4 == 0)}\n" for i in range(40)))
        self.arguments = ["--model", str(model), "--input", str(self.input), "--batch-size", "8"]

    def run(self, out: Any, last: int = 0) -> int:
        """Go on with a job, or begin it; return the exit code."""
        arguments = [*self.arguments, "--threads", "1", "--output", str(out), "--resume"]
        given = (arguments, out.parent, last, self.counts)
        process = self.context.Process(target=predict_in_process, args=given)
        process.start()
        process.join(LONGEST)
        return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.jsonl"])
def test_killed_before_any_file_operation_it_ends_in_the_same_bytes(
    name: str, onnx_model: Path, tmp_path: Path
) -> None:
    jobs = Scorings(onnx_model, tmp_path)
    (tmp_path / "whole").mkdir()
    whole = tmp_path / "whole" / name
    assert jobs.run(whole) == 0
    operations = json.loads(jobs.counts.read_text())["operations"]
    assert operations >= 8
    for last in range(1, operations + 1):
        out = tmp_path / f"killed-{last}" / name
        out.parent.mkdir()
        assert jobs.run(out, last) == -signal.SIGKILL
        again = jobs.run(out)
        assert again == (FINISHED if last == operations else 0), (last, again)
        assert out.read_bytes() == whole.read_bytes(), last
        assert [path.name for path in out.parent.iterdir()] == [name], last
