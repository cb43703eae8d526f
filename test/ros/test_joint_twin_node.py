"""The twin's node of a robot that is moved by its joints, and the filter in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from joint_helpers import TASK, Controller, assert_seen, controller, stamped, walk  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros_helpers import bench, start_filter, start_twin  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from safe_rl_ros.envs.randomisation import load_randomisation  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.envs.twins import make_joint_twin  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.conversions import write_stamp  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.ros.twin_node import TwinNode  # noqa: E402
from safe_rl_ros.types import BackendError, ConfigError, Reason  # noqa: E402


class Stepped:
    """A twin's node in real time, ticked by the test: what it does in each period is known."""

    def __init__(self, setup: Any, robot: str) -> None:
        self.setup, self.node = setup, setup.node
        self.node.ticker = None
        self.controller = Controller(load_robot_spec(robot), load_robot_spec(robot).command.topic)
        setup.executor.add_node(self.controller)
        assert setup.run(self.controller.publisher.get_subscription_count)

    def send(self, message: Any) -> None:
        before = self.node._counts["received"]
        self.controller.publisher.publish(message)
        assert self.setup.run(lambda: self.node._counts["received"] > before)

    def command(self, values: Any) -> None:
        self.send(Float64MultiArray(data=[float(value) for value in values]))

    def tick(self) -> Any:
        """Let a period pass; return the state that is shown."""
        before = self.node._gate.current_ns
        self.node.tick()
        assert self.setup.run(lambda: before + self.controller.spec.period_ns in self.controller.seen)
        return self.controller.last


@pytest.fixture(params=["panda", "laikago", "arm"])
def stepped(request: pytest.FixtureRequest) -> Any:
    values = {"robot": request.param, "task": TASK, "timing": "realtime", "reset_seed": 4}
    with bench(TwinNode, values) as setup:
        driven = Stepped(setup, request.param)
        yield driven
        driven.controller.destroy_node()


def test_the_node_shows_what_the_twin_here_does_and_holds_when_nobody_commands(stepped: Stepped):
    here = make_joint_twin(stepped.controller.spec)
    here.reset(4)
    start = here.held
    for command in walk(here.spec, start, 12):
        stepped.command(command)
        assert_seen(stepped.tick(), here.step(command).state)
    # A list that is too short and one that is not finite: each is a period in which the robot stays where it was sent.
    for wrong in (start[1:], start * np.nan):
        stepped.command(here.held)
        stepped.command(wrong)
        assert_seen(stepped.tick(), here.step(here.held).state)
    assert stepped.node._counts["refused_commands"] == 2
    stepped.command(start)
    stepped.node._command_arrival_ns -= round(here.spec.command.timeout_s * 1e9) + 1
    for _ in range(2):
        assert_seen(stepped.tick(), here.step(here.held).state)
    assert stepped.node._counts["timeouts"] == 1
    assert np.abs(here.held - start).max() > 0.01
    told = stepped.setup.harness.diagnostics
    assert stepped.setup.run(lambda: told.get("/twin", {}).get("refused_commands") == "2", 3.0)
    assert (told["/twin"]["simulator"], told["/twin"]["message"]) == ("pybullet", "no command, stopped")


@pytest.mark.parametrize("robot", ["panda", "laikago"])
def test_a_node_with_a_randomisation_shows_what_such_a_twin_here_does(robot: str):
    values = {"robot": robot, "task": TASK, "timing": "realtime", "reset_seed": 4, "randomisation": robot}
    here = make_joint_twin(load_robot_spec(robot), load_randomisation(robot).draw)
    here.reset(4)
    with bench(TwinNode, values) as setup:
        driven = Stepped(setup, robot)
        for command in walk(here.spec, here.held, 12):
            driven.command(command)
            assert_seen(driven.tick(), here.step(command).state)
        driven.controller.destroy_node()


def test_the_node_tells_its_joints_as_a_controller_does_and_nobody_changes_what_it_tells(stepped: Stepped):
    spec, told = stepped.controller.spec, stepped.node.get_parameter
    assert told("joints").value == [axis.name for axis in spec.command.axes]
    assert told("interface_name").value == "position"
    (result,) = stepped.node.set_parameters([Parameter("joints", value=list(spec.joints[::-1]))])
    assert not result.successful


@contextmanager
def initialised(**values: object) -> Iterator[None]:
    """Give the arguments of a node that is about to be made."""
    rclpy.init(args=ros_arguments(values), signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": TASK}, "timing = 'lockstep' needs command.stamped = true in the robot spec, it is false"),
        ({"timing": "realtime"}, "robot panda: goals, lidar and speeds are observed only on a base"),
        (
            {"task": TASK, "timing": "realtime", "simulator": "mujoco"},
            "twin.simulator is 'mujoco'; .* needs 'pybullet'",
        ),
        (
            {"task": TASK, "timing": "realtime", "randomisation": "rover"},
            "robot panda is moved by its joints and has none of gain_linear",
        ),
        ({"task": TASK, "timing": "realtime", "robot": "rover"}, "joint_hold.yaml"),
    ],
)
def test_what_cannot_be_simulated_is_one_error(values: dict[str, object], message: str):
    with initialised(**{"robot": "panda", **values}), pytest.raises(ConfigError, match=message):
        TwinNode()


