"""The actor's loop without ROS: swaps between episodes only, pause, take-over, faults, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from spool_helpers import NAMES, SPEC_HASH, make_reader  # noqa: E402

from safe_rl_ros.data.segments import own_rows  # noqa: E402
from safe_rl_ros.data.spool import SpoolError, SpoolWriter  # noqa: E402
from safe_rl_ros.ros.actor import Actor  # noqa: E402
from safe_rl_ros.ros.actor_messages import Deployment, format_deployment, parse_deployment  # noqa: E402
from safe_rl_ros.ros.actor_parts import ActorConfig  # noqa: E402
from safe_rl_ros.ros.actor_recording import TakeOver  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement  # noqa: E402
from safe_rl_ros.types import BackendError, BundleError  # noqa: E402

LENGTH = 5
PERIOD_NS = 20_000_000
STOP = np.zeros(2)


class FakePolicy:
    """Proposes its own number on the first axis, without chance."""

    def __init__(self, value):
        self.value = value

    def sample(self, obs, n, rng):
        return np.full((n, 2), self.value, dtype=np.float32)

    def mean(self, obs):
        return self.sample(obs, 1, None)[0]


class World:
    """Robot, task, filter and clock in one: notes what happens, and lets tests do something at a step."""

    def __init__(self, tmp_path, **settings):
        self.crash_at = 0
        self.log, self.at_step, self.step_count, self.now_ns = [], {}, 0, 0
        self.answered, self.late_s, self.stamp_ns, self.latched = True, 0.0, 0, ""
        self.bad_bundles, self.refused_by_filter, self.filter_silent, self.resting = set(), set(), False, True
        self.episodes_wanted, self.turns_left = 2, 200
        self.observer, self.robot_spec = SimpleNamespace(names=NAMES), SimpleNamespace(hash=SPEC_HASH)
        self.command_map = SimpleNamespace(to_action=lambda command: command / 2.0)
        self.spool = tmp_path / "spool"
        self.writer = SpoolWriter(self.spool)
        self.takeover = TakeOver(lambda: STOP, 0.5)
        self.announced = []
        self.actor = Actor(
            self,
            self,
            self.writer,
            self.takeover,
            ActorConfig(seed=3, **settings),
            self.load,
            stopping=self.stopping,
            on_episode=lambda file, notes, taken: self.announced.append((notes.number, file.steps, taken)),
            clock=lambda: self.now_ns,
        )

    def stopping(self):
        return self.writer.next_number >= self.episodes_wanted or self.turns_left <= 0

    def load(self, deployment):
        name = deployment.acting.sha256
        self.log.append(f"load {name[0]}")
        if name in self.bad_bundles:
            raise BundleError("hash differs")
        content = {name: None for name in ("policy", "critic", "normaliser", "threshold", "kind")}
        manifest = SimpleNamespace(files={"weights": name}, **content)
        return SimpleNamespace(policy=FakePolicy(int(name[0], 16) / 10), hash=name, manifest=manifest)

    # The robot.

    def set_interrupt(self, interrupt):
        self.interrupt = interrupt

    def wait(self, condition, timeout_s):
        self.interrupt()
        self.turns_left -= 1
        if not condition():
            self.now_ns += round(timeout_s * 1e9)
        for action in self.at_step.pop("wait", []):
            action()
        return condition()

    def come_to_rest(self, linear_m_s, angular_rad_s, timeout_s):
        self.interrupt()
        self.turns_left -= 1
        self.log.append("rest")
        return self.resting

    def announce_bundle(self, path, sha256, timeout_s):
        self.log.append(f"filter {sha256[0]}")
        if self.filter_silent:
            raise BackendError("the filter did not answer")
        if sha256 in self.refused_by_filter:
            raise BundleError("the filter refused the bundle: uncalibrated")

    def stop(self):
        self.log.append("stop")

    def drive(self, command):
        self.now_ns += PERIOD_NS
        self.log.append(f"drive {command[0]:g}")

    # The environment.

    def reset(self, seed):
        self.log.append("reset")
        self.step_in_episode = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        self.step_count += 1
        for act in self.at_step.pop(self.step_count, []):
            act()
        self.interrupt()
        self.now_ns += PERIOD_NS
        self.stamp_ns += PERIOD_NS
        self.step_in_episode += 1
        self.log.append("step")
        info = {
            "action_executed": np.asarray(action, dtype=np.float32),
            "intervened": False,
            "cost": 0.0,
            "margin": 1.0,
            "goal_reached": False,
            "decision": None,
        }
        over, crash = self.step_in_episode == LENGTH, self.step_count == self.crash_at
        return np.full(2, self.step_in_episode, dtype=np.float32), 1.0, crash, over and not crash, info

    # What tests ask.

    def run(self, episodes=2):
        self.episodes_wanted = episodes
        self.actor.run()
        reader = make_reader(self.spool)
        return [reader.read(number) for number in range(reader.waiting(0))]


def name_of(digit):
    return f"{digit}" * 64


def deployment(digit, judging=True):
    acting = Announcement(f"/runs/{digit}", name_of(digit))
    return Deployment(acting, replace(acting, path=f"/runs/{digit}_filter") if judging else None)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.actor.deploy(deployment(1))
    return world


def test_a_bundle_that_comes_in_an_episode_acts_from_the_next_one_on_filter_first(world):
    world.at_step[3] = [lambda: world.actor.deploy(deployment(2)), lambda: world.actor.deploy(deployment(3))]
    first, second = world.run()
    assert first.batch.action_proposed[:, 0].tolist() == pytest.approx([0.1] * LENGTH)
    assert second.batch.action_proposed[:, 0].tolist() == pytest.approx([0.3] * LENGTH), "only the newest counts"
    assert [episode.notes.bundle_sha256[0] for episode in (first, second)] == ["1", "3"]
    assert first.notes.networks != second.notes.networks
    assert first.notes.seed != second.notes.seed
    one = ["rest", "load 1", "filter 1", "reset", *["step"] * LENGTH, "stop"]
    assert world.log[: 2 * len(one)] == [*one, "rest", "load 3", "filter 3", *one[3:]]
    assert world.announced == [(0, LENGTH, 0), (1, LENGTH, 0)]
    assert first.notes.ending == "time_limit"
    assert first.stamp_ns.tolist() == [PERIOD_NS * (t + 1) for t in range(LENGTH)]


def test_a_bundle_without_a_critic_is_not_the_filters(world):
    world.actor.deploy(deployment(1, judging=False))
    world.run(1)
    assert "filter 1" not in world.log
    assert world.actor.report.bundle_sha256 == name_of(1)


@pytest.mark.parametrize("who", ["actor", "filter"])
def test_a_refused_bundle_leaves_the_old_one_in_force_in_both(world, who):
    (world.bad_bundles if who == "actor" else world.refused_by_filter).add(name_of(2))
    world.at_step[2] = [lambda: world.actor.deploy(deployment(2))]
    world.at_step[2 * LENGTH + 1] = [lambda: world.actor.deploy(deployment(4))]
    episodes = world.run(4)
    assert [episode.notes.bundle_sha256[0] for episode in episodes] == ["1", "1", "1", "4"]
    assert world.log.count("load 2") == 1, "a refused one is not tried again"
    assert world.log.count("filter 2") == (who == "filter")
    assert world.log.count("filter 1") == 1
    report = world.actor.report
    assert (report.refused_sha256, report.refused_reason) == ("", ""), "the next good one clears it"


def test_a_refusal_is_shown(world):
    world.refused_by_filter.add(name_of(2))
    world.at_step[2] = [lambda: world.actor.deploy(deployment(2))]
    world.run(2)
    assert world.actor.report.refused_sha256 == name_of(2)
    assert "uncalibrated" in world.actor.report.refused_reason
    assert world.actor.report.bundle_sha256 == name_of(1)


def test_nothing_acts_until_the_filter_has_answered(world):
    world.filter_silent = True
    world.at_step["wait"] = [lambda: setattr(world, "filter_silent", False)]
    world.run(1)
    assert world.log[:5] == ["rest", "load 1", "filter 1", "stop", "rest"]
    assert world.log.index("reset") > world.log.index("filter 1", 3)


def test_without_a_bundle_or_rest_it_waits(world):
    world.resting = False
    world.turns_left = 5
    assert world.run(1) == []
    assert world.actor.report.state == "waiting"
    assert "stand still" in world.actor.report.problem
    assert "reset" not in world.log
    assert "load 1" not in world.log, "no swap while the robot moves"


def test_pause_stops_at_once_saves_the_episode_and_resume_begins_a_new_one(world):
    at_once = []
    world.at_step[3] = [world.actor.pause, lambda: at_once.append(world.log[-1])]
    states = []
    world.at_step["wait"] = [lambda: states.append(world.actor.report.state), world.actor.resume]
    first, second = world.run()
    assert at_once == ["stop"]
    assert first.notes.ending == "paused"
    assert len(first) == 2, "the step in progress is given up"
    assert first.batch.truncated.tolist() == [False, True]
    assert states == ["paused"]
    paused_at = world.log.index("stop")
    assert world.log[paused_at - 1] == "step"
    assert world.log[paused_at + 1 :].index("reset") > 0
    assert len(second) == LENGTH


def test_a_latched_stop_ends_the_episode_and_none_begins_until_it_is_cleared(world):
    world.at_step[3] = [lambda: setattr(world, "latched", "operator (estop)")]
    shown = []

    def clear():
        shown.append(world.actor.report.problem)
        world.latched = ""

    world.at_step["wait"] = [clear]
    first, second = world.run()
    assert (first.notes.ending, len(first), len(second)) == ("fault", 2, LENGTH)
    assert shown == ["the filter's stop is latched: operator (estop)"]


def test_a_human_takes_over_and_the_rows_say_so(world):
    command = np.array([1.0, -1.0])
    world.at_step[2] = [lambda: world.takeover.take(command, world.now_ns)]

    def let_go():
        world.now_ns += 500_000_000  # the last command is now too old
        world.answered = False  # what the filter decided last was still on the human's

    world.at_step[3] = [let_go]
    world.at_step[5] = [lambda: setattr(world, "answered", True)]
    (episode,) = world.run(1)
    assert episode.takeover.tolist() == [False, False, True, True, False]
    assert episode.answered.tolist() == [True, True, False, False, True]
    assert world.actor.report.unanswered_steps == 2
    assert episode.batch.action_proposed[:, 0].tolist() == pytest.approx([0.1, 0.1, 0.5, 0.1, 0.1])
    assert episode.batch.behaviour_std[2].tolist() == [0.0, 0.0]
    assert own_rows(episode).truncated.tolist() == [False, True, True]
    assert world.announced == [(0, LENGTH, 2)]
    assert world.actor.report.takeover_steps == 2


def test_paused_a_human_may_drive_through_the_filter_and_off_the_record(world):
    world.at_step[1] = [world.actor.pause]
    human = np.array([0.75, 0.0])

    def take_over():
        world.takeover.take(human, world.now_ns - 460_000_000)  # good for 40 ms more
        states.append(world.actor.report.state)

    states = []
    world.at_step["wait"] = [take_over]
    drive = world.actor._body.drive
    world.drive = lambda command: (states.append(world.actor.report.state), drive(command))
    world.turns_left = 6
    assert world.run(1) == []
    assert [entry for entry in world.log if entry.startswith("drive")] == ["drive 0.75"] * 3 + ["drive 0"]
    assert states == ["paused", *["takeover"] * 4]
    assert world.actor.report.steps == 0


@pytest.mark.parametrize("hardware", [True, False])
def test_a_failure_on_hardware_is_a_pause_because_nobody_resets_the_robot(tmp_path, hardware):
    world = World(tmp_path, pause_after_failure=hardware)
    world.actor.deploy(deployment(1))
    world.crash_at, world.turns_left = 3, 12
    episodes = world.run(3)
    assert (episodes[0].notes.ending, len(episodes[0])) == ("terminated", 3)
    assert len(episodes) == (1 if hardware else 3)
    if hardware:
        assert world.actor.report.state == "paused"
        assert "ended in a failure" in world.actor.report.problem


def test_a_takeover_that_cannot_be_read_is_a_stop():
    hands = TakeOver(lambda: STOP, 0.5)
    assert hands.command(0) is None
    for command in (None, np.array([np.nan, 0.0])):
        hands.take(command, 10)
        np.testing.assert_array_equal(hands.command(11), STOP)
    hands.take(np.array([1.0, 2.0]), 0)
    assert hands.command(500_000_000).tolist() == [1.0, 2.0]
    assert hands.command(500_000_001) is None


def test_how_to_stop_is_asked_when_it_is_needed_and_kept():
    rests = iter([np.array([1.0, 0.0]), np.array([2.0, 0.0])])
    hands = TakeOver(lambda: next(rests), 0.5)
    hands.take(None, 0)
    assert [hands.command(at).tolist() for at in (0, 10)] == [[1.0, 0.0]] * 2  # an arm does not creep from where it is
    assert hands.stop.tolist() == [2.0, 0.0]


def test_where_nobody_knows_how_to_stop_the_newest_command_stays():
    def unknown():
        raise BackendError("where is it?")

    hands = TakeOver(unknown, 0.5)
    hands.take(np.array([1.0, 2.0]), 0)
    with pytest.raises(BackendError, match="where is it"):
        hands.take(None, 10)
    assert hands.command(10).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("error", [BackendError("no scan"), ValueError("the policy failed")])
def test_a_fault_ends_the_episode_stops_the_robot_and_the_loop_goes_on(world, error):
    def fail():
        raise error

    world.at_step[4] = [fail]
    first, second = world.run()
    assert (first.notes.ending, len(first), len(second)) == ("fault", 3, LENGTH)
    assert first.batch.truncated.tolist() == [False, False, True]
    where = world.log.index("stop")
    assert world.log[:where].count("step") == 3


def test_an_episode_that_cannot_be_written_is_kept_and_nothing_begins_before(world, monkeypatch):
    write, tries = world.writer.write, []

    def full(episode):
        tries.append(episode.notes.number)
        if len(tries) < 3:
            raise SpoolError("no space left")
        return write(episode)

    monkeypatch.setattr(world.writer, "write", full)
    episodes = world.run(2)
    assert tries[:4] == [0, 0, 0, 1]
    assert [episode.notes.number for episode in episodes] == [0, 1]
    assert world.log.count("reset") == 2  # one an episode: none began while the first was not written


def test_the_end_of_the_process_saves_the_episode_in_progress(world):
    world.at_step[3] = [lambda: setattr(world, "turns_left", 0)]
    (episode,) = world.run(5)
    assert (episode.notes.ending, len(episode)) == ("shutdown", 2)
    assert world.log[-1] == "stop"


def test_deployments_as_text():
    for judging in (True, False):
        sent = deployment("a", judging)
        assert parse_deployment(format_deployment(sent)) == sent
    good = format_deployment(deployment("a", judging=False))
    with pytest.raises(BundleError, match="filter is missing"):
        parse_deployment(good.replace(', "filter": null', ""))
    with pytest.raises(BundleError, match="expected an absolute path"):
        parse_deployment(good.replace("null", "3"))
    with pytest.raises(BundleError, match="64 hexadecimal digits"):
        parse_deployment(good.replace("aa", "zz"))
