"""Stand-in for the robot's base: shows sensors once per period and keeps every command that arrives at its input.

What it shows can be disturbed: a :data:`Disturbance` is called in place of the undisturbed publication. Everything
runs in one thread, so what a fault does happens between two messages and not during one.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Float64MultiArray, String

from benchmarks.chaos.actors import FOREIGN_FRAME
from benchmarks.chaos.checks import Command, Decision
from benchmarks.chaos.setting import GOAL, Setting, make_state, random_ranges, read_twist
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.conversions import StateWriter
from safe_rl_ros.ros.spin import DeadlineTicker

SENSORS = ("odom", "scan", "joints")
OBSERVER_DEPTH = 2000
FINE_WAIT_S = 0.0005
Disturbance = Callable[["Base", int], None]
"""Called once per period with the base and the present time (ns of the system clock) in place of :meth:`Base.show`."""


class Base(Node):
    """Publishes sensors and goal; records commands, decisions and what the filter says of itself."""

    def __init__(self, setting: Setting, context: Context) -> None:
        """Create the topics; :meth:`run` does the rest."""
        super().__init__("base", context=context, start_parameter_services=False, enable_rosout=False)
        self.setting = setting
        self.disturbance: Disturbance | None = None
        self.disturbed_ns = 0
        """When the present disturbance first showed something, 0 before."""
        self.ranges = random_ranges(np.random.default_rng(0), setting.spec.sensors.scan.rays)
        self.commands: list[Command] = []
        self.decisions: list[Decision] = []
        self.publisher = 0
        """Number of the filter process whose commands arrive."""
        self.foreign = 0
        self.filter_state: dict[str, str] = {}
        self.filter_diagnostics: dict[str, str] = {}
        self.worst_late_ns = 0
        self._ticker = DeadlineTicker(setting.spec.period_ns)
        self._writer = StateWriter(setting.spec)
        self._delayed: list[tuple[int, int, str, Any]] = []
        self._order = itertools.count()
        self._columns: dict[str, list[str]] = {}
        self._create_entities()
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)

    def _create_entities(self) -> None:
        spec, sensors = self.setting.spec, qos.sensor_writer("realtime")
        self._topics = {
            "odom": self.create_publisher(Odometry, spec.sensors.odom.topic, sensors),
            "scan": self.create_publisher(LaserScan, spec.sensors.scan.topic, sensors),
            "joints": self.create_publisher(JointState, spec.sensors.joint_states.topic, sensors),
        }
        self._goal = self.create_publisher(PoseStamped, "goal_pose", qos.command())
        self._announcements = self.create_publisher(String, "bundle", qos.latched())
        everything = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=OBSERVER_DEPTH, reliability=ReliabilityPolicy.RELIABLE
        )
        subscribe = self.create_subscription
        subscribe(TwistStamped, spec.command.topic, self._on_command, everything)
        subscribe(Float64MultiArray, "safety_filter/decisions", self._on_decision, everything)
        subscribe(DiagnosticStatus, "safety_filter/state", self._on_state, qos.latched())
        subscribe(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.diagnostics())

    # What arrives.

    def _on_command(self, message: TwistStamped, info: dict[str, Any]) -> None:
        if message.header.frame_id == FOREIGN_FRAME:
            self.foreign += 1
            return
        stamp = message.header.stamp
        self.commands.append(
            Command(
                publisher=self.publisher,
                sent_ns=int(info["source_timestamp"]),
                arrival_ns=int(info["received_timestamp"]),
                stamp_ns=stamp.sec * 1_000_000_000 + stamp.nanosec,
                sequence=int(info["publication_sequence_number"]),
                values=read_twist(message, self.setting.axes),
            )
        )

    def _on_decision(self, message: Float64MultiArray) -> None:
        label = message.layout.dim[0].label
        columns = self._columns.setdefault(label, label.split(","))
        row = dict(zip(columns, message.data, strict=True))
        self.decisions.append(
            Decision(
                stamp_ns=int(row["stamp_sec"]) * 1_000_000_000 + int(row["stamp_nanosec"]),
                reason=int(row["reason"]),
                risk_executed=row["risk_executed"],
                threshold=row["threshold"],
                executed=tuple(row[f"executed.{axis}"] for axis in self.setting.axes),
                bundle=row["bundle_hash_48bit"],
            )
        )

    def _on_state(self, message: DiagnosticStatus) -> None:
        self.filter_state = {**diagnostics.values_of(message), "message": message.message}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("safety_filter"):
                self.filter_diagnostics = {**diagnostics.values_of(status), "message": status.message}

    # What is shown.

    def show(self, stamp_ns: int, only: Sequence[str] = SENSORS, **changes: Any) -> None:
        """Publish the named sensors with this stamp; ``changes`` are fields of the state."""
        self._write(stamp_ns, changes)
        for sensor in only:
            self._topics[sensor].publish(getattr(self._writer, sensor))

    def show_later(self, delay_s: float, stamp_ns: int, sensor: str) -> None:
        """Publish a sensor's present message after a delay."""
        self._write(stamp_ns, {})
        due_ns = time.monotonic_ns() + round(delay_s * 1e9)
        heapq.heappush(self._delayed, (due_ns, next(self._order), sensor, copy.deepcopy(getattr(self._writer, sensor))))

    def show_changed(self, stamp_ns: int, sensor: str, change: Callable[[Any], None]) -> None:
        """Publish a copy of a sensor's message after ``change`` has been at it."""
        self._write(stamp_ns, {})
        message = copy.deepcopy(getattr(self._writer, sensor))
        change(message)
        self._topics[sensor].publish(message)

    def _write(self, stamp_ns: int, changes: dict[str, Any]) -> None:
        self._writer.write(replace(make_state(self.setting.spec, stamp_ns, self.ranges), **changes))

    def shift_phase(self, share: float) -> None:
        """Show sensors later by this share of a period from now on, so that the filter's ticks fall elsewhere."""
        self._ticker.deadline_ns += round(share * self._ticker.period_ns)

    def undisturb(self) -> None:
        """End a disturbance; what was delayed is dropped."""
        self.disturbance = None
        self.disturbed_ns = 0
        self._delayed.clear()

    def announce(self, path: str, sha256: str) -> None:
        """Announce a bundle as the learner does."""
        self._announcements.publish(String(data=json.dumps({"path": path, "sha256": sha256})))

    def _tick(self) -> None:
        now_ns = time.time_ns()
        if self.disturbance is None:
            self.show(now_ns)
        else:
            self.disturbed_ns = self.disturbed_ns or now_ns
            self.disturbance(self, now_ns)
        goal = PoseStamped()
        goal.header.frame_id = self.setting.spec.frames.odom
        goal.header.stamp.sec, goal.header.stamp.nanosec = divmod(now_ns, 1_000_000_000)
        goal.pose.position.x, goal.pose.position.y = GOAL.tolist()
        goal.pose.orientation.w = 1.0
        self._goal.publish(goal)

    # Time.

    def run(self, until: Callable[[], bool] = lambda: False, timeout_s: float = 5.0) -> bool:
        """Show sensors and take messages until the condition holds; return whether it does."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() >= deadline:
                return False
            remaining_s = self._ticker.remaining_s()
            if remaining_s <= 0.0:
                self.worst_late_ns = max(self.worst_late_ns, round(-remaining_s * 1e9))
                self._ticker.advance()
                self._tick()
                continue
            while self._delayed and self._delayed[0][0] <= time.monotonic_ns():
                _, _, sensor, message = heapq.heappop(self._delayed)
                self._topics[sensor].publish(message)
            wait_s = min(remaining_s, deadline - time.monotonic())
            if self._delayed:
                wait_s = min(wait_s, (self._delayed[0][0] - time.monotonic_ns()) * 1e-9)
            self._executor.spin_once(timeout_sec=max(0.0, wait_s - FINE_WAIT_S))
        return True

    def close(self) -> None:
        """Release executor and node."""
        self._executor.shutdown()
        self.destroy_node()