def test_a_robot_of_joints_whose_spec_has_no_twin_is_refused(tmp_path: Path):
    path = stamped(tmp_path, "arm")
    path.write_text(path.read_text().split("# Only the twin")[0])
    message = "robot arm has no twin of its joints: twin.base is not set"
    with initialised(robot=str(path), task=TASK), pytest.raises(ConfigError, match=message):
        TwinNode()


@contextmanager
def filter_beside(path: Path) -> Iterator[tuple[SafetyFilterNode, Controller, Callable[..., bool]]]:
    """Give a filter in lock-step, who publishes for it in a context of its own, and what runs both."""
    values = {"robot": str(path), "task": TASK, "timing": "lockstep", "critic": "off", "autostart": True}
    rclpy.init(args=ros_arguments(values), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node, executor = SafetyFilterNode(), SingleThreadedExecutor()
        executor.add_node(node)
        with controller(str(path), "safety_filter/proposed") as (beside, run):

            def both(until: Callable[[], bool], timeout_s: float) -> bool:
                def spun() -> bool:
                    executor.spin_once(timeout_sec=0.01)
                    return until()

                return run(spun, timeout_s=timeout_s)

            yield node, beside, both
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_in_lockstep_the_filter_waits_for_where_the_robot_is_and_time_stands_still(tmp_path: Path):
    with filter_beside(stamped(tmp_path, "arm")) as (node, beside, run):
        joints = beside.create_publisher(JointState, "joint_states", qos.sensor_writer("lockstep"))
        run(lambda: False, timeout_s=0.7)  # more than one try to arm
        assert (node.lifecycle_state, node._status.problem) == ("inactive", "")
        assert run(joints.get_subscription_count, timeout_s=5.0)
        node._retry_s = time.monotonic() + 0.5
        state = JointState(name=["elbow_joint", "shoulder_pan_joint", "shoulder_lift_joint"])
        state.position, state.velocity = [0.5, 0.1, -0.2], [0.0] * 3
        write_stamp(state.header.stamp, 10**9)
        joints.publish(state)  # once: it is older than its timeout of .06 s when the filter tries again
        assert run(lambda: node.lifecycle_state == "active", timeout_s=5.0)
        node.trigger_deactivate()


@pytest.mark.parametrize("robot", ["panda", "laikago"])
def test_behind_the_filter_in_real_time_it_gets_where_it_is_sent(robot: str, tmp_path: Path, ros_domain_id: int):
    spec = load_robot_spec(robot)
    here = make_joint_twin(spec)
    start = here.reset(0).joint_position
    goal = start + np.resize([0.1, 0.25, -0.3], spec.act_dim) * (1.0 if robot == "panda" else [0.3, 1.0, 1.0] * 4)
    beyond = goal.copy()
    beyond[2] = spec.command_upper[2] + 1.0  # outside the limits: the filter sends the limit
    slack = {"observation_timeout_s": 1.0, "proposal_timeout_s": 1.0}
    values = {"robot": robot, "task": TASK}
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", **values)
        start_filter(processes, "realtime", critic="off", **values, **slack)
        with controller(robot, "safety_filter/proposed", ros_domain_id) as (node, run):
            assert run(lambda: node.sent and node.seen, timeout_s=40.0), processes.check()
            np.testing.assert_allclose(node.sent[0], start, atol=0.02)  # where it stands, joint by joint
            arrived = lambda: np.abs(node.last.joint_position - goal).max() < 0.02  # noqa: E731
            assert run(arrived, goal), node.last.joint_position - goal
            assert node.decisions[-1].reason in (Reason.ACCEPTED, Reason.SHAPED)
            if robot == "panda":
                assert run(lambda: node.sent[-1][2] == spec.command_upper[2], beyond)
                assert node.last.joint_position[2] <= spec.command_upper[2] + 1e-3
            assert run(lambda: node.decisions[-1].reason is Reason.STOP_STALE_PROPOSAL)
            held = node.sent[-1]
            assert run(lambda: np.abs(node.last.joint_position - held).max() < 0.02)
            processes.check()
    sent = np.array(node.sent)
    assert ((sent >= spec.command_lower) & (sent <= spec.command_upper)).all()
    most = spec.command_rate * spec.period_ns * 1e-9
    assert (np.abs(np.diff(sent, axis=0)) <= 1.5 * most + 1e-9).all()  # the filter makes up for a late tick, no more


@pytest.mark.patient
@pytest.mark.parametrize("robot", ["panda", "laikago"])
def test_lockstep_in_processes_of_their_own_equals_the_twin_here(robot: str, tmp_path: Path, ros_domain_id: int):
    path = stamped(tmp_path, robot)
    spec = load_robot_spec(path)
    here = make_joint_twin(spec)
    values = {"robot": str(path), "task": TASK}
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, **values)
        start_filter(processes, critic="off", **values)
        with RosBackend(spec, domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            with pytest.raises(BackendError, match="step before reset"):
                backend.step(np.zeros(spec.act_dim))
            state, expected = backend.reset(6), here.reset(6)
            assert_seen(state, expected)
            shaped = 0
            for command in walk(spec, expected.joint_position, 25):
                result = backend.step(command)
                assert result.decision is not None
                shaped += result.decision.reason is Reason.SHAPED
                np.testing.assert_array_equal(result.decision.proposed, command)
                state, before = result.state, state.stamp_ns
                assert state.stamp_ns == before + spec.period_ns
                assert_seen(state, here.step(result.decision.executed).state)
            assert np.isnan(state.position).all()
            assert np.abs(state.joint_position - command).max() < 0.2
