"""Nodes under test in this process, a stand-in for robot and policy beside them, and real session processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Float64MultiArray, String

from safe_rl_ros.bundle import save_bundle
from safe_rl_ros.envs.observation import Observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.messages.readers import read_stamp
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.conversions import GoalCodec, StateWriter, make_command_codec
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments
from safe_rl_ros.training.checkpoint import latest_checkpoint, load_checkpoint
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.types import FilterDecision, RobotState

SPEC = load_robot_spec("rover")
TASK = load_hazard_nav("hazard_nav")
OBSERVER = Observer(SPEC, TASK.observation)
PERIOD_NS = SPEC.period_ns
HIDDEN = (16, 16)
GOAL = np.array([1.0, 0.5])


def make_state(stamp_ns: int, **changes: Any) -> RobotState:
    """Return a robot state that stands at the origin and sees nothing near."""
    values: dict[str, Any] = {
        "stamp_ns": stamp_ns,
        "position": np.zeros(3),
        "orientation": np.array([0.0, 0.0, 0.0, 1.0]),
        "linear_velocity": np.zeros(3),
        "angular_velocity": np.zeros(3),
        "joint_position": np.zeros(2),
        "joint_velocity": np.zeros(2),
        "ranges": np.full(SPEC.sensors.scan.rays, 3.0, dtype=np.float32),
    }
    return RobotState(**(values | changes))


def _layers(rng: np.random.Generator, sizes: Sequence[int], lead: tuple[int, ...], gain: float) -> dict[str, Any]:
    arrays = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        arrays[f"weight_{i}"] = rng.normal(size=(*lead, fan_in, fan_out)) * gain / np.sqrt(fan_in)
        arrays[f"bias_{i}"] = np.zeros((*lead, fan_out))
    return arrays


def write_bundle(directory: Path, threshold: float = 0.5, seed: int = 0, gain: float = 3.0) -> str:
    """Write a bundle of random networks for the rover; their risks lie on both sides of 0.5. Return its hash."""
    rng = np.random.default_rng(seed)
    obs_dim, act_dim = OBSERVER.obs_dim, SPEC.act_dim
    sizes = {"obs_dim": obs_dim, "act_dim": act_dim, "hidden": list(HIDDEN)}
    arrays = _layers(rng, [obs_dim, *HIDDEN, act_dim], (), gain) | {"log_std": np.full(act_dim, -0.5)}
    policy = GaussianPolicy.from_arrays(arrays, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes})
    critic = SafetyCritic.from_arrays(
        _layers(rng, [obs_dim + act_dim, *HIDDEN, 1], (1,), gain),
        {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0, **sizes},
    )
    return save_bundle(
        directory,
        policy,
        critic,
        threshold=threshold,
        threshold_mode="fixed",
        spec_hash=SPEC.hash,
        obs_names=OBSERVER.names,
        algorithm="test",
    )


class Harness(Node):
    """Stands in for robot and policy: publishes what they would, and keeps what filter and twin publish."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("harness", **kwargs)
        self._states, self._commands, self._goals = StateWriter(SPEC), make_command_codec(SPEC), GoalCodec(SPEC)
        self._decisions = DecisionCodec(self._commands.names)
        sensors, reliable = qos.sensor_writer("lockstep"), qos.command()
        self.odom = self.create_publisher(Odometry, "odom", sensors)
        self.scan = self.create_publisher(LaserScan, "scan", sensors)
        self.joints = self.create_publisher(JointState, "joint_states", sensors)
        self.goal = self.create_publisher(PoseStamped, "goal_pose", reliable)
        self.proposed = self.create_publisher(TwistStamped, "safety_filter/proposed", reliable)
        self.bundle = self.create_publisher(String, "bundle", qos.latched())
        self.commands: list[tuple[int, list[float]]] = []
        self.command_times: list[float] = []
        self.decisions: list[FilterDecision] = []
        self.filter_state: dict[str, str] = {}
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.create_subscription(TwistStamped, "cmd_vel", self._on_command, 100)
        self.create_subscription(Float64MultiArray, "safety_filter/decisions", self._on_decision, 100)
        self.create_subscription(DiagnosticStatus, "safety_filter/state", self._on_state, qos.latched())
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)

    def _on_command(self, message: TwistStamped) -> None:
        self.commands.append((read_stamp(message.header.stamp), self._commands.read(message).tolist()))
        self.command_times.append(time.monotonic())

    def _on_decision(self, message: Float64MultiArray) -> None:
        self.decisions.append(self._decisions.read(message))

    def _on_state(self, message: DiagnosticStatus) -> None:
        self.filter_state = {**diagnostics.values_of(message), "message": message.message}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {**diagnostics.values_of(status), "message": status.message}

    def publish_state(self, state: RobotState, *, only: Sequence[str] = ("odom", "scan", "joints")) -> None:
        self._states.write(state)
        for name in only:
            getattr(self, name).publish(getattr(self._states, name))

    def publish_goal(self, stamp_ns: int) -> None:
        self.goal.publish(self._goals.write(GOAL, stamp_ns))

    def propose(self, command: Sequence[float], stamp_ns: int) -> None:
        self.proposed.publish(self._commands.write(np.array(command), stamp_ns))

    def publish_all(self, stamp_ns: int, command: Sequence[float], **changes: Any) -> None:
        """Publish everything that one decision of the filter needs."""
        self.publish_state(make_state(stamp_ns, **changes))
        self.publish_goal(stamp_ns)
        self.propose(command, stamp_ns)


