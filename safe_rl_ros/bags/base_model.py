"""How a base answers to recorded drives: the twin's own motion, then other lag, gains and delay as linear operations.

The twin is simulated once; what another lag, other gains and a delay make of its motion costs nothing then. That they
commute with wheel servo and body is exact as long as no wheel slips and no torque is at its limit; where one does, the
twin is simulated again with what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from safe_rl_ros.bags.drive_log import Drive
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.types import FloatArray

WARM_UP_S = 1.0
"""Left out at the beginning of a drive that does not begin at rest: the model does."""
CLEAR = Layout(hazards=np.array([[50.0, 50.0, 0.3]]), goals=np.ones((1, 2)), start=np.zeros(3))
"""An arena with nothing near."""


def on_grid(drive: Drive, spec: RobotSpec, substep_s: float) -> FloatArray:
    """Return the command in force in each physics substep of a drive (S, C), the robot's stop before the first.

    A command takes force at the nearest boundary between two substeps.
    """
    count = int(np.ceil(drive.length_s / substep_s)) + 1
    grid = np.tile(spec.command_stop, (count, 1))
    starts = np.round(drive.command_s / substep_s).astype(np.int64)
    for start, command in zip(starts, drive.command, strict=True):
        grid[max(start, 0) :] = command
    return grid


def relagged(motion: FloatArray, substep_s: float, old_s: float, new_s: float) -> FloatArray:
    """Return motion (S, 2) from rest that went through a first-order lag as if it had gone through another one."""
    from scipy.signal import lfilter  # here: it looks for torch, which nobody who reads bags must load

    old, new = (substep_s / (substep_s + lag_s) for lag_s in (old_s, new_s))
    if old == new:
        return motion
    return np.asarray(lfilter([new / old, -new * (1.0 - old) / old], [1.0, new - 1.0], motion, axis=0), np.float64)


def shown(motion: FloatArray, substep_s: float, delay_s: float, times_s: FloatArray) -> FloatArray:
    """Return motion (S, 2), which is that after each substep, as seen at times (N,) after a delay, (N, 2)."""
    ends = substep_s * np.arange(len(motion) + 1)
    return np.column_stack(
        [np.interp(times_s - delay_s, ends, np.concatenate([[0.0], motion[:, axis]])) for axis in range(2)]
    )


class TwinResponse:
    """The twin of a robot under recorded commands; the newest simulations are kept."""

    KEPT = 2

    def __init__(self, spec: RobotSpec, drives: Sequence[Drive], on_drive: Callable[[], None] | None = None) -> None:
        """Build the twin; ``on_drive`` is called after each drive that is simulated."""
        self._backend = make_backend(spec, lambda seed: CLEAR)
        self.substep_s = spec.period_ns * 1e-9 / spec.twin.substeps
        self._commands = [on_grid(drive, spec, self.substep_s) for drive in drives]
        self._on_drive = on_drive
        self._kept: dict[TwinParameters, list[FloatArray]] = {}

    def motion(self, parameters: TwinParameters = NEUTRAL) -> list[FloatArray]:
        """Return the true motion (S, 2) after each substep of each drive; delays and noise do not count.

        Raises:
            BackendError: the physics diverged.
        """
        if parameters not in self._kept:
            motions = []
            for commands in self._commands:
                motions.append(self._backend.respond(commands, parameters))
                if self._on_drive is not None:
                    self._on_drive()
            while len(self._kept) >= self.KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[parameters] = motions
        return self._kept[parameters]

    def close(self) -> None:
        """Release the simulator."""
        self._backend.close()
