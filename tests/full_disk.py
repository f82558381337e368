"""A disk that fills up while something is written, as a limit of this process."""

from __future__ import annotations

from typing import Any


class FileLimit:
    """No file may grow beyond so many bytes, for this process: a disk that fills up while writing."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        import resource

        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: Any) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
