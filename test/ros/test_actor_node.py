"""The actor as a process between twin and filter: swaps, refusals, a human, a pause, and an orderly end."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros_helpers import OBSERVER, PERIOD_NS, SPEC, start_filter, start_twin, write_bundle  # noqa: E402
from std_msgs.msg import Float64MultiArray, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from safe_rl_ros.config import read_yaml  # noqa: E402
from safe_rl_ros.data.spool import SpoolReader  # noqa: E402
from safe_rl_ros.envs.observation import CommandMap  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros import diagnostics, qos  # noqa: E402
from safe_rl_ros.ros.actor_messages import Deployment, format_deployment  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement  # noqa: E402
from safe_rl_ros.ros.conversions import make_command_codec  # noqa: E402
from safe_rl_ros.ros.decision_codec import DecisionCodec  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402

STEPS = 8
NAME = "acting"
PERIOD_S = PERIOD_NS * 1e-9
HUMAN = np.array([0.3, -0.5])


def write_task(path):
    """Write the task with short episodes."""
    values = read_yaml(find_resource("hazard_nav.yaml", "config/tasks"))
    path.write_text(json.dumps({**values, "max_episode_steps": STEPS}))
    return str(path)


class Operator:
    """What learner and human do, and what they see. Publishes nothing that is the robot's."""

    def __init__(self, directory, processes):
        self.directory, self.processes = directory, processes
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        harness = self.node = Node("operator", context=self._context, use_global_arguments=False, namespace=NAME)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(harness)
        self.commands, self.decisions, self.filter_state, self.diagnostics = [], [], {}, {}
        decisions = DecisionCodec(tuple(axis.name for axis in SPEC.command.axes))
        subscribe = harness.create_subscription
        subscribe(TwistStamped, "cmd_vel", lambda m: self.commands.append(self._codec.read(m).tolist()), 100)
        subscribe(Float64MultiArray, "safety_filter/decisions", lambda m: self.decisions.append(decisions.read(m)), 100)
        subscribe(DiagnosticStatus, "safety_filter/state", self._on_filter_state, qos.latched())
        subscribe(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)
        self.reader = SpoolReader(directory / "spool", OBSERVER.names, SPEC.act_dim, SPEC.hash)
        self.state, self.level, self.episodes, self.deployed = {}, b"", [], None
        self._codec = make_command_codec(SPEC)
        create = harness.create_publisher
        self._bundle = create(String, "actor/bundle", qos.latched())
        self._takeover = create(TwistStamped, "takeover", qos.command())
        harness.create_subscription(DiagnosticStatus, "actor/state", self._on_state, qos.latched())
        harness.create_subscription(String, "actor/episode", self._on_episode, 10)
        services = ("actor/pause", "actor/resume", "safety_filter/estop", "safety_filter/clear_estop")
        self.clients = {name.split("/")[1]: harness.create_client(Trigger, name) for name in services}

    def _on_state(self, message):
        self.state, self.level = diagnostics.values_of(message), message.level

    def _on_episode(self, message):
        self.episodes.append(json.loads(message.data))

    def _on_filter_state(self, message):
        self.filter_state = diagnostics.values_of(message)

    def _on_diagnostics(self, message):
        self.diagnostics |= {status.name: status.message for status in message.status}
        for status in message.status:
            if status.name.endswith("twin"):
                self.resets = int(diagnostics.values_of(status)["resets"])

    def run(self, until=lambda: False, timeout_s=10.0):
        """Handle messages until the condition holds; return whether it does."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def bundle(self, seed):
        path = self.directory / f"bundle_{seed}"
        return Announcement(str(path), write_bundle(path, threshold=1.0, seed=seed))

    def deploy(self, acting, judging="same"):
        self._bundle.publish(
            String(data=format_deployment(Deployment(acting, acting if judging == "same" else judging)))
        )

    def call(self, name):
        future = self.clients[name].call_async(Trigger.Request())
        assert self.run(future.done, 3.0)
        return future.result()

    def take_over(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._takeover.publish(self._codec.write(HUMAN, 0))
            self.run(timeout_s=0.05)

    def count(self):
        return self.reader.waiting(0)

    def more(self, episodes, timeout_s=20.0):
        """Wait for that many more episodes in the spool; return them."""
        begin = self.count()
        assert self.run(lambda: self.count() >= begin + episodes, timeout_s), self.state
        return [self.reader.read(number) for number in range(begin, begin + episodes)]


@pytest.fixture(scope="module")
def operator(tmp_path_factory, ros_domain_id):
    directory = tmp_path_factory.mktemp("actor")
    task = write_task(directory / "task.yaml")
    with Supervisor(ros_domain_id, directory) as processes:
        start_twin(processes, "realtime", NAME, task=task)
        start_filter(processes, "realtime", NAME, task=task, shadow_run_ticks=2)
        values = {"robot": "rover", "task": task, "spool": str(directory / "spool"), "seed": 4}
        processes.start("actor", "safe_rl_ros.ros.actor_node", ros_arguments(values, namespace=NAME))
        made = Operator(directory, processes)
        assert made.run(lambda: made.state.get("state") == "waiting" and made._bundle.get_subscription_count() == 1)
        made.first = made.bundle(1)
        try:
            yield made
        finally:
            made.close()


def test_it_waits_for_a_bundle_and_then_acts_at_the_control_rate(operator):
    assert "nothing was deployed" in operator.state["problem"]
    operator.deploy(operator.first)
    first, second = operator.more(2)
    assert [len(first), len(second)] == [STEPS, STEPS]
    assert {e.notes.bundle_sha256 for e in (first, second)} == {operator.first.sha256}
    assert (first.notes.number, second.notes.number) == (0, 1)
    assert first.notes.seed != second.notes.seed
    assert first.batch.behaviour_std.min() > 0
    assert not first.takeover.any()
    assert second.answered.mean() > 0.5
    steps_s = np.diff(second.stamp_ns) * 1e-9
    assert steps_s.mean() == pytest.approx(PERIOD_S, rel=0.35)
    assert operator.run(lambda: len(operator.episodes) >= 1)
    seen = operator.episodes[-1]
    assert (seen["steps"], seen["bundle_sha256"]) == (STEPS, operator.first.sha256)
    assert seen["file"].endswith(f"spool/episode_{seen['number']:08d}.npz")
    assert operator.run(lambda: operator.state["state"] == "running")
    assert float(operator.state["worst_late_ms"]) >= 0


def test_a_bundle_is_swapped_between_episodes_while_the_robot_stands(operator):
    second = operator.bundle(2)
    operator.more(1)
    assert operator.run(lambda: operator.state["state"] == "running", 5.0)
    operator.run(timeout_s=2 * PERIOD_S)  # in the middle of an episode
    operator.decisions.clear()
    operator.deploy(second)
    assert operator.run(lambda: operator.state.get("bundle_sha256") == second.sha256, 10.0)
    episodes = operator.more(1)
    first_of_new = episodes[0].notes.number
    assert episodes[0].notes.bundle_sha256 == second.sha256
    assert operator.reader.read(first_of_new - 1).notes.bundle_sha256 == operator.first.sha256
    assert len(operator.reader.read(first_of_new - 1)) == STEPS, "the episode was not cut for it"
    hashes = [decision.bundle_hash for decision in operator.decisions]
    swapped = hashes.index(second.sha256[:12])
    assert swapped > 0
    assert set(hashes[:swapped]) == {operator.first.sha256[:12]}
    assert set(hashes[swapped:]) == {second.sha256[:12]}
    np.testing.assert_array_equal(operator.decisions[swapped - 1].executed, SPEC.command_stop)
    operator.second = second


@pytest.mark.parametrize("who", ["filter", "actor"])
def test_a_refused_bundle_leaves_the_old_one_in_both_and_is_an_error(operator, who):
    good = operator.bundle(3 if who == "filter" else 4)
    wrong = Announcement(good.path, "0" * 63 + ("1" if who == "filter" else "2"))
    operator.deploy(*((good, wrong) if who == "filter" else (wrong, wrong)))
    refused = (good if who == "filter" else wrong).sha256
    assert operator.run(lambda: operator.state.get("refused_sha256") == refused, 10.0)
    assert operator.level == diagnostics.ERROR
    assert "announced was 000" in operator.state["refused_reason"]
    episodes = operator.more(2)
    assert {episode.notes.bundle_sha256 for episode in episodes} == {operator.second.sha256}
    assert operator.state["bundle_sha256"] == operator.filter_state["bundle_sha256"] == operator.second.sha256
    assert "refused" in operator.diagnostics[f"/{NAME}/actor"]
    assert "bundle refused, the old one stays" in operator.processes.nodes["actor"].tail()


def test_a_human_takes_over_through_the_filter_and_is_recorded_as_such(operator):
    operator.deploy(operator.second)
    operator.more(1)
    begin = operator.count()
    operator.take_over(5 * PERIOD_S)
    assert operator.state["state"] == "takeover"
    operator.run(timeout_s=SPEC.command.timeout_s)
    operator.more(2)
    episodes = [operator.reader.read(number) for number in range(begin, operator.count())]
    taken = np.concatenate([episode.takeover for episode in episodes])
    assert 4 <= taken.sum() < len(taken)
    action = CommandMap(SPEC).to_action(HUMAN)
    for episode in episodes:
        where = episode.takeover
        human = np.isclose(episode.batch.action_proposed, action, atol=1e-5).all(axis=1)
        assert not (human & ~where).any(), "a human's row that is not marked"
        assert (episode.batch.behaviour_std[human] == 0).all()
        # What moved the robot while the policy had the controls was not the human's command, held.
        moved = np.isclose(episode.batch.action_executed, action, atol=1e-5).all(axis=1)
        assert not (moved & ~where).any()
    executed = {tuple(np.round(command, 6)) for command in operator.commands}
    assert tuple(HUMAN) in executed, "the filter let it through to the robot"
    assert int(operator.state["takeover_steps"]) >= 4


def test_pause_stops_the_robot_and_resume_begins_a_new_episode(operator):
    operator.more(1)
    for _ in range(20):  # until it moves
        assert operator.run(lambda: operator.state["state"] == "running", 5.0)
        operator.run(timeout_s=PERIOD_S)
        if np.any(operator.commands[-1]):
            break
    before = operator.count()
    asked = time.monotonic()
    assert operator.call("pause").success
    answered_s = time.monotonic() - asked
    assert operator.run(lambda: not np.any(operator.commands[-1]), 2.0)
    assert time.monotonic() - asked < answered_s + 5 * PERIOD_S, "the stop ramps down within the robot's rates"
    assert operator.run(lambda: operator.state["state"] == "paused", 2.0)
    assert operator.count() <= before + 1
    paused = operator.count()
    commands = len(operator.commands)
    operator.run(timeout_s=1.2)
    assert operator.count() == paused
    assert not np.any([command for command in operator.commands[commands:]])
    last = operator.reader.read(paused - 1)
    assert last.notes.ending in ("paused", "time_limit", "terminated")
    commands = len(operator.commands)
    operator.take_over(4 * PERIOD_S)  # paused, a human may put the robot elsewhere
    assert tuple(HUMAN) in {tuple(np.round(command, 6)) for command in operator.commands[commands:]}
    assert operator.state["state"] == "takeover"
    assert operator.run(lambda: operator.state["state"] == "paused", 3.0)
    assert operator.run(lambda: not np.any(operator.commands[-1]), 2.0)
    assert operator.count() == paused
    assert operator.call("resume").success
    assert not operator.call("resume").success
    (episode,) = operator.more(1)
    assert episode.notes.ending == "time_limit"


def test_an_emergency_stop_ends_the_episode_until_it_is_cleared(operator):
    operator.more(1)
    assert operator.run(lambda: operator.state["state"] == "running", 5.0)
    assert operator.call("estop").success
    assert operator.run(lambda: "latched" in operator.state["problem"], 3.0)
    stopped = operator.count()
    operator.run(timeout_s=1.0)
    assert operator.count() == stopped
    assert operator.call("clear_estop").success
    operator.more(1)


def test_an_interrupted_actor_stops_saves_and_ends(operator):
    assert operator.run(lambda: operator.state["state"] == "running", 5.0)
    operator.run(timeout_s=2 * PERIOD_S)
    process = operator.processes.nodes["actor"].process
    process.send_signal(signal.SIGINT)
    assert operator.run(lambda: process.poll() is not None, 5.0)
    assert process.returncode == 0
    last = operator.reader.read(operator.count() - 1)
    assert last.notes.ending in ("shutdown", "time_limit", "terminated")
    numbers = [operator.reader.read(number).notes.number for number in range(operator.count())]
    assert numbers == list(range(len(numbers)))
    del operator.processes.nodes["actor"]


def test_on_hardware_episodes_begin_where_the_robot_stands(operator):
    operator.run(timeout_s=1.2)  # the latest diagnostics
    resets, before = operator.resets, operator.count()
    values = {"robot": "rover", "task": str(operator.directory / "task.yaml"), "robot_kind": "hardware"}
    values["spool"] = str(operator.directory / "spool")
    operator.processes.start("actor", "safe_rl_ros.ros.actor_node", ros_arguments(values, namespace=NAME))
    operator.deploy(operator.second)
    end = time.monotonic() + 20.0
    while operator.count() < before + 2 and time.monotonic() < end:
        if operator.state["state"] == "paused":  # an untrained policy may hit something
            operator.call("resume")
        operator.run(timeout_s=0.2)
    first, second = (operator.reader.read(number) for number in (before, before + 1))
    operator.processes.end("actor")
    operator.run(timeout_s=1.2)
    assert operator.resets == resets
    assert second.stamp_ns[0] > first.stamp_ns[-1], "the twin's time goes on"
    assert np.abs(second.batch.obs[0, 3:5]).max() < 0.2, "it stands at the start"


def test_a_second_actor_on_the_same_spool_is_refused(operator):
    from safe_rl_ros.data.spool import SpoolWriter
    from safe_rl_ros.types import BackendError

    writer = SpoolWriter(operator.directory / "spool")
    values = {"robot": "rover", "spool": str(operator.directory / "spool")}
    try:
        with pytest.raises(BackendError, match="another process writes there"):
            operator.processes.start("actor", "safe_rl_ros.ros.actor_node", ros_arguments(values, namespace="other"))
    finally:
        writer.close()
