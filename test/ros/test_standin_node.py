"""The stand-in for hardware: a robot in real time on wall time, whose parameters are nowhere to be seen."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.srv import GetParameters, ListParameters  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros_helpers import PERIOD_NS, SPEC, TASK, bench, make_state, separate_harness  # noqa: E402

from safe_rl_ros.envs.randomisation import Spread, load_randomisation  # noqa: E402
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402
from safe_rl_ros.envs.twin_parameters import OF_JOINTS  # noqa: E402
from safe_rl_ros.messages.readers import read_stamp  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.actor_node import PARAMETERS as ACTOR_PARAMETERS  # noqa: E402
from safe_rl_ros.ros.actor_node import ActorNode  # noqa: E402
from safe_rl_ros.ros.conversions import make_command_codec  # noqa: E402
from safe_rl_ros.ros.spin import StopRequest  # noqa: E402
from safe_rl_ros.ros.standin_node import PARAMETERS, StandInNode  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.types import ConfigError  # noqa: E402

NAME = "rover7"
GO = np.array([0.4, 0.3])
OWN_TOPICS = {"odom", "scan", "joint_states", "diagnostics"}
OF_EVERY_NODE = {"/rosout", "/parameter_events"}
OWN_SERVICES = {"describe_parameters", "get_parameters", "list_parameters", "set_parameters"}
OWN_SERVICES |= {"set_parameters_atomically", "get_parameter_types", "get_type_description"}
BUILT_IN_PARAMETERS = {"use_sim_time", "start_type_description_service"}
SHOWN = {"timing", "stamp_ns", "steps", "refused_commands", "timeouts", "received", "missed_ticks", "worst_late_ms"}


class Seen:
    """Everything that another process can learn of the stand-in."""

    def __init__(self, harness, run):
        self.harness, self.run = harness, run
        self.odometry = []
        harness.create_subscription(Odometry, "odom", self._on_odom, qos_profile_sensor_data)
        self._commands = harness.create_publisher(TwistStamped, "cmd_vel", qos.command())
        self._codec = make_command_codec(SPEC)

    def _on_odom(self, message):
        twist = message.twist.twist
        self.odometry.append((read_stamp(message.header.stamp), time.time_ns(), twist.linear.x, twist.angular.z))

    def drive(self, seconds):
        for _ in range(round(seconds * 20)):
            self._commands.publish(self._codec.write(GO, 0))
            self.run(timeout_s=0.05)

    def call(self, kind, service, request):
        client = self.harness.create_client(kind, f"standin/{service}")
        assert client.wait_for_service(timeout_sec=5.0)
        future = client.call_async(request)
        assert self.run(future.done)
        return future.result()

    def parameters(self):
        names = self.call(ListParameters, "list_parameters", ListParameters.Request()).result.names
        values = self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
        return dict(zip(names, map(str, values), strict=True))


def test_a_robot_like_any_other_that_does_not_tell_what_it_is(tmp_path, ros_domain_id):
    reveal, values = tmp_path / "known.json", {"standin_seed": 7, "arena_seed": 3, "executor": "events"}
    with Supervisor(ros_domain_id, tmp_path) as processes, separate_harness(NAME) as (harness, run):
        arguments = ros_arguments({**values, "reveal_file": str(reveal)}, namespace=NAME)
        processes.start("standin", "safe_rl_ros.ros.standin_node", arguments)
        seen = Seen(harness, run)
        assert run(lambda: len(seen.odometry) > 2)
        assert np.abs(np.array(seen.odometry)[:, 2:]).max() < 0.2, "it stands, but for noise"
        seen.drive(2.0)
        stamps, arrivals, speeds, turns = np.array(seen.odometry).T
        assert speeds[-5:].mean() > 0.25
        assert turns[-5:].mean() > 0.15
        late_s = (arrivals - stamps) * 1e-9
        assert late_s.min() > -0.001, "no stamp of the future"
        assert np.median(late_s) < 0.05, "stamps are wall time"
        gaps = np.diff([stamp for stamp, *_ in seen.odometry])
        assert (gaps > 0).all()
        assert abs(np.median(gaps) - PERIOD_NS) < 0.1 * PERIOD_NS
        seen.run(timeout_s=1.2)
        assert abs(seen.odometry[-1][2]) < 0.15, "commands ended: command.timeout_s is 0.5 s"
        hidden(seen, json.loads(reveal.read_text())["twin_parameters"], tmp_path)


def hidden(seen, parameters, directory):
    """Check that topics and services are a driver's, and that no parameter of the stand-in shows anywhere."""
    node = ("standin", f"/{NAME}")
    published = {name for name, _ in seen.harness.get_publisher_names_and_types_by_node(*node)}
    assert published - OF_EVERY_NODE - {f"/{NAME}/tf"} == {f"/{NAME}/{topic}" for topic in OWN_TOPICS}
    served = {name for name, _ in seen.harness.get_service_names_and_types_by_node(*node)}
    assert served <= {f"/{NAME}/standin/{name}" for name in OWN_SERVICES}, "those of every node: no reset"
    told = seen.parameters()
    assert set(told) - BUILT_IN_PARAMETERS == {item.name for item in PARAMETERS}
    assert seen.run(lambda: f"/{NAME}/standin" in seen.harness.diagnostics)
    shown = seen.harness.diagnostics[f"/{NAME}/standin"]
    assert set(shown) == SHOWN | {"message"}
    logs = [path.read_text() for path in directory.glob("*.log")]
    assert logs
    text = " ".join([*told.values(), *shown.values(), *logs])
    for name, value in parameters.items():
        assert f"{value:.5f}" not in text, name
        assert name not in text


