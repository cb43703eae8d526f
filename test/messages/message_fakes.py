"""Messages without ROS: namespaces with the fields that the readers use, arrays as rclpy's or as a bag reader's."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

Doubles = Callable[[Sequence[float]], Any]
ARRAYS: dict[str, Doubles] = {
    "array": lambda values: array("d", values),
    "numpy": lambda values: np.array(values, dtype=np.float64),
}


def stamp(ns: int) -> SimpleNamespace:
    return SimpleNamespace(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def header(ns: int, frame: str = "") -> SimpleNamespace:
    return SimpleNamespace(stamp=stamp(ns), frame_id=frame)


def vector(x: float, y: float, z: float, **more: float) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y, z=z, **more)


def odometry(ns: int, x: float = 0.0, speed: float = 0.0) -> SimpleNamespace:
    pose = SimpleNamespace(position=vector(x, 2.0, 3.0), orientation=vector(0.1, 0.2, 0.3, w=0.9))
    twist = SimpleNamespace(linear=vector(speed, 5.0, 6.0), angular=vector(7.0, 8.0, 9.0))
    return SimpleNamespace(
        header=header(ns, "odom"), pose=SimpleNamespace(pose=pose), twist=SimpleNamespace(twist=twist)
    )


def scan(ns: int, ranges: Any, angle_min: float, increment: float) -> SimpleNamespace:
    return SimpleNamespace(header=header(ns), ranges=ranges, angle_min=angle_min, angle_increment=increment)


def joints(ns: int, names: Sequence[str], position: Any, velocity: Any = ()) -> SimpleNamespace:
    return SimpleNamespace(header=header(ns), name=list(names), position=position, velocity=velocity)


def goal(ns: int, x: float, y: float, frame: str = "odom") -> SimpleNamespace:
    return SimpleNamespace(header=header(ns, frame), pose=SimpleNamespace(position=vector(x, y, 0.0)))


def twist(linear_x: float, angular_z: float) -> SimpleNamespace:
    return SimpleNamespace(linear=vector(linear_x, 91.0, 92.0), angular=vector(93.0, 94.0, angular_z))


def twist_stamped(ns: int, linear_x: float, angular_z: float) -> SimpleNamespace:
    return SimpleNamespace(header=header(ns), twist=twist(linear_x, angular_z))


def multi_array(data: Any, *dimensions: tuple[str, int], offset: int = 0) -> SimpleNamespace:
    dims = [SimpleNamespace(label=label, size=size, stride=0) for label, size in dimensions]
    return SimpleNamespace(data=data, layout=SimpleNamespace(dim=dims, data_offset=offset))


def trajectory(ns: int, names: Sequence[str], *points: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(header=header(ns), joint_names=list(names), points=list(points))


def point(positions: Any = (), velocities: Any = ()) -> SimpleNamespace:
    return SimpleNamespace(positions=positions, velocities=velocities)
