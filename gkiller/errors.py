"""Every error gkiller raises on purpose, as one tree.

Each leaf has its own exit code (the process status of the command line) and carries a remedy::

    GkillerError                     1   anything below, or a fault of gkiller itself
    ├── SettingsError                2   unknown key, misspelt flag, value out of range
    ├── LightPackageError            3   gkiller-lite is installed, and this needs the full package
    ├── DataError
    │   ├── SourceNotFoundError     10   no such file, folder or split
    │   ├── EmptyDataError          11   no rows, or none left after cleaning
    │   ├── ColumnError             12   a named column is not there, or none can be guessed
    │   ├── EncodingError           13   invalid UTF-8, or a NUL byte
    │   ├── RowError                14   a missing text, an oversized field, a ragged row
    │   ├── LabelValueError         15   a label outside 0/1 and outside 0..1, or a bad weight
    │   ├── SingleClassError        16   only one class to learn from
    │   ├── FormatError             17   unknown or broken file format, or a broken prepared directory
    │   ├── HubUnavailableError     18   the Hugging Face hub cannot be reached or refused
    │   └── OutputError             19   the output folder is not ours to replace, or cannot be written
    ├── ModelError
    │   ├── ModelNotFoundError      20   no model directory there
    │   ├── ModelTamperedError      21   a file's SHA-256 is not the recorded one
    │   └── ModelFormatError        22   unknown version, missing or extra tensors, wrong shapes
    ├── DendriteError
    │   ├── DendritesUnavailableError 30 perforatedai has no build for this platform
    │   ├── DendritePatternError    31   the pattern names no Linear of the encoder
    │   └── FoldMismatchError       32   the folded model does not compute the training model's logits
    ├── RunError
    │   ├── RunExistsError          40   the run directory is already there
    │   ├── ResumeError             41   nothing to resume, or its settings differ
    │   ├── DivergedError           42   the loss is not finite
    │   ├── RunLockedError          43   another process writes to this run
    │   ├── RankLostError           44   another process of this training has ended
    │   ├── SweepFailedError        45   no trial of a sweep came to its end
    │   ├── InterruptedRunError    130   stopped by an interrupt, after a checkpoint
    │   └── TerminatedRunError     143   stopped by a termination signal, after a checkpoint
    ├── EvaluationError
    │   ├── ThresholdTargetError    50   no threshold reaches the asked precision or recall
    │   ├── LabelMismatchError      51   the data lack a label that the model predicts
    │   ├── ScoreRangeError         52   a score or a threshold is not in 0..1
    │   └── DataChangedError        53   a run's own data are not those that it was trained with
    ├── DeploymentError
    │   ├── ParityError             60   the exported model does not score as the trained one does
    │   └── ExportError             61   no graph can be built of this network, or nothing was exported
    └── BenchmarkError
        ├── CriteriaError           70   fewer criteria passed than 'gkiller bench --fail-under' asks for
        └── BenchmarkFailedError    71   a process that times a system did not come to its end

130 and 143 stand for an interrupt (Ctrl-C) and a termination, as shells have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_fault_of_input(error: BaseException) -> bool:
    """Whether an exception is about what was read, not a wish of the user to stop.

    A panic of a library's Rust code is a BaseException, and its class cannot be imported.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class GkillerError(Exception):
    """The root of the tree.

    Args:
        where: the place (file, row, column, key), or an empty string.
        report: what was measured before, as plain values; part of the ``--json`` answer where there is one.

    Rows are counted from 1 and do not count a header line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", report: Mapping[str, Any] | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.report = dict(report or {})
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.remedy})" if self.remedy else ""
        return f"{place}{self.what}{advice}"

    def as_dict(self) -> dict[str, Any]:
        """Return the error as plain values, for ``--json``."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "remedy": self.remedy,
            **({"report": self.report} if self.report else {}),
        }


class SettingsError(GkillerError):
    """An unknown key, a misspelt flag or a value out of its range."""

    exit_code = 2


class LightPackageError(GkillerError):
    """gkiller-lite is installed, and this needs the full package."""

    exit_code = 3


