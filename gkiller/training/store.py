"""A run's checkpoints on the disk: which there are, which stay, which is the newest whole one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from gkiller.errors import ResumeError
from gkiller.files import make_directory, remove_leftovers, require_space, writing
from gkiller.model.growth import State
from gkiller.strict_json import parse_json
from gkiller.training.checkpoint import (
    STATE,
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)


class CheckpointStore:
    """A run's checkpoints: the newest few, and the best weights that they refer to.

    Checkpoints are numbered in the order they were written, and none is ever overwritten. The best weights
    are named by dendrites and epoch: a training that goes on from an earlier epoch must find those that
    were the best at that time.

    Args:
        directory: the run's ``checkpoints`` directory.
        keep: how many checkpoints stay; those that `newest` has found damaged do not.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._damaged: set[Path] = set()

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.directory.glob("checkpoint-" + "[0-9]" * 8), reverse=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the next checkpoint; then drop the oldest and the damaged ones, and what they alone refer to.

        Raises:
            OutputError: it cannot be written, or does not fit on the disk; the earlier ones stay.
        """
        self._make_room(checkpoint.size())
        newest = self.checkpoints()[:1]
        number = int(newest[0].name.rpartition("-")[2]) + 1 if newest else 1
        save_checkpoint(self.directory / f"checkpoint-{number:08d}", checkpoint)
        with writing(self.directory):
            whole = [path for path in self.checkpoints() if path not in self._damaged]
            for path in self.checkpoints():
                if path not in whole[: self.keep]:
                    shutil.rmtree(path)
            needed = {best for kept in self.checkpoints() for best in self._bests_of(kept)}
            for best in self.directory.glob("best-*"):
                if best not in needed:
                    shutil.rmtree(best)

    def _make_room(self, size: int) -> None:
        make_directory(self.directory)
        require_space(self.directory, size)

    def _bests_of(self, checkpoint: Path) -> list[Path]:
        """Return the best weights that a checkpoint refers to; none when its state is damaged."""
        try:
            state = parse_json((checkpoint / STATE).read_bytes())
            return [self._best(int(c), at) for c, at in state["progress"]["best_epoch"].items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def _best(self, count: int, epoch: int) -> Path:
        return self.directory / f"best-{count}-epoch-{epoch:05d}"

    def save_best(self, weights: State, count: int, epoch: int) -> None:
        """Write the best weights with ``count`` dendrites per Linear, those of ``epoch``.

        Raises:
            OutputError: they cannot be written, or do not fit on the disk.
        """
        self._make_room(sum(tensor.nbytes for tensor in weights.values()))
        save_weights(self._best(count, epoch), weights)

    def load_best(self, count: int, epoch: int) -> State:
        """Read what `save_best` wrote.

        Raises:
            ResumeError: they are not there or damaged.
        """
        return load_weights(self._best(count, epoch))

    def tidy(self) -> None:
        """Remove what a killed process left half-written; call it only as the run's one writer."""
        remove_leftovers(self.directory)

    def newest(self, on_damaged: Callable[[ResumeError], None] = lambda error: None) -> Checkpoint | None:
        """Read the newest checkpoint that is whole, with the best weights that it refers to.

        Args:
            on_damaged: told of each one that is damaged and therefore passed over.

        Returns:
            None where no checkpoint was ever written.

        Raises:
            ResumeError: all there are are damaged.
        """
        first: ResumeError | None = None
        for directory in self.checkpoints():
            try:
                checkpoint = load_checkpoint(directory)
                for count, epoch in checkpoint.progress.best_epoch.items():
                    self.load_best(count, epoch)
            except ResumeError as error:
                first = first or error
                self._damaged.add(directory)
                on_damaged(error)
            else:
                return checkpoint
        if first is None:
            return None
        raise ResumeError(
            f"no usable checkpoint ({first})", where=str(self.directory), remedy="start a new training"
        )
