"""Score files and streams of any length: readers, writers, and a job that can be resumed.

Beside what the rest of the room needs, Parquet files need pyarrow.
"""

from __future__ import annotations
