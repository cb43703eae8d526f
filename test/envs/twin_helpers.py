"""What the tests of both simulators' twins share: arenas, driving, comparing bits."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, Layout
from safe_rl_ros.envs.twin_backend import TwinBackend
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import RobotState

FAR = (50.0, 50.0, 0.3)
needs_pybullet = pytest.mark.skipif(importlib.util.find_spec("pybullet") is None, reason="pybullet is not installed")
SIMULATORS = ("mujoco", pytest.param("pybullet", marks=needs_pybullet))
ROBOTS = ("rover", "jackal")


def spec_of(robot: str, simulator: str) -> RobotSpec:
    return load_robot_spec(robot, [f"twin.simulator={simulator}"])


def nav_layout(spec: RobotSpec) -> Callable[[int], Layout]:
    return HazardNav(HazardNavConfig(), spec.base_radius_m).layout


def fixed(*hazards: tuple[float, float, float], start=(0.0, 0.0, 0.0)) -> Callable[[int], Layout]:
    layout = Layout(hazards=np.array(hazards), goals=np.array([[1.0, 1.0]]), start=np.array(start))
    return lambda seed: layout


def drive(backend: TwinBackend, command: tuple[float, float], periods: int) -> RobotState:
    for _ in range(periods):
        state = backend.step(np.array(command)).state
    return state


def seconds(spec: RobotSpec, time_s: float) -> int:
    """Return the control periods in a time."""
    return round(time_s * spec.control_rate_hz)


def episode(backend: TwinBackend, seed: int, periods: int = 40) -> list[RobotState]:
    rng = np.random.default_rng(seed)
    spec = backend.spec
    states = [backend.reset(seed)]
    states += [backend.step(rng.uniform(spec.command_lower, spec.command_upper)).state for _ in range(periods)]
    return states


def assert_same(first: RobotState, second: RobotState, stamps: bool = False) -> None:
    for field in fields(RobotState):
        if field.name != "stamp_ns" or stamps:
            a, b = np.asarray(getattr(first, field.name)), np.asarray(getattr(second, field.name))
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes(), field.name


def yaw_of(state: RobotState) -> float:
    """Return the direction of the base's x axis in the plane, rad."""
    x, y, z, w = state.orientation
    return math.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (y * y + z * z))


def write_rover(directory: Path, simulator: str, *changes: tuple[str, str]) -> RobotSpec:
    """Return the spec of a rover in ``directory`` whose URDF has some text replaced."""
    urdf = find_resource("rover.urdf", "urdf").read_text()
    for old, new in changes:
        assert old in urdf
        urdf = urdf.replace(old, new, 1)
    (directory / "rover.urdf").write_text(urdf)
    shutil.copy(find_resource("rover.yaml", "config/robots"), directory)
    return load_robot_spec(directory / "rover.yaml", [f"twin.simulator={simulator}"])