class DataError(GkillerError):
    """Anything wrong with comments or labels."""


class SourceNotFoundError(DataError):
    """No such file, folder or split."""

    exit_code = 10


class EmptyDataError(DataError):
    """No rows, or none left after cleaning."""

    exit_code = 11


class ColumnError(DataError):
    """A named column is not there, or none can be guessed."""

    exit_code = 12


class EncodingError(DataError):
    """Invalid UTF-8, or a NUL byte."""

    exit_code = 13


class RowError(DataError):
    """A missing text, an oversized field or a ragged row."""

    exit_code = 14


class LabelValueError(DataError):
    """A label outside 0/1 and outside 0..1, or a bad weight."""

    exit_code = 15


class SingleClassError(DataError):
    """Only one class to learn from."""

    exit_code = 16


class FormatError(DataError):
    """An unknown or broken file format, or a broken prepared directory."""

    exit_code = 17


class HubUnavailableError(DataError):
    """The Hugging Face hub cannot be reached, or refused."""

    exit_code = 18


class OutputError(DataError):
    """The output folder is not one of ours to replace, or cannot be written."""

    exit_code = 19


class ModelError(GkillerError):
    """Anything wrong with a model directory."""


class ModelNotFoundError(ModelError):
    """No model directory there."""

    exit_code = 20


class ModelTamperedError(ModelError):
    """A file's SHA-256 is not the recorded one."""

    exit_code = 21


class ModelFormatError(ModelError):
    """Unknown version, missing or extra tensors, wrong shapes."""

    exit_code = 22


class DendriteError(GkillerError):
    """Anything wrong with dendritic training."""


class DendritesUnavailableError(DendriteError):
    """``perforatedai`` has no build for this platform."""

    exit_code = 30


class DendritePatternError(DendriteError):
    """The pattern names no Linear of the encoder."""

    exit_code = 31


class FoldMismatchError(DendriteError):
    """The folded model does not compute the training model's logits."""

    exit_code = 32


class RunError(GkillerError):
    """Anything wrong with a run directory or a training."""


class RunExistsError(RunError):
    """The run directory is already there."""

    exit_code = 40


class ResumeError(RunError):
    """Nothing to resume, or its settings differ."""

    exit_code = 41


class DivergedError(RunError):
    """The loss is not finite."""

    exit_code = 42


class RunLockedError(RunError):
    """Another process writes to this run."""

    exit_code = 43


class RankLostError(RunError):
    """Another process of this training has ended, or holds another network."""

    exit_code = 44


class SweepFailedError(RunError):
    """No trial of a sweep came to its end."""

    exit_code = 45


class InterruptedRunError(RunError):
    """The training was interrupted; it has written a checkpoint."""

    exit_code = 130


class TerminatedRunError(RunError):
    """The training was told to end; it has written a checkpoint."""

    exit_code = 143


class EvaluationError(GkillerError):
    """Anything wrong with an evaluation."""


class ThresholdTargetError(EvaluationError):
    """No threshold reaches the asked precision or recall, or none can be tuned."""

    exit_code = 50


class LabelMismatchError(EvaluationError):
    """The data lack a label that the model predicts."""

    exit_code = 51


class ScoreRangeError(EvaluationError):
    """A score or a threshold is not in 0..1."""

    exit_code = 52


class DataChangedError(EvaluationError):
    """A run's own data are not those that it was trained with, or this cannot be told."""

    exit_code = 53


class DeploymentError(GkillerError):
    """Anything wrong with what is shipped."""


class ParityError(DeploymentError):
    """The exported model does not score as the trained one does."""

    exit_code = 60


class ExportError(DeploymentError):
    """No graph can be built of this network, or nothing was exported yet."""

    exit_code = 61


class BenchmarkError(GkillerError):
    """Anything wrong with a benchmark."""


class CriteriaError(BenchmarkError):
    """Fewer criteria passed than ``gkiller bench --fail-under`` asks for; the report was written."""

    exit_code = 70


class BenchmarkFailedError(BenchmarkError):
    """A process that times a system did not come to its end."""

    exit_code = 71
