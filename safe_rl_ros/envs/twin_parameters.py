"""What may differ between two twins of one robot, and between the twin and the robot: a strict model of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from safe_rl_ros.config import StrictModel

Scale = Annotated[float, Field(ge=0.1, le=10.0)]
Latency = Annotated[float, Field(ge=0.0, le=1.0)]
Deviation = Annotated[float, Field(ge=0.0, le=1.0)]


class TwinParameters(StrictModel):
    """The parameters of one episode of a twin. The defaults are the twin as URDF and robot spec describe it.

    A command passes ``actuation_delay_s``, the base controller (limits and ramp), ``lag_s`` and the gains on its way to
    the wheels; what is true then is shown ``observation_delay_s`` later. Delays count in physics substeps (rounded).
    """

    mass_scale: Scale = 1.0
    """Mass and inertia of the base link and of what is fixed to it, as a multiple; wheels stay."""
    friction_scale: Scale = 1.0
    """Friction of the wheels on the floor, as a multiple of ``twin.wheel_friction``."""
    gain_linear: Scale = 1.0
    """Speed that the wheels are told per speed commanded and ramped: of a wheel radius that is not the nominal one."""
    gain_angular: Scale = 1.0
    """The same of the turn rate: of a track that is not the nominal one."""
    actuation_delay_s: Latency = 0.0
    """From a command's being given until the base controller hears it, s."""
    actuation_jitter_s: Latency = 0.0
    """Every command takes up to so much longer, uniformly, s. None overtakes the one before it."""
    observation_delay_s: Latency = 0.0
    """Age of what a state shows at its stamp, s."""
    observation_jitter_s: Latency = 0.0
    """Every state is up to so much older, uniformly, s. None is older than the one before it."""
    lag_s: Latency = 0.0
    """Time constant of a first-order lag between the ramp and the wheels, s."""
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

    @property
    def noisy(self) -> bool:
        """True if any measurement has noise."""
        stds = (self.linear_velocity_std, self.angular_velocity_std, self.position_std_m, self.heading_std_rad)
        return any(std > 0.0 for std in (*stds, self.scan_std_m))


NEUTRAL = TwinParameters()
"""The twin as it is without randomisation."""
