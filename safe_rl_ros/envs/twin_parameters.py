"""What may differ between two twins of one robot, and between the twin and the robot: a strict model of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import ConfigError

Scale = Annotated[float, Field(ge=0.1, le=10.0)]
Latency = Annotated[float, Field(ge=0.0, le=1.0)]
Deviation = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.1, le=1.0)]
OF_BASES = (
    "gain_linear",
    "gain_angular",
    "linear_velocity_std",
    "angular_velocity_std",
    "position_std_m",
    "heading_std_rad",
    "scan_std_m",
)
"""Parameters that only a base has."""
OF_JOINTS = (
    "gain_joints",
    "effort_scale",
    "joint_position_std",
    "joint_velocity_std",
    "imu_orientation_std_rad",
    "imu_angular_velocity_std",
    "imu_linear_acceleration_std",
)
"""Parameters that only a robot has that is moved by its joints."""


class TwinParameters(StrictModel):
    """The parameters of one episode of a twin. The defaults are the twin as URDF and robot spec describe it.

    A command passes ``actuation_delay_s``, the controller (limits and ramp), ``lag_s`` and the gains on its way to the
    wheels or joints; what is true then is shown ``observation_delay_s`` later. Delays count in physics substeps
    (rounded). Some parameters are of bases alone, others of robots that are moved by their joints: see
    :data:`OF_BASES` and :data:`OF_JOINTS`.
    """

    mass_scale: Scale = 1.0
    """Mass and inertia as a multiple: of the base link and what is fixed to it (wheels stay), or of all links that move
    of a robot that is moved by its joints."""
    friction_scale: Scale = 1.0
    """Friction on the floor as a multiple: of ``twin.wheel_friction``, or of ``twin.link_friction``."""
    gain_linear: Scale = 1.0
    """Speed that the wheels are told per speed commanded and ramped: of a wheel radius that is not the nominal one."""
    gain_angular: Scale = 1.0
    """The same of the turn rate: of a track that is not the nominal one."""
    gain_joints: Scale = 1.0
    """Speed that the joints' drives make per speed that they should; no more than the spec's rate where commands are
    positions."""
    effort_scale: Share = 1.0
    """Greatest efforts of the commanded joints, as a part of the URDF's."""
    actuation_delay_s: Latency = 0.0
    """From a command's being given until the controller hears it, s."""
    actuation_jitter_s: Latency = 0.0
    """Every command takes up to so much longer, uniformly, s. None overtakes the one before it."""
    observation_delay_s: Latency = 0.0
    """Age of what a state shows at its stamp, s."""
    observation_jitter_s: Latency = 0.0
    """Every state is up to so much older, uniformly, s. None is older than the one before it."""
    lag_s: Latency = 0.0
    """Time constant of a first-order lag between the ramp and the wheels or joints, s."""
    linear_velocity_std: Deviation = 0.0
    """Standard deviation of the measured speed ahead, m/s. Noise is Gaussian, white, and new in every state."""
    angular_velocity_std: Deviation = 0.0
    """The same of the turn rate, rad/s."""
    position_std_m: Deviation = 0.0
    """The same of the measured x and of y, m."""
    heading_std_rad: Deviation = 0.0
    """The same of the measured heading, rad."""
    scan_std_m: Deviation = 0.0
    """The same of the lidar's rays that hit something, m; they stay within the lidar's range."""

    joint_position_std: Deviation = 0.0
    """The same of the joints' positions, rad or m."""
    joint_velocity_std: Deviation = 0.0
    """The same of their velocities, rad/s or m/s."""
    imu_orientation_std_rad: Deviation = 0.0
    """The same of the turn about each axis of the imu by which its orientation is off, rad."""
    imu_angular_velocity_std: Deviation = 0.0
    """The same of each axis of the imu, rad/s."""
    imu_linear_acceleration_std: Deviation = 0.0
    """The same of each axis of the imu, m/s^2."""

    @property
    def noisy(self) -> bool:
        """True if any measurement has noise."""
        return any(value > 0.0 for name, value in self if "_std" in name)


NEUTRAL = TwinParameters()
"""The twin as it is without randomisation."""


def check_kind(robot: str, parameters: TwinParameters, foreign: tuple[str, ...]) -> None:
    """Check that no parameter is set that such a robot does not have.

    Args:
        robot: its name.
        parameters: of an episode.
        foreign: what it does not have, :data:`OF_BASES` or :data:`OF_JOINTS`.

    Raises:
        ConfigError: naming the first one that is set.
    """
    for name in foreign:
        value, neutral = getattr(parameters, name), getattr(NEUTRAL, name)
        if value != neutral:
            kind = "is moved by its joints" if foreign is OF_BASES else "is a base"
            raise ConfigError(
                f"randomisation: {name} = {value:g}, expected {neutral:g}: robot {robot} {kind} and has none of "
                + ", ".join(foreign)
            )