class Bench:
    """A node under test and a harness on one executor of this process."""

    def __init__(self, node: Any, harness: Harness) -> None:
        self.node, self.harness = node, harness
        self.executor = SingleThreadedExecutor()
        for item in (node, harness):
            self.executor.add_node(item)

    def run(self, until: Callable[[], bool] = lambda: False, timeout_s: float = 5.0) -> bool:
        """Run callbacks and due ticks until the condition holds; return whether it does."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            ticker = self.node.ticker
            if ticker is not None and ticker.remaining_s() <= 0.0:
                ticker.advance()
                self.node.tick()
                continue
            wait = 0.02 if ticker is None else min(0.02, max(0.0, ticker.remaining_s()))
            self.executor.spin_once(timeout_sec=wait)
        return True

    def settle(self, seconds: float = 0.15) -> None:
        """Run for a fixed time, to see that something does not happen."""
        self.run(timeout_s=seconds)


@contextmanager
def bench(make_node: Callable[[], Any], parameters: dict[str, object]) -> Iterator[Bench]:
    """Run a node of the package in this process, with parameters as if given on the command line."""
    rclpy.init(args=ros_arguments(parameters), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node, harness = make_node(), Harness(use_global_arguments=False)
        try:
            yield Bench(node, harness)
        finally:
            node.destroy_node()
            harness.destroy_node()
    finally:
        rclpy.try_shutdown()


@contextmanager
def separate_harness(namespace: str = "") -> Iterator[tuple[Harness, Callable[..., bool]]]:
    """Give a harness in a context of its own and a function that runs it, for nodes in other processes."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    harness = Harness(context=context, use_global_arguments=False, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(harness)

    def run(until: Callable[[], bool] = lambda: False, timeout_s: float = 10.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            executor.spin_once(timeout_sec=0.02)
        return True

    try:
        yield harness, run
    finally:
        executor.shutdown()
        harness.destroy_node()
        rclpy.try_shutdown(context=context)


def start_twin(supervisor: Supervisor, timing: str = "lockstep", namespace: str = "", **parameters: object) -> Any:
    """Start the twin's process."""
    values = {"robot": "rover", "task": "hazard_nav", "timing": timing, "executor": "events", **parameters}
    return supervisor.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments(values, namespace=namespace))


def start_filter(supervisor: Supervisor, timing: str = "lockstep", namespace: str = "", **parameters: object) -> Any:
    """Start the filter's process, armed."""
    values = {"robot": "rover", "task": "hazard_nav", "timing": timing, "executor": "events", "autostart": True}
    arguments = ros_arguments({**values, **parameters}, namespace=namespace)
    return supervisor.start("filter", "safe_rl_ros.ros.safety_filter_node", arguments)


def assert_equal_runs(here: Path, over_ros: Path) -> None:
    """Assert that two runs learned the same bits, from epochs that went alike, in which the filter stepped in."""
    (learned, rows), (learned_over_ros, rows_over_ros) = _outcome(here), _outcome(over_ros)
    assert learned.keys() == learned_over_ros.keys()
    for name, tensor in learned.items():
        assert torch.equal(tensor, learned_over_ros[name]), name
    np.testing.assert_equal(rows_over_ros, rows)
    assert sum(row["veto_rate"] for row in rows) > 0, "the test means nothing if the filter never steps in"


def _outcome(run: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return what a run learned, by name, and of its epochs the figures that do not depend on the time it took."""
    path = latest_checkpoint(run / "checkpoints")
    assert path is not None, run
    columns = ("return_mean", "failures", "veto_rate", "margin_min")
    rows = [{name: row[name] for name in columns} for row in read_csv(run / "metrics.csv")]
    return load_checkpoint(path).algorithm, rows
