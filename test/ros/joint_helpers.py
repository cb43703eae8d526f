"""Robots that are moved by their joints, for tests over ROS: their specs, and whoever commands them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray

from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.messages.readers import StateReader, read_stamp
from safe_rl_ros.messages.state_assembler import (
    SENSOR_TYPES,
    Sensor,
    StateAssembler,
    sensor_timeouts,
    sensor_topics,
)
from safe_rl_ros.resources import find_resource
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.conversions import MESSAGE_CLASSES, make_command_codec
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.types import FilterDecision, FloatArray, RobotState

TASK = "joint_hold"


def stamped(directory: Path, robot: str) -> Path:
    """Write the spec of a robot whose commands are trajectories with a stamp, as lock-step needs them."""
    lines = find_resource(f"{robot}.yaml", "config/robots").read_text().splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.startswith("  interface: joint_group")]
    lines[at : at + 1] = ["  interface: joint_trajectory", "  stamped: true"]
    path = directory / f"{robot}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def walk(spec: RobotSpec, start: FloatArray, periods: int, seed: int = 0) -> FloatArray:
    """Return commands (N, C) that wander from where the robot starts, some of them too fast."""
    steps = np.random.default_rng(seed).normal(0.0, 0.04, (periods, spec.act_dim)).cumsum(axis=0)
    return np.clip(start + steps, spec.command_lower, spec.command_upper)


SEEN = ("joint_position", "joint_velocity", "imu_orientation", "imu_angular_velocity", "imu_linear_acceleration")


def assert_seen(got: RobotState, expected: RobotState) -> None:
    """Compare what is seen of the robot, bit for bit."""
    for name in SEEN:
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes(), name


class Controller(Node):
    """Commands or proposes; keeps the states by stamp, what was sent to the robot, and the filter's decisions."""

    def __init__(self, spec: RobotSpec, topic: str, **kwargs: Any) -> None:
        super().__init__("controller", use_global_arguments=False, **kwargs)
        self.spec = spec
        self._codec, self._reader = make_command_codec(spec), StateReader(spec)
        kind = self._codec.message_type
        self.publisher = self.create_publisher(kind, topic, qos.command_writer("realtime"))
        self.seen: dict[int, RobotState] = {}
        """States by their stamps, once all of their sensors came."""
        self._assembler = StateAssembler(sensor_timeouts(spec))
        self._sent: list[Any] = []
        self.decisions: list[FilterDecision] = []
        record = DecisionCodec(self._codec.names)
        for sensor, name in sensor_topics(spec).items():
            message, heard = MESSAGE_CLASSES[SENSOR_TYPES[sensor]], self._hearing(sensor)
            self.create_subscription(message, name, heard, qos.sensor_reader("realtime"))
        self.create_subscription(kind, spec.command.topic, self._sent.append, 100)
        self.create_subscription(
            Float64MultiArray, "safety_filter/decisions", lambda m: self.decisions.append(record.read(m)), 100
        )

    def _hearing(self, sensor: Sensor) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            self._assembler.add(sensor, self._reader.by_sensor[sensor](message), read_stamp(message.header.stamp), 0)
            state = self._assembler.synchronised()
            if state is not None:
                self.seen[state.stamp_ns] = state

        return on_message

    @property
    def sent(self) -> list[FloatArray]:
        """The commands that the robot was given."""
        return [self._codec.read(message) for message in self._sent]

    @property
    def last(self) -> RobotState:
        return self.seen[max(self.seen)]

    def command(self, values: FloatArray) -> None:
        self.publisher.publish(self._codec.write(np.asarray(values, dtype=np.float64), 0))


Run = Callable[..., bool]


@contextmanager
def controller(robot: str, topic: str, domain_id: int | None = None) -> Iterator[tuple[Controller, Run]]:
    """Give a controller in a context of its own, and what runs it until a condition holds, commanding ``wanted``."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = Controller(load_robot_spec(robot), topic, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def run(until: Callable[[], bool], wanted: FloatArray | None = None, timeout_s: float = 20.0) -> bool:
        end, due = time.monotonic() + timeout_s, 0.0
        while not until():
            now = time.monotonic()
            if now > end:
                return False
            if wanted is not None and now >= due:
                node.command(wanted)
                due = now + node.spec.period_ns * 1e-9
            executor.spin_once(timeout_sec=0.01)
        return True

    try:
        yield node, run
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
