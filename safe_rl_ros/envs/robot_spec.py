"""Everything the package must know of a robot, read from one YAML file and checked against its URDF."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel, apply_overrides, build, read_yaml
from safe_rl_ros.envs.command_spec import CommandSpec, Positive
from safe_rl_ros.envs.joint_limits import check_joint_axes
from safe_rl_ros.envs.robot_parts import DriveSpec, FramesSpec, ScanSpec, SensorsSpec, Simulator, TwinSpec
from safe_rl_ros.envs.unfilled import refuse_unfilled
from safe_rl_ros.envs.urdf import Urdf, load_urdf
from safe_rl_ros.envs.wheels import check_drive
from safe_rl_ros.resources import find_in_package, find_resource, names_package
from safe_rl_ros.types import ConfigError, FloatArray, RobotState


class RobotSpec(StrictModel):
    """A robot: command, joints, limits, rates, frames and sensors. Build it with :func:`load_robot_spec`."""

    name: Annotated[str, Field(min_length=1)]
    urdf: str
    """File name of the URDF: a path, a file in the package's ``urdf`` directory, or ``PACKAGE:PATH`` for one that an
    installed Python package ships."""
    control_rate_hz: Annotated[float, Field(gt=0.0, le=1000.0)]
    footprint_radius_m: Positive | None = None
    """Radius of the circle around the base frame that holds the whole robot; the twin needs it."""
    frames: FramesSpec
    joints: tuple[str, ...] = ()
    """Joints in the order of ``joint_position``; those of joint_states that the robot spec speaks of."""
    drive: DriveSpec | None = None
    """Wheels of a differential drive; the twin needs them."""
    command: CommandSpec
    sensors: SensorsSpec
    twin: TwinSpec = TwinSpec()

    @property
    def period_ns(self) -> int:
        """Return the control period in ns."""
        return round(1e9 / self.control_rate_hz)

    @property
    def act_dim(self) -> int:
        """Return the number of command axes, C."""
        return len(self.command.axes)

    @property
    def command_lower(self) -> FloatArray:
        """Return the lower command limits (C,)."""
        return _frozen([axis.lower for axis in self.command.axes])

    @property
    def command_upper(self) -> FloatArray:
        """Return the upper command limits (C,)."""
        return _frozen([axis.upper for axis in self.command.axes])

    @property
    def command_rate(self) -> FloatArray:
        """Return the largest change per second of the command (C,)."""
        return _frozen([axis.rate for axis in self.command.axes])

    @property
    def command_stop(self) -> FloatArray:
        """Return the command (C,) that stops the robot.

        Raises:
            ConfigError: there is none, because commands are positions.
        """
        stops = [axis.stop for axis in self.command.axes]
        if any(stop is None for stop in stops):
            raise ConfigError(f"robot {self.name}: commands are positions, no single one of them means stop")
        return _frozen([float(stop) for stop in stops if stop is not None])

    @property
    def command_deceleration(self) -> FloatArray | None:
        """Return the deceleration (C,) of the stop profile ``decelerate``, None for the others."""
        values = [axis.deceleration for axis in self.command.axes if axis.deceleration is not None]
        return _frozen(values) if values else None

    @property
    def axis_index(self) -> dict[str, int]:
        """Return the position of every command axis by its name."""
        return {axis.name: index for index, axis in enumerate(self.command.axes)}

    def require_twin(self) -> None:
        """Check that the robot is a differential-drive base with everything that the twin simulates and publishes.

        Raises:
            ConfigError: naming all that is missing.
        """
        sensors = self.sensors
        parts = {
            "drive": self.drive,
            "footprint_radius_m": self.footprint_radius_m,
            "sensors.odom": sensors.odom,
            "sensors.scan": sensors.scan,
            "sensors.joint_states": sensors.joint_states,
        }
        missing = [key for key, value in parts.items() if value is None]
        missing += [] if self.command.interface == "twist" else ["the command interface 'twist'"]
        if missing:
            has = "has no twin" if self.twin.base is None else "has a twin of its joints and none that drives"
            raise ConfigError(f"robot {self.name} {has}: it lacks {', '.join(missing)}")
        if sensors.imu is not None:
            raise ConfigError(f"robot {self.name} has no twin: that of a base has no imu, and sensors.imu is set")

    def measured_command(self, state: RobotState) -> FloatArray:
        """Return the command (C,) at which a robot with joint axes stands: their measured positions or velocities.

        NaN where the sensors gave none.

        Raises:
            ValueError: the robot's axes are not joints.
        """
        if self.command.interface == "twist":
            raise ValueError(f"robot {self.name}: a twist has no measured position")
        order = [self.joints.index(axis.name) for axis in self.command.axes]
        values = state.joint_position if self.command.positions else state.joint_velocity
        return values[order]

    def require_joint_twin(self) -> None:
        """Check that the robot is moved by its joints and that its twin is, too.

        Raises:
            ConfigError: it has no such twin, or a sensor that this twin does not show.
        """
        if self.twin.base is None:
            raise ConfigError(
                f"robot {self.name} has no twin of its joints: twin.base is not set, expected fixed or free"
            )
        self.require_simulator("pybullet", "a twin that is moved by its joints")
        unknown = [key for key in ("odom", "scan") if getattr(self.sensors, key) is not None]
        if unknown:
            has = "joint_states, an imu"
            raise ConfigError(f"robot {self.name}: a twin of the joints has {has} and no {', '.join(unknown)}")

    def require_simulator(self, simulator: Simulator, who: str) -> None:
        """Raise :class:`ConfigError` unless the twin's simulator is the one that ``who`` is made for."""
        if self.twin.simulator != simulator:
            raise ConfigError(
                f"robot {self.name}: twin.simulator is {self.twin.simulator!r}; {who} needs {simulator!r}"
            )

    def with_simulator(self, simulator: Simulator) -> RobotSpec:
        """Return this spec with another simulator for its twin; the hash stays."""
        return self.model_copy(update={"twin": self.twin.model_copy(update={"simulator": simulator})})

    @property
    def base_drive(self) -> DriveSpec:
        """Return the drive. Raises :class:`ConfigError` if the robot spec has none."""
        if self.drive is None:
            raise self._lacks("drive", "only a base with a differential drive has a twin")
        return self.drive

    @property
    def base_scan(self) -> ScanSpec:
        """Return the lidar. Raises :class:`ConfigError` if the robot spec has none."""
        if self.sensors.scan is None:
            raise self._lacks("sensors.scan", "twin and navigation need a lidar")
        return self.sensors.scan

    @property
    def base_radius_m(self) -> float:
        """Return the footprint's radius, m. Raises :class:`ConfigError` if the robot spec has none."""
        if self.footprint_radius_m is None:
            raise self._lacks("footprint_radius_m", "a task among obstacles needs it")
        return self.footprint_radius_m

    def _lacks(self, key: str, why: str) -> ConfigError:
        return ConfigError(f"robot {self.name}: {key} is missing; {why}")

    @property
    def urdf_path(self) -> Path:
        """Return the path of the URDF file. Raises :class:`ConfigError` if there is none."""
        return find_in_package(self.urdf) if names_package(self.urdf) else find_resource(self.urdf, "urdf")

    @property
    def description(self) -> Urdf:
        """Return the parsed URDF. Raises :class:`ConfigError`."""
        return load_urdf(self.urdf_path)

    @property
    def hash(self) -> str:
        """Return the sha256 (hex) of this spec and of its URDF's bytes, wherever that file lies.

        A bundle belongs to exactly one hash: any change of limits, rates, joints or geometry gives another. The
        choice of a simulator does not, nor does what only a twin of the joints has.
        """
        content = self.model_dump(mode="json", exclude={"urdf": True, "twin": set(TwinSpec.younger)})
        content["urdf_sha256"] = hashlib.sha256(self.urdf_path.read_bytes()).hexdigest()
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _frozen(values: Sequence[float]) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def check_spec(spec: RobotSpec) -> RobotSpec:
    """Return ``spec`` after checking it against its URDF.

    Raises:
        ConfigError: a joint or frame does not exist, a wheel is on the other side or turns the other way, or a limit of
            a joint command is outside the URDF's.
    """
    urdf = spec.description
    drive = spec.drive
    sides = () if drive is None else drive.left_joints + drive.right_joints
    for key, names in (("joints", spec.joints), ("drive", sides)):
        if len(set(names)) != len(names):
            raise ConfigError(f"robot {spec.name}: {key} names a joint twice: {', '.join(names)}")
        for name in names:
            if name not in urdf.movable:
                known = ", ".join(urdf.movable) or "none"
                raise ConfigError(
                    f"robot {spec.name}: {key} names {name!r}; {spec.urdf} has the movable joints {known}"
                )
    missing = [name for name in sides if name not in spec.joints]
    if missing:
        raise ConfigError(f"robot {spec.name}: the drive uses {', '.join(missing)}, which joints does not list")
    if drive is not None:
        check_drive(spec.name, drive, urdf)
    if spec.frames.base != urdf.root:
        raise ConfigError(
            f"robot {spec.name}: frames.base is {spec.frames.base!r}, expected the URDF's root {urdf.root!r}"
        )
    sensors = spec.sensors
    if sensors.scan is not None:
        urdf.fixed_transform(sensors.scan.frame)
    if sensors.imu is not None:
        urdf.fixed_transform(sensors.imu.frame)
    if sensors.odom is not None and spec.frames.odom is None:
        raise ConfigError(f"robot {spec.name}: sensors.odom needs frames.odom, the frame of its pose")
    if sensors.joint_states is not None and not spec.joints:
        raise ConfigError(f"robot {spec.name}: sensors.joint_states needs joints, the joints that are read")
    if spec.command.interface != "twist":
        _check_joint_command(spec, urdf)
    elif spec.twin.base is not None:
        raise ConfigError(
            f"robot {spec.name}: twin.base is {spec.twin.base!r}, which is for robots moved by their joints; the "
            "command interface is 'twist'"
        )
    return spec


