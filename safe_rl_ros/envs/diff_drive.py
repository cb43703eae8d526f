"""The base controller of the twin: ramps a twist, as ros2_control's diff_drive_controller does, to wheel speeds."""

from __future__ import annotations

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import FloatArray


def approach(current: float, target: float, most: float) -> float:
    """Return ``target``, or the value nearest to it that is at most ``most`` away from ``current``."""
    if target > current + most:
        return current + most
    if target < current - most:
        return current - most
    return target


class DiffDrive:
    """Ramps towards the target twist with the rate limits of the spec; remembers the twist it has reached.

    The wheels may follow the ramp with a first-order lag and with gains other than 1, see :meth:`set_response`.
    """

    def __init__(self, spec: RobotSpec, dt_s: float) -> None:
        """Prepare for calls every ``dt_s`` seconds."""
        index = (spec.axis_index["linear_x"], spec.axis_index["angular_z"])
        self._index = index
        self._lower: list[float] = [float(spec.command_lower[i]) for i in index]
        self._upper: list[float] = [float(spec.command_upper[i]) for i in index]
        self._stop: list[float] = [float(spec.command_stop[i]) for i in index]
        self._most: list[float] = [float(spec.command_rate[i]) * dt_s for i in index]
        self._half_track = spec.base_drive.wheel_separation_m / 2.0
        self._radius = spec.base_drive.wheel_radius_m
        self._dt_s = dt_s
        self.set_response((1.0, 1.0), 0.0)
        self.reset()

    def set_response(self, gains: tuple[float, float], lag_s: float) -> None:
        """Set the gains of speed and turn rate, and the time constant of the lag between ramp and wheels."""
        self._gains = gains
        self._follow = self._dt_s / (self._dt_s + lag_s) if lag_s > 0.0 else None
        """Part of the way to the ramp that the wheels go in ``dt_s`` (backward Euler); None: all of it."""

    def reset(self) -> None:
        """Forget everything: the base stands still and is told to."""
        self._linear, self._angular = self._stop
        self._followed = (self._linear, self._angular)
        self.stop()

    def stop(self) -> None:
        """Ramp to the stop command from now on."""
        self._target_linear, self._target_angular = self._stop

    def set_command(self, command: FloatArray) -> None:
        """Ramp to a finite command (C,), clipped to the limits, from now on."""
        linear, angular = float(command[self._index[0]]), float(command[self._index[1]])
        self._target_linear = min(max(linear, self._lower[0]), self._upper[0])
        self._target_angular = min(max(angular, self._lower[1]), self._upper[1])

    @property
    def settled(self) -> bool:
        """True if the target is reached: until the next command, :meth:`advance` returns the same speeds."""
        if self._follow is not None and self._followed != (self._linear, self._angular):
            return False
        return self._linear == self._target_linear and self._angular == self._target_angular

    def advance(self) -> tuple[float, float]:
        """Ramp for one ``dt_s`` and return the speeds (rad/s) of the left and the right wheels."""
        self._linear = approach(self._linear, self._target_linear, self._most[0])
        self._angular = approach(self._angular, self._target_angular, self._most[1])
        linear, angular = self._linear, self._angular
        if self._follow is not None:
            last_linear, last_angular = self._followed
            linear = last_linear + (linear - last_linear) * self._follow
            angular = last_angular + (angular - last_angular) * self._follow
            self._followed = linear, angular
        linear, turn = linear * self._gains[0], angular * self._gains[1] * self._half_track
        return (linear - turn) / self._radius, (linear + turn) / self._radius
