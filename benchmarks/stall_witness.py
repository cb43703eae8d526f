"""Processes that do nothing but sleep and note when the machine did not wake them: witnesses of stalls.

There is one on each core. They run above everything measured (SCHED_FIFO where the system allows it, which the report
says), so what they miss, nothing measured could have made: the virtual machine was stopped or its memory taken away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

PERIOD_S = 0.001
STALL_S = 0.004
"""Wake-ups later than this are stalls; an idle machine's timers are late by less."""
PRIORITY = 60


def main() -> None:
    """Note stalls of one core until standard input closes, then print them as JSON: [begin, end], ns, wall clock."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        scheduling = "fifo"
    except (OSError, AttributeError):
        scheduling = "normal"
    stalls: list[tuple[int, int]] = []
    os.set_blocking(sys.stdin.fileno(), False)
    while sys.stdin.buffer.raw.read(1) is None:  # type: ignore[attr-defined]
        begin_ns, begin = time.time_ns(), time.monotonic()
        time.sleep(PERIOD_S)
        if time.monotonic() - begin - PERIOD_S > STALL_S:
            stalls.append((begin_ns, time.time_ns()))
    sys.stdout.write(json.dumps({"scheduling": scheduling, "stalls": stalls}))


class StallWitness:
    """Runs the witnesses while it is open; afterwards ``stalls`` (N, 2) ns and ``scheduling`` are there."""

    def __enter__(self) -> StallWitness:
        """Start them."""
        command = [sys.executable, str(Path(__file__).resolve())]
        self._processes = [
            subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for core in sorted(os.sched_getaffinity(0))
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them and read what they saw."""
        reports = [json.loads(process.communicate(timeout=10)[0]) for process in self._processes]
        self.scheduling = "/".join(sorted({str(report["scheduling"]) for report in reports}))
        stalls = [stall for report in reports for stall in report["stalls"]]
        self.stalls: npt.NDArray[np.int64] = np.array(sorted(stalls), dtype=np.int64).reshape(-1, 2)

    def summary(self) -> dict[str, Any]:
        """Return how many stalls there were, and how long."""
        lengths = np.diff(self.stalls, axis=1)[:, 0] * 1e-6
        longest = round(float(lengths.max()), 1) if len(lengths) else 0.0
        return {"stalls": len(lengths), "longest_ms": longest, "scheduling": self.scheduling}


def missed_periods(
    stamps: npt.NDArray[np.int64], period_ns: int, stalls: npt.NDArray[np.int64]
) -> tuple[int, int]:
    """Return how many periods of the stamps' own grid have no stamp, outside of stalls and in gaps that overlap one.

    A stamp belongs to the period in which it is late by less than nine tenths; a late one is no missed one.

    Args:
        stamps: (N,) ns, ascending, at least one.
        period_ns: expected distance of two stamps.
        stalls: (M, 2) begin and end, ns.
    """
    # The grid's phase: the middle of phases that may lie on both sides of zero.
    turns = 2 * np.pi * ((stamps - stamps[0]) % period_ns) / period_ns
    phase = np.angle(np.median(np.cos(turns)) + 1j * np.median(np.sin(turns))) / (2 * np.pi) * period_ns
    periods = np.floor((stamps - stamps[0] - phase) / period_ns + 0.1).astype(np.int64)
    undisturbed = disturbed = 0
    gaps = np.diff(periods) - 1
    for row in np.flatnonzero(gaps > 0):
        begin, end = stamps[row], stamps[row + 1]
        if bool(((stalls[:, 0] < end) & (stalls[:, 1] > begin)).any()):
            disturbed += int(gaps[row])
        else:
            undisturbed += int(gaps[row])
    return undisturbed, disturbed


if __name__ == "__main__":
    main()
