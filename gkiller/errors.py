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
    """Whether an exception is about what was read, not a wish of the user to stop."""
    # a panic of a library's Rust code is a BaseException, and its class cannot be imported
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class GkillerError(Exception):
    """The root of the tree.

    Args:
        where: the place (file, row, column, key); rows are counted from 1, without a header line.
        report: what was measured before, as plain values; part of the ``--json`` answer.
    """

    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, code: int | None = None) -> None:
        """Give a leaf its exit code."""
        cls.exit_code = cls.exit_code if code is None else code

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", report: Mapping[str, Any] | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.report = dict(report or {})
        super().__init__(what)

    def __str__(self) -> str:
        advice = f" ({self.remedy})" if self.remedy else ""
        return ": ".join(filter(None, (self.where, self.what))) + advice

    def as_dict(self) -> dict[str, Any]:
        """Return the error as plain values, for ``--json``."""
        kind = {"error": type(self).__name__, "exit_code": self.exit_code}
        report = {"report": self.report} if self.report else {}
        return {**kind, "what": self.what, "where": self.where, "remedy": self.remedy, **report}


class SettingsError(GkillerError, code=2):
    """An unknown key, a misspelt flag or a value out of its range."""


class LightPackageError(GkillerError, code=3):
    """gkiller-lite is installed, and this needs the full package."""


class DataError(GkillerError):
    """Anything wrong with comments or labels."""


class SourceNotFoundError(DataError, code=10):
    """No such file, folder or split."""


class EmptyDataError(DataError, code=11):
    """No rows, or none left after cleaning."""


class ColumnError(DataError, code=12):
    """A named column is not there, or none can be guessed."""


class EncodingError(DataError, code=13):
    """Invalid UTF-8, or a NUL byte."""


class RowError(DataError, code=14):
    """A missing text, an oversized field or a ragged row."""


class LabelValueError(DataError, code=15):
    """A label outside 0/1 and outside 0..1, or a bad weight."""


class SingleClassError(DataError, code=16):
    """Only one class to learn from."""


class FormatError(DataError, code=17):
    """An unknown or broken file format, or a broken prepared directory."""


class HubUnavailableError(DataError, code=18):
    """The Hugging Face hub cannot be reached, or refused."""


class OutputError(DataError, code=19):
    """The output folder is not one of ours to replace, or cannot be written."""


class ModelError(GkillerError):
    """Anything wrong with a model directory."""


class ModelNotFoundError(ModelError, code=20):
    """No model directory there."""


class ModelTamperedError(ModelError, code=21):
    """A file's SHA-256 is not the recorded one."""


class ModelFormatError(ModelError, code=22):
    """Unknown version, missing or extra tensors, wrong shapes."""


class DendriteError(GkillerError):
    """Anything wrong with dendritic training."""


class DendritesUnavailableError(DendriteError, code=30):
    """``perforatedai`` has no build for this platform."""


class DendritePatternError(DendriteError, code=31):
    """The pattern names no Linear of the encoder."""


class FoldMismatchError(DendriteError, code=32):
    """The folded model does not compute the training model's logits."""


class RunError(GkillerError):
    """Anything wrong with a run directory or a training."""


class RunExistsError(RunError, code=40):
    """The run directory is already there."""


class ResumeError(RunError, code=41):
    """Nothing to resume, or its settings differ."""


class DivergedError(RunError, code=42):
    """The loss is not finite."""


class RunLockedError(RunError, code=43):
    """Another process writes to this run."""


class RankLostError(RunError, code=44):
    """Another process of this training has ended, or holds another network."""


class SweepFailedError(RunError, code=45):
    """No trial of a sweep came to its end."""


class InterruptedRunError(RunError, code=130):
    """The training was interrupted; it has written a checkpoint."""


class TerminatedRunError(RunError, code=143):
    """The training was told to end; it has written a checkpoint."""


class EvaluationError(GkillerError):
    """Anything wrong with an evaluation."""


class ThresholdTargetError(EvaluationError, code=50):
    """No threshold reaches the asked precision or recall, or none can be tuned."""


class LabelMismatchError(EvaluationError, code=51):
    """The data lack a label that the model predicts."""


class ScoreRangeError(EvaluationError, code=52):
    """A score or a threshold is not in 0..1."""


class DataChangedError(EvaluationError, code=53):
    """A run's own data are not those that it was trained with, or this cannot be told."""


class DeploymentError(GkillerError):
    """Anything wrong with what is shipped."""


class ParityError(DeploymentError, code=60):
    """The exported model does not score as the trained one does."""


class ExportError(DeploymentError, code=61):
    """No graph can be built of this network, or nothing was exported yet."""


class BenchmarkError(GkillerError):
    """Anything wrong with a benchmark."""


class CriteriaError(BenchmarkError, code=70):
    """Fewer criteria passed than ``gkiller bench --fail-under`` asks for; the report was written."""


class BenchmarkFailedError(BenchmarkError, code=71):
    """A process that times a system did not come to its end."""