def drawn(tmp_path, **values):
    """Return what a stand-in reveals, and where it drives under the same commands."""
    reveal = tmp_path / "known.json"
    with bench(StandInNode, {"reveal_file": str(reveal), **values}) as setup:
        path = [setup.node._backend.step(GO).state.position[:2].tolist() for _ in range(15)]
    return json.loads(reveal.read_text()), path


def test_the_seed_says_what_it_is_and_the_arena_where(tmp_path):
    first, path = drawn(tmp_path, standin_seed=7)
    assert first["standin_seed"] == 7
    assert first["twin_parameters"] == load_randomisation("standin_rover").draw(7).model_dump()
    assert first["hazards"] == HazardNav(TASK, SPEC.base_radius_m).layout(0).hazards.tolist()
    assert drawn(tmp_path, standin_seed=7) == (first, path)
    second, elsewhere = drawn(tmp_path, standin_seed=8)
    shared = [name for name, value in second["twin_parameters"].items() if value == first["twin_parameters"][name]]
    assert shared == list(OF_JOINTS), "what a base has none of"
    assert np.abs(np.array(path) - elsewhere).max() > 0.005
    moved, _ = drawn(tmp_path, standin_seed=7, arena_seed=3)
    assert moved["twin_parameters"] == first["twin_parameters"], "the robot is the same in another arena"
    assert moved["hazards"] == HazardNav(TASK, SPEC.base_radius_m).layout(3).hazards.tolist()


def test_without_a_seed_nobody_knows(tmp_path):
    draws = [drawn(tmp_path)[0] for _ in range(2)]
    assert draws[0]["standin_seed"] != draws[1]["standin_seed"]
    assert draws[0]["twin_parameters"] != draws[1]["twin_parameters"]
    with bench(StandInNode, {}) as setup:
        assert setup.node.get_parameter("standin_seed").value == -1, "the seed that was drawn is no parameter"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"use_sim_time": True}, "use_sim_time = true, expected false"),
        ({"randomisation": ""}, "randomisation is empty"),
        ({"standin_seed": -2}, "standin_seed"),
        ({"reveal_file": "/nowhere/known.json"}, "reveal_file = '/nowhere/known.json' cannot be written"),
    ],
)
def test_what_is_no_stand_in_is_one_error(values, problem):
    with pytest.raises(ConfigError, match=problem), bench(StandInNode, values):
        pass


def test_it_may_be_what_no_twin_of_training_was():
    trained, standin = load_randomisation("rover"), load_randomisation("standin_rover")
    for name, value in ((name, value) for name, value in trained if name not in OF_JOINTS):
        low, high = value.ends if isinstance(value, Spread) else (value, value)
        ends = getattr(standin, name).ends
        assert ends[0] <= low, name
        assert high < ends[1], name


def test_an_actor_judges_by_the_arena_that_the_robot_is_in(tmp_path):
    given = {"spool": str(tmp_path), "robot_kind": "hardware", "arena_seed": 3}
    actor = ActorNode({**{item.name: item.default for item in ACTOR_PARAMETERS}, **given}, "", StopRequest())
    try:
        expected = HazardNav(TASK, SPEC.base_radius_m).layout(3)
        assert actor._env.task.layout(99).hazards.tobytes() == expected.hazards.tobytes()
    finally:
        actor.close()


def test_goals_are_given_in_its_arena_and_no_episode_begins_in_a_hazard(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples"))
    from driver_node import DriverNode

    layout = HazardNav(TASK, SPEC.base_radius_m).layout(3)
    free, inside = (np.append(point[:2], 0.0) for point in (layout.start, layout.hazards[0]))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DriverNode(None, "goals", arena=3)
        node.start(0)  # nobody to reset is there, and nobody is missed
        for count, position in enumerate((inside, inside, free, free, inside), 1):
            assert node.finished is None
            node._on_state(make_state(count * PERIOD_NS, position=position))
            goal = node._messages[0][1].pose.position
            assert [goal.x, goal.y] == layout.goals[0].tolist(), "also while it is driven free"
        assert node.finished["collision"]
        assert node.finished["steps"] == 2, "counted from where it was free"
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        sys.modules.pop("driver_node", None)
