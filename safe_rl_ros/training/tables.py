"""CSV files that are either all there or not there."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file in place of an older one in one step; return its path."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


class Pace:
    """Lets a growing file be written again and again without taking more than a hundredth of the time.

    Writing a whole table after each of E epochs costs E^2; this skips a write until the last one is paid off.
    """

    SHARE = 0.01

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Take a clock in s."""
        self._clock = clock
        self._due = float("-inf")

    def write(self, action: Callable[[], object], *, always: bool = False) -> bool:
        """Run ``action`` if it is due, or ``always``; return whether it ran."""
        start = self._clock()
        if start < self._due and not always:
            return False
        action()
        end = self._clock()
        self._due = end + (end - start) / self.SHARE
        return True
