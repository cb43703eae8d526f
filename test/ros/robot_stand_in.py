"""A robot in a thread of this process, healthy or broken on purpose, with a ROS context of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_helpers import make_state
from sensor_msgs.msg import JointState, LaserScan

from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.conversions import StateWriter, make_command_codec, write_stamp
from safe_rl_ros.ros.spin import DeadlineTicker

ROVER = load_robot_spec("rover")
TEN_SECONDS = 10 * 10**9


class StandIn(Node):
    """A rover that stands still. What is broken: the names in ``faults``."""

    spec: RobotSpec = ROVER

    def __init__(self, faults: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__("base", use_global_arguments=False, **kwargs)
        self.faults, self.ticks = faults, 0
        self.commands: list[list[float]] = []
        self.codec = make_command_codec(self.spec)
        self.connect()

    def connect(self) -> None:
        sensors, faults = qos.sensor_writer("realtime"), self.faults
        self.writer = StateWriter(self.spec)
        if "missing_joint" in faults:
            self.writer.joints.name = ["left_wheel_joint"]
        self.odom = self.create_publisher(Odometry, "odom", sensors)
        self.scan = self.create_publisher(LaserScan, "front/scan" if "scan_elsewhere" in faults else "scan", sensors)
        self.joints = self.create_publisher(JointState, "joint_states", sensors)
        kind = Twist if "twist" in faults else self.codec.message_type
        profile = qos.latched() if "picky" in faults else qos.command()
        self.create_subscription(kind, "cmd_vel", self.on_command, profile)
        if "second_publisher" in faults:
            self.other = self.create_publisher(kind, "cmd_vel", 1)

    def on_command(self, message: Any) -> None:
        self.commands.append(self.codec.read(message).tolist())

    def tick(self) -> None:
        now_ns, self.ticks = time.time_ns(), self.ticks + 1
        self.writer.write(make_state(now_ns, ranges=np.full(72, 2.0, dtype=np.float32)))
        if "missing_joint" in self.faults:
            self.writer.joints.position, self.writer.joints.velocity = [0.0], [0.0]
        if "stamps_off" in self.faults:
            write_stamp(self.writer.scan.header.stamp, now_ns - TEN_SECONDS)
        if "silent_odom" not in self.faults and not ("half_rate" in self.faults and self.ticks % 2):
            self.odom.publish(self.writer.odom)
        self.scan.publish(self.writer.scan)
        self.joints.publish(self.writer.joints)


class ArmStandIn(StandIn):
    """The first joint of the arm: it goes where it is sent with a lag of some periods, and stays there."""

    whole = load_robot_spec("arm")
    spec = whole.model_copy(update={"command": whole.command.model_copy(update={"axes": whole.command.axes[:1]})})

    def connect(self) -> None:
        self.position, self.goal = 0.3, 0.3
        self.joints = self.create_publisher(JointState, "joint_states", qos.sensor_writer("realtime"))
        self.create_subscription(self.codec.message_type, self.spec.command.topic, self.on_command, qos.command())

    def on_command(self, message: Any) -> None:
        super().on_command(message)
        self.goal = self.commands[-1][0]

    def tick(self) -> None:
        step = 0.5 * (self.goal - self.position)
        self.position += step
        names = list(self.spec.joints[::-1])
        message = JointState(name=names, position=[0.5, 0.4, self.position], velocity=[0.0, 0.0, step * 50.0])
        write_stamp(message.header.stamp, time.time_ns())
        self.joints.publish(message)


@contextmanager
def stand_in(*faults: str, namespace: str = "", kind: type[StandIn] = StandIn) -> Iterator[StandIn]:
    """Run a stand-in at its control rate until the end of the block."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = kind(faults, context=context, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ended, ticker = threading.Event(), DeadlineTicker(node.spec.period_ns)

    def live() -> None:
        while not ended.is_set():
            if ticker.remaining_s() <= 0.0:
                ticker.advance()
                node.tick()
            executor.spin_once(timeout_sec=min(0.02, max(0.0, ticker.remaining_s())))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield node
    finally:
        ended.set()
        thread.join(5.0)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
