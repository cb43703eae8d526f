"""Domain randomisation of a twin: ranges in YAML, drawn per episode from the episode's own seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field, model_serializer, model_validator

from safe_rl_ros.config import GrownModel, StrictModel, load_config
from safe_rl_ros.envs.twin_parameters import NEUTRAL, OF_JOINTS, TwinParameters
from safe_rl_ros.resources import find_resource

DIRECTORY = "config/randomisation"
STREAM = 0x7721
"""Keeps these draws apart from everything else that is drawn from an episode's seed."""
ParameterDraw = Callable[[int], TwinParameters]
"""Seed of an episode -> the twin's parameters in it; pure."""
Pair = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]


class Spread(StrictModel):
    """A range to draw from: exactly one of ``uniform`` and ``log_uniform``, each ``[least, greatest]``."""

    uniform: Pair | None = None
    log_uniform: Pair | None = None
    """The logarithm is uniform: as often halved as doubled."""

    @model_validator(mode="after")
    def _ordered(self) -> Spread:
        if (self.uniform is None) == (self.log_uniform is None):
            raise ValueError("expected exactly one of uniform and log_uniform, each as [least, greatest]")
        low, high = self.ends
        if not low <= high:
            raise ValueError(f"the range [{low:g}, {high:g}] is upside down, expected [least, greatest]")
        if self.log_uniform is not None and low <= 0.0:
            raise ValueError(f"log_uniform [{low:g}, {high:g}] begins at {low:g}, expected a number above 0")
        return self

    @model_serializer(mode="plain")
    def _given_alone(self) -> dict[str, list[float]]:
        return {"uniform" if self.uniform is not None else "log_uniform": list(self.ends)}

    @property
    def ends(self) -> tuple[float, float]:
        """Return least and greatest value."""
        pair = self.uniform if self.uniform is not None else self.log_uniform
        assert pair is not None, "the validator allows no spread without a range"
        return pair

    def at(self, share: float) -> float:
        """Return the value at a share in [0, 1] of the range; never outside of it."""
        low, high = self.ends
        if self.log_uniform is None:
            value = low + share * (high - low)
        else:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return min(max(value, low), high)


Value = float | Spread


class Randomisation(GrownModel):
    """For each of :class:`.TwinParameters` a number or a :class:`Spread`; left out: as without randomisation.

    Every key has a generator of its own, made of the episode's seed and the key's name: a key more or less changes no
    other key's draws, and none changes the episode's layout.
    """

    younger: ClassVar[frozenset[str]] = frozenset(OF_JOINTS)

    mass_scale: Value = NEUTRAL.mass_scale
    friction_scale: Value = NEUTRAL.friction_scale
    gain_linear: Value = NEUTRAL.gain_linear
    gain_angular: Value = NEUTRAL.gain_angular
    gain_joints: Value = NEUTRAL.gain_joints
    effort_scale: Value = NEUTRAL.effort_scale
    actuation_delay_s: Value = NEUTRAL.actuation_delay_s
    actuation_jitter_s: Value = NEUTRAL.actuation_jitter_s
    observation_delay_s: Value = NEUTRAL.observation_delay_s
    observation_jitter_s: Value = NEUTRAL.observation_jitter_s
    lag_s: Value = NEUTRAL.lag_s
    linear_velocity_std: Value = NEUTRAL.linear_velocity_std
    angular_velocity_std: Value = NEUTRAL.angular_velocity_std
    position_std_m: Value = NEUTRAL.position_std_m
    heading_std_rad: Value = NEUTRAL.heading_std_rad
    scan_std_m: Value = NEUTRAL.scan_std_m
    joint_position_std: Value = NEUTRAL.joint_position_std
    joint_velocity_std: Value = NEUTRAL.joint_velocity_std
    imu_orientation_std_rad: Value = NEUTRAL.imu_orientation_std_rad
    imu_angular_velocity_std: Value = NEUTRAL.imu_angular_velocity_std
    imu_linear_acceleration_std: Value = NEUTRAL.imu_linear_acceleration_std

    @model_validator(mode="after")
    def _within_bounds(self) -> Randomisation:
        for end in (0, 1):  # raises, with name, value and bound, for what no twin can be
            TwinParameters.model_validate({name: _ends(value)[end] for name, value in self})
        return self

    def draw(self, seed: int) -> TwinParameters:
        """Return the parameters of the episode with this seed (>= 0): the same ones for ever."""
        return TwinParameters.model_validate({name: _drawn(name, value, seed) for name, value in self})


def _ends(value: Value) -> tuple[float, float]:
    return value.ends if isinstance(value, Spread) else (value, value)


def _drawn(name: str, value: Value, seed: int) -> float:
    if not isinstance(value, Spread):
        return value
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAM, zlib.crc32(name.encode())))
    return value.at(float(np.random.Generator(np.random.PCG64(sequence)).random()))


def load_randomisation(path_or_name: str | Path) -> Randomisation:
    """Read a randomisation: a YAML file, or the name of one in ``config/randomisation``.

    Raises:
        ConfigError: the file is missing, a key is unknown, a range is upside down or no twin can be so.
    """
    return load_config(Randomisation, randomisation_file(path_or_name))


def randomisation_file(path_or_name: str | Path) -> Path:
    """Return the YAML file of a randomisation. Raises ConfigError if it is missing."""
    file = Path(path_or_name)
    return find_resource(file if file.suffix else file.with_suffix(".yaml"), DIRECTORY)


NamedRandomisation = Annotated[
    Randomisation, BeforeValidator(lambda value: load_randomisation(value) if isinstance(value, str) else value)
]
"""A key of a configuration: the values inline, a file, or a name in ``config/randomisation``."""


def parameter_draw(given: str | Path | Randomisation | TwinParameters | None) -> ParameterDraw | None:
    """Return what gives an episode's parameters; :class:`.TwinParameters` are the same ones in every episode.

    Raises:
        ConfigError: a file is missing or wrong.
    """
    if given is None:
        return None
    if isinstance(given, TwinParameters):
        return lambda seed: given
    return (given if isinstance(given, Randomisation) else load_randomisation(given)).draw


def as_record(parameters: TwinParameters) -> dict[str, Any]:
    """Return parameters as they are logged: plain numbers by name, which read back to the same parameters."""
    return parameters.model_dump(mode="json")