def _check_joint_command(spec: RobotSpec, urdf: Urdf) -> None:
    if spec.sensors.joint_states is None:
        raise ConfigError(
            f"robot {spec.name}: interface {spec.command.interface!r} needs sensors.joint_states, without which nobody "
            "knows where the robot is"
        )
    unread = [axis.name for axis in spec.command.axes if axis.name not in spec.joints]
    if unread:
        raise ConfigError(f"robot {spec.name}: command axes {', '.join(unread)}, which joints does not list")
    check_joint_axes(spec.name, spec.command, urdf)


def load_robot_spec(path_or_name: str | Path, overrides: Sequence[str] = ()) -> RobotSpec:
    """Read a robot spec.

    Args:
        path_or_name: a YAML file, or the name of one in ``config/robots`` with or without ``.yaml``.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: a file is missing, a key is unknown or still to be filled in, limits cross, a joint does not
            exist.
    """
    file = Path(path_or_name)
    path = find_resource(file if file.suffix else file.with_suffix(".yaml"), "config/robots")
    data = apply_overrides(read_yaml(path), overrides)
    refuse_unfilled(data, str(path))
    spec = build(RobotSpec, data, str(path))
    beside = path.parent / spec.urdf
    return check_spec(spec.model_copy(update={"urdf": str(beside)}) if beside.is_file() else spec)
